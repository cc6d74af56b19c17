// The frame of the dashboard: which page is shown, the colours, the token, dialogs. Pages are in files of their own.

import { h, icon, setText } from "./dom.js";
import { access, change, hasToken, Problem, setToken } from "./live.js";
import { activityPage } from "./activity.js";
import { connections } from "./connections.js";
import { deadPage, retryingPage } from "./failed_jobs.js";
import { functionPage } from "./function.js";
import { functions } from "./functions.js";
import { jobPage } from "./job.js";
import { overview } from "./overview.js";
import { schedulesPage } from "./schedules.js";
import { searchPage } from "./search.js";

const main = document.getElementById("main");
const live = document.getElementById("live");
const mode = document.getElementById("mode");
const dialog = document.getElementById("dialog");
const themeButton = document.getElementById("theme");
const tokenButton = document.getElementById("token");

// -- what pages are given -------------------------------------------------------------------------

const frame = {
  // The state of the page's stream, for the light in the corner.
  onState(state, why = "", code = "") {
    // Where even to look needs a token, nothing else has told that there is one.
    const isLocked = code === "token-needed" || code === "wrong-token";
    if (isLocked) {
      tokenButton.hidden = false;
      askForTokenOnce(code === "wrong-token");
    }
    live.dataset.state = state;
    live.title = state === "live" ? "Up to date, once a second" : why;
    setText(live.lastElementChild, state === "live" ? "Live" : isLocked ? "Locked" : "Reconnecting");
  },

  onRights() {
    document.body.classList.toggle("read-only", access.read_only);
    document.body.classList.toggle("may-manage", access.manage || (access.token && !access.read_only));
    document.body.classList.toggle("may-schedule", access.schedule || (access.token && !access.read_only));
    mode.hidden = !access.read_only;
    setText(mode, "Read-only");
    tokenButton.hidden = access.read_only || !access.token;
    tokenButton.classList.toggle("on", hasToken() && !access.wrong_token);
    if (isTokenNew && access.wrong_token) toast(WRONG_TOKEN, true);
    else if (isTokenNew && hasToken()) toast("The token is accepted.");
    isTokenNew = false;
  },

  // Ask, then do: `what` says in a sentence what will happen, `done` what has, or makes that of the server's answer.
  async act({ title, what, button, danger = false, method, path = "", parameters = {}, value = null, done, field = null }) {
    const answer = await ask({ title, what, button, danger, field });
    if (answer === null) return false;
    const more = field && field.parameters ? field.parameters(answer) : {};
    const place = field && field.path ? field.path(answer) : path;
    return send(method, place, { ...parameters, ...more }, field && field.value ? field.value(answer) : value, done);
  },

  // Ask, then do the same to several, one after the other, and say at the end of how many it is done.
  async actOnEach({ title, what, button, danger = false }, calls, done) {
    if ((await ask({ title, what, button, danger })) === null) return false;
    let number = 0;
    const refusals = new Map();
    for (const { method, path } of calls) {
      try {
        if (!(await attempt(method, path, {}, null))) break;
        number += 1;
      } catch (error) {
        const why = messageOf(error);
        refusals.set(why, (refusals.get(why) || 0) + 1);
      }
    }
    if (number) toast(`${number} ${done}`);
    for (const [why, times] of refusals) toast(`${times} not ${done}: ${why}`, true);
    return true;
  },

  send,
  toast,
};

async function send(method, path, parameters, value, done) {
  try {
    const result = await attempt(method, path, parameters, value);
    if (result && done) toast(typeof done === "function" ? done(result.answer) : done);
    return result !== null;
  } catch (error) {
    toast(messageOf(error), true);
    return false;
  }
}

// Resolves to {answer}, or to null if a token is needed and none was given.
async function attempt(method, path, parameters, value) {
  for (;;) {
    try {
      return { answer: await change(method, path, parameters, value) };
    } catch (error) {
      if (!(error instanceof Problem && error.status === 401)) throw error;
      if (!(await askForToken(error.code === "wrong-token"))) return null;
    }
  }
}

function messageOf(error) {
  return error instanceof Problem ? error.message : "The server cannot be reached.";
}

function toast(text, bad = false) {
  const note = h("div", { class: bad ? "toast bad" : "toast" }, text);
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), bad ? 8000 : 4000);
}

// -- dialogs --------------------------------------------------------------------------------------

// Resolves to the form's values, or null.
function ask({ title, what, button, danger = false, field = null }) {
  return new Promise((resolve) => {
    const form = h(
      "form",
      { method: "dialog", novalidate: !field },
      h("h2", { id: "dialog-title" }, title),
      h("p", {}, what),
      field ? field.make() : null,
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", class: "quiet", click: () => dialog.close("") }, "Back"),
        h("button", { type: "submit", value: "yes", class: danger ? "danger" : "primary", autofocus: !field }, button),
      ),
    );
    dialog.replaceChildren(form);
    dialog.onclose = () => {
      // The browser may tell only now that the dialog before this one was closed.
      if (!dialog.open) resolve(dialog.returnValue === "yes" ? new FormData(form) : null);
    };
    dialog.returnValue = "";
    dialog.showModal();
  });
}

const WRONG_TOKEN = "The server does not know this token.";
// Whether nothing has told yet what the server says of the token.
let isTokenNew = false;

async function askForToken(isWrong = false) {
  const answer = await ask({
    title: "Token",
    what: [isWrong ? h("strong", { class: "danger-text", role: "alert" }, `${WRONG_TOKEN} `) : "", "The server wants a token for this. It is kept until this tab is closed."],
    button: "Use it",
    field: {
      make: () =>
        h(
          "label",
          { class: "field" },
          "Token",
          h("input", { name: "token", type: "password", autocomplete: "off", required: true, autofocus: true }),
        ),
    },
  });
  if (answer === null) return false;
  setToken(String(answer.get("token")).trim());
  isTokenNew = true;
  tokenButton.classList.toggle("on", hasToken());
  return hasToken();
}

// A page that may not even be seen without a token asks for it, but not again and again.
let asked = false;

async function askForTokenOnce(isWrong) {
  if ((asked && !isTokenNew) || dialog.open) return;
  asked = true;
  if (await askForToken(isWrong && isTokenNew)) show();
  else isTokenNew = false;
}

tokenButton.append(icon("key"));
tokenButton.addEventListener("click", async () => {
  if (await askForToken()) show();
});

// -- colours --------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];
const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };
const THEME_NAMES = { auto: "the system's", light: "light", dark: "dark" };

function showTheme() {
  const theme = document.documentElement.dataset.theme || "auto";
  themeButton.replaceChildren(icon(THEME_ICONS[theme]));
  themeButton.title = `Colours: ${THEME_NAMES[theme]}`;
  themeButton.setAttribute("aria-label", `Colours: ${THEME_NAMES[theme]}. Change`);
}

themeButton.addEventListener("click", () => {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || "auto") + 1) % THEMES.length];
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Then it lasts as long as the page.
  }
  showTheme();
});

// -- which page -----------------------------------------------------------------------------------

let close = () => {};

const PAGES = {
  "": overview,
  functions,
  retrying: retryingPage,
  dead: deadPage,
  schedules: schedulesPage,
  connections,
  activity: activityPage,
  search: searchPage,
};
// Pages of one thing, whose identifier follows the name.
const PAGES_OF_ONE = { functions: functionPage, jobs: jobPage, dead: deadPage };

function pageAt(name, id, rest) {
  const pages = id === undefined ? PAGES : PAGES_OF_ONE;
  return Object.hasOwn(pages, name) && !rest.length && (id || name !== "jobs") ? pages[name] : unknownPage;
}

function unknownPage() {
  frame.onState("live");
  return {
    title: "No such page",
    element: h(
      "div",
      { class: "page" },
      h("div", { class: "title" }, h("h1", {}, "There is no such page")),
      h("p", { class: "about" }, "The address ", h("code", {}, location.hash), " leads nowhere. ", h("a", { href: "#/" }, "To the overview")),
    ),
    close() {},
  };
}

// What is shown of a page, in its address: parameters behind a question mark.
function parts() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { path, parameters: new URLSearchParams(query) };
}

frame.place = {
  get: (name) => parts().parameters.get(name),

  // Changes parameters, without those that are null or empty. `isStep` says whether Back leads to what was before;
  // `state` is kept in the browser's history for whoever comes back.
  set(changes, isStep = true, state = null) {
    frame.place.go(parts().path, changes, isStep, state);
  },

  // The same, at another path.
  go(path, changes, isStep = true, state = null) {
    const { parameters } = parts();
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === "") parameters.delete(name);
      else parameters.set(name, value);
    }
    const query = parameters.toString();
    const address = `#/${path}${query ? `?${query}` : ""}`;
    if (address === location.hash) return;
    history[isStep ? "pushState" : "replaceState"](state, "", address);
  },
};

// #/functions/ID: the parts stay encoded, as names are bytes. An ID may be empty, as a name may.
function show() {
  close();
  // Its question was about the page before.
  if (dialog.open) dialog.close("");
  const { path, parameters } = parts();
  const [name, id, ...rest] = path.split("/");
  const page = pageAt(name, id, rest);
  const tab = name === "jobs" ? "functions" : name || "overview";
  for (const link of document.querySelectorAll("[data-tab]")) {
    if (link.dataset.tab === tab) {
      link.setAttribute("aria-current", "page");
      // On a telephone they do not all fit.
      link.parentNode.scrollLeft = link.offsetLeft - (link.parentNode.clientWidth - link.offsetWidth) / 2;
    } else link.removeAttribute("aria-current");
  }
  live.dataset.state = "";
  setText(live.lastElementChild, "Connecting");
  const shown = page(frame, id, parameters);
  close = shown.close;
  document.title = `${shown.title} · txgearman`;
  main.replaceChildren(shown.element);
  window.scrollTo(0, 0);
}

// Buttons that say why they cannot be used, see `enable`.
document.addEventListener(
  "click",
  (event) => {
    const button = event.target.closest && event.target.closest("[aria-disabled]");
    if (!button) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  },
  true,
);

// -- the search for anything ----------------------------------------------------------------------

const finder = document.getElementById("finder");
const wanted = document.getElementById("wanted");
finder.prepend(icon("search"));
finder.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = wanted.value.trim();
  if (text) location.hash = `#/search?text=${encodeURIComponent(text)}`;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) return;
  event.preventDefault();
  wanted.focus();
});

window.addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
});
showTheme();
show();
