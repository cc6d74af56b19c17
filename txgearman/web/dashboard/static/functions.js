// All functions, by name or by what is going on.

import { h, link, setText, Table } from "./dom.js";
import { count, short } from "./format.js";
import { downloads, Follower, Search } from "./list.js";
import { age, nameCell, sum } from "./overview.js";

const SORTS = ["name", "queued", "running", "scheduled", "retrying", "dead", "workers", "oldest"];

export function functions(frame) {
  const wanted = frame.place.get("sort");
  let sort = SORTS.includes(wanted) ? wanted : "name";
  let shown = null;

  const table = new Table(
    [
      { title: "Function", sort: "name", cell: nameCell, wide: true },
      { title: "Queued", sort: "queued", right: true, cell: (row) => count(sum(row.queued)) },
      { title: "By priority", class: "mix-cell", cell: mixCell },
      { title: "Running", sort: "running", right: true, cell: (row) => count(row.running) },
      { title: "Scheduled", sort: "scheduled", right: true, cell: scheduledCell },
      { title: "Retrying", sort: "retrying", right: true, cell: retryingCell },
      { title: "Dead", sort: "dead", right: true, cell: deadCell },
      { title: "Workers", sort: "workers", right: true, cell: (row) => count(row.workers) },
      { title: "Oldest waits", sort: "oldest", right: true, cell: (row) => age(row.since) },
      { title: "Limit", right: true, cell: limits },
      { title: "Completed", right: true, cell: (row) => short(row.completed) },
      { title: "Failed", right: true, cell: (row) => count(row.failed) },
    ],
    {
      empty: "No such function.",
      caption: "Functions",
      sort,
      onSort(chosen) {
        sort = chosen;
        frame.place.set({ sort: sort === "name" ? null : sort });
        table.sortedBy(sort);
        follow();
      },
    },
  );
  const total = h("span", { class: "about" });
  const search = new Search(frame, "Find a function", "Find a function", follow);
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "title" }, h("h1", {}, "Functions"), search.element, downloads(table, "functions"), total),
    h("section", { class: "card" }, table.element),
  );

  function draw() {
    if (!shown) return;
    const rows = shown.order.map((key) => shown.rows[key]);
    table.update(rows, (row) => row.id);
    setText(total, rows.length < shown.total ? `The first ${count(rows.length)} of ${count(shown.total)}` : `${count(shown.total)} in all`);
  }

  const follower = new Follower(frame, (now) => {
    shown = now;
    draw();
  });

  function follow() {
    follower.follow({ view: "functions", sort, search: search.text });
  }

  follow();
  const ticking = setInterval(draw, 1000);
  return {
    title: "Functions",
    element,
    close() {
      search.close();
      follower.close();
      clearInterval(ticking);
    },
  };
}

function scheduledCell(row) {
  if (!row.scheduled) return "0";
  return { key: String(row.scheduled), make: () => link(`#/functions/${row.id}?state=scheduled`, count(row.scheduled)) };
}

function retryingCell(row) {
  if (!row.retrying) return "0";
  return { key: String(row.retrying), make: () => link(`#/functions/${row.id}?state=retrying`, count(row.retrying)) };
}

function deadCell(row) {
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
