// Line charts with a table as their twin. The picture is uPlot's; the table has the same numbers for everybody else.

import { h, show } from "./dom.js";

// Distinct in hue and in lightness, for all kinds of colour vision (after Okabe and Ito). A dash tells neighbours apart.
const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3], [14, 4], [4, 2, 1, 2]];
const HEIGHT_PX = 240;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** How line number `place` is drawn: {colour, dash}. */
export const style = (place) => ({
  colour: COLOURS[place % COLOURS.length],
  dash: DASHES[Math.floor(place / COLOURS.length + place) % DASHES.length],
});

/**
 * A chart in an element. `draw({ x, lines, rule })`: x are the numbers below; `lines`: [{ name, values, main }];
 * `rule`: { at, words }, a level to compare with.
 */
export class Chart {
  constructor(element, { title, unit, digits = 4, x = "round" }) {
    this.element = element;
    Object.assign(this, { title, unit, digits, xName: x });
    this.box = h("div", { class: "plot", "data-kept": true, role: "img" });
    this.legend = h("ul", { class: "legend" });
    this.table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}: table` });
    this.twin = h("details", {}, h("summary", {}, `${title}: table`), this.table);
    this.nothing = h("p", { class: "quiet" }, `Known after the first ${x}.`);
    element.append(this.nothing, this.box, this.legend, this.twin);
    this.data = null;
    this.shape = "";
    new ResizeObserver(() => this.size()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.shape = ""; this.plot(); });
    this.twin.addEventListener("toggle", () => this.tell());
  }

  draw(data) {
    this.data = data;
    this.plot();
    this.tell();
  }

  width() { return Math.max(200, Math.floor(this.box.clientWidth)); }
  size() { if (this.chart && this.width() !== this.chart.width) this.chart.setSize({ width: this.width(), height: HEIGHT_PX }); }

  plot() {
    if (!this.data) return;
    const { x, lines, rule } = this.data;
    const known = lines.some((line) => line.values.some((value) => value !== null && value !== undefined));
    this.box.hidden = this.legend.hidden = this.twin.hidden = !known;
    this.nothing.hidden = known;
    if (!known) return;
    const rows = [x, ...lines.map((line) => line.values)];
    if (rule) rows.push(x.map(() => rule.at));
    const shape = JSON.stringify([lines.map((line) => [line.name, line.main]), rule && rule.words]);
    if (this.chart && shape === this.shape) {
      this.chart.setData(rows);
    } else {
      if (this.chart) this.chart.destroy();
      this.chart = new uPlot(this.options(lines, rule), rows, this.box);
      this.shape = shape;
      show(this.legend, lines.map((line, place) => key(line.name, line.main ? "main" : style(place), this.seriesIndex(place))),
        rule && key(rule.words, "rule"));
    }
    this.box.setAttribute("aria-label", this.words());
  }

  seriesIndex(place) { return place + 1; }

  options(lines, rule) {
    const text = colour("--quiet");
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: text, grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const series = lines.map((line, place) => {
      const { colour: name, dash } = style(place);
      return line.main
        ? { label: line.name, stroke: colour("--ink"), width: 2.5, points: { show: line.values.length < 60, size: 6 }, spanGaps: true }
        : { label: line.name, stroke: colour(name), width: 1.5, dash, points: { show: false }, spanGaps: true };
    });
    if (rule) series.push({ label: rule.words, stroke: colour("--bad"), width: 1.5, dash: [3, 3], points: { show: false } });
    return {
      width: this.width(),
      height: HEIGHT_PX,
      legend: { show: false },
      cursor: { show: true, drag: { setScale: false }, points: { show: false } },
      scales: { x: { time: false }, y: { range: (_, low, high) => padded(low, high) } },
      axes: [
        { ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500], space: 48 },
        { ...axis, size: 52 },
      ],
      series: [{}, ...series],
    };
  }

  words() {
    const { x, lines, rule } = this.data;
    const main = lines.find((line) => line.main) || lines[0];
    const values = main ? main.values.filter((value) => value !== null && value !== undefined) : [];
    if (!values.length) return `${this.title}: nothing yet`;
    const last = this.format(values[values.length - 1]);
    const against = rule ? `; ${rule.words}: ${this.format(rule.at)}` : "";
    return `${this.title}, ${x.length} ${this.xName}s: from ${this.format(values[0])} to ${last}${against}. The table below has all numbers.`;
  }

  format(value) { return value === null || value === undefined ? "–" : String(Number(value.toPrecision(this.digits))); }

  tell() {
    if (!this.data || !this.twin.open) return; // a closed table is not filled: it may have 64 columns of 200 rows
    const { x, lines, rule } = this.data;
    const head = h("tr", {}, h("th", { scope: "col" }, this.xName), lines.map((line) => h("th", { scope: "col", class: "num" }, line.name)));
    const rows = x.map((at, place) =>
      h("tr", {}, h("th", { scope: "row" }, String(at)), lines.map((line) => h("td", { class: "num" }, this.format(line.values[place])))));
    const note = rule ? h("p", { class: "quiet" }, `${rule.words}: ${this.format(rule.at)}`) : null;
    show(this.table, h("table", {}, h("thead", {}, head), h("tbody", {}, rows.reverse())), note);
  }
}

function padded(low, high) {
  if (low === null || high === null || !Number.isFinite(low)) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - room, high + room];
}

function key(name, how) {
  const dash = how === "main" || how === "rule" ? [] : how.dash;
  const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  line.setAttribute("viewBox", "0 0 26 8");
  line.setAttribute("class", "key");
  line.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M0 4H26");
  path.setAttribute("class", how === "main" ? "key-main" : how === "rule" ? "key-rule" : `key-${how.colour.slice(-1)}`);
  if (dash.length) path.setAttribute("stroke-dasharray", dash.join(" "));
  line.append(path);
  return h("li", {}, line, name);
}
