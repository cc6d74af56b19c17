// The overview: rates and totals over time, and the busiest functions.

import { h, link, peerName, setText, Table } from "./dom.js";
import { bytes, count, duration, rate, short } from "./format.js";
import { Choice, downloads, Follower } from "./list.js";
import { serverNow } from "./live.js";
import { Plot, RANGES, SECONDS, Spark, spanOf } from "./plot.js";

const MOST_POINTS = 300;

export function overview(frame) {
  const rates = new Plot({
    series: [
      { name: "submitted", title: "Submitted" },
      { name: "completed", title: "Completed" },
      { name: "failed", title: "Failed" },
    ],
    height: 220,
    label: "Jobs a second",
    format: rate,
  });
  const waiting = new Plot({
    series: [
      { name: "queued", title: "Queued" },
      { name: "running", title: "Running" },
    ],
    height: 220,
    label: "Jobs in the server",
    format: short,
  });
  const tiles = {
    total: tile("Jobs", "queued"),
    running: tile("Running", "running"),
    completed: tile("Completed"),
    failed: tile("Failed"),
    retrying: tile("Retrying", null, "#/retrying"),
    dead: tile("Dead", null, "#/dead"),
    functions: tile("Functions"),
    connections: tile("Connections", "connections"),
    memory: tile("Memory", "memory"),
  };
  const store = tile("Store");
  const table = new Table(
    [
      { title: "Function", cell: nameCell, wide: true },
      { title: "Queued", right: true, cell: (row) => count(sum(row.queued)) },
      { title: "Running", right: true, cell: (row) => count(row.running) },
      { title: "Workers", right: true, cell: (row) => count(row.workers) },
      { title: "Oldest waits", right: true, cell: (row) => age(row.since) },
    ],
    { empty: "No function yet: a worker or a client brings the first.", caption: "The functions with the most jobs" },
  );
  const limits = new Table(
    [
      { title: "Limit", cell: (row) => row.name, wide: true },
      { title: "Used", right: true, cell: (row) => amount(row, row.used) },
      { title: "Of", right: true, cell: (row) => (row.limit ? amount(row, row.limit) : "no limit") },
      { title: "Refused", right: true, cell: (row) => count(row.refused) },
    ],
    { empty: "No limits.", caption: "The limits of the server" },
  );
  const limitsNote = h("span", { class: "about" });
  const about = h("p", { class: "about" });
  const range = new Choice(frame, "range", "Time shown", RANGES, follow);
  const alarm = h("p", { class: "alarm", role: "alert", hidden: true });
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "title" }, h("h1", {}, "Overview"), range.element, about),
    alarm,
    h("section", { class: "tiles", "aria-label": "Totals" }, [...Object.values(tiles), store].map(({ element }) => element)),
    h(
      "div",
      { class: "plots" },
      h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Jobs a second"), rates.legend), rates.element),
      h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Waiting and running"), waiting.legend), waiting.element),
    ),
    h(
      "section",
      { class: "card" },
      h("div", { class: "card-head" }, h("h2", {}, "Busiest functions"), downloads(table, "busiest-functions"), link("#/functions", "All functions", "more")),
      table.element,
    ),
    h("details", { class: "card" }, h("summary", { class: "card-head" }, h("h2", {}, "Limits"), limitsNote), limits.element, h("div", { class: "pages" }, downloads(limits, "limits"))),
  );

  let samples = [];
  let coarse = false;

  function draw() {
    const seconds = SECONDS[range.value];
    const end = samples.length ? samples[samples.length - 1][0] : serverNow();
    const kept = samples.filter((sample) => sample[0] >= end - seconds - 2);
    const step = Math.max(1, Math.ceil(kept.length / MOST_POINTS));
    const flow = [];
    const depth = [];
    for (let index = kept.length - 1; index >= step; index -= step) {
      const [now, before] = [kept[index], kept[index - step]];
      const took = now[0] - before[0];
      // A count that falls is one of a function that was dropped.
      const speed = (column) => Math.max(0, (now[column] - before[column]) / took);
      if (took > 0) flow.push({ time: now[0], values: [speed(1), speed(2), speed(3)] });
    }
    for (let index = kept.length - 1; index >= 0; index -= step) {
      depth.push({ time: kept[index][0], values: [kept[index][4], kept[index][5]] });
    }
    rates.show(flow.reverse(), seconds);
    waiting.show(depth.reverse(), seconds);
    const column = (index) => kept.map((sample) => sample[index] || 0);
    tiles.total.spark.show(kept.map((sample) => sample[4] + sample[5]));
    tiles.running.spark.show(column(5));
    tiles.connections.spark.show(column(6));
    tiles.memory.spark.show(column(7));
  }

  function show(shown) {
    const server = shown.server;
    setText(about, `${server.host} · process ${server.pid} · version ${server.version}, ${server.build}`);
    setText(tiles.total.value, short(server.total));
    setText(tiles.total.note, queuedNote(server));
    setText(tiles.running.value, short(server.running));
    setText(tiles.running.note, "by workers");
    setText(tiles.completed.value, short(server.completed));
    setText(tiles.completed.note, "since the start");
    setText(tiles.failed.value, short(server.failed));
    setText(tiles.failed.note, server.dropped ? `${short(server.dropped)} dropped` : "since the start");
    setText(tiles.retrying.value, short(server.retrying));
    setText(tiles.retrying.note, "wait to run again");
    setText(tiles.dead.value, short(server.dead));
    setText(tiles.dead.note, server.dead_evicted ? `${short(server.dead_evicted)} forgotten for room` : "to retry or delete");
    tiles.dead.element.classList.toggle("bad", server.dead > 0);
    setText(tiles.functions.value, short(server.functions));
    setText(tiles.functions.note, server.paused ? `${count(server.paused)} paused` : "none is paused");
    setText(tiles.connections.value, short(server.connections));
    setText(tiles.connections.note, connectionsNote(server.workers, server.connections - server.workers));
    setText(tiles.memory.value, bytes(server.memory));
    setText(tiles.memory.note, "of this process");
    if (!server.store) {
      setText(store.value, "None");
      setText(store.note, "jobs are in memory alone");
    } else {
      setText(store.value, server.store.available ? "In order" : "Unavailable");
      setText(store.note, server.store.unsaved ? `${short(server.store.unsaved)} not saved yet` : `${short(server.store.saved)} saved`);
      store.element.classList.toggle("bad", !server.store.available);
    }
    alarm.hidden = !server.problems || !server.problems.length;
    setText(alarm, `Not ready: ${(server.problems || []).join("; ")}.`);
    limits.update(server.limits || [], (row) => row.name);
    setText(limitsNote, metNote(server.limits || []));
    table.update(
      shown.order.map((key) => shown.rows[key]),
      (row) => row.id,
    );
  }

  const follower = new Follower(frame, show, (name, data) => {
    if (name === "history") {
      samples = data.samples;
      coarse = data.coarse;
      draw();
    } else if (name === "sample") {
      // Between the coarse samples the last one stands for now.
      if (coarse && samples.length > 1 && data[0] - samples[samples.length - 2][0] < 60) samples.pop();
      samples.push(data);
      if (samples.length > 1500) samples.shift();
      draw();
    }
  });

  function follow() {
    follower.follow({ view: "overview", span: spanOf(range.value) });
  }

  follow();
  return { title: "Overview", element, close: () => follower.close() };
}

function tile(title, spark = null, href = null) {
  const value = h("strong", {}, "–");
  const note = h("small", {}, "");
  const line = spark ? new Spark(spark) : { element: null, show: () => {} };
  return { element: h(href ? "a" : "div", { class: "tile", href }, h("span", {}, title), value, note, line.element), value, note, spark: line };
}

function connectionsNote(workers, others) {
  const some = (number, one, many) => `${short(number)} ${number === 1 ? one : many}`;
  return `${some(workers, "worker", "workers")}, ${some(others, "other", "others")}`;
}

function metNote(limits) {
  const met = limits.filter((limit) => limit.refused).map((limit) => `${limit.name} ${short(limit.refused)}`);
  return met.length ? `Refused: ${met.join(", ")}` : "none was met";
}

// Most limits are numbers, those of memory are bytes, and one is a time.
function amount(limit, number) {
  if (limit.name === "handshake-timeout") return number ? duration(number) : "–";
  return /^max-(packet|unsent|unfinished)/.test(limit.name) ? bytes(number) : short(number);
}

function queuedNote(server) {
  const queued = sum(server.queued);
  return server.scheduled ? `${short(queued)} queued, ${short(server.scheduled)} scheduled` : `${short(queued)} queued`;
}

export function sum(byPriority) {
  return byPriority.high + byPriority.normal + byPriority.low;
}

export function age(since) {
  return since === null || since === undefined ? "–" : duration(serverNow() - since);
}

// Whether jobs wait that nobody can do.
export function lacksWorker(row) {
  return row.workers === 0 && sum(row.queued) > 0;
}

export function nameCell(row) {
  return {
    key: `${row.id} ${row.paused} ${lacksWorker(row)}`,
    make: () => [
      link(`#/functions/${row.id}`, peerName(row.name), "name"),
      row.paused ? h("span", { class: "chip warn" }, "Paused") : null,
      lacksWorker(row) ? h("span", { class: "chip bad", title: "Jobs wait, and no worker can do them" }, "No worker") : null,
    ].filter(Boolean),
  };
}
