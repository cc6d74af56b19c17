// Recurring jobs: when they come next, what became of the last one, and what can be done with them.

import { h, icon, link, peerName, setText, Table } from "./dom.js";
import { outcomeChip } from "./failure.js";
import { count, duration, moment } from "./format.js";
import { downloads, Follower, Search } from "./list.js";
import { change, get, Problem, serverNow } from "./live.js";

// Ticks that are shown before a schedule is saved.
const PREVIEW = 10;
// Milliseconds without a key until the preview is asked for.
const TYPING = 300;
// Seconds until a job that has not ended is asked for again.
const ASK_AGAIN = 5;
const OVERLAPS = [
  ["skip", "Skip the tick"],
  ["queue", "Queue its job"],
];
const MISSED = [
  ["one", "One job for all"],
  ["skip", "None"],
  ["all", "A job for each"],
];

export function schedulesPage(frame) {
  let shown = null;
  let closed = false;
  // The last job of each schedule, by handle: {job, asked}, job being null where the server knows no more of it.
  const lastJobs = new Map();
  // What is shown of a schedule's last job, by schedule: it stays until more is known of the next one.
  const shownLast = new Map();
  let asking = false;

  const table = new Table(
    [
      { title: "Schedule", cell: nameCell, wide: true },
      { title: "When", cell: whenCell },
      { title: "Next", cell: nextCell },
      { title: "Last job", cell: lastCell },
      { title: "Ticks", right: true, cell: (row) => count(row.counts.ticks) },
      { title: "Skipped", right: true, cell: (row) => count(row.counts.skipped) },
      { title: "Missed", right: true, cell: missedCell },
      { title: "", cell: actionCell, class: "action-cell several" },
    ],
    { empty: "No schedule here. One lets the server submit a job again and again.", caption: "Schedules" },
  );
  const total = h("span", { class: "about" });
  const search = new Search(frame, "Find a schedule", "Find a schedule", follow);
  const element = h(
    "div",
    { class: "page" },
    h(
      "div",
      { class: "title" },
      h("h1", {}, "Schedules"),
      search.element,
      downloads(table, "schedules"),
      total,
      button("play", "Add a schedule", "Add a schedule", add),
    ),
    h("section", { class: "card" }, table.element),
  );

  // -- cells --

  function nameCell(row) {
    return {
      key: `${row.name} ${row.function_id} ${row.state} ${row.of_file}`,
      make: () => [
        h("span", { class: "name" }, peerName(row.name)),
        row.state === "active" ? "" : h("span", { class: "chip warn" }, row.state),
        row.of_file ? h("span", { class: "chip", title: "It is in the configuration file, and is changed there" }, "file") : "",
        h("small", {}, link(`#/functions/${row.function_id}`, peerName(row.function), "name")),
      ],
    };
  }

  function whenCell(row) {
    const text = row.cron === null || row.cron === undefined ? everyText(row.every) : row.cron;
    return { key: `${text} ${row.timezone}`, make: () => [h("span", { class: "mono" }, text), row.cron ? h("small", {}, row.timezone) : ""] };
  }

  function nextCell(row) {
    if (row.next === null || row.next === undefined) return "–";
    return {
      key: `${row.next} ${duration(row.next - serverNow())}`,
      make: () => [`in ${duration(row.next - serverNow())}`, h("small", {}, moment(row.next)), elsewhere(row.next, row.timezone)],
    };
  }

  function lastCell(row) {
    if (!row.last) return "–";
    // A copy, as the next patch changes the object that it is of.
    if (lastJobs.has(row.last.handle) || !shownLast.has(row.id)) shownLast.set(row.id, { ...row.last });
    const last = shownLast.get(row.id);
    const known = lastJobs.get(last.handle);
    const job = known ? known.job : null;
    const took = job && job.started && job.ended ? duration(job.ended - job.started) : "";
    const late = last.lateness >= 1 ? `${duration(last.lateness)} late` : "in time";
    return {
      key: `${last.handle} ${job ? `${job.state} ${job.outcome}` : ""} ${took} ${late}`,
      make: () => [
        link(`#/jobs/${encodeURIComponent(last.handle)}`, last.handle, "mono"),
        job ? (job.outcome ? outcomeChip(job.outcome) : h("span", { class: "chip" }, job.state)) : "",
        h("small", {}, [moment(last.tick), late, took && `took ${took}`].filter(Boolean).join(" · ")),
      ],
    };
  }

  function missedCell(row) {
    const { missed, refused } = row.counts;
    return { key: `${missed} ${refused}`, make: () => [count(missed), refused ? h("small", {}, `${count(refused)} refused`) : ""] };
  }

  function actionCell(row) {
    return {
      key: `${row.paused} ${row.of_file}`,
      make: () => [
        button("play", "Run now", `Run ${row.name} now`, () => run(row)),
        row.paused
          ? button("play", "Resume", `Resume ${row.name}`, () => pause(row, false))
          : button("pause", "Pause", `Pause ${row.name}`, () => pause(row, true)),
        row.of_file ? "" : button("limit", "Change", `Change ${row.name}`, () => edit(row)),
        row.of_file ? "" : button("trash", "Remove", `Remove ${row.name}`, () => remove(row)),
      ],
    };
  }

  // -- actions --

  function run(row) {
    return frame.act({
      title: ["Run ", peerName(row.name), " now?"],
      what: "A job of it is submitted. While one of its jobs lives, unless its ticks are queued, there is no second one.",
      button: "Run now",
      method: "POST",
      path: `/schedules/${row.id}/run`,
      done: ({ handle }) => `Submitted ${handle}`,
    });
  }

  function pause(row, paused) {
    return frame.act({
      title: [paused ? "Pause " : "Resume ", peerName(row.name), "?"],
      what: paused ? "It ticks no more until it is resumed. What it misses is not made up for." : "It goes on with its next tick.",
      button: paused ? "Pause" : "Resume",
      method: "PATCH",
      path: `/schedules/${row.id}`,
      value: { paused },
      done: paused ? "Paused" : "Resumed",
    });
  }

  function remove(row) {
    return frame.act({
      title: ["Remove ", peerName(row.name), "?"],
      what: "It ticks no more, and its definition is lost. Jobs of it that are there go on.",
      button: "Remove",
      danger: true,
      method: "DELETE",
      path: `/schedules/${row.id}`,
      done: "Removed",
    });
  }

  function add() {
    return frame.act({
      title: "Add a schedule",
      what: "The server submits a job of the function again and again.",
      button: "Add",
      method: "PUT",
      field: definition(null),
      done: "Added",
    });
  }

  async function edit(row) {
    let whole;
    try {
      whole = await get(`/schedules/${row.id}`, {});
    } catch (error) {
      frame.toast(error instanceof Problem ? error.message : "The server cannot be reached.", true);
      return;
    }
    await frame.act({
      title: ["Change ", peerName(row.name)],
      what: "What is not shown here stays as it is.",
      button: "Save",
      method: "PATCH",
      field: definition(whole),
      done: "Saved",
    });
  }

  // -- showing --

  function draw() {
    if (!shown) return;
    const rows = shown.order.map((key) => shown.rows[key]);
    table.update(rows, (row) => row.id);
    setText(total, rows.length < shown.total ? `The first ${count(rows.length)} of ${count(shown.total)}` : `${count(shown.total)} in all`);
    askForLastJobs(rows);
  }

  // One after the other, so that many schedules do not keep the server busy.
  async function askForLastJobs(rows) {
    if (asking) return;
    asking = true;
    const handles = new Set(rows.map((row) => row.last && row.last.handle).filter(Boolean));
    const kept = new Set([...handles, ...[...shownLast.values()].map((last) => last.handle)]);
    for (const handle of lastJobs.keys()) if (!kept.has(handle)) lastJobs.delete(handle);
    for (const handle of handles) {
      const known = lastJobs.get(handle);
      if (known && (!known.job || known.job.state === "ended" || known.asked > serverNow() - ASK_AGAIN)) continue;
      let job = null;
      try {
        job = await get(`/jobs/${encodeURIComponent(handle)}`, {});
      } catch (error) {
        // The server remembers so many ended jobs, and no more.
        if (!(error instanceof Problem && error.status === 404)) break;
      }
      if (closed) return;
      lastJobs.set(handle, { job, asked: serverNow() });
      draw();
    }
    asking = false;
  }

  const follower = new Follower(frame, (now) => {
    shown = now;
    draw();
  });

  function follow() {
    follower.follow({ view: "schedules", search: search.text });
  }

  follow();
  const ticking = setInterval(draw, 1000);
  return {
    title: "Schedules",
    element,
    close() {
      closed = true;
      search.close();
      follower.close();
      clearInterval(ticking);
    },
  };
}

function everyText(seconds) {
  if (seconds % 3600 === 0) return `every ${seconds / 3600} h`;
  if (seconds % 60 === 0) return `every ${seconds / 60} m`;
  return `every ${seconds} s`;
}

function button(sign, text, label, click) {
  return h("button", { type: "button", class: "act small schedule", "aria-label": label, click }, icon(sign), text);
}

// The time in the zone of a schedule, where that is not the viewer's.
function elsewhere(seconds, zone) {
  const shown = inZone(seconds, zone);
  return shown && shown !== moment(seconds) ? h("small", {}, `${shown} ${zone}`) : "";
}

function inZone(seconds, timeZone) {
  const date = new Date(seconds * 1000);
  try {
    const time = date.toLocaleTimeString("en-GB", { timeZone, hour12: false });
    return `${date.toLocaleDateString("en-CA", { timeZone })} ${time}`;
  } catch {
    // The browser does not know every zone that the server knows.
    return "";
  }
}

// -- the form of a schedule -----------------------------------------------------------------------

// What a dialog asks for: of a new schedule all, of one that there is all but its name.
function definition(before) {
  const ticks = h("ol", { class: "ticks" });
  const note = h("p", { class: "about", role: "status" }, "The next ticks are shown here.");
  let typing = 0;
  let asked = 0;

  async function preview(form) {
    const values = valuesOf(new FormData(form), before);
    if (!values.function || (!values.cron && !values.every)) return;
    asked += 1;
    const mine = asked;
    try {
      const body = before ? { ...values, jitter: before.jitter, data: null } : { ...values, data: null };
      const answer = await change("POST", `${placeOf(new FormData(form), before)}/preview`, { limit: PREVIEW }, body);
      if (mine !== asked) return;
      setText(note, answer.ticks.length ? "It comes next, by your clock:" : "It never comes.");
      ticks.replaceChildren(...answer.ticks.map((tick) => h("li", {}, moment(tick), " ", elsewhere(tick, values.timezone || "UTC"))));
    } catch (error) {
      if (mine !== asked) return;
      setText(note, error instanceof Problem ? error.message : "The server cannot be reached.");
      ticks.replaceChildren();
    }
  }

  function make() {
    const value = (name, other = "") => (before && before[name] !== null && before[name] !== undefined ? String(before[name]) : other);
    const body = h(
      "div",
      { class: "definition" },
      before ? null : text("Name", "name", "", { required: true, autofocus: true, maxlength: 51, pattern: "\\S+" }),
      text("Function", "function", value("function"), { required: true }),
      text("Cron: minute, hour, day, month, weekday", "cron", value("cron"), { placeholder: "30 3 * * mon-fri", autocomplete: "off" }),
      text("Or every", "every", value("every"), { placeholder: "90s" }),
      text("Time zone", "timezone", value("timezone", "UTC"), {}),
      before && before.data_base64 ? null : h("label", { class: "field whole" }, "Data", h("textarea", { name: "data", rows: 2 }, value("data"))),
      choice("While the job before lives", "overlap", OVERLAPS, value("overlap", "skip")),
      choice("Jobs for missed ticks", "missed", MISSED, value("missed", "one")),
      note,
      ticks,
    );
    body.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => preview(body.closest("form")), TYPING);
    });
    if (before) typing = setTimeout(() => preview(body.closest("form")), 0);
    return body;
  }

  return { make, value: (form) => valuesOf(form, before), path: (form) => placeOf(form, before) };
}

function text(title, name, value, more) {
  return h("label", { class: "field" }, title, h("input", { name, value, ...more }));
}

function choice(title, name, options, chosen) {
  return h("label", { class: "field" }, title, h("select", { name }, options.map(([value, shown]) => h("option", { value, selected: value === chosen }, shown))));
}

function valuesOf(form, before) {
  const said = (name) => String(form.get(name) || "").trim() || null;
  const every = said("every");
  const values = {
    function: said("function"),
    cron: said("cron"),
    every: every !== null && /^\d+$/.test(every) ? Number(every) : every,
    timezone: said("timezone"),
    overlap: said("overlap"),
    missed: said("missed"),
  };
  return before && before.data_base64 ? values : { ...values, data: String(form.get("data") || "") };
}

function placeOf(form, before) {
  return `/schedules/${before ? before.id : encodeURIComponent(String(form.get("name")) || "new")}`;
}
