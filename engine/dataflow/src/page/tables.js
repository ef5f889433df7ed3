// The tables that the job keeps: how far each is, and the committed rows of the small ones.

import { card, h, keep, say, table } from "./dom.js";
import { count, dateTime, duration, none } from "./numbers.js";

/** Names, newest state and rows of tables; `context.contents` is asked for while the view is open. */
export function tables() {
  const list = table("Tables", [
    { name: "table", text: t => t.name }, { name: "rows", num: true, text: t => count(t.rows) },
    { name: "epoch", num: true, text: t => count(t.epoch) }, { name: "snapshot", class: "nowrap", text: t => t.snapshot ?? none },
    { name: "added", num: true, text: t => `${count(t.added)} (${count(t.added_last)} last)` }, { name: "deleted", num: true, text: t => `${count(t.deleted)} (${count(t.deleted_last)} last)` },
    { name: "commits", num: true, text: t => count(t.commits) }, { name: "last took", num: true, text: t => duration(t.took_us) },
  ], t => t.name, { empty: "no commit of this process yet" });
  const sinks = table("Sinks of tables", [
    { name: "sink", text: s => s.name }, { name: "checkpoints not committed", num: true, text: s => count(s.intents) }, { name: "tried again", num: true, text: s => count(s.retries) },
    { name: "trying again", text: s => Object.entries(s.retrying).map(([what, r]) => `${what}, since ${dateTime(r.since)}: ${r.error}`).join("; ") || "nothing" },
  ], s => s.name, { empty: "the job writes no tables" });
  const contents = h("div", { class: "contents" });
  const element = h("section", { class: "view" },
    card("Tables", "As of their last commits by this process: all tables of a checkpoint are committed one after the other.", list.element),
    card("Catalog and storage", null, sinks.element), contents);
  const show = ({ history, contents: rows }) => {
    const s = history.last;
    list.show(Object.entries(s.tables).map(([name, t]) => ({ name, ...t })));
    sinks.show(Object.entries(s.table_sinks).map(([name, t]) => ({ name, ...t })));
    const small = Object.entries(rows ?? {}).filter(([, c]) => c.rows.length).sort(([a], [b]) => a.localeCompare(b));
    keep(contents, small, ([name]) => name, content, (element, [, c]) => element.show(c.rows));
  };
  return { element, show };
}

/** A small table, its rows in the order of their first columns. */
function content([name, { columns }]) {
  const rank = columns.indexOf("rank"), by = rank < 0 ? 0 : rank;
  const rows = table(name, columns.map((column, at) => ({ name: column.replaceAll("_", " "), num: true, text: r => r.cells[at] ?? none })), r => r.key);
  const note = h("p", { class: "soft" });
  const element = card(name, null, note, rows.element);
  element.show = list => {
    say(note, `${count(list.length)} rows, as committed`);
    const ordered = [...list].sort((a, b) => a[by] < b[by] ? -1 : a[by] > b[by] ? 1 : 0);
    rows.show(ordered.map((cells, at) => ({ cells, key: at })));
  };
  return element;
}
