// The past of a function: jobs a second, and how long they waited and ran.

import { h, setText } from "./dom.js";
import { rate, span } from "./format.js";
import { Choice } from "./list.js";
import { get, Problem } from "./live.js";
import { Plot, RANGES, SECONDS, spanOf } from "./plot.js";

const HEIGHT = 150;
const PERCENTILES = [
  { name: "p99", title: "p99" },
  { name: "p95", title: "p95" },
  { name: "p50", title: "p50" },
];
// Which of the columns that the server sends each plot shows.
const RATES = [1, 2, 3];
const WAITED = [6, 5, 4];
const RAN = [9, 8, 7];

export function functionPlots(frame, id) {
  const rates = new Plot({
    series: [
      { name: "submitted", title: "Submitted" },
      { name: "completed", title: "Completed" },
      { name: "failed", title: "Failed" },
    ],
    height: HEIGHT,
    label: "Jobs a second",
    format: rate,
  });
  const times = (label) => new Plot({ series: PERCENTILES, height: HEIGHT, label, format: span, smallest: 0.001 });
  const waited = times("Time until a worker has a job");
  const ran = times("Time that a job runs");
  const note = h("span", { class: "about" });
  const range = new Choice(frame, "range", "Time shown", RANGES, load);
  const card = (title, plot) => h("div", { class: "plot-card" }, h("div", { class: "card-head" }, h("h3", {}, title), plot.legend), plot.element);
  const element = h(
    "section",
    { class: "card function-plots", "aria-label": "The last minutes and the last day" },
    h("div", { class: "card-head" }, h("h2", {}, "Rate and times"), range.element, note),
    h("div", { class: "plots three" }, card("Jobs a second", rates), card("Wait", waited), card("Run", ran)),
  );
  let asked = new AbortController();
  let again = 0;

  async function load() {
    clearTimeout(again);
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    let wait = 60;
    try {
      const found = await get("/function/history", { id, span: spanOf(range.value) }, signal);
      wait = Math.min(wait, found.step);
      draw(found);
    } catch (error) {
      if (signal.aborted) return;
      // A function that is not there says so elsewhere.
      if (error instanceof Problem && error.status === 404) return;
    }
    again = setTimeout(load, wait * 1000);
  }

  function draw({ samples, step }) {
    const seconds = SECONDS[range.value];
    const shown = samples.filter((sample) => sample[0] > samples[samples.length - 1][0] - seconds - step);
    setText(note, samples.length ? "" : "This function is not measured by itself yet");
    const points = (columns) => shown.map((sample) => ({ time: sample[0], values: columns.map((column) => sample[column]) }));
    rates.show(points(RATES), seconds);
    waited.show(points(WAITED), seconds);
    ran.show(points(RAN), seconds);
  }

  load();
  return {
    element,
    close() {
      asked.abort();
      clearTimeout(again);
    },
  };
}
