// The connection to the server: requests, and the live documents.

const API = "/api/v1";
// Milliseconds between attempts to connect: the backoff begins with the first and ends at the second.
const MIN_BACKOFF = 500;
const MAX_BACKOFF = 10000;

export const access = { manage: false, schedule: false, read_only: false, token: false, wrong_token: false };

let token = null;
try {
  token = sessionStorage.getItem("token");
} catch {
  // Storage may be forbidden; then the token lasts as long as the page.
}

export function hasToken() {
  return token !== null;
}

export function setToken(value) {
  token = value || null;
  try {
    if (token) sessionStorage.setItem("token", token);
    else sessionStorage.removeItem("token");
  } catch {
    // As above.
  }
}

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

async function refuse(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Not from this server.
  }
  throw new Problem(response.status, problem.code || "", problem.detail || `The answer was ${response.status}.`);
}

// The path below /api/v1, with parameters. Those that are null or empty are left out. `id` is a function's name,
// percent-encoded already: names are bytes, and need not be text. It is a parameter and no part of the path: browsers
// remove "." and ".." from paths, and some proxies decode what is encoded there.
function path(parts, { id = null, ...parameters } = {}) {
  const present = Object.entries(parameters).filter(([, value]) => value !== null && value !== "" && value !== undefined);
  const query = [new URLSearchParams(present).toString(), id === null ? "" : `function=${id}`].filter(Boolean).join("&");
  return API + parts + (query ? `?${query}` : "");
}

// The text of an identifier in an address.
export function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    // It was typed, or is no UTF-8; the server says what there is by it.
    return id;
  }
}

export async function get(parts, parameters, signal) {
  const response = await fetch(path(parts, parameters), { headers: headers(), signal });
  if (!response.ok) await refuse(response);
  return response.json();
}

export async function getBytes(parts, parameters, signal) {
  const response = await fetch(path(parts, parameters), { headers: headers(), signal });
  if (!response.ok) await refuse(response);
  return new Uint8Array(await response.arrayBuffer());
}

// Resolves to what the server answers, null if that is nothing.
export async function change(method, parts, parameters, value = null) {
  const body = value === null ? undefined : JSON.stringify(value);
  const type = value === null ? {} : { "Content-Type": "application/json" };
  const response = await fetch(path(parts, parameters), { method, body, headers: headers(type) });
  if (!response.ok) await refuse(response);
  return response.status === 204 ? null : response.json();
}

// Applies a JSON merge patch (RFC 7396). A member that it removes reads as undefined.
//
// Peers choose the names of members, so the objects have no prototype: "__proto__" and "constructor" are members like
// any others, and a missing member is not found in a prototype.
function merge(target, patch) {
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete target[name];
    else if (isObject(value)) target[name] = merge(isObject(target[name]) ? target[name] : Object.create(null), value);
    else target[name] = value;
  }
  return target;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// How far the server's clock is ahead of this one's, in seconds.
let ahead = 0;

export function serverNow() {
  return Date.now() / 1000 + ahead;
}

// Follows one live document until it is closed. When the connection is lost it connects again, with backoff.
export class Stream {
  constructor(parameters, { onChange, onEvent = () => {}, onState }) {
    this.parameters = parameters;
    this.onChange = onChange;
    this.onEvent = onEvent;
    this.onState = onState;
    this.backoff = MIN_BACKOFF;
    this.stopped = new AbortController();
    this.#run();
  }

  close() {
    this.stopped.abort();
  }

  async #run() {
    while (!this.stopped.signal.aborted) {
      let why = "The connection was lost";
      let code = "";
      try {
        await this.#follow();
      } catch (error) {
        if (this.stopped.signal.aborted) return;
        if (error instanceof Problem) ({ message: why, code } = error);
      }
      if (this.stopped.signal.aborted) return;
      this.onState("lost", why, code);
      await new Promise((resume) => setTimeout(resume, this.backoff));
      this.backoff = Math.min(this.backoff * 2, MAX_BACKOFF);
    }
  }

  async #follow() {
    const response = await fetch(path("/live", this.parameters), { headers: headers(), signal: this.stopped.signal });
    if (!response.ok) await refuse(response);
    let shown = Object.create(null);
    let rest = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done || this.stopped.signal.aborted) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (!event) continue;
        if (event.name === "patch") {
          ahead = event.data.time - Date.now() / 1000;
          shown = merge(shown, event.data.patch);
          this.backoff = MIN_BACKOFF;
          this.onState("live");
          this.onChange(shown);
        } else if (event.name === "rights") {
          Object.assign(access, event.data);
          this.onEvent("rights", access);
        } else this.onEvent(event.name, event.data);
      }
    }
  }
}

function parse(block) {
  let name = "message";
  let data = null;
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data = line.slice(6);
  }
  return data === null ? null : { name, data: JSON.parse(data) };
}
