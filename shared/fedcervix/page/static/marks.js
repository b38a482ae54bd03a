// States as shapes. Colour repeats what the shape and the word beside it say.

import { h, s } from "./dom.js";

const SHAPES = {
  work: "M5 2.5v11l9-5.5z", // a triangle that points on
  idle: "M8 2.5a5.5 5.5 0 1 0 .01 0zM8 5a3 3 0 1 1-.01 0z", // a ring
  done: "M6.4 12.6 2 8.2l1.7-1.7 2.7 2.7 6-6L14 5z", // a tick
  ok: "M6.4 12.6 2 8.2l1.7-1.7 2.7 2.7 6-6L14 5z",
  warn: "M8 1.5 15 14H1zM7.2 6v4h1.6V6zM7.2 11v1.6h1.6V11z", // a triangle with !
  bad: "M4 1h8l3 3v8l-3 3H4l-3-3V4zM5 6.2 6.8 8 5 9.8 6.2 11 8 9.2 9.8 11 11 9.8 9.2 8 11 6.2 9.8 5 8 6.8 6.2 5z", // an octagon with x
  off: "M2 7h12v2H2z", // a bar
  note: "M8 1.5a6.5 6.5 0 1 0 .01 0zM7.2 4.2h1.6v1.6H7.2zM7.2 7h1.6v5H7.2z", // an i
};

export const shapeOf = (mark) => SHAPES[mark] || SHAPES.off;

/** Return the shape of a mark, which says nothing to a screen reader: a word stands beside it. */
export const mark = (name) =>
  s("svg", { class: `mark mark-${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: shapeOf(name), "fill-rule": "evenodd" }));

/** Return a state: shape and word. */
export const state = (name, word) => h("span", { class: `state state-${name}` }, mark(name), h("span", {}, word));

/** Return how long ago a moment was, which `tick` writes (times.js). It is not read out each second. */
export const elapsed = (at) => h("span", { "data-since": at, "data-kept": true, "aria-live": "off" });

/** Return a moment, and how long ago it was. */
export const ago = (at, clock) => h("span", { class: "moment" }, clock(at), ", ", elapsed(at), " ago");

/** Return a moment to come, and in how long. */
export const ahead = (at, clock) => h("span", { class: "moment" }, clock(at), ", ", h("span", { "data-until": at, "data-kept": true, "aria-live": "off" }));
