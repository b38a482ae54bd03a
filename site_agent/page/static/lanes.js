// What one site did when: a lane for each kind of work, so that no colour has to say it. A table has the sums.

import { h, s, show } from "/shared/dom.js";
import { clock, span } from "/shared/times.js";

const LANES = [
  ["train", "training", ["train"]],
  ["score", "scoring", ["score"]],
  ["transfer", "transfer", ["transfer"]],
  ["check", "preparing", ["check"]],
  ["work", "other work", ["work"]],
  ["wait", "waiting", ["wait"]],
  ["disk", "no room", ["disk"]],
  ["off", "out of touch", ["away", "off"]],
];
const WORDS = { train: "training", score: "scoring", transfer: "transfer", work: "other work", check: "looking at the images", wait: "waiting", disk: "waiting for room on the disk", away: "the coordinator cannot be reached", off: "no agent runs" };
const ROW_PX = 24;
const NAMES_PX = 92;
const AXIS_PX = 24;
const TICK_PX = 90;
const TICKS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];

/** Draw into an element. `spans`: [{state, round, at, until}], oldest first; `begin`, `end`: Unix seconds. */
export function lanes(element, { spans, begin, end }) {
  const width = Math.max(240, element.clientWidth);
  const lanesUsed = LANES.filter(([kind, , states]) => kind === "train" || kind === "wait" || spans.some((one) => states.includes(one.state)));
  const height = lanesUsed.length * ROW_PX + AXIS_PX;
  const room = width - NAMES_PX - 4;
  const x = (at) => NAMES_PX + ((Math.min(Math.max(at, begin), end) - begin) / (end - begin || 1)) * room;
  const picture = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `What this site did since ${clock(begin)}. The table below has the sums.` },
    ticks(begin, end, room).map((at) => [
      s("line", { x1: x(at), x2: x(at), y1: 0, y2: height - AXIS_PX, class: "rule" }),
      s("text", { x: Math.min(x(at), width - 28), y: height - 7, class: "axis", "text-anchor": "middle" }, clock(at).slice(-8)),
    ]),
    lanesUsed.map(([kind, words, states], row) => s("g", { transform: `translate(0 ${row * ROW_PX})` },
      s("text", { x: NAMES_PX - 10, y: 16, class: "site" }, words),
      s("line", { x1: NAMES_PX, x2: width - 4, y1: ROW_PX - 2, y2: ROW_PX - 2, class: "base" }),
      spans.filter((one) => states.includes(one.state)).map((one) =>
        s("rect", { x: x(one.at), y: 4, width: Math.max(1.5, x(one.until) - x(one.at)), height: ROW_PX - 7, rx: 2, class: `lane-${kind}` },
          s("title", {}, `${WORDS[one.state]}${one.round ? `, round ${one.round}` : ""}: from ${clock(one.at)}, ${span(one.until - one.at)}`))))));
  show(element, h("div", { class: "scroll bars lanes", tabindex: "0", role: "region", "aria-label": "Timeline of this site" }, picture), twin(spans, begin, end));
}

function ticks(begin, end, room_px) {
  const least_s = ((end - begin) * TICK_PX) / room_px;
  const step = TICKS_S.find((one) => one >= least_s) || TICKS_S[TICKS_S.length - 1];
  const found = [];
  for (let at = Math.ceil(begin / step) * step; at <= end; at += step) found.push(at);
  return found;
}

function twin(spans, begin, end) {
  const rounds = new Map();
  for (const one of spans) {
    const from = Math.max(one.at, begin);
    const row = rounds.get(one.round || 0) || {};
    row[one.state] = (row[one.state] || 0) + Math.max(0, Math.min(one.until, end) - from);
    rounds.set(one.round || 0, row);
  }
  const states = Object.keys(WORDS).filter((state) => [...rounds.values()].some((row) => row[state]));
  const rows = [...rounds].sort(([a], [b]) => b - a);
  return h("details", {}, h("summary", {}, `Table of the time since ${clock(begin)}`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Timeline: table" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "round"), states.map((state) => h("th", { scope: "col", class: "num" }, WORDS[state])))),
      h("tbody", {}, rows.map(([round, row]) => h("tr", {}, h("th", { scope: "row" }, round ? String(round) : "before"),
        states.map((state) => h("td", { class: "num" }, row[state] ? span(row[state]) : "–"))))))));
}
