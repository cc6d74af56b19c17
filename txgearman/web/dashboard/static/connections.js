// Workers and clients: who is connected, and what they are doing.

import { h, icon, link, peerName, Table } from "./dom.js";
import { count } from "./format.js";
import { Choice, downloads, Follower, Pages, Search } from "./list.js";
import { progressBar, stateChip } from "./function.js";
import { age } from "./overview.js";

const ROLES = [
  ["", "All"],
  ["worker", "Workers"],
  ["client", "Others"],
];
const FEW = 4;
// Rows of a page, as the server has them.
const ROWS = 200;

export function connections(frame) {
  const at = Number(frame.place.get("at")) || null;
  let shown = null;

  const table = new Table(
    [
      { title: "No.", cell: (row) => `#${row.number}` },
      { title: "Address", cell: (row) => row.host, class: "mono" },
      { title: "Id", cell: (row) => row.id },
      { title: "State", cell: stateCell },
      { title: "Functions", cell: functionsCell, wide: true },
      { title: "Job", cell: jobCell, wide: true },
      { title: "Runs for", right: true, cell: (row) => (row.jobs.length ? age(row.jobs[0].since) : "–") },
      { title: "Waits for", right: true, cell: (row) => (row.waits_for ? `${count(row.waits_for)} jobs` : "–") },
      { title: "", cell: actionCell, class: "action-cell" },
    ],
    {
      empty: "Nobody is connected.",
      caption: "Connections",
      onRow: (line, row) => line.classList.toggle("found", row.number === at),
    },
  );
  const search = new Search(frame, "Find an id or address", "Find connections", restart);
  const role = new Choice(frame, "role", "Who is shown", ROLES, restart);
  const pages = new Pages(frame, at ? at - 1 : 0, follow);
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "title" }, h("h1", {}, "Connections"), role.element, search.element, downloads(table, "connections")),
    h("section", { class: "card" }, table.element, pages.element),
  );

  function stateCell(row) {
    if (!row.functions_total) return { key: "client", make: () => h("span", { class: "chip" }, "client") };
    const state = row.jobs_total ? "busy" : row.state === "awake" ? "awake" : "idle";
    return {
      key: `${state} ${row.quiet}`,
      make: () => [stateChip(state), row.quiet ? h("span", { class: "chip warn" }, "quiet") : null].filter(Boolean),
    };
  }

  function functionsCell(row) {
    const few = row.functions.slice(0, FEW);
    const more = row.functions_total - few.length;
    return {
      key: JSON.stringify([few, more]),
      make: () =>
        h(
          "span",
          { class: "chips" },
          few.map((name) => h("span", { class: "chip name" }, peerName(name))),
          more > 0 ? h("span", { class: "about" }, `and ${count(more)} more`) : "",
        ),
    };
  }

  function jobCell(row) {
    if (!row.jobs.length) return "";
    const [job] = row.jobs;
    const more = row.jobs_total - 1;
    return {
      key: `${job.handle} ${job.numerator} ${job.denominator} ${more}`,
      make: () => [
        link(`#/jobs/${encodeURIComponent(job.handle)}`, job.handle, "mono"),
        h("span", { class: "about" }, " ", peerName(job.function), more ? ` and ${count(more)} more` : ""),
        job.denominator ? progressBar(Math.min(1, job.numerator / job.denominator), "") : "",
      ],
    };
  }

  function actionCell(row) {
    if (!row.functions_total) return "";
    return {
      key: String(row.quiet),
      make: () =>
        h(
          "button",
          { type: "button", class: "act small", click: () => quiet(row.number, row.quiet) },
          icon(row.quiet ? "sound" : "mute"),
          row.quiet ? "Give jobs again" : "Quiet",
        ),
    };
  }

  function quiet(number, now) {
    return frame.act({
      title: now ? `Give jobs to connection ${number} again?` : `Quiet connection ${number}?`,
      what: now
        ? "The worker gets jobs like the others."
        : "The worker gets no more jobs and keeps those that it has, until it is given jobs again or connects anew.",
      button: now ? "Give jobs again" : "Quiet",
      method: "PATCH",
      path: `/connections/${number}`,
      value: { quiet: !now },
      done: now ? "It gets jobs again" : "It gets no more jobs",
    });
  }

  function draw() {
    if (!shown) return;
    table.update(
      shown.order.map((key) => shown.rows[key]),
      (row) => row.number,
    );
    pages.again.hidden = true;
    pages.element.hidden = pages.isFirst && !shown.more;
    const { total } = shown;
    pages.draw(shown.more ? Number(shown.order[shown.order.length - 1]) : null, total === undefined ? null : total, ROWS);
  }

  function restart() {
    // Not only those behind the one that a link led to.
    pages.first = 0;
    pages.reset();
    follow();
  }

  const follower = new Follower(frame, (now) => {
    shown = now;
    draw();
  });

  function follow() {
    follower.follow({ view: "connections", role: role.value, search: search.text, after: pages.cursor });
  }

  follow();
  const ticking = setInterval(() => shown && table.update(shown.order.map((key) => shown.rows[key]), (row) => row.number), 1000);
  return {
    title: "Connections",
    element,
    close() {
      clearInterval(ticking);
      search.close();
      follower.close();
    },
  };
}

