// Findings and refused records as they are committed: kept here, shown on a timeline and in lists.

import { bytes, dateTime, millis, none, time } from "./numbers.js";
import { h, keep, say, set, svg, table } from "./dom.js";

const KEPT = 1000, MARKS = 600;
const WINDOW_MS = 5 * 60_000;

/** What a row is told by its fields: no topic has to be known by name. */
export function kind(row) {
  if (row.detector && row.status) return "finding";
  if (row.watermark && row.offset != null) return "late";
  if (row.reason && row.offset != null) return "dead";
  return "other";
}

/** Asks for the new rows of every topic whose rows are of interest. */
export class Rows {
  constructor() { this.reset(); }

  reset() { this.of = { finding: [], late: [], dead: [] }; this.after = {}; this.dull = new Set(); this.latest = 0; }

  async ask(topics, get) {
    for (const topic of topics.filter(t => !this.dull.has(t))) {
      const rows = await get(`rows.json?topic=${encodeURIComponent(topic)}&after=${this.after[topic] ?? 0}`);
      for (const { number, epoch, at, row } of rows) {
        this.after[topic] = number;
        const list = row && this.of[kind(row)];
        if (!list) { this.dull.add(topic); break; }
        list.push({ ...row, epoch: row.epoch ?? epoch, at, number, key: `${topic}/${number}` });
        if (list.length > KEPT) list.shift();
      }
    }
  }
}

/** The last five minutes, a lane each detector. */
export function timeline(open) {
  const W = 1000, LEFT = 150, LANE = 26, TOP = 8;
  const lanes = svg("g"), marks = svg("g"), ticks = svg("g");
  const drawing = svg("svg", { class: "chart", role: "img" }, lanes, ticks, marks);
  const element = h("div", { class: "timeline scroll" }, drawing);
  const show = (findings, now, chosen) => {
    const end = millis(now), start = end - WINDOW_MS;
    const shown = findings.filter(f => millis(f.at) >= start).slice(-MARKS);
    const names = [...new Set(findings.map(f => f.detector))].sort();
    const high = TOP + Math.max(1, names.length) * LANE, x = at => LEFT + (millis(at) - start) / WINDOW_MS * (W - LEFT - 8);
    const y = name => TOP + (names.indexOf(name) + 0.5) * LANE;
    set(drawing, "viewBox", `0 0 ${W} ${high + 22}`);
    set(drawing, "aria-label", `${shown.length} findings in the last five minutes`);
    keep(lanes, names, n => n, n => svg("g", {}, svg("line", { class: "lane", x1: LEFT, x2: W }), svg("text", { x: 0 }, n.replaceAll("_", " "))), (lane, name) => {
      set(lane.firstChild, "y1", y(name)); set(lane.firstChild, "y2", y(name)); set(lane.lastChild, "y", y(name) + 4);
    });
    const minutes = [0, 1, 2, 3, 4, 5];
    keep(ticks, minutes, m => m, m => svg("text", { class: "soft", "text-anchor": m === 0 ? "end" : "middle" }), (text, m) => {
      set(text, "x", W - 8 - m / 5 * (W - LEFT - 8)); set(text, "y", high + 15);
      say(text, m === 0 ? "now" : `−${m} min`);
    });
    keep(marks, shown, f => f.key, f => svg("circle", { r: 5, onclick: () => open(f) }, svg("title", {}, `${time(f.at)} ${f.reason}: ${f.user_id}`)), (mark, f) => {
      set(mark, "cx", x(f.at).toFixed(1)); set(mark, "cy", y(f.detector));
      set(mark, "class", `mark ${f.severity} ${f.status}${chosen === f.key ? " chosen" : ""}`);
    });
  };
  return { element, show };
}

/** The newest findings as a table. */
export function list(label, open, chosen) {
  return table(label, [
    { name: "seen", class: "nowrap", text: f => time(f.at) },
    { name: "finding", open, text: f => f.status === "withdrawn" ? `${f.reason} (taken back)` : f.reason },
    { name: "user", text: f => f.user_id },
    { name: "severity", severity: true, text: f => f.severity },
    { name: "country", text: f => f.country ?? none },
    { name: "event time", class: "nowrap", text: f => dateTime(f.timestamp) },
  ], f => f.key, { empty: "no findings since this page was opened or the job started", mark: f => [f.status, chosen() === f.key ? "chosen" : ""].join(" ").trim() });
}

const facts = entries => h("dl", { class: "facts" }, ...entries.filter(([, v]) => v != null).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));

/** A finding with its evidence. */
export function details(f) {
  const detail = Object.entries(f.detail ?? {}).map(([name, value]) => [name.replaceAll("_", " "), value]);
  return [
    h("h2", {}, f.status === "withdrawn" ? `${f.reason} (taken back)` : f.reason),
    h("p", { class: `severity ${f.severity}` }, f.severity),
    h("h3", {}, "What"),
    facts([["user", f.user_id], ["event time", dateTime(f.timestamp)], ["country", f.country], ["detector", f.detector], ["status", f.status], ["epoch", f.epoch], ["seen", dateTime(f.at)], ["id", f.id]]),
    ...(detail.length ? [h("h3", {}, "Detail"), facts(detail)] : []),
    h("h3", {}, `Evidence: ${f.evidence?.length ?? 0} records`),
    evidence(f.evidence ?? []),
    h("h3", {}, "Record"),
    h("pre", {}, JSON.stringify(row(f), null, 1)),
  ];
}

function evidence(places) {
  const shown = table("Evidence", [
    { name: "topic", text: e => e.topic }, { name: "partition", num: true, text: e => e.partition }, { name: "offset", num: true, text: e => e.offset },
  ], e => `${e.topic}/${e.partition}/${e.offset}`, { empty: "none" });
  shown.show(places);
  return shown.element;
}

/** A late record or a dead letter. */
export function refusal(r) {
  const raw = r.raw == null ? null : decode(r.raw);
  return [
    h("h2", {}, r.watermark ? "Late record" : `Dead letter: ${r.reason.replaceAll("_", " ")}`),
    h("h3", {}, "Where"),
    facts([["topic", r.topic], ["partition", r.partition], ["offset", r.offset], ["epoch", r.epoch], ["watermark", r.watermark && dateTime(r.watermark)], ["event time", r.timestamp && dateTime(r.timestamp)], ["seen", dateTime(r.at)]]),
    ...(raw ? [h("h3", {}, `Content, ${bytes(raw.length)}`), h("pre", {}, raw)] : []),
    h("h3", {}, "Record"),
    h("pre", {}, JSON.stringify(row(r), null, 1)),
  ];
}

function row({ at, number, key, ...row }) { return row; }

function decode(base64) {
  try { return new TextDecoder().decode(Uint8Array.from(atob(base64), c => c.charCodeAt(0))); } catch { return base64; }
}
