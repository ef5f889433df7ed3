// The job's graph: operators in the order of the flow, with what passes between them and how busy each worker is with each.

import { h, keep, say, set, svg } from "./dom.js";
import { count, percent, rate, sum } from "./numbers.js";

const BOX = { w: 164, h: 66 }, GAP = { x: 44, y: 22 }, BAR = 5;
// Operators that carry no records but say when: drawn apart, in a row below.
const CONTROL = ["Ticker", "Binder", "Checkpoints"];
const KINDS = { Source: "source", Sink: "sink", Rows: "rows for", KeyedHistory: "keyed history" };
const TITLES = { SplitLate: "on time or late" };

export const isControl = node => CONTROL.includes(node.name);
/** "KeyedHistory logins-by-user" is of the kind "keyed history" and called "logins-by-user". */
export function naming(name) {
  const [kind, ...rest] = name.split(" ");
  return KINDS[kind] && rest.length ? { kind: KINDS[kind], title: rest.join(" ") } : { kind: "", title: TITLES[name] ?? name };
}

const node = (snapshot, id) => snapshot.graph.nodes.find(n => n.id === id);
/** Share of the time that a worker spends in an operator. */
export const busy = (history, id, worker) => history.share(
  s => node(s, id)?.busy_ns[worker] ?? 0, s => s.graph.workers[worker]?.alive_ns ?? 0);
/** Records, without control messages: what came in, or what went out of an operator that nothing comes into. */
function flowed(snapshot, id) {
  const isFlow = e => ![e.from, e.to].some(end => { const n = node(snapshot, end); return !n || isControl(n); });
  const flow = snapshot.graph.edges.filter(isFlow), into = flow.filter(e => e.to === id);
  return sum((into.length ? into : flow.filter(e => e.from === id)).map(e => e.records));
}
export const taken = (history, id) => history.rate(s => flowed(s, id));
const passed = (history, edge) => history.rate(s => s.graph.edges.find(e => e.from === edge.from && e.to === edge.to)?.records);

/** Columns by the longest way from a source, moved towards the sink where that shortens the lines. */
function columns(nodes, edges) {
  const column = new Map(nodes.map(n => [n.id, 0]));
  for (const _ of nodes) for (const e of edges) column.set(e.to, Math.max(column.get(e.to), column.get(e.from) + 1));
  for (const _ of nodes) for (const n of nodes) {
    const next = edges.filter(e => e.from === n.id).map(e => column.get(e.to));
    if (next.length && edges.some(e => e.to === n.id)) column.set(n.id, Math.min(...next) - 1);
  }
  return column;
}

function place(snapshot) {
  const { nodes, edges } = snapshot.graph;
  const flow = nodes.filter(n => !isControl(n)), ids = new Set(flow.map(n => n.id));
  const inner = edges.filter(e => ids.has(e.from) && ids.has(e.to));
  const column = columns(flow, inner), places = new Map(), rows = [];
  const wide = Math.max(0, ...column.values()) + 1;
  for (let c = 0; c < wide; c += 1) {
    const here = flow.filter(n => column.get(n.id) === c);
    // Beside what they come from, so that lines cross less.
    const origin = n => { const from = inner.filter(e => e.to === n.id).map(e => places.get(e.from)?.y ?? 0); return from.length ? sum(from) / from.length : 0; };
    here.sort((a, b) => origin(a) - origin(b) || a.id - b.id);
    rows.push(here.length);
    here.forEach((n, at) => places.set(n.id, { x: c * (BOX.w + GAP.x), row: at, of: here.length, y: at * (BOX.h + GAP.y) }));
  }
  const tall = Math.max(1, ...rows) * (BOX.h + GAP.y);
  for (const p of places.values()) p.y = (p.row + 0.5) * tall / p.of - BOX.h / 2;
  const control = nodes.filter(isControl).sort((a, b) => CONTROL.indexOf(a.name) - CONTROL.indexOf(b.name));
  control.forEach((n, at) => places.set(n.id, { x: (at + 0.5) * wide * (BOX.w + GAP.x) / control.length - BOX.w / 2, y: tall + 34 }));
  return { places, width: wide * (BOX.w + GAP.x) - GAP.x, height: tall + (control.length ? 34 + BOX.h : 0) };
}

function curve(from, to) {
  if (Math.abs(from.x - to.x) < BOX.w / 2 || to.y - from.y > BOX.h * 3 || from.y - to.y > BOX.h * 3) {
    const down = to.y >= from.y, x1 = from.x + BOX.w / 2, x2 = to.x + BOX.w / 2;
    const y1 = from.y + (down ? BOX.h : 0), y2 = to.y + (down ? 0 : BOX.h), bend = (y1 + y2) / 2;
    return { path: `M${x1} ${y1}C${x1} ${bend} ${x2} ${bend} ${x2} ${y2}`, x: (x1 + x2) / 2, y: bend };
  }
  const right = to.x > from.x, x1 = from.x + (right ? BOX.w : 0), x2 = to.x + (right ? 0 : BOX.w);
  const y1 = from.y + BOX.h / 2, y2 = to.y + BOX.h / 2, bend = (x1 + x2) / 2;
  return { path: `M${x1} ${y1}C${bend} ${y1} ${bend} ${y2} ${x2} ${y2}`, x: bend, y: (y1 + y2) / 2 };
}

/** The drawing; `open(id)` is called when an operator is chosen. */
export function graph(open) {
  const edges = svg("g"), labels = svg("g"), boxes = svg("g");
  const drawing = svg("svg", { role: "group", "aria-label": "The job's operators" }, edges, labels, boxes);
  const element = h("div", { class: "graph scroll" }, drawing);
  const show = (history, chosen) => {
    const snapshot = history.last, { places, width, height } = place(snapshot);
    const byId = new Map(snapshot.graph.nodes.map(n => [n.id, n]));
    set(drawing, "viewBox", `-6 -4 ${width + 12} ${height + 10}`);
    const drawn = snapshot.graph.edges.filter(e => places.has(e.from) && places.has(e.to)).map(e => {
      const control = isControl(byId.get(e.from)) || isControl(byId.get(e.to));
      return { ...e, control, rate: passed(history, e), line: curve(places.get(e.from), places.get(e.to)) };
    });
    keep(edges, drawn, e => `${e.from}-${e.to}`, () => svg("path"), (path, e) => {
      set(path, "d", e.line.path);
      set(path, "class", `edge${e.control ? " control" : e.rate ? "" : " idle"}`);
      set(path, "stroke-width", e.control ? 1 : (1.2 + Math.log10(1 + (e.rate ?? 0)) * 1.1).toFixed(1));
    });
    keep(labels, drawn.filter(e => !e.control && e.rate), e => `${e.from}-${e.to}`, () => svg("text", { class: "rate soft", "text-anchor": "middle" }), (text, e) => {
      set(text, "x", e.line.x); set(text, "y", e.line.y - 3);
      say(text, `${rate(e.rate)}/s`);
    });
    keep(boxes, snapshot.graph.nodes.filter(n => places.has(n.id)), n => n.id, n => box(n, snapshot, open), (group, n) => {
      const { x, y } = places.get(n.id);
      set(group, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
      set(group, "aria-pressed", chosen === n.id ? "true" : "false");
      label(group, n, history);
    });
  };
  return { element, show };
}

function box(n, snapshot, open) {
  const { kind, title } = naming(n.name);
  const choose = event => { event.preventDefault(); open(n.id); };
  const bar = (_, at) => {
    const y = BOX.h - 9 - (snapshot.graph.workers.length - 1 - at) * (BAR + 2);
    return [svg("rect", { class: "track", x: 10, y, width: BOX.w - 20, height: BAR, rx: 2 }), svg("rect", { class: "fill", x: 10, y, width: 0, height: BAR, rx: 2 })];
  };
  return svg("g", { class: `node${isControl(n) ? " control" : ""}`, role: "button", tabindex: 0, onclick: choose,
    onkeydown: event => { if (event.key === "Enter" || event.key === " ") choose(event); } },
    svg("rect", { class: "box", width: BOX.w, height: BOX.h, rx: 8 }),
    svg("text", { class: "soft", x: 10, y: 15 }, kind), svg("text", { class: "title", x: 10, y: kind ? 30 : 22 }, title),
    svg("text", { class: "soft", x: 10, y: 44 }),
    // Four workers' bars fit; more are told when the operator is opened.
    ...snapshot.graph.workers.slice(0, kind ? 2 : 3).flatMap(bar));
}

function label(group, n, history) {
  const { title } = naming(n.name), perWorker = history.last.graph.workers.map((_, w) => busy(history, n.id, w) ?? 0);
  const most = Math.max(0, ...perWorker), flows = isControl(n) ? "" : ` · ${rate(taken(history, n.id))}/s`;
  const queued = sum(n.queued), waiting = queued > 0 && !isControl(n) ? ` · ${count(queued)} wait` : "";
  const [, , , line] = group.children;
  say(line, `${percent(most)} busy${flows}${waiting}`);
  set(group, "aria-label", `${title}: ${percent(most)} busy${flows}${waiting}`);
  group.querySelectorAll(".fill").forEach((fill, w) => {
    set(fill, "width", ((BOX.w - 20) * (perWorker[w] ?? 0)).toFixed(1));
    set(fill, "class", perWorker[w] > 0.8 ? "fill hot" : "fill");
  });
}
