// One job: where it is, how far it is, and its data.

import { h, icon, link, peerName } from "./dom.js";
import { duration, moment } from "./format.js";
import { get, getBytes, Problem, serverNow, Stream } from "./live.js";
import { pointInTime, progressBar, stateChip } from "./function.js";
import { payloadView } from "./payload.js";

const WAY = ["scheduled", "queued", "running"];
const LOOK_AGAIN = 5000;

export function jobPage(frame, id) {
  const handle = decoded(id);
  let job = null;
  let over = false;
  let isShown = false;
  let again = 0;
  let stream = null;
  const asked = new AbortController();

  const crumb = h("span", { class: "crumb" });
  const chip = h("span", {});
  const cancel = h(
    "button",
    {
      type: "button",
      class: "act danger-text",
      hidden: true,
      click: async () => {
        const done = await frame.act({
          title: `Cancel ${handle}?`,
          what:
            job.state === "running"
              ? "Its worker is not told and goes on, but what it reports is dropped. Those who wait are told that the job failed."
              : "The job ends, and those who wait for it are told that it failed. This cannot be undone.",
          button: "Cancel the job",
          danger: true,
          method: "DELETE",
          path: `/jobs/${id}`,
          done: "Cancelled",
        });
        // Nothing would tell of a job that is only in the store.
        if (done && !stream) {
          clearTimeout(again);
          load();
        }
      },
    },
    icon("cancel"),
    "Cancel the job",
  );
  const steps = WAY.map((state) => h("li", { "data-state": state }, h("i", { "aria-hidden": "true" }), state));
  const way = h("ol", { class: "way", "aria-label": "Its way" }, steps);
  const progress = h("div", { class: "progress-big" });
  const list = h("dl", { class: "list" });
  const payload = h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Data")), h("p", { class: "empty" }, "…"));
  const element = h(
    "div",
    { class: "page" },
    crumb,
    h("div", { class: "title" }, h("h1", { class: "mono" }, handle), chip, h("div", { class: "actions" }, cancel)),
    h("section", { class: "card" }, way, progress, list),
    payload,
  );

  function draw() {
    if (!job) return;
    const state = over ? "gone" : job.state;
    chip.replaceChildren(stateChip(state));
    cancel.hidden = over;
    way.classList.toggle("over", over);
    for (const step of steps) {
      if (step.dataset.state === "scheduled") step.hidden = job.state !== "scheduled";
      // What is only in the store is queued there.
      const at = job.state === "stored" ? "queued" : job.state;
      step.classList.toggle("at", !over && step.dataset.state === at);
      step.classList.toggle("past", over || WAY.indexOf(step.dataset.state) < WAY.indexOf(at));
    }
    progress.hidden = !job.denominator;
    if (job.denominator) progress.replaceChildren(progressBar(Math.min(1, job.numerator / job.denominator), `${job.numerator} of ${job.denominator}`));
    facts([
      ["Function", link(`#/functions/${job.function_id}`, peerName(job.function))],
      ["Submitted", `${moment(job.submitted)}, ${duration(serverNow() - job.submitted)} ago`],
      over ? null : ["running", "queued"].includes(job.state) ? [job.state === "running" ? "Runs for" : "Waits for", sinceText(job)] : null,
      !over && job.state === "scheduled" ? ["Due", `in ${duration(job.run_in)}`] : null,
      !over && job.left !== undefined && job.left !== null ? ["Time left", duration(job.left)] : null,
      ["Priority", job.priority],
      ["Kind", job.background ? "background" : "foreground"],
      ["Workers lost", job.losses ? String(job.losses) : "none"],
      ["Failed runs", job.attempts ? String(job.attempts) : "none"],
      job.outcome ? ["Outcome", job.outcome] : null,
      job.ended ? ["Ended", moment(job.ended)] : null,
      job.state === "retrying" && job.next_run ? ["Next run", moment(job.next_run)] : null,
      ["Progress", job.denominator ? `${job.numerator} of ${job.denominator}` : "none reported"],
      ["Worker", job.worker ? link(`#/connections?at=${job.worker}`, `connection ${job.worker}`) : "none"],
      ["Clients waiting", String(job.clients)],
      ["Unique", job.unique || "none"],
      job.reducer ? ["Reducer", job.reducer] : null,
    ]);
  }

  let written = "";
  function facts(rows) {
    const shown = rows.filter(Boolean);
    const said = JSON.stringify(shown.map(([title, value]) => [title, typeof value === "string" ? value : value.textContent]));
    if (said === written) return;
    written = said;
    list.replaceChildren(...shown.map(([title, value]) => h("div", {}, h("dt", {}, title), h("dd", {}, value))));
  }

  async function load() {
    try {
      job = pointInTime(await get(`/jobs/${id}`, {}, asked.signal));
      draw();
      crumb.replaceChildren(link(`#/functions/${job.function_id}`, peerName(job.function), "crumb"));
      if (job.size === null) {
        payload.replaceChildren(h("p", { class: "empty" }, "Another server on the same store has this job, and its data."));
      } else if (!isShown) {
        payload.replaceChildren(
          ...payloadView(job.size, (offset, length) => getBytes(`/jobs/${id}/data`, { offset, length }, asked.signal), handle),
        );
        isShown = true;
      }
      if (job.state !== "stored") follow();
      else {
        // The server tells nothing of what is not in its memory.
        frame.onState("live");
        again = setTimeout(load, LOOK_AGAIN);
      }
    } catch (error) {
      if (asked.signal.aborted) return;
      frame.onState("live");
      if (job) {
        // It was shown before; only that it has gone is news.
        over = error instanceof Problem && error.status === 404;
        if (!over) again = setTimeout(load, LOOK_AGAIN);
        draw();
        return;
      }
      const text = error instanceof Problem && error.status === 404 ? "The server does not have this job. It ended, or never was." : error.message;
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
          if (row) job = row;
          over = !row;
          draw();
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

function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    // It was typed; the server says that there is no such job.
    return id;
  }
}

function sinceText(job) {
  return job.since === null || job.since === undefined ? "–" : duration(serverNow() - job.since);
}

