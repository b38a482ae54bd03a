// What both roles' pages have in common: their tables, lists and alerts, the first line, and how they are kept up to date.

import { h, show } from "./dom.js";
import { ago, elapsed, mark, state } from "./marks.js";
import { follow } from "./stream.js";
import { clock, tick } from "./times.js";

const TALL = 16; // rows, from which on a table scrolls
const TIMELINE_MS = 5000; // from one drawing of what goes on to the next

export const at = (id) => document.getElementById(id);
export const nothing = (words) => h("p", { class: "quiet" }, words);

/** A table; its rows are lists of cells. `numbers`: places of columns of numbers. On a narrow screen each row is a card. */
export function table(label, head, rows, { numbers = [] } = {}) {
  const kind = (place) => (numbers.includes(place) ? "num" : null);
  return h("div", { class: rows.length > TALL ? "scroll tall" : "scroll", tabindex: "0", role: "region", "aria-label": `${label}: table` },
    h("table", { class: "cards" },
      h("thead", {}, h("tr", {}, head.map((name, place) => h("th", { scope: "col", class: kind(place) }, name)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, place) =>
        place === 0 ? h("th", { scope: "row" }, cell) : h("td", { "data-name": head[place], class: kind(place) }, cell)))))));
}

/** Names and what is known of them. */
export const facts = (rows) => h("dl", {}, rows.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

/** The first line: how things stand. `since`: since when (Unix seconds), where that is of what `more` says. */
export function standing({ level, words, more, since }, { round = 0, rounds_max, ended, note = "" }) {
  at("headline").setAttribute("data-level", level);
  show(at("headline"), mark(level),
    h("div", {},
      h("h1", { id: "headline-words" }, words),
      h("p", {}, more, since && h("span", { class: "quiet" }, more ? " For " : "For ", elapsed(since), "."))),
    rounds_max && h("div", { class: "progress" },
      h("progress", { max: rounds_max, value: ended, "aria-label": `${ended} of at most ${rounds_max} rounds` }),
      h("p", { class: "small quiet" }, round ? `round ${round} of at most ${rounds_max}` : `at most ${rounds_max} rounds`, note)));
}

/** What is wrong, worst first: [{ key, level, what, since, lines }]. */
export function alerts(element, found) {
  element.hidden = !found.length;
  show(element, h("ul", {}, found.map(({ key, level, what, since, lines }) => h("li", { class: `alert alert-${level}`, "data-key": key },
    mark(level),
    h("div", {}, h("h2", {}, what, since && h("span", { class: "quiet since" }, " since ", ago(since, clock))), lines)))));
}

export const todo = (what) => what && h("p", { class: "do" }, h("span", { class: "label" }, "What to do "), what);

/** The name of the tab: it says first that something is wrong. */
export function title(level, words, what) {
  document.title = level === "bad" || level === "warn" ? `${level === "bad" ? "✖" : "!"} ${words} · ${what}` : what;
}

const LINKS = {
  refused: "not let in any more: open the address that the page's command printed last, or sign in again",
  full: "too many pages are open: close some of them",
  quiet: "the page's server does not answer: what you see is old",
};

/**
 * Keep the page up to date. `sections`: [[draw(view), names of the parts that it shows]]; `going`: sections that are
 * drawn again while time goes on, and when the window has another width. `news`: { s, none, rest(view) }: after so many
 * seconds without news `none` is said; `rest` returns [mark, words] where none are expected, else nothing.
 */
export function live(sections, going, news) {
  let view = {};
  let newsAt = 0;
  let link = "";
  const draw = (wanted) => { for (const [section, parts] of sections) if (wanted(section, parts)) section(view); tick(); };
  const again = () => { if (view.clock) draw((section) => going.includes(section)); };

  function tell() {
    const rest = news.rest(view);
    const old = !rest && view.clock && Date.now() / 1000 - newsAt > news.s;
    const [shape, words] = link ? ["bad", LINKS[link]] : old ? ["bad", news.none] : rest || ["ok", "live"];
    show(at("link"), state(shape, words));
    show(at("as-of"), view.clock && ` as of ${clock(view.clock.now)}`);
    document.body.classList.toggle("old", Boolean(link || old));
  }

  follow(
    (found, changed) => {
      view = found;
      if (changed.has("clock")) newsAt = Date.now() / 1000;
      draw((_, parts) => parts.some((part) => changed.has(part)));
      tell();
    },
    (words) => { link = words; tell(); },
  );
  setInterval(() => { tick(); tell(); }, 1000);
  setInterval(again, TIMELINE_MS);
  let width = window.innerWidth;
  addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; again(); }
  });
}
