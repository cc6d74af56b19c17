// What a text leads to: a job by its handle or unique, functions by a part of their names.

import { h, link, peerName } from "./dom.js";
import { count } from "./format.js";
import { stateChip } from "./function.js";
import { get, Problem } from "./live.js";

export function searchPage(frame, _id, parameters) {
  const text = parameters.get("text") || "";
  const asked = new AbortController();
  const result = h("div", { class: "found", "aria-live": "polite" }, h("p", { class: "empty" }, "…"));
  const further = encodeURIComponent(text);
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "title" }, h("h1", {}, "Found for ", h("q", {}, text))),
    h("section", { class: "card", "aria-label": "What was found" }, result),
    h(
      "p",
      { class: "about" },
      "Look for it in ",
      link(`#/dead?search=${further}`, "dead jobs"),
      ", ",
      link(`#/retrying?search=${further}`, "jobs that wait for a retry"),
      ", ",
      link(`#/schedules?search=${further}`, "schedules"),
      " or ",
      link(`#/activity?search=${further}`, "the activity"),
      ".",
    ),
  );

  async function load() {
    let found;
    try {
      found = await get("/search", { text }, asked.signal);
    } catch (error) {
      if (asked.signal.aborted) return;
      frame.onState("live");
      result.replaceChildren(h("p", { class: "empty" }, error instanceof Problem ? error.message : "The server cannot be reached."));
      return;
    }
    frame.onState("live");
    const rows = [
      ...found.jobs.map((job) => row(link(`#/jobs/${encodeURIComponent(job.handle)}`, job.handle, "mono"), "job", stateChip(job.state), link(`#/functions/${job.function_id}`, peerName(job.function)), job.unique ? ["unique ", peerName(job.unique)] : "")),
      ...found.functions.map((each) => row(link(`#/functions/${each.id}`, peerName(each.name), "name"), "function")),
    ];
    const more = found.total - found.functions.length;
    if (more > 0) rows.push(h("li", {}, link(`#/functions?search=${further}`, `${count(more)} more functions`)));
    result.replaceChildren(rows.length ? h("ul", { class: "found-list" }, rows) : h("p", { class: "empty" }, "No job has this handle or unique, and no function this in its name."));
  }

  load();
  return { title: `Found for ${text}`, element, close: () => asked.abort() };
}

function row(what, kind, ...more) {
  return h("li", {}, what, h("span", { class: "chip" }, kind), ...more.flat());
}
