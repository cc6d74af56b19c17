// Dead jobs, and jobs that wait for a retry: two pages of one kind, with actions on one job, on some, and on all found.

import { enable, h, icon, isolated, link, peerName, setText, Table } from "./dom.js";
import { CANCEL_RETRY, errorView, FORGET_DEAD, nextRun, outcomeChip, RETRY_DEAD, RETRY_NOW } from "./failure.js";
import { count, moment } from "./format.js";
import { downloads, Follower, Pages, Search } from "./list.js";
import { decoded, get, Problem } from "./live.js";

const PAGE = 50;
// Lines of an error that a list shows before it is opened.
const FEW_LINES = 3;

// -- what the pages share -------------------------------------------------------------------------

// A page of failed jobs. `kind` says of which:
// - title, placeholder (of the search), empty (what is said of no jobs), about(document) beside the search;
// - path of the list, view of the live document, columns;
// - actions on one job and on some: {icon, one, some, done, danger, ask(which, number), call(job)};
// - all: actions on all that are found;
// - total(document, parameters): how many jobs there are without a search;
// - filter(begin): {element, parameters(), show(document)}, begin() being called when it changes;
// - isGone(row), merged(job, row), hasChanged(before, now, jobs, gone): what the live document says of the list.
function failedJobs(frame, kind) {
  let jobs = [];
  let nextCursor = null;
  let asked = new AbortController();
  let busy = false;
  let shown = null;
  const selected = new Set();
  // Jobs of the page that somebody has retried, deleted or cancelled meanwhile.
  const gone = new Set();

  const table = new Table(
    [{ title: "", class: "pick", cell: pickCell }, ...kind.columns, { title: "", class: "action-cell", cell: actionCell }],
    {
      empty: kind.empty,
      caption: kind.title,
      onRow: (line, job) => line.classList.toggle("gone", gone.has(job.handle)),
    },
  );
  const about = h("span", { class: "about" });
  const search = new Search(frame, kind.placeholder, `Find in ${kind.title.toLowerCase()}`, restart);
  const filter = kind.filter ? kind.filter(restart) : null;
  const every = h("input", {
    type: "checkbox",
    change: () => {
      selected.clear();
      if (every.checked) for (const job of jobs) if (!gone.has(job.handle)) selected.add(job.handle);
      for (const box of table.body.querySelectorAll("input")) box.checked = selected.has(box.value);
      drawTools();
    },
  });
  const chosen = h("span", { class: "about", role: "status" });
  const forSome = Object.values(kind.actions).map((action) =>
    h("button", { type: "button", class: action.danger ? "act small danger-text" : "act small", click: () => actOnSome(action) }, icon(action.icon), action.some),
  );
  const forAll = (kind.all || []).map((action) =>
    h("button", { type: "button", class: action.danger ? "act small danger-text" : "act small", click: () => actOnAll(action) }, icon(action.icon), action.button),
  );
  const tools = h(
    "div",
    { class: "bulk" },
    h("label", { class: "pick" }, every, "This page"),
    forSome,
    chosen,
    forAll.length ? h("span", { class: "bulk-all" }, forAll) : null,
  );
  const pages = new Pages(frame, null, load);
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "title" }, h("h1", {}, kind.title), filter ? filter.element : null, search.element, downloads(table, kind.path.slice(1)), about),
    h("section", { class: "card" }, tools, table.element, pages.element),
  );

  function pickCell(job) {
    return {
      key: "",
      make: () =>
        h("input", {
          type: "checkbox",
          value: job.handle,
          "aria-label": `Select ${job.handle}`,
          checked: selected.has(job.handle),
          change: (event) => {
            if (event.currentTarget.checked) selected.add(job.handle);
            else selected.delete(job.handle);
            drawTools();
          },
        }),
    };
  }

  function actionCell(job) {
    if (gone.has(job.handle)) return { key: "gone", make: () => [] };
    return {
      key: "there",
      make: () =>
        Object.values(kind.actions).map((action) =>
          h(
            "button",
            {
              type: "button",
              class: action.danger ? "act small danger-text" : "act small",
              "aria-label": `${action.one}: ${job.handle}`,
              click: () => actOnOne(action, job),
            },
            icon(action.icon),
            action.one,
          ),
        ),
    };
  }

  // -- actions --

  async function actOnOne(action, job) {
    const done = await frame.act({ ...action.ask(`the job ${job.handle}`, 1), ...action.call(job), done: action.done });
    if (done) await load();
  }

  async function actOnSome(action) {
    const wanted = jobs.filter((job) => selected.has(job.handle) && !gone.has(job.handle));
    const question = action.ask(wanted.length === 1 ? "the selected job" : `the ${count(wanted.length)} selected jobs`, wanted.length);
    await during(() => frame.actOnEach(question, wanted.map(action.call), action.done));
  }

  async function actOnAll(action) {
    // What was typed just now holds, as it is what the question shows.
    if (search.settle()) await restart();
    const where = filter ? filter.parameters() : {};
    const found = search.text ? `all jobs that “${search.text}” is found in` : `all ${count(kind.total(shown, where))} jobs`;
    await during(() =>
      frame.act({
        ...action.ask(where.id === undefined || where.id === null ? found : `${found} of this function`),
        method: action.method,
        path: action.path,
        parameters: { ...where, search: search.text },
        done: action.answered,
      }),
    );
  }

  async function during(act) {
    if (busy) return;
    busy = true;
    tools.setAttribute("aria-busy", "true");
    const done = await act();
    busy = false;
    tools.removeAttribute("aria-busy");
    if (done) await load();
  }

  // -- showing --

  function drawTools() {
    const number = jobs.filter((job) => selected.has(job.handle) && !gone.has(job.handle)).length;
    every.checked = number > 0 && number === jobs.length - gone.size;
    every.indeterminate = number > 0 && !every.checked;
    setText(chosen, number ? `${count(number)} selected` : "");
    for (const button of forSome) enable(button, number ? "" : "No job is selected");
    for (const button of forAll) enable(button, jobs.length ? "" : "There are no jobs here");
    tools.hidden = jobs.length === 0 && pages.isFirst;
  }

  function draw() {
    setText(about, kind.about(shown));
    table.update(jobs, (job) => job.handle);
    pages.draw(nextCursor, shown && !search.text ? kind.total(shown, filter ? filter.parameters() : {}) : null, PAGE);
    drawTools();
  }

  function restart() {
    pages.reset();
    return load();
  }

  // Fetches the page of jobs at the cursor.
  async function load() {
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    const where = filter ? filter.parameters() : {};
    const found = [];
    let { cursor } = pages;
    table.element.classList.add("loading");
    try {
      do {
        // A page may be short and not be the last.
        const page = await get(kind.path, { ...where, search: search.text, after: cursor, limit: PAGE - found.length }, signal);
        found.push(...page.jobs);
        cursor = page.next;
      } while (cursor !== null && found.length < PAGE);
    } catch (error) {
      if (signal.aborted) return;
      frame.toast(error instanceof Problem ? error.message : "The server cannot be reached.", true);
      table.element.classList.remove("loading");
      if (!follower.stream) follow();
      return;
    }
    table.element.classList.remove("loading");
    // The last of a page may have been handled.
    if (!found.length && !pages.isFirst) {
      pages.turnBack();
      return;
    }
    jobs = found;
    nextCursor = cursor;
    gone.clear();
    // Somebody may have chosen some while these came.
    const handles = new Set(jobs.map((job) => job.handle));
    for (const handle of selected) if (!handles.has(handle)) selected.delete(handle);
    draw();
    follow();
  }

  const follower = new Follower(frame, (now) => {
    const before = shown;
    shown = now;
    const rows = now.rows || {};
    gone.clear();
    for (const job of jobs) if (kind.isGone(rows[job.handle])) gone.add(job.handle);
    jobs = jobs.map((job) => kind.merged(job, rows[job.handle]));
    if (filter) filter.show(now);
    draw();
    // Nobody is in the middle of a choice, so that the list may move.
    const isStill = !selected.size && !busy && pages.isFirst && !document.getElementById("dialog").open;
    if (isStill && before && kind.hasChanged(before, now, jobs, gone)) restart();
  });

  function follow() {
    follower.follow({ view: kind.view, handles: jobs.map((job) => job.handle).join(",") });
  }

  load();
  const ticking = setInterval(() => table.update(jobs, (job) => job.handle), 1000);
  return {
    title: kind.title,
    element,
    close() {
      asked.abort();
      search.close();
      clearInterval(ticking);
      follower.close();
    },
  };
}

const JOB_COLUMN = {
  title: "Job",
  class: "job-cell",
  cell: (job) => ({
    key: job.handle,
    make: () => [
      link(`#/jobs/${encodeURIComponent(job.handle)}`, job.handle, "mono"),
      h("small", {}, link(`#/functions/${job.function_id}`, peerName(job.function), "name")),
    ],
  }),
};
const ERROR_COLUMN = {
  title: "Error",
  class: "error-cell",
  cell: (job) => ({ key: job.error || "", make: () => errorView(job.error, FEW_LINES) }),
};
const NEXT_RUN_COLUMN = { title: "Next run", cell: nextRun };
const RUNS_COLUMN = {
  title: "Runs",
  cell: (job) => ({ key: `${job.attempts} ${job.losses}`, make: () => [`${count(job.attempts)} failed`, job.losses ? h("small", {}, `${count(job.losses)} workers lost`) : ""] }),
};

// -- dead jobs ------------------------------------------------------------------------------------

const ALL_DEAD = [
  {
    icon: "play",
    button: "Retry all found",
    method: "POST",
    path: "/dead/retry",
    answered: ({ retried, skipped }) => answered(retried, "retried", skipped),
    ask: (which) => ({
      title: `Retry ${which}?`,
      what: "Jobs whose unique a live job has now, and those that a limit refuses, stay dead. With a rate, leave this page open until it is done.",
      button: "Retry all found",
      field: {
        make: () =>
          h(
            "label",
            { class: "field" },
            "A second, at most",
            h("input", { name: "per_second", type: "number", min: 1, max: 100000, step: 1, inputmode: "numeric", placeholder: "no limit" }),
          ),
        parameters: (form) => ({ per_second: form.get("per_second") }),
      },
    }),
  },
  {
    icon: "trash",
    button: "Delete all found",
    danger: true,
    method: "DELETE",
    path: "/dead",
    answered: ({ forgotten, skipped }) => answered(forgotten, "deleted", skipped),
    ask: (which) => ({
      title: `Delete ${which}?`,
      what: "Those on other pages too. Their data and errors are lost. This cannot be undone.",
      button: "Delete all found",
      danger: true,
    }),
  },
];

function answered(number, verb, skipped) {
  return `${count(number)} ${verb}${skipped ? `, ${count(skipped)} stay dead` : ""}`;
}

export function deadPage(frame, id) {
  return failedJobs(frame, {
    title: "Dead jobs",
    placeholder: "Find in function, error, data, unique, handle",
    empty: "No dead jobs here. A background job that fails for good comes here, with its data.",
    path: "/dead",
    view: "dead",
    columns: [
      JOB_COLUMN,
      { title: "Outcome", cell: (job) => ({ key: job.outcome, make: () => outcomeChip(job.outcome) }) },
      ERROR_COLUMN,
      RUNS_COLUMN,
      { title: "Died", cell: (job) => ({ key: String(job.ended), make: () => [moment(job.ended), h("small", {}, `submitted ${moment(job.submitted)}`)] }) },
    ],
    actions: { retry: RETRY_DEAD, forget: FORGET_DEAD },
    all: ALL_DEAD,
    filter: (begin) => functionFilter(frame, id, begin),
    about: (shown) => (shown ? `${count(shown.total)} in all` : ""),
    total: (shown, { id: chosen }) => {
      if (!shown) return 0;
      if (chosen === null) return shown.total;
      const row = shown.functions && shown.functions.rows && shown.functions.rows[chosen];
      return row ? row.dead : 0;
    },
    // A dead job that is live has been retried.
    isGone: (row) => row !== undefined,
    merged: (job) => job,
    hasChanged: (before, now) => before.total !== now.total,
  });
}

// The functions that have dead jobs, to choose one.
function functionFilter(frame, id, begin) {
  const choice = h(
    "select",
    {
      "aria-label": "Function",
      change: () => {
        frame.place.go(choice.value === "*" ? "dead" : `dead/${choice.value.slice(1)}`, { page: null, after: null });
        begin();
      },
    },
    h("option", { value: "*" }, "All functions"),
  );
  // A name may be empty, so all values begin with a letter of their own.
  let wanted = id === undefined ? "*" : `=${id}`;
  let drawn = "";
  if (id !== undefined) choice.append(h("option", { value: wanted }, isolated(decoded(id))));
  choice.value = wanted;
  return {
    element: choice,
    parameters: () => ({ id: choice.value === "*" ? null : choice.value.slice(1) }),
    show(now) {
      const rows = (now.functions && now.functions.rows) || {};
      const order = (now.functions && now.functions.order) || [];
      const key = JSON.stringify(order.map((each) => [each, rows[each].dead]));
      if (key === drawn || document.activeElement === choice) return;
      drawn = key;
      wanted = choice.value;
      const options = order.map((each) => h("option", { value: `=${each}` }, `${isolated(rows[each].name)} (${count(rows[each].dead)})`));
      if (wanted !== "*" && !order.includes(wanted.slice(1))) options.push(h("option", { value: wanted }, isolated(decoded(wanted.slice(1)))));
      choice.replaceChildren(h("option", { value: "*" }, "All functions"), ...options);
      choice.value = wanted;
    },
  };
}

// -- jobs that wait for a retry -------------------------------------------------------------------

export function retryingPage(frame) {
  return failedJobs(frame, {
    title: "Retrying",
    placeholder: "Find in data, unique or handle",
    empty: "No job waits for a retry.",
    path: "/retrying",
    view: "jobs",
    columns: [JOB_COLUMN, NEXT_RUN_COLUMN, ERROR_COLUMN, RUNS_COLUMN, { title: "Submitted", cell: (job) => moment(job.submitted) }],
    actions: { retry: RETRY_NOW, cancel: CANCEL_RETRY },
    about: () => "In the order they came",
    total: (now) => now.retrying || 0,
    isGone: (row) => !row || row.state !== "retrying",
    merged: (job, row) => (row ? { ...job, ...row } : job),
    hasChanged: (_before, _now, jobs, gone) => jobs.length > 0 && gone.size > jobs.length / 2,
  });
}
