// What each site did when: a bar of spans for each site, and a table with the sums.

import { h, s, show } from "/shared/dom.js";
import { clock, span } from "/shared/times.js";

// Kinds differ in height and pattern, too: colour says nothing alone.
const KINDS = {
  train: { words: "training", top: 0, height: 16 },
  score: { words: "scoring", top: 4, height: 12, pattern: "dots" },
  move: { words: "model on its way, or waiting", top: 12, height: 4 },
  adopt: { words: "receiving the result", top: 8, height: 8 },
  cut: { words: "work that was cut off", top: 3, height: 10 },
  silent: { words: "silent", top: 0, height: 16, pattern: "stripes" },
  failed: { words: "failed or revoked", top: 0, height: 16, pattern: "crosses" },
};
const ROW_PX = 22;
const AXIS_PX = 24;
const CHAR_PX = 8; // of a bold name, at most about

const pattern = (id, path, side) =>
  s("pattern", { id, width: side, height: side, patternUnits: "userSpaceOnUse" }, s("rect", { width: side, height: side, class: `${id}-ground` }), s("path", { d: path, class: `${id}-lines` }));

/** Draw into an element. `spans`: {site: {number: [kind, from, to]}}; `rounds`: [[number, begun]]; `end`: until when. */
export function timeline(element, { sites, spans, rounds, end }) {
  const width = Math.max(260, element.clientWidth);
  const names = Math.min(150, Math.max(56, ...sites.map((site) => site.length * CHAR_PX + 14)));
  const short = (site) => (site.length * CHAR_PX + 14 > names ? `${site.slice(0, Math.floor((names - 14) / CHAR_PX) - 1)}…` : site);
  const begin = rounds.length ? rounds[0][1] : Math.min(end - 60, ...Object.values(spans).flatMap((of) => Object.values(of).map((one) => one[1])));
  const x = (at) => names + ((Math.min(Math.max(at, begin), end) - begin) / (end - begin || 1)) * (width - names - 6);
  const height = sites.length * ROW_PX + AXIS_PX;
  let labelled = -Infinity;
  const picture = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `What ${sites.length} sites did since ${clock(begin)}. The table below has the sums.` },
    s("defs", {}, pattern("dots", "M3 3h2v2H3z", 6), pattern("stripes", "M-1 7 7-1M3 11 11 3", 8), pattern("crosses", "M0 0 8 8M8 0 0 8", 8)),
    rounds.map(([number, at]) => {
      const room = x(at) - labelled > 34;
      if (room) labelled = x(at);
      return [s("line", { x1: x(at), x2: x(at), y1: 0, y2: height - AXIS_PX, class: "rule" }),
        room && s("text", { x: x(at) + 3, y: height - 8, class: "axis" }, `R${number}`)];
    }),
    sites.map((site, row) => s("g", { transform: `translate(0 ${row * ROW_PX + 3})` },
      s("line", { x1: names, x2: width - 6, y1: 16, y2: 16, class: "base" }),
      s("text", { x: names - 8, y: 12, class: "site" }, short(site), s("title", {}, site)),
      Object.values(spans[site] || {}).filter(([kind, , to]) => KINDS[kind] && (to === undefined || to > begin)).map(([kind, from, to]) => {
        const { top, height: tall, words } = KINDS[kind];
        const until = to === undefined ? end : to;
        return s("rect", { x: x(from), y: top, width: Math.max(1.5, x(until) - x(from)), height: tall, rx: 2, class: `span span-${kind}` },
          s("title", {}, `${site}: ${words} from ${clock(from)} for ${span(until - from)}${to === undefined ? ", still so" : ""}`));
      }))),
  );
  show(element, h("div", { class: "scroll bars", tabindex: "0", role: "region", "aria-label": "Timeline of the sites" }, picture), legend(), twin(sites, spans, begin, end));
}

function legend() {
  return h("ul", { class: "legend" }, Object.entries(KINDS).map(([kind, { words, top, height }]) =>
    h("li", {}, s("svg", { viewBox: "0 0 22 16", class: "key", "aria-hidden": "true" }, s("rect", { x: 0, y: top, width: 22, height, rx: 2, class: `span span-${kind}` })), words)));
}

function twin(sites, spans, begin, end) {
  const sum = (site, kind) => Object.values(spans[site] || {})
    .filter(([found]) => found === kind)
    .reduce((total, [, from, to]) => total + Math.max(0, (to === undefined ? end : to) - Math.max(from, begin)), 0);
  const kinds = Object.entries(KINDS);
  return h("details", {}, h("summary", {}, `Timeline: table of the time since ${clock(begin)}`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Timeline: table" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "site"), kinds.map(([, { words }]) => h("th", { scope: "col", class: "num" }, words)))),
      h("tbody", {}, sites.map((site) => h("tr", {}, h("th", { scope: "row" }, site),
        kinds.map(([kind]) => { const total = sum(site, kind); return h("td", { class: "num" }, total ? span(total) : "–"); })))))));
}
