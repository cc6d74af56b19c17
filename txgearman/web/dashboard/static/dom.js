// Elements and tables. All text goes in as text nodes: names and payloads are arbitrary bytes.

const SVG = "http://www.w3.org/2000/svg";

// An element; `properties` are attributes, and listeners where they are functions. What is null or false is left out.
export function h(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

export function svg(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

function fill(element, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key, value);
    else if (key === "style") for (const [name, set] of Object.entries(value)) element.style.setProperty(name, set);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// A name that a peer chose, to stand beside other text. It is laid out alone, see `bdi` in the style sheet: letters and
// marks from right to left in it do not turn round what is beside it.
export function peerName(name) {
  return h("bdi", {}, name ? visible(name) : "(empty name)");
}

// The same where there is no place for an element: without marks of direction, and between two that isolate it.
export function isolated(name) {
  return `\u2068${visible(name).replace(/\p{Bidi_Control}/gu, "") || "(empty name)"}\u2069`;
}

// Control characters are shown by their numbers, and so is everything in a name of which nothing could be seen.
function visible(name) {
  const hidden = /^[\p{Z}\p{C}]*$/u.test(name) ? /./gsu : /\p{Cc}/gu;
  return name.replace(hidden, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Lets a button be used, or says why it cannot be: beside the button under the pointer or with the focus, and to screen
// readers. A button that is `disabled` could not have the focus. The frame keeps clicks from it.
export function enable(button, why = "") {
  if (button.dataset.why === why || (!why && button.dataset.why === undefined)) return;
  if (why) {
    button.dataset.why = why;
    button.setAttribute("aria-disabled", "true");
    button.setAttribute("aria-description", why);
    if (button.closest(".segments")) button.title = why;
  } else {
    delete button.dataset.why;
    button.removeAttribute("aria-disabled");
    button.removeAttribute("aria-description");
    button.removeAttribute("title");
  }
}

// Has the browser save a file.
export function save(name, type, content) {
  const place = URL.createObjectURL(new Blob([content], { type }));
  const anchor = h("a", { href: place, download: name.replace(/[^\w.-]+/g, "_") });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(place), 1000);
}

const ICONS = {
  sun: "M12 4V2M12 22v-2M4 12H2M22 12h-2M5.6 5.6 4.2 4.2M19.8 19.8l-1.4-1.4M5.6 18.4l-1.4 1.4M19.8 4.2l-1.4 1.4M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5",
  auto: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 3v18M12 7h4M12 11h5.5M12 15h5",
  key: "M14 10a4.5 4.5 0 1 0-2.6 2.6L13 14.2h2v2h2v2h3v-3l-6-5.2M7.6 7.6h.01",
  pause: "M8.5 5v14M15.5 5v14",
  play: "M7 4.5v15l12-7.5z",
  limit: "M4 18h16M7 18V9M12 18V5M17 18v-6",
  cancel: "M6 6l12 12M18 6 6 18",
  trash: "M4 7h16M10 11v6M14 11v6M6 7l1 13h10l1-13M9 7V4h6v3",
  mute: "M4 10v4h4l5 4V6L8 10zM16 9.5l5 5M21 9.5l-5 5",
  sound: "M4 10v4h4l5 4V6L8 10zM16.5 9a4.5 4.5 0 0 1 0 6M19 6.5a8 8 0 0 1 0 11",
  back: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M20 20l-4.8-4.8",
};

export function icon(name) {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", class: "i", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }),
  );
}

// A table that keeps its elements while their content changes, so that focus and selection stay.
//
// A column is {title, cell}, with sort, right, wide and class if wanted. cell(row) returns a text, or {key, make}: an
// element that is made anew when the key changes.
export class Table {
  constructor(columns, { empty, caption, onRow = null, sort = null, onSort = null }) {
    this.columns = columns;
    this.rows = new Map();
    this.onRow = onRow;
    this.body = h("tbody");
    this.heads = columns.map((column) => {
      const label = column.sort
        ? h("button", { type: "button", class: "sort", click: () => onSort(column.sort) }, column.title)
        : column.title || h("span", { class: "unseen" }, column.class === "pick" ? "Selection" : "Actions");
      const shownBy = column.sort && column.sort === sort ? (sort === "name" ? "ascending" : "descending") : null;
      return h("th", { scope: "col", class: classes(column), "aria-sort": shownBy }, label);
    });
    this.table = h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, this.heads)),
      this.body,
    );
    this.empty = h("p", { class: "empty" }, empty);
    this.element = h("div", { class: "table" }, this.table, this.empty);
    this.update([], () => "");
    this.empty.hidden = true;
  }

  sortedBy(sort) {
    this.columns.forEach((column, index) => {
      if (!column.sort) return;
      if (column.sort === sort) this.heads[index].setAttribute("aria-sort", sort === "name" ? "ascending" : "descending");
      else this.heads[index].removeAttribute("aria-sort");
    });
  }

  // What is seen of the rows, with the titles: a list of texts for each line.
  texts() {
    const isShown = (index) => getComputedStyle(this.heads[index]).display !== "none";
    const columns = this.columns.map((column, index) => ({ column, index })).filter(({ column, index }) => column.title && isShown(index));
    const lines = [...this.body.rows].filter((line) => !line.classList.contains("gone"));
    return [
      columns.map(({ column }) => column.title),
      ...lines.map((line) => columns.map(({ index }) => line.cells[index].innerText.replace(/\s+/g, " ").trim())),
    ];
  }

  update(rows, keyOf) {
    this.shownRows = rows;
    const kept = new Set();
    let before = null;
    for (const row of rows) {
      const key = keyOf(row);
      kept.add(key);
      let line = this.rows.get(key);
      if (!line) {
        line = this.#make();
        this.rows.set(key, line);
      }
      this.#show(line, row);
      const next = before ? before.nextSibling : this.body.firstChild;
      if (line.element !== next) this.body.insertBefore(line.element, next);
      before = line.element;
    }
    for (const [key, line] of this.rows) {
      if (!kept.has(key)) {
        line.element.remove();
        this.rows.delete(key);
      }
    }
    this.empty.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
  }

  #make() {
    const cells = this.columns.map((column) => h("td", { class: classes(column), "data-title": column.title }));
    return { element: h("tr", {}, cells), cells, shown: this.columns.map(() => null) };
  }

  #show(line, row) {
    if (this.onRow) this.onRow(line.element, row);
    this.columns.forEach((column, index) => {
      const cell = column.cell(row);
      const key = typeof cell === "string" ? cell : cell.key;
      if (line.shown[index] === key) return;
      line.shown[index] = key;
      if (typeof cell === "string") line.cells[index].textContent = cell;
      else line.cells[index].replaceChildren(...[cell.make()].flat());
    });
  }
}

function classes(column) {
  return [column.right ? "right" : "", column.wide ? "wide" : "", column.class || ""].join(" ").trim() || null;
}

export function link(href, text, name = null) {
  return h("a", { href, class: name }, text);
}
