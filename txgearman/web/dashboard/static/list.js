// What lists share: their search, their choices, their pages, how they are kept up to date and saved. Which rows are
// shown is in the address of the page, so that Back and a link lead to the same rows.

import { enable, h, icon, save, setText } from "./dom.js";
import { count } from "./format.js";
import { Stream } from "./live.js";

// Milliseconds without a key until what was typed is looked for.
const TYPING = 300;
const FIRST_PAGE = { page: null, after: null };

// A field to search with. Its text is the parameter `search` of the address; `begin` is called when it changes.
export class Search {
  constructor(frame, placeholder, label, begin) {
    this.text = frame.place.get("search") || "";
    this.field = h("input", { type: "search", placeholder, "aria-label": label, value: this.text });
    this.element = h("label", { class: "search" }, icon("search"), this.field);
    this.frame = frame;
    this.typing = 0;
    this.field.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.settle() && begin(), TYPING);
    });
  }

  // What was typed holds from now on; returns whether that is something new.
  settle() {
    clearTimeout(this.typing);
    const { value } = this.field;
    if (value === this.text) return false;
    // To begin a search and to end it are steps of Back, each letter between is not.
    this.frame.place.set({ search: value, ...FIRST_PAGE }, !value || !this.text);
    this.text = value;
    return true;
  }

  close() {
    clearTimeout(this.typing);
  }
}

// Buttons of which one is pressed. Its value is the parameter `name` of the address, which is left out for the first.
export class Choice {
  // `options` are [value, title].
  constructor(frame, name, label, options, begin) {
    const [[first]] = options;
    const wanted = frame.place.get(name);
    this.value = options.some(([value]) => value === wanted) ? wanted : first;
    this.buttons = new Map(
      options.map(([value, title]) => [
        value,
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(value === this.value),
            click: () => {
              if (value === this.value) return;
              this.value = value;
              frame.place.set({ [name]: value === first ? null : value, ...FIRST_PAGE });
              for (const [each, button] of this.buttons) button.setAttribute("aria-pressed", String(each === value));
              begin();
            },
          },
          title,
        ),
      ]),
    );
    this.element = h("div", { class: "segments", role: "group", "aria-label": label }, [...this.buttons.values()]);
  }
}

// The pages of a list that has cursors. `first` is the cursor of the first page; `load` fetches the page at `cursor`.
// The cursors of the pages before, which the server does not tell, are in the browser's history.
export class Pages {
  constructor(frame, first, load) {
    this.frame = frame;
    this.first = first;
    this.load = load;
    const after = frame.place.get("after");
    const known = history.state && history.state.cursors;
    if (after === null) this.cursors = [first];
    else this.cursors = known && String(known[known.length - 1]) === after ? known : [first, after];
    this.number = after === null ? 1 : Math.max(2, Number(frame.place.get("page")) || 2);
    this.said = h("span", { class: "about", role: "status" });
    this.back = h("button", { type: "button", class: "quiet", click: () => this.turnBack() }, icon("back"), "Back");
    this.next = h("button", { type: "button", class: "quiet", click: () => this.#go([...this.cursors, this.nextCursor], this.number + 1) }, "Next", icon("next"));
    this.again = h("button", { type: "button", class: "quiet", click: () => load() }, "Look again");
    this.element = h("div", { class: "pages" }, this.back, this.said, this.again, this.next);
  }

  get cursor() {
    return this.cursors[this.cursors.length - 1];
  }

  get isFirst() {
    return this.cursors.length === 1;
  }

  turnBack() {
    const cursors = this.cursors.slice(0, -1);
    this.#go(cursors, cursors.length === 1 ? 1 : this.number - 1);
  }

  #go(cursors, number) {
    this.cursors = cursors;
    this.number = number;
    this.frame.place.set({ page: number > 1 ? number : null, after: number > 1 ? this.cursor : null }, true, { cursors });
    this.load();
  }

  // The list is another one. Whoever made it so has changed the address.
  reset() {
    this.cursors = [this.first];
    this.number = 1;
  }

  // `total` is how many rows there are on all pages, null where nobody has counted them.
  draw(nextCursor, total, size) {
    this.nextCursor = nextCursor;
    enable(this.back, this.isFirst ? "This is the first page" : "");
    enable(this.next, nextCursor === null ? "This is the last page" : "");
    const last = total === null ? 0 : Math.max(1, Math.ceil(total / size));
    setText(this.said, last >= this.number ? `Page ${count(this.number)} of ${count(last)}, ${count(total)} in all` : `Page ${count(this.number)}`);
  }
}

// Keeps a page up to date: one live document at a time, in place of the one before.
export class Follower {
  constructor(frame, onChange, onEvent = () => {}) {
    this.frame = frame;
    this.onChange = onChange;
    this.onEvent = onEvent;
    this.stream = null;
  }

  follow(parameters) {
    this.close();
    this.stream = new Stream(parameters, {
      onState: this.frame.onState,
      onChange: this.onChange,
      onEvent: (name, data) => (name === "rights" ? this.frame.onRights() : this.onEvent(name, data)),
    });
  }

  close() {
    if (this.stream) this.stream.close();
    this.stream = null;
  }
}

// -- saving what a table shows --------------------------------------------------------------------

// Buttons that save the rows that a table shows: as CSV what is seen, as JSON what the server has sent.
export function downloads(table, name) {
  const button = (kind, type, text) =>
    h("button", { type: "button", class: "quiet small", "aria-label": `Save these rows as ${kind}`, click: () => save(`${name}.${kind.toLowerCase()}`, type, text()) }, icon("download"), kind);
  return h(
    "span",
    { class: "downloads" },
    button("CSV", "text/csv", () => csv(table.texts())),
    button("JSON", "application/json", () => JSON.stringify(table.shownRows, null, 2)),
  );
}

function csv(rows) {
  return rows.map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

// Peers choose what is in cells, and spreadsheets take what begins like this for a formula.
function csvCell(text) {
  const safe = /^[=+\-@\t\r]/.test(text) && !/^-?[\d.,]+$/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
}
