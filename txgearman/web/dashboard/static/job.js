// One job: where it is, how far it is, what became of its runs, and its data.

import { h, icon, link, peerName, setText } from "./dom.js";
import { errorView, FORGET_DEAD, nextRun, outcomeChip, RETRY_DEAD, RETRY_NOW } from "./failure.js";
import { count, duration, moment } from "./format.js";
import { pointInTime, progressBar, stateChip } from "./function.js";
import { decoded, get, getBytes, Problem, serverNow, Stream } from "./live.js";
import { payloadView } from "./payload.js";

const WAY = ["scheduled", "queued", "running", "retrying", "end"];
const LOOK_AGAIN = 5000;
// Lines of an error that are shown before it is opened.
const FEW_LINES = 30;

// In the dialog of a running job: whether its worker loses the connection where it cannot be told.
const FORCE = {
  make: () => h("label", { class: "check" }, h("input", { name: "force", type: "checkbox" }), "End the connection of a worker that cannot be told. Its other jobs go to others."),
  parameters: (form) => (form.get("force") ? { force: true } : {}),
};

export function jobPage(frame, id) {
  const handle = decoded(id);
  let job = null;
  // The server knows nothing of it any more.
  let isForgotten = false;
  let shownSize = null;
  let again = 0;
  let loads = 0;
  let isStreamed = false;
  let stream = null;
  const asked = new AbortController();

  const crumb = h("span", { class: "crumb" });
  const chip = h("span", {});
  const cancel = button("cancel", "Cancel the job", true, () => ({
    title: `Cancel ${handle}?`,
    what:
      job.state === "running"
        ? "Its worker is told to stop, if it can be told; otherwise it goes on, and what it reports is dropped. Those who wait are told that the job failed."
        : "The job ends, and those who wait for it are told that it failed. This cannot be undone.",
    button: "Cancel the job",
    danger: true,
    method: "DELETE",
    path: `/jobs/${id}`,
    done: "Cancelled",
    field: job.state === "running" ? FORCE : null,
  }));
  const retryNow = button("play", "Retry now", false, () => ({ ...RETRY_NOW.ask(handle, 1), ...RETRY_NOW.call({ handle }), done: "Queued" }));
  const retry = button("play", "Retry", false, () => ({ ...RETRY_DEAD.ask(handle, 1), ...RETRY_DEAD.call({ handle }), done: "Queued" }));
  const forget = button("trash", "Delete", true, () => ({ ...FORGET_DEAD.ask(handle, 1), ...FORGET_DEAD.call({ handle }), done: "Deleted" }));
  const steps = WAY.map((state) => h("li", { "data-state": state }, h("i", { "aria-hidden": "true" }), h("span", {}, state)));
  const way = h("ol", { class: "way", "aria-label": "Its way" }, steps);
  const progress = h("div", { class: "progress-big" });
  const list = h("dl", { class: "list" });
  const facts = h("section", { class: "card", "aria-label": "The job", hidden: true }, list);
  const runs = h("ol", { class: "runs-list" });
  const runsNote = h("span", { class: "about" });
  const runsCard = h("section", { class: "card", hidden: true }, h("div", { class: "card-head" }, h("h2", {}, "Runs"), runsNote), runs);
  const payload = h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Data")), h("p", { class: "empty" }, "…"));
  const element = h(
    "div",
    { class: "page" },
    crumb,
    h("div", { class: "title" }, h("h1", { class: "mono" }, handle), chip, h("div", { class: "actions" }, retryNow, retry, cancel, forget)),
    h("section", { class: "card" }, way, progress),
    runsCard,
    facts,
    payload,
  );

  function button(sign, title, danger, question) {
    return h(
      "button",
      {
        type: "button",
        class: danger ? "act danger-text" : "act",
        hidden: true,
        click: async () => {
          if (await frame.act(question())) load();
        },
      },
      icon(sign),
      title,
    );
  }

  function isOver() {
    return job.state === "ended" || job.state === "dead";
  }

  function draw() {
    if (!job) return;
    const over = isOver();
    if (isForgotten) chip.replaceChildren(stateChip("forgotten"));
    else if (!over) chip.replaceChildren(stateChip(job.state));
    else chip.replaceChildren(...(job.state === "dead" ? [stateChip("dead"), " "] : []), outcomeChip(job.outcome));
    cancel.hidden = over || isForgotten;
    retryNow.hidden = job.state !== "retrying" || isForgotten;
    retry.hidden = forget.hidden = job.state !== "dead" || isForgotten;
    drawWay();
    progress.hidden = !job.denominator;
    if (job.denominator) progress.replaceChildren(progressBar(Math.min(1, job.numerator / job.denominator), `${job.numerator} of ${job.denominator}`));
    writeFacts([
      ["Function", link(`#/functions/${job.function_id}`, peerName(job.function))],
      ["Submitted", `${moment(job.submitted)}, ${duration(serverNow() - job.submitted)} ago`],
      ["running", "queued"].includes(job.state) ? [job.state === "running" ? "Runs for" : "Waits for", sinceText(job)] : null,
      job.state === "scheduled" ? ["Due", nextRun(job)] : null,
      job.state === "retrying" ? ["Next run", `${moment(job.next_run)}, ${nextRun(job)}`] : null,
      !over && job.left !== undefined && job.left !== null ? ["Time left", duration(job.left)] : null,
      over ? ["Ended", `${moment(job.ended)}, ${duration(serverNow() - job.ended)} ago`] : null,
      over ? ["Outcome", job.outcome] : null,
      ["Failed runs", job.attempts ? count(job.attempts) : "none"],
      ["Workers lost", job.losses ? count(job.losses) : "none"],
      ["Priority", job.priority],
      ["Kind", job.background ? "background" : "foreground"],
      over ? null : ["Progress", job.denominator ? `${job.numerator} of ${job.denominator}` : "none reported"],
      over ? ["Last worker", job.last_worker || "none"] : ["Worker", job.worker ? link(`#/connections?at=${job.worker}`, `connection ${job.worker}`) : "none"],
      over ? null : ["Clients waiting", String(job.clients)],
      ["Unique", job.unique || "none"],
      job.reducer ? ["Reducer", job.reducer] : null,
      ...ownOptions(job.options),
    ]);
    drawRuns();
  }

  function drawWay() {
    const over = isOver();
    // What is only in the store is queued there, and what is being saved is not yet.
    const at = over ? "end" : job.state === "stored" || job.state === "saving" ? "queued" : job.state;
    way.classList.toggle("over", over);
    for (const step of steps) {
      const { state } = step.dataset;
      if (state === "scheduled") step.hidden = at !== "scheduled";
      // Only what is or has been retried goes this way.
      if (state === "retrying") step.hidden = at !== "retrying";
      if (state === "end") {
        setText(step.lastElementChild, over ? (job.state === "dead" ? "dead" : job.outcome) : "end");
        step.classList.toggle("bad", over && job.outcome !== "completed");
      }
      step.classList.toggle("at", state === at);
      step.classList.toggle("past", WAY.indexOf(state) < WAY.indexOf(at));
    }
  }

  let drawnRuns = "";
  function drawRuns() {
    const failed = job.runs || [];
    const now = job.state === "running" ? job.started : null;
    const key = JSON.stringify([job.state, job.outcome, job.ended, now !== null, job.attempts, failed.length, job.error, job.warnings, job.next_run]);
    if (key === drawnRuns) return;
    drawnRuns = key;
    const earlier = Math.max(0, job.attempts - failed.length);
    const rows = failed.map((run, index) =>
      runRow(`Run ${earlier + index + 1}`, outcomeChip(run.outcome), [took(run), moment(run.ended), run.worker ? `worker ${run.worker}` : ""], errorView(run.error, FEW_LINES)),
    );
    const next = job.attempts + 1;
    if (job.state === "running") rows.push(runRow(`Run ${next}`, stateChip("running"), [now === null ? "" : `since ${moment(now)}`]));
    else if (job.state === "retrying") rows.push(runRow(`Run ${next}`, stateChip("retrying"), [`at ${moment(job.next_run)}`]));
    else if (job.state === "ended" && job.outcome === "completed") {
      rows.push(runRow(`Run ${next}`, outcomeChip("completed"), [took(job), moment(job.ended), job.last_worker ? `worker ${job.last_worker}` : ""]));
    } else if (isOver() && !(failed.length && failed[failed.length - 1].outcome === job.outcome)) {
      // It did not end by the failure of a run, or this server has not seen that run.
      rows.push(runRow("End", outcomeChip(job.outcome), [moment(job.ended)], job.error && !failed.length ? errorView(job.error, FEW_LINES) : null));
    }
    for (const warning of job.warnings || []) rows.push(runRow("Warning", "", [], errorView(warning, FEW_LINES)));
    setText(runsNote, earlier ? `${count(earlier)} more failed that this server does not remember` : "");
    runsCard.hidden = rows.length === 0;
    runs.replaceChildren(...rows);
  }

  let written = "";
  function writeFacts(rows) {
    const shown = rows.filter(Boolean);
    const said = JSON.stringify(shown.map(([title, value]) => [title, typeof value === "string" ? value : value.textContent]));
    if (said === written) return;
    written = said;
    facts.hidden = false;
    list.replaceChildren(...shown.map(([title, value]) => h("div", {}, h("dt", {}, title), h("dd", {}, value))));
  }

  function drawPayload() {
    const size = isForgotten ? null : job.size;
    const key = `${size} ${job.state === "ended"} ${isForgotten}`;
    if (key === shownSize) return;
    // What was shown before the end stays to be seen.
    if (size === null && shownSize !== null && isOver()) return;
    shownSize = key;
    if (size !== null) {
      payload.replaceChildren(...payloadView(size, (offset, length) => getBytes(`/jobs/${id}/data`, { offset, length }, asked.signal), handle));
      return;
    }
    const why = isOver() ? "The job has ended, and its data is not kept." : "Another server on the same store has this job, and its data.";
    payload.replaceChildren(h("div", { class: "card-head" }, h("h2", {}, "Data")), h("p", { class: "empty" }, why));
  }

  async function load() {
    clearTimeout(again);
    const number = ++loads;
    try {
      const answer = await get(`/jobs/${id}`, {}, asked.signal);
      // Answers may come in another order than they were asked for; an old one would undo the job's end.
      if (number !== loads) return;
      job = pointInTime(answer);
      isForgotten = false;
      draw();
      crumb.replaceChildren(link(`#/functions/${job.function_id}`, peerName(job.function), "crumb"));
      drawPayload();
      follow();
      // The stream tells nothing of what is not in the server's memory, nor of a run that began and ended between
      // two of its looks.
      if (job.state !== "ended" && !isStreamed) again = setTimeout(load, LOOK_AGAIN);
    } catch (error) {
      if (asked.signal.aborted || number !== loads) return;
      frame.onState("live");
      if (job) {
        // It was shown before; only that it has gone is news.
        isForgotten = error instanceof Problem && error.status === 404;
        if (!isForgotten) again = setTimeout(load, LOOK_AGAIN);
        draw();
        return;
      }
      const text = error instanceof Problem && error.status === 404 ? "The server does not know this job. It ended long ago, or never was." : error.message;
      payload.replaceChildren(h("p", { class: "empty" }, text));
      way.hidden = true;
    }
  }

  function follow() {
    if (stream) return;
    stream = new Stream(
      { view: "jobs", handles: handle },
      {
        onState: frame.onState,
        onEvent: (event) => event === "rights" && frame.onRights(),
        onChange(shown) {
          const row = shown.rows && Object.values(shown.rows)[0];
          const before = job;
          isStreamed = Boolean(row);
          if (isStreamed) clearTimeout(again);
          // A member that is missing here is null.
          if (row) job = { ...Object.fromEntries(Object.keys(job).map((name) => [name, null])), runs: job.runs, warnings: job.warnings, last_worker: job.last_worker, options: job.options, ...row };
          // Runs are not in the stream, and neither is the end.
          const isNew = row ? row.attempts !== before.attempts || row.state !== before.state : !isOver() && job.state !== "stored";
          if (isNew) load();
          else draw();
        },
      },
    );
  }

  load();
  const ticking = setInterval(draw, 1000);
  return {
    title: handle,
    element,
    close() {
      asked.abort();
      clearInterval(ticking);
      clearTimeout(again);
      if (stream) stream.close();
    },
  };
}

function runRow(title, chip, notes, more = null) {
  return h("li", {}, h("div", { class: "run" }, h("strong", {}, title), chip, h("span", { class: "about" }, notes.filter(Boolean).join(" · "))), more);
}

function took(run) {
  return run.started === null || run.started === undefined ? "" : `took ${duration(run.ended - run.started)}`;
}

// What was said of this job alone, at its submission.
function ownOptions(options) {
  const seconds = (number) => (number ? duration(number) : "none");
  return [
    options.attempts === null ? null : ["Attempts allowed", count(options.attempts)],
    options.backoff === null ? null : ["Backoff", seconds(options.backoff)],
    options.expires === null ? null : ["Expires", options.expires ? `after ${duration(options.expires)}` : "never"],
    options.keep_result === null ? null : ["Result kept for", seconds(options.keep_result)],
    options.unique_for === null ? null : ["Unique kept for", seconds(options.unique_for)],
    options.traceparent === null ? null : ["Trace parent", options.traceparent],
  ];
}

function sinceText(job) {
  return job.since === null || job.since === undefined ? "–" : duration(serverNow() - job.since);
}
