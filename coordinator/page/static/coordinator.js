// The coordinator's page: each section is a function of the parts that it shows, and is drawn when one of them changes.

import { Chart } from "/shared/charts.js";
import { h, show } from "/shared/dom.js";
import { ago, ahead, elapsed, state } from "/shared/marks.js";
import { alerts, at, facts, live, nothing, standing, table, title, todo } from "/shared/page.js";
import { bytes, clock, now, number, range, setNow, span } from "/shared/times.js";
import { federation } from "/own/federation.js";
import { timeline } from "/own/timeline.js";

const TIMELINE_ROUNDS = 6;
const ROUNDS_SHOWN = 12;
const LINES_MAX = 6; // sites with a line of their own in a chart; of more, the lowest, the middle and the highest are drawn
const FOLDED = 2; // remarks of a round that are shown without a click
const NEVER = Number.MAX_SAFE_INTEGER;
const NEWS_S = 10; // the coordinator reports every second

const bySite = (sites) => Object.entries(sites).sort(([, a], [, b]) => a.place - b.place);

// --- sections -------------------------------------------------------------------------------------------------------

function drawTop({ run = {}, headline = {}, clock: time = {}, source = {} }) {
  title(headline.level, headline.words, run.run ? `${run.round ? `Round ${run.round}` : "Before round 1"} · ${run.run}` : "fedcervix coordinator");
  show(at("run"), run.run ? [h("span", { class: "mono" }, run.run), h("span", { class: "quiet" }, ` ${run.mode}, profile ${run.profile}`)] : "");
  if (time.now && !source.away) setNow(time.now);
}

function drawHeadline({ headline = {}, run = {}, source = {} }) {
  const { round = 0, rounds_max, phase, outcome, best_round } = run;
  const before = phase === "training" || phase === "gathering" || phase === "seeding";
  standing(
    { level: headline.level || "off", words: headline.words || "Connecting", more: headline.more || "", since: !outcome && !source.away && run.since },
    { round, rounds_max, ended: outcome ? rounds_max : before ? Math.max(0, round - 1) : round, note: best_round ? `, best so far: ${best_round}` : "" },
  );
}

function drawAttention({ attention = {} }) {
  const found = Object.entries(attention).sort(([a], [b]) => a.localeCompare(b));
  alerts(at("attention"), found.map(([, one]) => ({
    key: one.what, level: one.level, what: one.what, since: one.since,
    lines: [
      one.why && h("p", {}, one.why),
      one.until && h("p", {}, h("strong", {}, one.then ? "Until " : "Ends "), ahead(one.until, clock), one.then && `: then ${one.then}`, "."),
      todo(one.do),
    ],
  })));
}

function drawPicture({ run = {}, sites = {}, waits = {}, source = {} }) {
  const list = bySite(sites).map(([name, site]) => ({ name, ...site }));
  if (!list.length) { show(at("picture"), nothing("No run has begun.")); return; }
  federation(at("picture"), {
    shape: run.shape || "star", sites: list, holder: run.holder || "", phase: run.phase, awayWords: source.away || "",
    waiting: new Set(run.outcome ? [] : Object.keys(waits)),
  });
  const text = run.shape === "ring" ? "The model goes round in the direction of the arrows; the diamond marks who holds it." : "All sites train at once; the coordinator averages.";
  show(at("picture-key"), `${text} A dashed ring marks who is waited for.`);
}

function drawWaits({ waits = {}, run = {}, sites = {} }) {
  const found = Object.entries(waits) // what happens first comes first; who works has no end
    .sort(([a, one], [b, other]) => (one.until || NEVER) - (other.until || NEVER) || (sites[a]?.place ?? 0) - (sites[b]?.place ?? 0));
  if (run.outcome) { show(at("waits"), nothing("The run has ended: nobody is waited for.")); return; }
  if (!found.length) { show(at("waits"), nothing(run.phase === "aggregating" ? "Nobody: the coordinator averages." : "Nobody.")); return; }
  show(at("waits"), h("div", { class: "scroll listed", tabindex: "0", role: "region", "aria-label": "Waiting for: list" }, h("ul", {}, found.map(([site, wait]) => h("li", { class: "wait", "data-key": site },
    h("p", {}, h("strong", {}, site), " ", h("span", { class: "quiet" }, wait.reason)),
    h("p", { class: "small" },
      wait.since && ["since ", ago(wait.since, clock), "; "],
      wait.until ? ["until ", ahead(wait.until, clock), `: then ${wait.then}`] : "as long as it shows signs of life"))))));
}

function drawPace({ pace = {}, prediction = {}, run = {} }) {
  const rows = [];
  if (pace.round_most_s) rows.push(["A round takes", range(pace.round_least_s, pace.round_most_s)]);
  if (prediction.round_high_s) rows.push(["Predicted for a round", range(prediction.round_low_s, prediction.round_high_s)]);
  const left = prediction.left_high_s ? [prediction.left_low_s, prediction.left_high_s] : [pace.left_least_s, pace.left_most_s];
  if (left[1] !== undefined && !run.outcome) {
    rows.push(["Time left", [range(...left), h("span", { class: "quiet" }, run.patience ? ` at most; it ends ${run.patience} rounds after the best one` : " at most")]]);
  }
  for (const [site, words] of Object.entries(prediction.stragglers ?? {})) rows.push([`Slow: ${site}`, words]);
  if (prediction.unmeasured) rows.push(["Not measured", prediction.unmeasured]);
  if (pace.model_bytes) {
    rows.push(["One model", bytes(pace.model_bytes)]);
    rows.push(["Models of one round", [bytes(pace.round_bytes), h("span", { class: "quiet" }, " over all sites, about")]]);
  }
  if (pace.left_bytes) rows.push(["Models still to come", [bytes(pace.left_bytes), h("span", { class: "quiet" }, " at most, about")]]);
  if (pace.received_bytes !== undefined) {
    rows.push(["Received from the sites", [bytes(pace.received_bytes), h("span", { class: "quiet" }, " since the coordinator started")]]);
    rows.push(["Sent to the sites", [bytes(pace.sent_bytes), h("span", { class: "quiet" }, " since the coordinator started")]]);
  }
  show(at("pace"), rows.length ? facts(rows) : nothing("Known after the first round."));
}

function drawSites({ sites = {}, run = {}, waits = {} }) {
  const rows = bySite(sites).map(([name, site]) => [
    name,
    state(site.mark, site.word),
    [name === run.holder && h("strong", {}, "holds the model. "), waits[name] && !run.outcome ? "waited for" : ""],
    siteProgress(site),
    site.since ? ago(site.since, clock) : "",
    site.received || site.sent ? `${bytes(site.received || 0)} from it, ${bytes(site.sent || 0)} to it` : "",
    site.software || "",
  ]);
  show(at("sites"), rows.length ? table("Sites", ["site", "state", "in this round", "progress", "since", "models", "version"], rows) : nothing("No run has begun."));
}

function siteProgress(site) {
  const words = site.line || site.reason || (site.stage ? "" : site.doing || "");
  if (!site.stage) return words ? h("span", { class: "quiet" }, words) : "";
  const share = site.of ? h("progress", { max: site.of, value: site.done || 0, "aria-label": `${site.stage} ${site.done || 0} of ${site.of}` }) : "";
  const loss = site.loss ? `, loss ${site.loss.toFixed(3)}` : "";
  const rate = site.rate ? `, ${site.rate} images/s` : "";
  return [share, h("span", { class: "small" }, ` ${site.stage} ${site.done || 0}${site.of ? `/${site.of}` : ""} ${site.unit || ""}${loss}${rate}`), words && h("span", { class: "small quiet" }, ` ${words}`)];
}

function drawTimeline({ timeline: spans = {}, sites = {}, rounds = {}, run = {}, source = {} }) {
  const names = bySite(sites).map(([name]) => name);
  const begun = Object.entries(rounds).map(([number, round]) => [Number(number), round.begun]).filter(([, begin]) => begin).sort(([a], [b]) => a - b);
  const known = Object.values(spans).flatMap((of) => Object.values(of)).length;
  if (!names.length || !known) { show(at("timeline"), nothing("Nothing has happened yet.")); return; }
  const last = Math.max(...Object.values(spans).flatMap((of) => Object.values(of).flatMap(([, from, to]) => [from, to || from])));
  const end = run.outcome || source.away ? last : now();
  const shown = Object.fromEntries(names.map((name) => [name, { ...spans[name], ...goingOn(sites[name], spans[name], end) }]));
  timeline(at("timeline"), { sites: names, spans: shown, rounds: begun.slice(-TIMELINE_ROUNDS), end });
}

function goingOn(site, spans, end) {
  const kind = { training: "train", scoring: "score" }[site.word];
  if (!kind || (spans && spans.now)) return {};
  const free = Math.max(site.since || 0, ...Object.values(spans || {}).map(([, , to]) => to || 0));
  return free && free < end ? { going: [kind, free] } : {};
}

function folded(lines, words) {
  return lines.length <= FOLDED ? lines : h("details", {}, h("summary", {}, `${lines.length} ${words}`), lines);
}

function drawRounds({ rounds = {}, run = {} }) {
  const list = Object.entries(rounds).map(([number, round]) => ({ number: Number(number), ...round })).sort((a, b) => b.number - a.number);
  if (!list.length) { show(at("rounds"), nothing("No round has begun.")); return; }
  const rows = list.slice(0, ROUNDS_SHOWN).map((round) => {
    const given = Object.values(round.sites || {}).filter((row) => row[COLUMN(run, "images")] !== null).length;
    const missing = folded(Object.entries(round.missing || {}).map(([site, why]) => h("p", {}, state("warn", `${site}: ${why}`))), "sites missing");
    const alarms = folded((round.alarms || []).map(([site, , words]) => h("p", {}, state("warn", `${site}: ${words}`))), "alarms");
    const dropped = (round.dropped || []).map((site) => h("p", {}, state("warn", `${site}: its model was not used`)));
    return [
      [String(round.number), round.number === run.best_round && h("span", { class: "badge" }, "best")],
      round.ended ? span(round.ended - round.begun) : round.begun ? ["goes on, ", elapsed(round.begun)] : "",
      round.loss === undefined ? "–" : number(round.loss),
      round.sites ? String(given) : "–",
      [missing, dropped, alarms, (round.notes || []).map((words) => h("p", {}, words))],
      h("span", { class: "mono small" }, round.model || ""),
    ];
  });
  const more = list.length > ROUNDS_SHOWN ? nothing(`The last ${ROUNDS_SHOWN} of ${list.length} rounds. The tables below the charts have all of them.`) : null;
  show(at("rounds"), table("Rounds", ["round", "took", "mean loss", "updates", "what was unusual", "model"], rows), more);
}

function drawFailures({ failures = {} }) {
  const rows = Object.values(failures).sort((a, b) => b.at - a.at).map((one) => [
    one.incident || "–",
    one.site,
    one.mended_at ? state("done", "solved") : one.goes_on ? state("note", "continues") : state("bad", "open"),
    [one.hint, one.stage && one.stage !== "agent" ? h("span", { class: "quiet" }, ` while ${one.stage}`) : ""],
    ago(one.at, clock),
    one.mended_at ? clock(one.mended_at) : "",
  ]);
  show(at("failures"), rows.length
    ? [table("Failures", ["incident", "site", "state", "what is known here", "at", "solved at"], rows), nothing("The whole account of an incident lies at its site, in the file incidents/NUMBER.txt, and stays there.")]
    : nothing("None in this run."));
}

function drawCertificates({ certificates = {} }) {
  const rows = Object.entries(certificates).map(([name, one]) => {
    const days = Math.floor((one.until - now()) / 86400);
    const ended = one.state !== "revoked" && days < 0;
    const soon = one.state !== "invited" && days < 14;
    const word = { own: "valid", joined: "valid", invited: "invited, not joined", revoked: "revoked" }[one.state];
    return [
      name,
      ended ? state("bad", "ended") : one.state === "revoked" ? state("off", word) : one.state === "invited" ? state("idle", word) : soon ? state("warn", "ends soon") : state("done", word),
      one.state === "revoked" ? "" : `${Math.max(0, days)} days, until ${clock(one.until)}`,
      one.digits ? h("details", {}, h("summary", {}, h("span", { class: "mono small" }, `${one.digits.slice(0, 14)} …`), h("span", { class: "hidden" }, ` fingerprint of ${name}`)), h("p", { class: "mono small" }, one.digits), h("p", { class: "small" }, one.words)) : "",
    ];
  });
  show(at("certificates"), table("Certificates and keys", ["of", "state", "left", "fingerprint of the key"], rows),
    nothing("A site's fingerprint is compared on the telephone, and pinned by the other sites. A renewed certificate keeps it."));
}

function drawRuns({ runs = {} }) {
  const shape = { OK: "done", DEGRADED: "warn", ABORTED: "bad" };
  const rows = Object.entries(runs).sort(([a], [b]) => b.localeCompare(a)).map(([name, one]) => [
    h("span", { class: "mono small" }, name),
    state(shape[one.outcome] || "off", one.outcome || "not known"),
    `${one.rounds ?? 0}${one.best_round ? `, best ${one.best_round}` : ""}`,
    one.ended ? clock(one.ended) : "",
    one.reason || "",
    h("a", { href: `/records/${encodeURIComponent(name)}`, download: true }, "record", h("span", { class: "hidden" }, ` of run ${name}`)),
  ]);
  show(at("runs"), rows.length
    ? [table("Runs that have ended", ["run", "outcome", "rounds", "ended", "reason", "download"], rows), nothing("A record has the plan, all rounds and all digests. The model is copied by coordinator export.")]
    : nothing("None yet."));
}

// --- charts ---------------------------------------------------------------------------------------------------------

const COLUMN = (run, name) => (run.columns || []).indexOf(name);
const charts = {
  loss: new Chart(at("loss"), { title: "Validation loss" }),
  rank: new Chart(at("rank"), { title: "Effective rank" }),
  train: new Chart(at("train"), { title: "Training loss" }),
  uniformity: new Chart(at("uniformity"), { title: "Uniformity" }),
};

function drawCharts({ rounds = {}, sites = {}, run = {} }) {
  const list = Object.entries(rounds).map(([number, round]) => ({ number: Number(number), ...round })).sort((a, b) => a.number - b.number);
  const names = bySite(sites).map(([name]) => name);
  const x = list.map((round) => round.number);
  const of = (column) => {
    const place = COLUMN(run, column);
    const value = (round, name) => round.sites?.[name]?.[place] ?? null;
    if (names.length <= LINES_MAX) return names.map((name) => ({ name, values: list.map((round) => value(round, name)) }));
    const sorted = list.map((round) => names.map((name) => value(round, name)).filter((one) => one !== null).sort((a, b) => a - b));
    const pick = (share) => sorted.map((values) => (values.length ? values[Math.round(share * (values.length - 1))] : null));
    return [{ name: "highest site", values: pick(1) }, { name: "middle site", values: pick(0.5) }, { name: "lowest site", values: pick(0) }];
  };
  const mean = { name: "mean", main: true, values: list.map((round) => round.loss ?? null) };
  const rule = run.collapse ? { at: run.collapse, words: "collapsed model" } : null;
  charts.loss.draw({ x, lines: [mean, ...of("score")], rule });
  charts.rank.draw({ x, lines: of("effective_rank"), rule: { at: 1, words: "all on one line" } });
  charts.train.draw({ x, lines: of("loss"), rule });
  charts.uniformity.draw({ x, lines: of("uniformity"), rule: { at: 0, words: "all alike" } });
}

// --- the whole --------------------------------------------------------------------------------------------------------

const SECTIONS = [
  [drawTop, ["run", "headline", "clock", "source"]],
  [drawHeadline, ["headline", "run", "source"]],
  [drawAttention, ["attention"]],
  [drawPicture, ["run", "sites", "waits", "source"]],
  [drawWaits, ["waits", "run", "sites"]],
  [drawPace, ["pace", "prediction", "run"]],
  [drawSites, ["sites", "run", "waits"]],
  [drawTimeline, ["timeline", "sites", "rounds", "run", "source"]],
  [drawRounds, ["rounds", "run"]],
  [drawCharts, ["rounds", "run"]],
  [drawFailures, ["failures"]],
  [drawCertificates, ["certificates"]],
  [drawRuns, ["runs"]],
];

live(SECTIONS, [drawPicture, drawTimeline], {
  s: NEWS_S,
  none: "the coordinator does not answer",
  rest: ({ source, run }) => (source?.away ? ["warn", "from the journal"] : run?.outcome ? ["done", "the run has ended"] : null),
});
