// The federation as a picture: a star where all sites train at once, a ring where the model goes round.

import { s, show } from "/shared/dom.js";
import { shapeOf } from "/shared/marks.js";

const COORDINATOR = "coordinator";
const MANY = 12; // sites: from here on names stand radially, and states are told by shape alone

/** Draw into an element. `sites`: [{ name, word, mark }] in their order; `holder`: who has the model in a ring, or "". */
export function federation(element, { shape, sites, holder, phase, awayWords, waiting }) {
  const width = Math.max(280, element.clientWidth);
  const many = sites.length > MANY;
  const height = many ? Math.min(width, 620) : Math.min(Math.max(300, width * 0.6), 400);
  const center = { x: width / 2, y: height / 2 };
  const radius = { x: width / 2 - (many ? 74 : Math.min(90, width * 0.2)), y: height / 2 - (many ? 74 : 70) };
  const size = many ? Math.max(5, Math.min(12, (Math.PI * radius.x) / sites.length - 2)) : 20;
  const placed = sites.map((site, place) => {
    const angle = (2 * Math.PI * place) / sites.length - Math.PI / 2;
    return { ...site, angle, x: center.x + radius.x * Math.cos(angle), y: center.y + radius.y * Math.sin(angle) };
  });
  const hub = { ...center, size: many ? 22 : 26 };
  show(
    element,
    s(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words(shape, sites, holder, waiting) },
      s("defs", {}, arrow("arrow-off"), arrow("arrow-on")),
      shape === "ring" ? ring(placed, holder, center, size) : spokes(placed, hub, size),
      coordinator(hub, shape, phase, awayWords),
      placed.map((site) => node(site, { size, many, center, holds: holder === site.name, waited: waiting.has(site.name) })),
    ),
  );
}

function words(shape, sites, holder, waiting) {
  const names = sites.map((site) => `${site.name}: ${site.word}`).join(", ");
  const held = holder ? ` ${holder} holds the model.` : "";
  const waited = waiting.size ? ` Waiting for ${[...waiting].join(", ")}.` : "";
  return `${shape === "ring" ? "A ring" : "A star"} of ${sites.length} sites.${held}${waited} ${names}. The table of sites says the same.`;
}

const arrow = (id) =>
  s("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" },
    s("path", { d: "M0 0 8 4 0 8z", class: id }));

function shortened(a, b, from, to) {
  const length = Math.hypot(b.x - a.x, b.y - a.y) || 1;
  const at = (share) => ({ x: a.x + ((b.x - a.x) * share) / length, y: a.y + ((b.y - a.y) * share) / length });
  return [at(from), at(length - to)];
}

function spokes(placed, hub, size) {
  return placed.map((site) => {
    const [a, b] = shortened(hub, site, hub.size + 4, size + 5);
    return s("line", { x1: a.x, y1: a.y, x2: b.x, y2: b.y, class: `edge edge-${site.mark}` });
  });
}

function ring(placed, holder, center, size) {
  if (placed.length < 2) return [];
  const held = placed.findIndex((site) => site.name === holder);
  return placed.map((site, place) => {
    const next = placed[(place + 1) % placed.length];
    const on = held >= 0 && (place + 1) % placed.length === held; // the hop that brought the model
    const [a, b] = shortened(site, next, size + 7, size + 9);
    const middle = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    const bow = placed.length === 2 ? (place ? -44 : 44) : 0;
    const out = placed.length === 2 ? { x: bow, y: 0 } : { x: (middle.x - center.x) * 0.14, y: (middle.y - center.y) * 0.14 };
    return s("path", {
      d: `M${a.x} ${a.y}Q${middle.x + out.x} ${middle.y + out.y} ${b.x} ${b.y}`,
      class: `edge edge-ring${on ? " edge-on" : ""}`,
      "marker-end": `url(#${on ? "arrow-on" : "arrow-off"})`,
    });
  });
}

function coordinator(hub, shape, phase, awayWords) {
  const busy = phase === "aggregating";
  const kind = awayWords ? "bad" : busy ? "work" : "idle";
  return s("g", { class: `node node-${kind}` },
    s("rect", { x: hub.x - hub.size, y: hub.y - hub.size * 0.8, width: 2 * hub.size, height: 1.6 * hub.size, rx: 8 }),
    s("path", { d: shapeOf(awayWords ? "bad" : busy ? "work" : "idle"), transform: `translate(${hub.x - 8} ${hub.y - 8})`, "fill-rule": "evenodd" }),
    s("text", { x: hub.x, y: hub.y + hub.size * 0.8 + 15, class: "name" }, COORDINATOR),
    s("text", { x: hub.x, y: hub.y + hub.size * 0.8 + 30, class: "word" }, awayWords ? "away" : busy ? "averaging" : shape === "ring" ? "passes models on" : ""));
}

function node(site, { size, many, center, holds, waited }) {
  const scale = size / 14;
  const top = site.y < center.y - 1 ? site.y - size - 27 : site.y + size + 21; // away from the edges
  const label = many ? radial(site, size) : [
    s("text", { x: site.x, y: top, class: "name" }, site.name),
    s("text", { x: site.x, y: top + 16, class: `word word-${site.mark}` }, holds ? `holds the model, ${site.word}` : site.word),
  ];
  return s("g", { class: `node node-${site.mark}`, "data-key": site.name },
    s("title", {}, `${site.name}: ${site.word}${holds ? ", holds the model" : ""}${waited ? ", waited for" : ""}`),
    waited && s("circle", { cx: site.x, cy: site.y, r: size + 5, class: "waited" }),
    s("circle", { cx: site.x, cy: site.y, r: size }),
    s("path", { d: shapeOf(site.mark), transform: `translate(${site.x - 8 * scale} ${site.y - 8 * scale}) scale(${scale})`, "fill-rule": "evenodd" }),
    holds && s("path", { d: model(site.x + size * 0.9, site.y - size * 0.9, many ? 6 : 10), class: "model" }),
    label);
}

const model = (x, y, r) => `M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}z`; // a diamond: the model

function radial(site, size) {
  const degrees = (site.angle * 180) / Math.PI;
  const left = Math.cos(site.angle) < -0.001;
  const away = size + 9;
  const x = site.x + away * Math.cos(site.angle);
  const y = site.y + away * Math.sin(site.angle);
  return s("text", { x, y, class: `name small-name ${left ? "to-left" : "to-right"}`, transform: `rotate(${left ? degrees + 180 : degrees} ${x} ${y})` }, site.name);
}
