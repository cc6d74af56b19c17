// All functions, by name or by what is going on.

import { h, icon, link, setText, Table } from "./dom.js";
import { count, short } from "./format.js";
import { Stream } from "./live.js";
import { age, nameCell, sum } from "./overview.js";

export function functions(frame, _id, parameters) {
  let sort = parameters.get("sort") || "name";
  let search = parameters.get("search") || "";
  let stream = null;
  let shown = null;

  const table = new Table(
    [
      { title: "Function", sort: "name", cell: nameCell, wide: true },
      { title: "Queued", sort: "queued", right: true, cell: (row) => count(sum(row.queued)) },
      { title: "By priority", class: "mix-cell", cell: mixCell },
      { title: "Running", sort: "running", right: true, cell: (row) => count(row.running) },
      { title: "Retrying", sort: "retrying", right: true, cell: retryingCell },
      { title: "Dead", sort: "dead", right: true, cell: deadCell },
      { title: "Workers", sort: "workers", right: true, cell: (row) => count(row.workers) },
      { title: "Oldest waits", sort: "oldest", right: true, cell: (row) => age(row.since) },
      { title: "Limit", right: true, cell: limits },
      { title: "Failed", right: true, cell: (row) => count(row.failed) },
    ],
    {
      empty: "No such function.",
      caption: "Functions",
      sort,
      onSort(wanted) {
        sort = wanted;
        table.sortedBy(sort);
        follow();
      },
    },
  );
  const total = h("span", { class: "about" });
  const field = h("input", { type: "search", placeholder: "Find a function", "aria-label": "Find a function", value: search });
  let typing = 0;
  field.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      search = field.value;
      follow();
    }, 200);
  });
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "title" }, h("h1", {}, "Functions"), h("label", { class: "search" }, icon("search"), field), total),
    h("section", { class: "card" }, table.element),
  );

  function draw() {
    if (!shown) return;
    const rows = shown.order.map((key) => shown.rows[key]);
    table.update(rows, (row) => row.id);
    setText(total, rows.length < shown.total ? `The first ${count(rows.length)} of ${count(shown.total)}` : `${count(shown.total)} in all`);
  }

  function follow() {
    if (stream) stream.close();
    stream = new Stream(
      { view: "functions", sort, search },
      {
        onState: frame.onState,
        onEvent: (name) => name === "rights" && frame.onRights(),
        onChange(now) {
          shown = now;
          draw();
        },
      },
    );
  }

  follow();
  const ticking = setInterval(draw, 1000);
  return {
    title: "Functions",
    element,
    close() {
      stream.close();
      clearInterval(ticking);
    },
  };
}

export function retryingCell(row) {
  if (!row.retrying) return "0";
  return { key: String(row.retrying), make: () => link(`#/functions/${row.id}?state=retrying`, count(row.retrying)) };
}

export function deadCell(row) {
  if (!row.dead) return "0";
  return { key: String(row.dead), make: () => link(`#/dead/${row.id}`, count(row.dead)) };
}

export function limits(row) {
  const all = Object.values(row.limits || {}).filter((limit) => limit !== null && limit !== undefined);
  if (!all.length) return "–";
  if (all.length === 3 && new Set(all).size === 1) return count(all[0]);
  return ["high", "normal", "low"].map((priority) => (row.limits[priority] === undefined ? "–" : short(row.limits[priority]))).join(" / ");
}

// A bar of the queued jobs by priority.
export function mix(queued) {
  const total = sum(queued);
  const said = `${count(queued.high)} high, ${count(queued.normal)} normal, ${count(queued.low)} low`;
  return h(
    "span",
    { class: "mix", role: "img", "aria-label": said, title: said },
    ["high", "normal", "low"].map((priority) =>
      total && queued[priority] ? h("i", { class: priority, style: { "flex-grow": String(queued[priority]) } }) : null,
    ),
  );
}

function mixCell(row) {
  return { key: `${row.queued.high} ${row.queued.normal} ${row.queued.low}`, make: () => mix(row.queued) };
}
