// Workers and clients: who is connected, and what they are doing.

import { h, icon, link, peerName, Table } from "./dom.js";
import { count } from "./format.js";
import { Stream } from "./live.js";
import { progressBar, stateChip } from "./function.js";
import { age } from "./overview.js";

const ROLES = [
  ["", "All"],
  ["worker", "Workers"],
  ["client", "Others"],
];
const FEW = 4;

export function connections(frame, _id, parameters) {
  const at = Number(parameters.get("at")) || null;
  let role = "";
  let search = "";
  let cursors = [at ? at - 1 : 0];
  let shown = null;
  let stream = null;

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
  const pages = h("div", { class: "pages" });
  const field = h("input", { type: "search", placeholder: "Find an id or address", "aria-label": "Find connections" });
  let typing = 0;
  field.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      search = field.value;
      cursors = [0];
      follow();
    }, 250);
  });
  const choice = h(
    "div",
    { class: "segments", role: "group", "aria-label": "Who is shown" },
    ROLES.map(([value, title]) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": String(value === role),
          click: (event) => {
            role = value;
            cursors = [0];
            for (const each of choice.children) each.setAttribute("aria-pressed", String(each === event.currentTarget));
            follow();
          },
        },
        title,
      ),
    ),
  );
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "title" }, h("h1", {}, "Connections"), choice, h("label", { class: "search" }, icon("search"), field)),
    h("section", { class: "card" }, table.element, pages),
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
      make: () => [
        ...few.map((name) => h("span", { class: "chip name" }, peerName(name))),
        more > 0 ? h("span", { class: "about" }, `and ${count(more)} more`) : "",
      ],
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
    const numbers = shown.order.map(Number);
    pages.hidden = cursors.length === 1 && !shown.more;
    pages.replaceChildren(
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          disabled: cursors.length < 2,
          click: () => {
            cursors.pop();
            follow();
          },
        },
        icon("back"),
        "Back",
      ),
      h("span", { class: "about" }, `Page ${cursors.length}`),
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          disabled: !shown.more,
          click: () => {
            cursors.push(Math.max(...numbers));
            follow();
          },
        },
        "Next",
        icon("next"),
      ),
    );
  }

  function follow() {
    if (stream) stream.close();
    stream = new Stream(
      { view: "connections", role, search, after: cursors[cursors.length - 1] },
      {
        onState: frame.onState,
        onEvent: (event) => event === "rights" && frame.onRights(),
        onChange(now) {
          shown = now;
          draw();
        },
      },
    );
  }

  follow();
  const ticking = setInterval(() => shown && table.update(shown.order.map((key) => shown.rows[key]), (row) => row.number), 1000);
  return {
    title: "Connections",
    element,
    close() {
      clearInterval(ticking);
      stream.close();
    },
  };
}

