// One function: what is going on, its jobs, and what an operator can do about it.

import { enable, h, icon, isolated, link, peerName, setText, Table } from "./dom.js";
import { bytes, count, short } from "./format.js";
import { Choice, downloads, Follower, Pages, Search } from "./list.js";
import { get, Problem, serverNow } from "./live.js";
import { errorView, nextRun, RETRY_NOW } from "./failure.js";
import { limits, mix } from "./functions.js";
import { age, lacksWorker, sum } from "./overview.js";
import { functionPlots } from "./function_plots.js";
import { Spark } from "./plot.js";

const PAGE = 50;
const STATES = [
  ["", "All"],
  ["queued", "Queued"],
  ["running", "Running"],
  ["scheduled", "Scheduled"],
  ["retrying", "Retrying"],
  ["stored", "Stored"],
];

// The limits of what runs, as the server calls them, with what people are told and the step of their numbers.
const RUN_LIMITS = [
  ["max_running", "Jobs at a time", 1],
  ["max_running_per_key", "Jobs of a key at a time", 1],
  ["start_rate", "Jobs that begin in a second", "any"],
  ["start_burst", "Jobs that begin at once", 1],
  ["pause_after", "Failed runs in a row that pause it", 1],
];

export function functionPage(frame, id) {
  let now = null;
  let jobs = [];
  let gone = new Set();
  let nextCursor = null;
  let asked = new AbortController();
  const depths = [];

  const name = h("h1", { class: "name" }, "…");
  const chip = h("span", { class: "chip warn", hidden: true }, "Paused");
  const noWorker = h("span", { class: "chip bad", hidden: true }, "No worker");
  const facts = {
    queued: fact("Queued"),
    running: fact("Running"),
    workers: fact("Workers"),
    oldest: fact("Oldest waits"),
    limit: fact("Limit of jobs"),
    done: fact("Completed"),
    failed: fact("Failed"),
    dead: fact("Dead"),
  };
  const spark = new Spark("queued");
  facts.queued.element.append(spark.element);
  const bar = h("div", { class: "mix-big" });
  const pause = button("pause", "Pause", () => {
    if (now.paused) {
      return frame.act({
        title: ["Resume ", peerName(now.name), "?"],
        what: `Workers get its jobs again: ${count(sum(now.queued))} are waiting.`,
        button: "Resume",
        method: "PATCH",
        path: "/function",
        parameters: { id },
        value: { paused: false },
        done: "Resumed",
      });
    }
    return frame.act({
      title: ["Pause ", peerName(now.name), "?"],
      what: "Jobs are taken in as before, but no worker gets one until the function is resumed. Running jobs go on.",
      button: "Pause",
      method: "PATCH",
      path: "/function",
      parameters: { id },
      value: { paused: true },
      done: "Paused",
    });
  });
  const limit = button("limit", "Set limit", () =>
    frame.act({
      title: ["Limit the jobs of ", peerName(now.name)],
      what: "New jobs are refused while the function has so many, running ones included. Empty means no limit.",
      button: "Set the limit",
      method: "PATCH",
      path: "/function",
      parameters: { id },
      done: "The limit is set",
      field: {
        make: () =>
          h(
            "div",
            { class: "fields" },
            ["high", "normal", "low"].map((priority) =>
              h(
                "label",
                { class: "field" },
                `${priority[0].toUpperCase()}${priority.slice(1)} priority`,
                h("input", {
                  name: priority,
                  type: "number",
                  min: 1,
                  step: 1,
                  inputmode: "numeric",
                  placeholder: "no limit",
                  value: now.limits && now.limits[priority] ? now.limits[priority] : null,
                }),
              ),
            ),
          ),
        value: (form) => ({
          limits: Object.fromEntries(
            ["high", "normal", "low"].map((priority) => [priority, form.get(priority) ? Number(form.get(priority)) : null]),
          ),
        }),
      },
    }),
  );
  const limitRuns = button("limit", "Limit runs", () =>
    frame.act({
      title: ["Limit the runs of ", peerName(now.name)],
      what: "Jobs that may not run yet wait; nothing that runs is stopped. The key of a job is its unique up to the separator. Empty means no limit.",
      button: "Limit the runs",
      method: "PATCH",
      path: "/function",
      parameters: { id },
      done: "The runs are limited",
      field: {
        make: () =>
          h(
            "div",
            { class: "fields" },
            RUN_LIMITS.map(([name, title, step]) =>
              h(
                "label",
                { class: "field" },
                title,
                h("input", { name, type: "number", min: step === "any" ? 0 : 1, step, inputmode: "decimal", placeholder: "no limit", value: now.run_limits[name] }),
              ),
            ),
          ),
        value: (form) => ({
          run_limits: Object.fromEntries(RUN_LIMITS.map(([name]) => [name, Number(form.get(name)) || null])),
        }),
      },
    }),
  );
  const cancelAll = button("cancel", "Cancel all jobs", async () => {
    const done = await frame.act({
      title: ["Cancel all jobs of ", peerName(now.name), "?"],
      what: `All ${count(now.total)} jobs that it has now end, running ones too, and those who wait for them are told that they failed. This cannot be undone.`,
      button: "Cancel all jobs",
      danger: true,
      method: "DELETE",
      path: "/function/jobs",
      parameters: { id },
      done: "All its jobs are cancelled",
    });
    if (done) load();
  });
  const drop = button("trash", "Drop", async () => {
    const done = await frame.act({
      title: ["Drop ", peerName(now.name), "?"],
      what: "The server forgets the function with its limits and counts. It must have no workers and no jobs, and comes back with the next one.",
      button: "Drop",
      danger: true,
      method: "DELETE",
      path: "/function",
      parameters: { id },
      done: "Dropped",
    });
    if (done) location.hash = "#/functions";
  });
  // Until it is known what they would do.
  for (const each of [pause, limit, limitRuns, cancelAll, drop]) enable(each, "The server has not answered yet");
  cancelAll.classList.add("danger-text");
  drop.classList.add("danger-text");

  const table = new Table(
    [
      { title: "Job", cell: (job) => ({ key: job.handle, make: () => link(`#/jobs/${encodeURIComponent(job.handle)}`, job.handle, "mono") }) },
      { title: "State", cell: (job) => ({ key: stateOf(job), make: () => stateChip(stateOf(job)) }) },
      { title: "Priority", cell: (job) => job.priority },
      { title: "For", right: true, class: "runs", cell: (job) => (gone.has(job.handle) ? "–" : age(job.since)) },
      { title: "Next run", right: true, class: "waits", cell: nextRun },
      { title: "Failed runs", right: true, class: "retries", cell: (job) => count(job.attempts) },
      { title: "Error", class: "error-cell retries", cell: (job) => ({ key: job.error || "", make: () => errorView(job.error, 1) }) },
      { title: "Progress", class: "runs", cell: progressCell },
      { title: "Worker", right: true, class: "runs", cell: workerCell },
      { title: "Size", right: true, cell: (job) => bytes(job.size) },
      { title: "Data", wide: true, class: "preview", cell: (job) => job.preview },
      { title: "", class: "action-cell retries", cell: retryCell },
    ],
    {
      empty: "No jobs here.",
      caption: "Jobs",
      onRow: (line, job) => line.classList.toggle("gone", gone.has(job.handle)),
    },
  );
  const plots = functionPlots(frame, id);
  const search = new Search(frame, "Find in data, unique or handle", "Find jobs", restart);
  const state = new Choice(frame, "state", "State", STATES, restart);
  const pages = new Pages(frame, 0, load);
  const element = h(
    "div",
    { class: "page" },
    link("#/functions", "Functions", "crumb"),
    h("div", { class: "title" }, name, chip, noWorker, h("div", { class: "actions" }, pause, limit, limitRuns, cancelAll, drop)),
    h("section", { class: "card facts", "aria-label": "The function" }, Object.values(facts).map((each) => each.element), bar),
    plots.element,
    h(
      "section",
      { class: "card" },
      h("div", { class: "card-head" }, h("h2", {}, "Jobs"), state.element, search.element, downloads(table, "jobs")),
      table.element,
      pages.element,
    ),
  );

  function stateOf(job) {
    return gone.has(job.handle) ? "ended" : job.state;
  }

  function retryCell(job) {
    if (job.state !== "retrying" || gone.has(job.handle)) return "";
    return {
      key: job.state,
      make: () => button("play", RETRY_NOW.one, () => frame.act({ ...RETRY_NOW.ask(job.handle, 1), ...RETRY_NOW.call(job), done: RETRY_NOW.done }), true),
    };
  }

  // Whether a job that is not in memory is still in the stored queue.
  function isStored(job) {
    const behind = now && now.behind ? now.behind[job.priority] : null;
    return job.state === "stored" && behind !== null && behind !== undefined && job.place > behind;
  }

  function draw() {
    if (now) {
      if (!name.querySelector("bdi")) name.replaceChildren(peerName(now.name));
      document.title = `${isolated(now.name)} · txgearman`;
      if (chip.textContent === "Paused") chip.hidden = !now.paused;
      pause.replaceChildren(icon(now.paused ? "play" : "pause"), now.paused ? "Resume" : "Pause");
      for (const each of [pause, limit, limitRuns]) enable(each);
      enable(drop, now.total ? "It has jobs" : now.workers ? "It has workers" : "");
      enable(cancelAll, now.total ? "" : "It has no jobs");
      noWorker.hidden = !lacksWorker(now);
      state.buttons.get("stored").hidden = !now.away && state.value !== "stored";
      setText(facts.queued.value, short(sum(now.queued)));
      setText(
        facts.queued.note,
        [byPriority(now.queued), now.scheduled ? `${short(now.scheduled)} scheduled` : "", now.retrying ? `${short(now.retrying)} retrying` : "", now.blocked ? `${short(now.blocked)} held back by limits` : "", now.away ? `${short(now.away)} in the store alone` : ""].filter(Boolean).join(", "),
      );
      setText(facts.running.value, short(now.running));
      setText(facts.running.note, runLimits(now.run_limits));
      setText(facts.workers.value, short(now.workers));
      setText(facts.oldest.value, age(now.since));
      setText(facts.limit.value, limits(now));
      setText(facts.limit.note, now.refused ? `${short(now.refused)} refused` : "");
      setText(facts.done.value, short(now.completed));
      setText(facts.failed.value, short(now.failed));
      setText(facts.failed.note, [now.dropped ? `${short(now.dropped)} dropped` : "", now.requeued ? `${short(now.requeued)} lost by workers` : "", now.paused_by_failures ? "paused by itself: too many in a row" : ""].filter(Boolean).join(", "));
      if (facts.dead.value.textContent !== count(now.dead)) {
        facts.dead.value.replaceChildren(now.dead ? link(`#/dead/${id}`, count(now.dead)) : "0");
        setText(facts.dead.note, now.dead ? "to retry or delete" : "");
      }
    }
    table.element.dataset.state = state.value;
    table.update(jobs, (job) => job.handle);
    pages.draw(jobs.length ? nextCursor : null, now && !search.text ? totalOf(now, state.value) : null, PAGE);
  }

  function restart() {
    pages.reset();
    load();
  }

  // Fetches the page of jobs that is shown.
  async function load() {
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    const found = [];
    let { cursor } = pages;
    table.element.classList.add("loading");
    try {
      do {
        const page = await get("/function/jobs", { id, state: state.value, search: search.text, after: cursor, limit: PAGE - found.length }, signal);
        found.push(...page.jobs.map(pointInTime));
        cursor = page.next;
        if (found.length) {
          jobs = [...found];
          draw();
        }
      } while (cursor !== null && found.length < PAGE);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.code === "no-such-function") setText(name, "There is no such function");
      else frame.toast(error instanceof Problem ? error.message : "The server cannot be reached.", true);
      cursor = null;
    }
    table.element.classList.remove("loading");
    jobs = found;
    gone = new Set();
    nextCursor = cursor;
    draw();
    follow();
  }

  const follower = new Follower(frame, (shown) => {
    if (now && !shown.function) {
      chip.hidden = false;
      setText(chip, "Dropped");
    } else if (shown.function) {
      now = shown.function;
      depths.push(sum(now.queued));
      if (depths.length > 120) depths.shift();
      spark.show(depths);
      bar.replaceChildren(mix(now.queued));
    }
    gone = new Set(jobs.filter((job) => !(shown.rows && shown.rows[job.handle]) && !isStored(job)).map((job) => job.handle));
    jobs = jobs.map((job) => (shown.rows && shown.rows[job.handle]) || job);
    draw();
    // Most of the first page has gone: show the jobs that are there now.
    if (jobs.length && gone.size > jobs.length / 2 && pages.isFirst) load();
  });

  function follow() {
    follower.follow({ view: "function", id, handles: jobs.map((job) => job.handle).join(",") });
  }

  load();
  const ticking = setInterval(draw, 1000);
  return {
    title: "Function",
    element,
    close() {
      asked.abort();
      clearInterval(ticking);
      search.close();
      plots.close();
      follower.close();
    },
  };
}

// How many jobs of a function are in a state.
function totalOf(row, state) {
  const totals = { "": row.total, queued: sum(row.queued), running: row.running, scheduled: row.scheduled, retrying: row.retrying, stored: row.away };
  return totals[state];
}

function fact(title) {
  const value = h("strong", {}, "–");
  const note = h("small", {});
  return { element: h("div", { class: "fact" }, h("span", {}, title), value, note), value, note };
}

// Said only where not all are of the same priority.
function byPriority(queued) {
  const kinds = Object.entries(queued).filter(([, number]) => number > 0);
  if (kinds.length < 2) return "";
  return kinds.map(([priority, number]) => `${short(number)} ${priority}`).join(", ");
}

function button(sign, title, act, isSmall = false) {
  return h("button", { type: "button", class: isSmall ? "act small" : "act", click: act }, icon(sign), title);
}

export function pointInTime(job) {
  const { seconds, ...rest } = job;
  return { ...rest, since: seconds === null ? null : serverNow() - seconds };
}

export function stateChip(state) {
  return h("span", { class: `chip state ${state}` }, state);
}

function progressCell(job) {
  if (!job.denominator) return "";
  const part = Math.min(1, job.numerator / job.denominator);
  return { key: `${job.numerator}/${job.denominator}`, make: () => progressBar(part, `${job.numerator} of ${job.denominator}`) };
}

export function progressBar(part, title) {
  const percent = Math.round(part * 100);
  return h(
    "span",
    { class: "progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": percent, "aria-label": title || "Progress", title },
    h("span", {}, h("i", { style: { width: `${percent}%` } })),
    h("em", {}, `${percent} %`),
  );
}

function workerCell(job) {
  if (job.worker === null || job.worker === undefined) return "";
  return { key: String(job.worker), make: () => link(`#/connections?at=${job.worker}`, `#${job.worker}`) };
}

// What limits the runs of a function, in a few words.
function runLimits(rules) {
  return [
    rules.max_running ? `${short(rules.max_running)} at a time` : "",
    rules.max_running_per_key ? `${short(rules.max_running_per_key)} of a key, up to "${rules.key_separator}"` : "",
    rules.start_rate ? `${rules.start_rate} begin in a second` : "",
    rules.start_burst ? `${short(rules.start_burst)} at once` : "",
    rules.pause_after ? `paused after ${short(rules.pause_after)} failures` : "",
  ]
    .filter(Boolean)
    .join(", ");
}
