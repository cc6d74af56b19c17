// Plots of numbers over time, as SVG that takes its colours from the style sheet.

import { h, setText, svg } from "./dom.js";
import { clock } from "./format.js";

// The lengths of time that plots show: for a `Choice`, and in seconds.
export const RANGES = [
  ["2m", "2 min"],
  ["10m", "10 min"],
  ["24h", "24 h"],
];
export const SECONDS = { "2m": 120, "10m": 600, "24h": 86400 };

// What the server calls them: it has samples of seconds for some minutes, and of minutes for a day.
export function spanOf(range) {
  return range === "24h" ? "day" : "minutes";
}

const WIDTH = 1000;
// Parts of the width that an arrow key goes.
const KEY_STEPS = 60;

// A number that a scale may end at, whose half is easy to read too.
function nice(number, smallest) {
  if (number <= smallest) return smallest;
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= number);
}

// Lines over the same times. `series` are {name, title}; each has the class s-NAME. The scale ends at `smallest` at least.
export class Plot {
  constructor({ series, height, label, format, smallest = 2 }) {
    this.series = series;
    this.smallest = smallest;
    this.height = height;
    this.format = format;
    this.label = label;
    this.lines = series.map((each) => ({
      area: svg("path", { class: `area s-${each.name}` }),
      line: svg("path", { class: `line s-${each.name}` }),
    }));
    this.grid = svg("g", { class: "grid" });
    this.cursor = svg("line", { class: "cursor", y1: 0, y2: height, visibility: "hidden" });
    this.svg = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
      this.grid,
      this.lines.map(({ area }) => area),
      this.lines.map(({ line }) => line),
      this.cursor,
    );
    this.scale = h("div", { class: "scale", "aria-hidden": "true" });
    this.times = h("div", { class: "times", "aria-hidden": "true" });
    this.values = series.map(() => h("b", {}, "–"));
    this.legend = h(
      "ul",
      { class: "legend" },
      series.map((each, index) => h("li", {}, h("i", { class: `s-${each.name}` }), each.title, " ", this.values[index])),
    );
    this.at = h("div", { class: "moment", "aria-hidden": "true", hidden: true });
    // Where the pointer is, as a part of the width; null where it is elsewhere.
    this.pointed = null;
    const frame = h("div", { class: "frame", tabindex: 0, role: "group", "aria-label": `${label}. The arrow keys show the values at a time` }, this.svg, this.scale, this.at);
    frame.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      this.#point(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
    });
    frame.addEventListener("pointerleave", () => this.#leave());
    frame.addEventListener("blur", () => this.#leave());
    frame.addEventListener("keydown", (event) => this.#key(event));
    this.element = h("div", { class: "plot" }, frame, this.times);
    this.points = [];
  }

  // `points` are {time, values}; `span` is how many seconds the plot is wide.
  show(points, span) {
    this.points = points;
    this.span = span;
    const end = points.length ? points[points.length - 1].time : Date.now() / 1000;
    this.begin = end - span;
    let top = 0;
    for (const point of points) for (const value of point.values) if (value > top) top = value;
    const scale = nice(top * 1.05, this.smallest);
    const x = (time) => (((time - this.begin) / span) * WIDTH).toFixed(1);
    const y = (value) => (this.height - 2 - (Math.max(0, value) / scale) * (this.height - 10)).toFixed(1);
    this.lines.forEach(({ area, line }, index) => {
      const shown = points.filter((point) => point.values[index] !== null);
      if (shown.length < 2) {
        line.setAttribute("d", "");
        area.setAttribute("d", "");
        return;
      }
      const path = shown.map((point) => `${x(point.time)} ${y(point.values[index])}`).join("L");
      line.setAttribute("d", `M${path}`);
      area.setAttribute("d", `M${x(shown[0].time)} ${this.height}L${path}L${x(shown[shown.length - 1].time)} ${this.height}Z`);
    });
    this.#draw(scale, y);
    if (this.pointed === null) this.#tell(points.length ? points[points.length - 1] : null);
    else this.#point(this.pointed);
  }

  #draw(scale, y) {
    const steps = [0.5, 1];
    this.grid.replaceChildren(
      ...steps.map((step) => svg("line", { x1: 0, x2: WIDTH, y1: y(scale * step), y2: y(scale * step) })),
    );
    this.scale.replaceChildren(
      ...steps.map((step) => {
        const top = (Number(y(scale * step)) / this.height) * 100;
        return h("span", { style: { top: `${top}%` } }, this.format(scale * step));
      }),
    );
    const marks = [0, 0.25, 0.5, 0.75, 1];
    this.times.replaceChildren(
      ...marks.map((part) => h("span", {}, clock(this.begin + this.span * part, this.span < 3600))),
    );
  }

  #tell(point, time = null) {
    this.series.forEach((each, index) => setText(this.values[index], point ? this.format(point.values[index]) : "–"));
    const said = this.series.map((each, index) => `${each.title} ${point ? this.format(point.values[index]) : "–"}`);
    this.svg.setAttribute("aria-label", `${this.label}: ${said.join(", ")}${time ? ` at ${clock(time)}` : ""}`);
  }

  // Shows the values at a part of the width, until the pointer leaves.
  #point(part) {
    this.pointed = part;
    if (!this.points.length) return;
    const time = this.begin + part * this.span;
    let best = this.points[0];
    for (const point of this.points) if (Math.abs(point.time - time) < Math.abs(best.time - time)) best = point;
    const at = (best.time - this.begin) / this.span;
    this.cursor.setAttribute("x1", at * WIDTH);
    this.cursor.setAttribute("x2", at * WIDTH);
    this.cursor.setAttribute("visibility", "visible");
    this.at.hidden = false;
    this.at.style.setProperty("--at", String(Math.min(0.94, Math.max(0.06, at))));
    setText(this.at, clock(best.time, this.span < 7200));
    this.#tell(best, best.time);
  }

  #leave() {
    this.pointed = null;
    this.at.hidden = true;
    this.cursor.setAttribute("visibility", "hidden");
    this.#tell(this.points[this.points.length - 1] || null);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      event.preventDefault();
      this.#point(Math.min(1, Math.max(0, (this.pointed === null ? 1 : this.pointed) + step / KEY_STEPS)));
    } else if (event.key === "Escape") this.#leave();
  }
}

// A small line without a scale.
export class Spark {
  constructor(name) {
    this.area = svg("path", { class: `area s-${name}` });
    this.line = svg("path", { class: `line s-${name}` });
    this.element = svg(
      "svg",
      { viewBox: "0 0 200 40", preserveAspectRatio: "none", class: "spark", "aria-hidden": "true" },
      this.area,
      this.line,
    );
  }

  show(values) {
    if (values.length < 2) return;
    const top = Math.max(...values) || 1;
    const low = Math.min(...values, top * 0.9) * 0.9;
    const x = (index) => ((index / (values.length - 1)) * 200).toFixed(1);
    const y = (value) => (37 - ((value - low) / (top - low || 1)) * 33).toFixed(1);
    const path = values.map((value, index) => `${x(index)} ${y(value)}`).join("L");
    this.line.setAttribute("d", `M${path}`);
    this.area.setAttribute("d", `M0 40L${path}L200 40Z`);
  }
}
