// What a failure looks like, and what can be done about a failed job.

import { h } from "./dom.js";
import { count, duration } from "./format.js";
import { serverNow } from "./live.js";

// -- actions on one job, on its own page and in lists ---------------------------------------------

// The action of running a job again, for jobs of both kinds.
function retryAction(one, some, what, done) {
  return {
    icon: "play",
    one,
    some,
    done,
    ask: (which, number) => ({ title: `${one}: ${which}?`, what: what(number), button: one }),
    call: (job) => ({ method: "POST", path: `/jobs/${encodeURIComponent(job.handle)}/retry` }),
  };
}

export const RETRY_DEAD = retryAction(
  "Retry",
  "Retry selected",
  (number) =>
    number === 1
      ? "It keeps its handle, unique, priority and data, has all its attempts anew, and goes to the end of its queue."
      : "They keep their handles, uniques, priorities and data, have all their attempts anew, and go to the end of their queues.",
  "retried",
);

export const FORGET_DEAD = {
  icon: "trash",
  one: "Delete",
  some: "Delete selected",
  danger: true,
  done: "deleted",
  ask: (which) => ({ title: `Delete ${which}?`, what: "The data and the error are lost. This cannot be undone.", button: "Delete", danger: true }),
  call: (job) => ({ method: "DELETE", path: `/jobs/${encodeURIComponent(job.handle)}` }),
};

export const RETRY_NOW = retryAction(
  "Retry now",
  "Retry selected now",
  (number) => (number === 1 ? "It does not wait for its time. The attempts that it has had count." : "They do not wait for their time. The attempts that they have had count."),
  "queued",
);

export const CANCEL_RETRY = {
  icon: "cancel",
  one: "Cancel",
  some: "Cancel selected",
  danger: true,
  done: "cancelled",
  ask: (which) => ({ title: `Cancel ${which}?`, what: "It is not run again, and is not kept as dead. This cannot be undone.", button: "Cancel it", danger: true }),
  call: (job) => ({ method: "DELETE", path: `/jobs/${encodeURIComponent(job.handle)}` }),
};

// -- what a failed job shows ----------------------------------------------------------------------

// When a job that waits for its time is queued.
export function nextRun(job) {
  if (job.next_run === null || job.next_run === undefined) return "–";
  const wait = job.next_run - serverNow();
  return wait > 0 ? `in ${duration(wait)}` : "now";
}

const FAILURES = new Set(["failed", "raised", "timed-out", "lost"]);

export function outcomeChip(outcome) {
  return h("span", { class: `chip ${FAILURES.has(outcome) ? "bad" : outcome}` }, outcome);
}

// An error with its line breaks. Of a long one the lines that say most come first, and the rest when it is opened.
export function errorView(error, few) {
  if (!error) return h("span", { class: "about" }, "no text");
  const lines = error.trimEnd().split("\n");
  if (lines.length <= few) return h("pre", { class: "error" }, lines.join("\n"));
  // A traceback ends with what went wrong.
  const telling = lines[0].startsWith("Traceback") ? lines[lines.length - 1] : lines[0];
  return h(
    "details",
    { class: "error" },
    h("summary", {}, h("bdi", {}, telling), h("small", {}, ` ${count(lines.length)} lines`)),
    h("pre", { class: "error" }, error),
  );
}
