// Elements, and lists of them that are brought up to date in place: what has the focus keeps it.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter(child => child != null));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export function say(element, text) {
  text = String(text);
  if (element.textContent !== text) element.textContent = text;
}

export function set(element, name, value) {
  if (value == null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Makes `parent` hold one element for each item, in their order: made once by `make(item)`, changed by `update(element, item)`. */
export function keep(parent, items, key, make, update) {
  const known = parent.kept ??= new Map();
  const wanted = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    wanted.add(id);
    let element = known.get(id);
    if (!element) known.set(id, element = make(item));
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const [id, element] of known) if (!wanted.has(id)) { element.remove(); known.delete(id); }
}

/** A card with a heading; `note` says what is to be seen. */
export function card(title, note, ...children) {
  return h("div", { class: "card" }, h("h2", {}, title), note ? h("p", { class: "note" }, note) : null, ...children);
}

/**
 * A table. A column is { name, text(row) } or { name, bars(row): [{ share, text }] } or { name, open(row), text(row) } for what opens
 * details; `num` aligns right. Returns the element and `show(rows)`.
 */
export function table(label, columns, key, { empty = "nothing yet", mark } = {}) {
  const head = h("tr", {}, ...columns.map(c => h("th", { scope: "col", class: c.num ? "num" : c.bars ? "bars-of" : null }, c.name)));
  const body = h("tbody"), none = h("p", { class: "empty" }, empty);
  const grid = h("table", { "aria-label": label }, h("thead", {}, head), body);
  const make = row => h("tr", {}, ...columns.map(c => {
    const cell = h("td", { class: [c.num ? "num" : "", c.class ?? ""].join(" ").trim() || null });
    if (c.open) cell.append(h("button", { class: "row", type: "button", onclick: event => c.open(event.currentTarget.closest("tr").row) }));
    if (c.bars) cell.append(h("div", { class: "bars" }));
    return cell;
  }));
  const update = (tr, row) => {
    tr.row = row;
    if (mark) set(tr, "class", mark(row));
    columns.forEach((c, at) => {
      const cell = tr.children[at];
      if (c.bars) bars(cell.firstElementChild, c.bars(row));
      else if (c.open) say(cell.firstElementChild, c.text(row));
      else if (c.severity) { cell.className = `severity ${c.text(row)}`; say(cell, c.text(row)); }
      else say(cell, c.text(row));
    });
  };
  const element = h("div", { class: "scroll" }, grid, none);
  const show = rows => {
    grid.hidden = rows.length === 0;
    none.hidden = rows.length > 0;
    keep(body, rows, key, make, update);
  };
  show([]);
  return { element, show, body };
}

/** Thin bars, one each worker. */
export function bars(parent, list) {
  keep(parent, list.map((bar, at) => ({ ...bar, at })), bar => bar.at,
    () => h("div", { class: "bar" }, h("i"), h("b")),
    (element, bar) => {
      element.classList.toggle("hot", bar.share > 0.8);
      element.firstElementChild.style.width = `${Math.min(100, bar.share * 100).toFixed(1)}%`;
      say(element.lastElementChild, bar.text);
    });
}
