// The site's page: each section is a function of the parts that it shows, and is drawn when one of them changes.

import { Chart } from "/shared/charts.js";
import { h, s, show } from "/shared/dom.js";
import { ago, ahead, mark, state } from "/shared/marks.js";
import { alerts, at, facts, live, nothing, standing, table, title, todo } from "/shared/page.js";
import { bytes, clock, now, number, setNow, span } from "/shared/times.js";
import { lanes } from "/own/lanes.js";

const ROUNDS_SHOWN = 12;
const TIMELINE_S = 3600; // the timeline shows the last hour, or as much of the run as two rounds need
const NEWS_S = 8; // the server looks at the home twice a second
const DAY_S = 86400;
const DAYS_SOON = 14;

const most = (sum) => `${sum.exact ? "" : "at most "}${bytes(sum.bytes)}`;

/** Return words that begin with a capital letter; a path or a command stays as it is. */
const sentence = (words) => (/^[a-z]+[ ,;:]/.test(words) ? words[0].toUpperCase() + words.slice(1) : words);

/** Return a command to type: it breaks between its words, and within one only where that is too long. */
const command = (words) => h("code", {}, words.split(" ").flatMap((word, place) => [place ? " " : "", h("span", { class: "word" }, word)]));

// --- sections -------------------------------------------------------------------------------------------------------

function drawTop({ site = {}, run = {}, agent = {}, headline = {}, clock: time = {} }) {
  if (time.now) setNow(time.now);
  title(headline.level, headline.words, `${site.name || "site"}${agent.round ? ` · round ${agent.round}` : ""} · fedcervix`);
  show(at("who"), site.name || "");
  show(at("run"), run.name ? [h("span", { class: "mono" }, run.name), h("span", { class: "quiet" }, ` ${run.mode}, profile ${run.profile}`)] : "");
}

function drawHeadline({ headline = {}, agent = {}, run = {} }) {
  const { round = 0, rounds_max, outcome } = run;
  standing(
    { level: headline.level || "off", words: headline.words || "Reading this site's home", more: headline.more || "", since: !outcome && agent.since },
    { round, rounds_max, ended: outcome ? rounds_max : Math.max(0, (round || 1) - 1) },
  );
}

const COMMAND = /^(site-agent|sudo|rm|mv|ps|df|kill|nvidia-smi) /;

function drawTrouble({ trouble = {} }) {
  const found = Object.entries(trouble).sort(([, a], [, b]) => a.rank - b.rank);
  alerts(at("trouble"), found.map(([key, one]) => ({
    key, level: one.level === "error" ? "bad" : "warn", what: sentence(one.what), since: one.since,
    lines: [
      one.cause && h("p", {}, `Likely cause: ${one.cause}.`),
      one.incident && h("p", {}, "Incident ", h("strong", {}, one.incident), ": its whole account lies at this site, in ", h("code", {}, `incidents/${one.incident}.txt`), " of the home."),
      one.next_step && todo(COMMAND.test(one.next_step) ? command(one.next_step) : sentence(one.next_step)),
    ],
  })));
}

const STATES = {
  train: ["work", "training"], score: ["work", "scoring"], transfer: ["work", "transfer"], check: ["work", "looking at the images"], work: ["work", "other work"],
  wait: ["idle", "waiting"], disk: ["bad", "waiting for room on the disk"], away: ["bad", "waiting for the coordinator"], off: ["bad", "does not run"], unknown: ["off", "runs, and does not tell what it does"],
};

function drawNow({ agent = {}, run = {}, site = {} }) {
  const [shape, words] = run.outcome && !agent.alive ? ["done", "has ended, as the run"] : STATES[agent.state] || STATES.unknown;
  const count = (value) => (agent.unit === "bytes" ? bytes(value) : value);
  show(at("now"),
    agent.of ? h("progress", { max: agent.of, value: agent.done || 0, "aria-label": `${agent.stage}: ${agent.done || 0} of ${agent.of} ${agent.unit || ""}` }) : "",
    facts([
      ["Agent", state(shape, words)],
      agent.task && ["Asked to", agent.task],
      agent.stage && ["Step", [agent.stage, agent.of ? ` ${count(agent.done || 0)} of ${count(agent.of)}${agent.unit && agent.unit !== "bytes" ? ` ${agent.unit}` : ""}` : ""]],
      agent.loss && ["Loss so far in this epoch", number(agent.loss)],
      agent.images_per_s && ["Pace", `${agent.images_per_s} images/s`],
      agent.ends_at && ["This step ends", ahead(agent.ends_at, clock)],
      agent.alive && agent.line_since && ["Coordinator", agent.connected ? state("ok", ["connected since ", ago(agent.line_since, clock)]) : state("bad", ["not connected since ", ago(agent.line_since, clock)])],
      agent.heard_at && ["Work last heard of", ago(agent.heard_at, clock)],
      site.coordinator && ["Its address", h("span", { class: "mono" }, site.coordinator)],
      run.sites && ["Sites", run.sites],
      run.contract && ["Contract", h("span", { class: "mono" }, run.contract)],
    ]));
}

/** A bar of how much is used; `need`: a mark where the use would be. Words beside it say the same. */
function meter(used, total, level, need) {
  const share = Math.min(100, (100 * used) / (total || 1));
  const needed = need ? Math.min(100, (100 * (used + need)) / (total || 1)) : null;
  return s("svg", { class: `meter meter-${level}`, viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { x: 0, y: 0, width: share, height: 8 }), needed !== null && s("line", { x1: needed, x2: needed, y1: 0, y2: 8, class: "need", "vector-effect": "non-scaling-stroke" }));
}

function drawMachine({ disk = {}, gpus = {} }) {
  const blocks = [];
  if (disk.total) {
    const level = disk.free < 2 ** 24 ? "bad" : disk.free < disk.needed ? "warn" : "ok";
    blocks.push(h("h3", {}, "Disk of the home"), meter(disk.total - disk.free, disk.total, level, disk.needed),
      facts([
        ["Free", [level === "ok" ? "" : [mark(level), " "], `${bytes(disk.free)} of ${bytes(disk.total)}`]],
        disk.needed && ["The run may still need", `about ${bytes(disk.needed)}`],
      ]));
  }
  for (const [name, one] of Object.entries(gpus)) {
    blocks.push(h("h3", {}, name));
    if (one.memory_bytes) blocks.push(meter(one.memory_used_bytes || 0, one.memory_bytes, "ok"));
    const rows = [
      one.memory_bytes && ["Memory used", `${bytes(one.memory_used_bytes || 0)} of ${bytes(one.memory_bytes)}`],
      one.busy !== undefined && ["Busy", `${Math.round(100 * one.busy)} %`],
      one.degrees !== undefined && ["Temperature", `${one.degrees} °C`],
    ].filter(Boolean);
    blocks.push(rows.length ? facts(rows) : nothing("It tells nothing more: a part of a divided GPU."));
  }
  if (!Object.keys(gpus).length) blocks.push(h("h3", {}, "GPU"), nothing("None that NVIDIA's library shows on this machine."));
  show(at("machine"), blocks);
}

function drawTimeline({ timeline = {}, agent = {} }) {
  const spans = Object.values(timeline).sort((a, b) => a.at - b.at);
  if (!spans.length) { show(at("timeline"), nothing("Nothing has happened yet.")); return; }
  const last = spans[spans.length - 1];
  const end = agent.alive ? now() : Math.max(last.until || last.at, Math.min(now(), last.at + 600));
  const begin = Math.max(spans[0].at, Math.min(end - TIMELINE_S, twoRounds(spans)));
  const shown = spans.map((one) => ({ ...one, until: one.until || end })).filter((one) => one.until > begin);
  lanes(at("timeline"), { spans: shown, begin, end: Math.max(end, begin + 1) });
}

function twoRounds(spans) {
  const rounds = [...new Set(spans.map((one) => one.round || 0))];
  const from = rounds.slice(-2)[0];
  return spans.find((one) => (one.round || 0) === from).at;
}

const charts = {
  epochs: new Chart(at("epochs"), { title: "Training loss", x: "epoch" }),
  loss: new Chart(at("loss"), { title: "Validation loss", x: "round" }),
};

function drawCharts({ epochs = {}, rounds = {}, run = {} }) {
  const rule = run.collapse ? { at: run.collapse, words: "collapsed model" } : null;
  const numbers = Object.keys(epochs).map(Number).sort((a, b) => a - b);
  charts.epochs.draw({ x: numbers, lines: [{ name: "training loss", main: true, values: numbers.map((one) => epochs[one].loss) }], rule });
  const list = Object.keys(rounds).map(Number).sort((a, b) => a - b);
  const of = (name) => list.map((one) => rounds[one][name] ?? null);
  charts.loss.draw({ x: list, lines: [{ name: "the round's model here", main: true, values: of("score") }, { name: "training, last epoch", values: of("train") }], rule });
}

function drawRounds({ rounds = {} }) {
  const list = Object.keys(rounds).map(Number).sort((a, b) => b - a);
  if (!list.length) { show(at("rounds"), nothing("No round was done here yet.")); return; }
  const rows = list.slice(0, ROUNDS_SHOWN).map((one) => {
    const round = rounds[one];
    return [
      one ? String(one) : "first model",
      number(round.train) || "–",
      number(round.score) || "–",
      round.effective_rank === undefined ? "–" : number(round.effective_rank, 3),
      round.steps === undefined ? "–" : `${round.steps} steps, ${round.images} images`,
      round.seconds === undefined ? "–" : span(round.seconds),
      round.left === undefined ? "nothing" : most({ bytes: round.left, exact: round.exact }),
    ];
  });
  const more = list.length > ROUNDS_SHOWN ? nothing(`The last ${ROUNDS_SHOWN} of ${list.length}. The tables below the charts have more.`) : "";
  show(at("rounds"), table("Rounds", ["round", "training loss", "validation loss", "effective rank", "trained", "time", "left this site"], rows, { numbers: [1, 2, 3, 5, 6] }), more);
}

function drawImages({ images = {}, site = {} }) {
  if (!images.images) { show(at("images"), nothing("Known when the agent has looked at the images, before round 1.")); return; }
  const listed = (title, reasons) => {
    const rows = Object.entries(reasons || {}).sort(([, a], [, b]) => b - a);
    return rows.length ? [h("h3", {}, title), table(title, ["why", "images"], rows.map(([why, count]) => [why, String(count)]), { numbers: [1] })] : "";
  };
  const counts = (reasons) => Object.values(reasons || {}).reduce((a, b) => a + b, 0);
  const unused = counts(images.unreadable) + counts(images.aside);
  show(at("images"),
    facts([["Images in use", `${images.images.toLocaleString("en")} of ${images.women.toLocaleString("en")} women`], ["A round trains with", images.training.toLocaleString("en")], ["Counted at", clock(images.at)]]),
    unused ? "" : h("p", {}, state("done", "all images of the manifest are used")),
    listed("Cannot be read", images.unreadable), listed("Set aside by [data] set_aside", images.aside),
    unused ? h("p", { class: "small quiet" }, "No picture and no name of a file is shown here; ", command(`${site.command} data check`), " lists them in a terminal.") : "");
}

function drawLeft({ left = {}, run = {}, site = {} }) {
  if (!left.all) { show(at("left"), nothing("The ledger of what has left cannot be read; see above.")); return; }
  show(at("left"), facts([
    run.name && ["For this run", most(left.run)],
    run.name && ["Models, reports", `${left.run.models} models, ${left.run.reports} reports`],
    ["In all runs, and outside of them", most(left.all)],
    ["To", "the coordinator alone"],
  ]), h("p", { class: "small quiet" }, "From the egress ledger, which is written before anything leaves. Each entry: ", command(`${site.command} egress`)));
}

function drawParts({ parts = {}, site = {} }) {
  const kinds = ["report", "classifier", "model"];
  const rows = Object.values(parts).sort((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind) || b.made_at - a.made_at);
  const place = { report: (name) => `reports/${name}/report.html`, model: (name) => `models/${name}`, classifier: (name) => `classifiers/${name}` };
  show(at("parts"), rows.length
    ? [table("Models, classifiers and reports", ["what", "made", "where in the home"], rows.map((one) => [one.kind, clock(one.made_at), h("span", { class: "mono small" }, place[one.kind](one.name))])),
      nothing("Reports hold pictures and name women: they are opened at this site as files, and are not served here.")]
    : h("p", { class: "quiet" }, "None yet. When the run has ended, ", command(`${site.command} finetune`), " makes a classifier, and ", command(`${site.command} evaluate`), " a report."));
}

function drawCertificates({ certificates = {}, partners = {}, site = {} }) {
  const rows = Object.values(certificates).map((one) => {
    const days = Math.floor((one.not_after - now()) / DAY_S);
    const [shape, word] = days < 0 ? ["bad", "ended"] : one.warning || days < DAYS_SOON ? ["warn", "ends soon"] : ["done", "valid"];
    return [one.title, state(shape, word), `${Math.max(0, days).toLocaleString("en")} days, until ${clock(one.not_after)}`];
  });
  const pins = Object.entries(partners).map(([name, one]) => [name, one.pinned ? state("done", "key compared and pinned") : state("warn", "not pinned: nobody here has compared the key")]);
  show(at("certificates"),
    rows.length ? table("Certificates", ["of", "state", "left"], rows) : nothing("This site has not joined a federation."),
    pins.length ? [h("h3", {}, "Partners"), table("Partners", ["site", "pin"], pins), h("p", { class: "small quiet" }, "To compare keys: ", command(`${site.command} identity`), " here and at the partner, then ", command(`${site.command} pin NAME FINGERPRINT`), ".")] : "");
}

// --- the whole --------------------------------------------------------------------------------------------------------

const SECTIONS = [
  [drawTop, ["site", "run", "agent", "headline", "clock"]],
  [drawHeadline, ["headline", "agent", "run"]],
  [drawTrouble, ["trouble"]],
  [drawNow, ["agent", "run", "site"]],
  [drawMachine, ["disk", "gpus"]],
  [drawTimeline, ["timeline", "agent"]],
  [drawCharts, ["epochs", "rounds", "run"]],
  [drawRounds, ["rounds"]],
  [drawImages, ["images", "site"]],
  [drawLeft, ["left", "run", "site"]],
  [drawParts, ["parts", "site"]],
  [drawCertificates, ["certificates", "partners", "site"]],
];

live(SECTIONS, [drawTimeline], { s: NEWS_S, none: "this site's home cannot be read now: what you see is old", rest: () => null });
