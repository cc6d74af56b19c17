// A payload as text, JSON or hex. Only its beginning is fetched until more is asked for.

import { enable, h, icon, save } from "./dom.js";
import { bytes } from "./format.js";

const FIRST = 16 * 1024;
const MORE = 256 * 1024;

// The elements that show `size` bytes, which load(offset, length) fetches.
export function payloadView(size, load, name) {
  let data = new Uint8Array(0);
  let kind = null;
  const shown = h("pre", { class: "payload", tabindex: 0, "aria-label": "The data" });
  const rest = h("div", { class: "pages" });
  const kinds = h(
    "div",
    { class: "segments", role: "group", "aria-label": "How it is shown" },
    ["Text", "JSON", "Hex"].map((title) =>
      h("button", { type: "button", "data-kind": title, click: () => choose(title) }, title),
    ),
  );
  const saved = h("button", { type: "button", class: "quiet", click: download }, icon("download"), "Save");
  const head = h("div", { class: "card-head" }, h("h2", {}, "Data"), h("span", { class: "about" }, bytes(size)), kinds, saved);

  function choose(title) {
    kind = title;
    draw();
  }

  function draw() {
    for (const button of kinds.children) button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
    const whole = data.length >= size;
    enable(kinds.children[1], !whole ? "Not all of the data is here yet" : json() === null ? "The data is no JSON object or array" : "");
    shown.classList.toggle("hex", kind === "Hex");
    if (kind === "Hex") shown.textContent = hex(data);
    else if (kind === "JSON") shown.replaceChildren(...coloured(json()));
    else shown.textContent = text(data);
    rest.hidden = whole;
    rest.replaceChildren(
      h("span", { class: "about" }, `${bytes(data.length)} of ${bytes(size)} are shown`),
      h("button", { type: "button", class: "quiet", click: () => fetchMore(MORE) }, "Show more"),
    );
  }

  function json() {
    try {
      const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
      return typeof value === "object" && value !== null ? JSON.stringify(value, null, 2) : null;
    } catch {
      return null;
    }
  }

  async function fetchMore(length) {
    try {
      const part = size ? await load(data.length, length) : new Uint8Array(0);
      const joined = new Uint8Array(data.length + part.length);
      joined.set(data);
      joined.set(part, data.length);
      data = joined;
    } catch {
      shown.textContent = "The data could not be fetched: the job may have ended.";
      return;
    }
    if (kind === null) {
      kind = "Text";
      if (data.length >= size && json() !== null) kind = "JSON";
      else if (binary(data)) kind = "Hex";
    }
    draw();
  }

  async function download() {
    const all = await load(0, Math.max(1, size)).catch(() => null);
    if (all !== null) save(`${name}.bin`, "application/octet-stream", all);
  }

  if (size === 0) return [head, h("p", { class: "empty" }, "No data.")];
  fetchMore(FIRST);
  return [head, shown, rest];
}

function binary(data) {
  try {
    // The end may be in the middle of a letter.
    const decoded = new TextDecoder("utf-8", { fatal: true }).decode(data.length > 8 ? data.subarray(0, -4) : data);
    return /[\0-\x08\x0e-\x1f]/.test(decoded);
  } catch {
    return true;
  }
}

function text(data) {
  return new TextDecoder("utf-8").decode(data);
}

function hex(data) {
  const lines = [];
  for (let at = 0; at < data.length; at += 16) {
    const line = [...data.subarray(at, at + 16)];
    const pairs = line.map((byte, index) => byte.toString(16).padStart(2, "0") + (index === 7 ? " " : "")).join(" ");
    const letters = line.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${pairs.padEnd(49)}  ${letters}`);
  }
  return lines.join("\n");
}

// JSON with names, texts and numbers told apart.
function coloured(json) {
  const parts = [];
  let end = 0;
  for (const found of json.matchAll(/("(?:\\.|[^"\\])*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g)) {
    parts.push(json.slice(end, found.index));
    const kind = found[2] ? "name" : found[1] ? "text" : "value";
    parts.push(h("span", { class: `json-${kind}` }, found[1] || found[0]), found[2] || "");
    end = found.index + found[0].length;
  }
  parts.push(json.slice(end));
  return parts;
}
