// What was done with the server, by whom, and what it did by itself.

import { h, link, peerName, Table } from "./dom.js";
import { count, moment } from "./format.js";
import { Choice, downloads, Follower, Pages, Search } from "./list.js";
import { get, Problem } from "./live.js";

const PAGE = 50;
const BY = [
  ["", "All"],
  ["people", "By people"],
  ["server", "By the server"],
];
const VIA = { http: "HTTP", admin: "admin line", packet: "packet" };

export function activityPage(frame) {
  let events = [];
  let last = null;
  let asked = new AbortController();

  const table = new Table(
    [
      { title: "Time", cell: (event) => moment(event.time) },
      { title: "Who", class: "job-cell", cell: whoCell },
      { title: "Action", cell: actionCell },
      { title: "On", cell: targetCell, wide: true },
      { title: "Jobs", right: true, cell: (event) => (event.jobs === null ? "–" : count(event.jobs)) },
      { title: "More", cell: (event) => event.detail, wide: true },
    ],
    { empty: "Nothing of this kind was done since the server's start.", caption: "Activity" },
  );
  const search = new Search(frame, "Find in who, what and on what", "Find in the activity", restart);
  const by = new Choice(frame, "by", "Who did it", BY, restart);
  const pages = new Pages(frame, null, load);
  const about = h("span", { class: "about" }, "The last thousand, since the server's start");
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "title" }, h("h1", {}, "Activity"), by.element, search.element, downloads(table, "activity"), about),
    h("section", { class: "card" }, table.element, pages.element),
  );

  function restart() {
    pages.reset();
    load();
  }

  async function load() {
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    table.element.classList.add("loading");
    try {
      const found = await get("/activity", { by: by.value, search: search.text, before: pages.cursor, limit: PAGE }, signal);
      events = found.events;
      table.update(events, (event) => event.number);
      pages.draw(found.next, found.total, PAGE);
    } catch (error) {
      if (signal.aborted) return;
      frame.toast(error instanceof Problem ? error.message : "The server cannot be reached.", true);
    }
    table.element.classList.remove("loading");
  }

  const follower = new Follower(frame, (now) => {
    // Pages further back stay as they are, to be read.
    if (last !== now.last && (last === null || pages.isFirst)) load();
    last = now.last;
  });
  follower.follow({ view: "activity" });
  return {
    title: "Activity",
    element,
    close() {
      asked.abort();
      search.close();
      follower.close();
    },
  };
}

function whoCell(event) {
  const { actor } = event;
  if (!actor) return { key: "", make: () => h("span", { class: "chip" }, "the server") };
  const more = [
    actor.user === null ? "" : `user ${actor.user}`,
    actor.certificate ? `certificate ${actor.certificate}` : "",
    actor.rules.length ? `rules ${actor.rules.join(", ")}` : "",
    actor.web_token ? "with the token" : "",
    `by ${VIA[event.via] || event.via}`,
  ];
  return {
    key: JSON.stringify(actor),
    make: () => [
      h("span", { class: "name" }, peerName(actor.address)),
      actor.client_id ? h("span", { class: "about" }, " ", peerName(actor.client_id)) : "",
      h("small", {}, more.filter(Boolean).join(" · ")),
    ],
  };
}

function actionCell(event) {
  return { key: event.action, make: () => h("span", { class: event.actor ? "chip busy" : "chip" }, event.action) };
}

function targetCell(event) {
  if (!event.target) return "–";
  return { key: event.target_id, make: () => target(event) };
}

// A link to what was acted on, where there is a page for it.
function target({ action, target: name, target_id: id }) {
  if (action.endsWith(" job")) return link(`#/jobs/${id}`, peerName(name), "mono");
  if (action.endsWith(" schedule")) return link(`#/schedules?search=${id}`, peerName(name), "name");
  if (/ (dead|function|jobs)$|^(max|limit)/.test(action)) return link(`#/functions/${id}`, peerName(name), "name");
  return peerName(name);
}
