// The views, one function each: it makes its elements and returns `show(context)`, called with every snapshot while the view is open.

import { h, card, keep, say, set, table } from "./dom.js";
import { bytes, count, dateTime, duration, millis, none, percent, quantile, rate, sum, time } from "./numbers.js";
import { buckets, pairs, spark } from "./charts.js";
import { busy, graph, isControl, naming, taken } from "./graph.js";
import * as alerts from "./alerts.js";

const lag = s => sum(s.partitions.map(p => p.lag ?? 0));
/** Lines of files have no event time: their watermark is where time begins. */
const behind = s => s.watermark == null || millis(s.watermark) <= 0 ? null : Math.max(0, millis(s.now) - millis(s.watermark)) * 1000;
const stateBytes = s => sum(s.state_of.map(o => o.live_bytes + o.dirty_bytes));
const sinks = s => Object.entries(s.epochs.stages.sinks);
/** The slowest sink's histogram is what a consumer of all topics waits for. */
const committed = s => sinks(s).map(([, sink]) => sink.committed)[0];
/** Each keyed operator drops for itself: an event that comes twice is dropped by each that sees it. */
export const repeats = (s, operator) => sum(s.state_of.filter(o => o.operator === operator).map(o => o.duplicates_total));
const duplicated = s => [...new Set(s.state_of.map(o => o.operator))];
const heldBack = history => history.share(s => s.status.backpressure_us, s => s.monotonic_ms * 1000, 10_000);

function tile(name) {
  const value = h("span", { class: "value" }, none), more = h("span", { class: "more" }), line = spark();
  const element = h("div", { class: "tile", role: "group", "aria-label": name }, h("span", { class: "name" }, name), value, more, line.element);
  return { element, show: (text, note, series, mood = "") => { say(value, text); say(more, note ?? ""); line.show(series ?? []); set(element, "class", `tile ${mood}`.trim()); } };
}

/** What a start has rebuilt, while it does: totals are estimates. */
function restored({ collections, views, rows_per_second, remaining_seconds }, bar, words) {
  const of = p => p.rows < p.rows_total ? `${count(p.rows)} of about ${count(p.rows_total)}` : count(p.rows);
  set(bar, "max", Math.max(1, collections.rows_total + views.rows_total)); set(bar, "value", collections.rows + views.rows);
  say(words, `Restoring: ${of(collections)} rows of collections, ${of(views)} of views, ${rate(rows_per_second)}/s${remaining_seconds == null ? "" : `, about ${duration(remaining_seconds * 1e6)} left`}`);
}

export function overview({ openOperator, openAlert, chosen }) {
  const names = ["Records read", "Latency to commit", "Behind the source", "Watermark", "Held back", "State", "Memory", "Findings", "Refused"];
  const tiles = Object.fromEntries(names.map(n => [n, tile(n)]));
  const flow = graph(openOperator), line = alerts.timeline(openAlert), newest = alerts.list("Newest findings", openAlert, chosen);
  const bar = h("progress", { "aria-label": "Restored" }), words = h("span", { role: "status" }), restoring = h("p", { class: "restore", hidden: true }, bar, words);
  const element = h("section", { class: "view" }, restoring,
    h("div", { class: "tiles" }, ...names.map(n => tiles[n].element)),
    card("Flow", "Records a second on the lines; the bars are the share of time each worker spends in the operator. Dashed: control, no records.", flow.element),
    card("Findings", "The last five minutes by the time of their commit; hollow ones were taken back.", line.element),
    card("Newest findings", null, newest.element));
  const show = ({ history, rows, openedOperator }) => {
    const s = history.last, { bounds_us: bounds } = s.epochs, last = history.recent(committed);
    const read = s => s.status.records, said = s => s.status.raised, refused = s => s.status.late + s.status.dead_letters;
    tiles["Records read"].show(`${rate(history.rate(read))}/s`, `${count(s.status.records)} in all`, history.rates(read));
    tiles["Latency to commit"].show(duration(quantile(last, bounds, 0.5)), `p99 ${duration(quantile(last, bounds, 0.99))}, last minute`,
      history.list.map((_, at, list) => at === 0 ? 0 : quantile(committed(list[at])?.counts.map((n, b) => n - (committed(list[at - 1])?.counts[b] ?? 0)), bounds, 0.5) ?? 0));
    tiles["Behind the source"].show(s.partitions.some(p => p.lag != null) ? count(lag(s)) : none, "records not read yet", history.list.map(lag));
    const late = behind(s);
    tiles["Watermark"].show(late == null ? none : `−${duration(late)}`, late == null ? "no event time yet" : `at ${time(s.watermark)} UTC`, history.list.map(s => behind(s) ?? 0));
    const held = heldBack(history);
    tiles["Held back"].show(percent(held), "of the time, last 10 s", history.rates(s => s.status.backpressure_us), held > 0.5 ? "warn" : "");
    tiles["State"].show(bytes(stateBytes(s)), `checkpoint ${s.checkpoints.length ? bytes(s.checkpoints.at(-1).bytes) : "not yet"}`, history.list.map(stateBytes));
    const { bytes: used, limit_bytes: limit } = s.memory;
    tiles["Memory"].show(bytes(used), limit ? `of ${bytes(limit)}` : "no limit is known", history.list.map(s => s.memory.bytes), limit && used > 0.9 * limit ? "warn" : "");
    restoring.hidden = !s.restore || s.restore.is_over;
    if (!restoring.hidden) restored(s.restore, bar, words);
    tiles["Findings"].show(count(s.status.raised), `${count(s.status.withdrawn)} withdrawn`, history.rates(said));
    tiles["Refused"].show(count(refused(s)), `${count(s.status.late)} late, ${count(s.status.dead_letters)} dead`, history.rates(refused));
    flow.show(history, openedOperator);
    line.show(rows.of.finding, s.now, chosen());
    newest.show(rows.of.finding.slice(-12).reverse());
  };
  return { element, show };
}

export function operators({ openOperator }) {
  const bar = (share, text) => ({ share: share ?? 0, text: text ?? percent(share) });
  const list = table("Operators", [
    { name: "operator", open: n => openOperator(n.id), text: n => naming(n.name).title },
    { name: "kind", text: n => naming(n.name).kind || (isControl(n) ? "control" : "operator") },
    { name: "records/s", num: true, text: n => rate(n.rate) },
    { name: "waiting", num: true, text: n => count(sum(n.queued)) },
    { name: "runs/s", num: true, text: n => rate(n.runs) },
    { name: "busy, by worker", bars: n => n.busy.map(share => bar(share)) },
  ], n => n.id);
  const workers = table("Workers", [
    { name: "worker", text: w => w.id }, { name: "records/s read", num: true, text: w => rate(w.read) },
    { name: "partitions", num: true, text: w => w.partitions }, { name: "busy", bars: w => [bar(w.busy)] },
  ], w => w.id);
  const element = h("section", { class: "view" },
    card("Operators", "Busy: share of the last seconds in which the operator ran. Waiting: records sent to it and not taken in. Where the job is slow, the operator before the waiting records is idle and the one behind them is busy.", list.element),
    card("Workers", "Busy: time not parked; the rest is free.", workers.element));
  const show = ({ history }) => {
    const s = history.last, of = (id, part) => history.rate(s => sum(s.graph.nodes.find(n => n.id === id)?.[part] ?? [0]));
    list.show(s.graph.nodes.map(n => ({ ...n, rate: taken(history, n.id), runs: of(n.id, "activations"), busy: s.graph.workers.map((_, w) => busy(history, n.id, w)) })));
    workers.show(s.graph.workers.map((_, w) => {
      const parked = history.share(s => s.graph.workers[w]?.parked_ns ?? 0, s => s.graph.workers[w]?.alive_ns ?? 0);
      return { id: w, read: history.rate(s => s.status.records_by_worker[w] ?? 0), partitions: s.partitions.filter(p => p.worker === w).length, busy: parked == null ? 0 : 1 - parked };
    }));
  };
  return { element, show };
}

export function epochs() {
  const stages = table("Stages", [
    { name: "stage", text: r => r.name }, { name: "newest epoch", num: true, text: r => count(r.epoch) }, { name: "behind", num: true, text: r => r.behind == null ? none : count(r.behind) },
    ...[["p50", 0.5], ["p90", 0.9], ["p99", 0.99]].map(([name, q]) => ({ name, num: true, text: r => duration(quantile(r.counts, r.bounds, q)) })),
  ], r => r.name);
  const of = table("Sinks", [
    { name: "sink", text: r => r.name }, { name: "rows/s", num: true, text: r => rate(r.rows_s) }, { name: "transactions/s", num: true, text: r => rate(r.transactions_s) },
    { name: "epochs waiting", num: true, text: r => count(r.epochs_waiting) }, { name: "staged", num: true, text: r => bytes(r.staged_bytes) },
    { name: "commit p50", num: true, text: r => duration(quantile(r.commits, r.bounds, 0.5)) }, { name: "commit p99", num: true, text: r => duration(quantile(r.commits, r.bounds, 0.99)) },
    { name: "of the staged bytes' bound", bars: r => [{ share: r.staged_bytes / Math.max(1, r.staged_bytes_max), text: percent(r.staged_bytes / Math.max(1, r.staged_bytes_max)) }] },
  ], r => r.name);
  const chart = buckets("Latency to commit, last minute"), since = buckets("Latency to commit, since the start");
  const element = h("section", { class: "view" },
    card("Stages of an epoch", "From the moment an epoch's first record is read: last minute. Epochs without records are not timed.", stages.element),
    h("div", { class: "pair" }, card("First record to committed, last minute", null, chart.element), card("First record to committed, since the start", null, since.element)),
    card("Sinks", null, of.element));
  const show = ({ history }) => {
    const s = history.last, bounds = s.epochs.bounds_us, { stages: all } = s.epochs, opened = s.status.epoch_opened;
    const row = (name, epoch, counts) => ({ name, epoch, behind: epoch == null ? null : opened - epoch, counts, bounds });
    stages.show([
      row("opened", opened), row("bound", null, history.recent(s => s.epochs.stages.bound)),
      row("durable", s.status.epoch_durable, history.recent(s => s.epochs.stages.durable)),
      ...sinks(s).flatMap(([name, sink]) => [
        row(`staged in ${name}`, sink.epoch_staged, history.recent(s => s.epochs.stages.sinks[name]?.staged)),
        row(`committed to ${name}`, sink.epoch_committed, history.recent(s => s.epochs.stages.sinks[name]?.committed))]),
      row("checkpointed", s.status.epoch_checkpointed),
    ]);
    chart.show(history.recent(committed), bounds);
    since.show(committed(s)?.counts, bounds);
    of.show(Object.entries(all.sinks).map(([name, sink]) => ({ ...sink, name, bounds, commits: history.recent(s => s.epochs.stages.sinks[name]?.commit),
      rows_s: history.rate(s => s.epochs.stages.sinks[name]?.rows), transactions_s: history.rate(s => s.epochs.stages.sinks[name]?.transactions) })));
  };
  return { element, show };
}

export function sources() {
  const list = table("Source partitions", [
    { name: "partition", text: p => p.name }, { name: "worker", num: true, text: p => p.worker }, { name: "records/s", num: true, text: p => rate(p.rate) },
    { name: "next offset", num: true, text: p => count(p.next) }, { name: "behind", num: true, text: p => count(p.lag) },
    { name: "newest event", num: true, text: p => dateTime(p.newest) }, { name: "watermark behind now", num: true, text: p => duration(p.behind) }, { name: "is", text: p => p.is },
  ], p => p.name);
  const element = h("section", { class: "view" },
    card("Source partitions", "Behind: records that are there and not read; – where the connector does not know. The job's watermark is the least of the partitions that are not idle; one that is far ahead waits for the others.", list.element));
  const show = ({ history }) => {
    const s = history.last;
    list.show(s.partitions.map(p => ({ ...p, rate: history.rate(s => s.partitions.find(o => o.name === p.name)?.records),
      behind: p.newest == null ? null : (millis(s.now) - millis(p.newest) + s.settings.lateness_ms) * 1000,
      is: p.is_idle ? "idle" : p.is_ahead ? "waiting for slower ones" : p.is_at_end ? "at its end" : "being read" })));
  };
  return { element, show };
}

export function state() {
  const stores = table("State", [
    { name: "operator", text: o => o.operator }, { name: "worker", num: true, text: o => o.worker }, { name: "keys", num: true, text: o => count(o.keys) },
    { name: "in the store", num: true, text: o => bytes(o.live_bytes) }, { name: "cached", num: true, text: o => bytes(o.cached_bytes) }, { name: "not written yet", num: true, text: o => bytes(o.dirty_bytes) },
    { name: "found in the cache", num: true, text: o => o.hits + o.misses ? percent(o.hits / (o.hits + o.misses)) : none },
  ], o => `${o.operator}/${o.worker}`);
  const perOperator = h("div", { class: "pair" });
  const element = h("section", { class: "view" }, card("Stores", null, stores.element), perOperator);
  const show = ({ history }) => {
    const s = history.last;
    stores.show(s.state_of);
    const names = [...new Set(s.state_of.map(o => o.operator))].map(name => ({ name, of: s.state_of.filter(o => o.operator === name) }));
    keep(perOperator, names, o => o.name, skew, (element, o) => element.show(o.of));
  };
  return { element, show };
}

function skew({ name }) {
  const strips = ["records", "bytes"].map(what => ({ what, text: h("p", { class: "soft" }), cells: h("div", { class: "shards", role: "img" }) }));
  const hot = table(`Hottest keys of ${name}`, [
    { name: "hottest keys, lately", text: k => k.key }, { name: "share of the load", bars: k => [{ share: k.share, text: percent(k.share) }] },
  ], k => k.key, { empty: "no load yet" });
  const element = card(name, null, ...strips.flatMap(s => [s.text, s.cells]), hot.element);
  element.show = of => {
    for (const { what, text, cells } of strips) {
      const all = of.map(o => o[`shard_${what}`]).filter(list => list.length);
      const shards = all.length ? all[0].map((_, at) => sum(all.map(list => list[at] ?? 0))) : [];
      const total = sum(shards), most = Math.max(1, ...shards), even = total / Math.max(1, shards.length);
      const unit = what === "bytes" ? bytes : count;
      say(text, total ? `${what === "bytes" ? "Bytes, last checkpoint" : "Records"} by shard: the largest has ${unit(most)}, ${(most / even).toFixed(1)} times the mean` : `${what === "bytes" ? "Bytes" : "Records"} by shard: nothing yet`);
      set(cells, "aria-label", `${what} by shard`);
      keep(cells, shards.map((n, at) => ({ n, at })), c => c.at, c => h("i", { title: "" }), (cell, c) => {
        cell.style.opacity = (0.08 + 0.92 * c.n / most).toFixed(2);
        set(cell, "title", `shard ${c.at}: ${unit(c.n)}`);
      });
    }
    hot.show(of.flatMap(o => o.hottest.map(k => ({ key: k.key, share: k.permille / 1000 / of.length }))).sort((a, b) => b.share - a.share).slice(0, 10));
  };
  return element;
}

export function checkpoints() {
  const times = pairs("Duration of the last checkpoints", ["held the workers", "whole duration"]), sizes = pairs("Size of the last checkpoints", ["added", "whole size"]);
  const list = table("Checkpoints", [
    { name: "epoch", num: true, text: c => count(c.epoch) }, { name: "complete at", class: "nowrap", text: c => dateTime(c.at) }, { name: "size", num: true, text: c => bytes(c.bytes) }, { name: "added", num: true, text: c => bytes(c.bytes_added) },
    { name: "files", num: true, text: c => count(c.files) }, { name: "added", num: true, text: c => count(c.files_added) },
    { name: "held the workers", num: true, text: c => duration(c.cut_us) }, { name: "written in", num: true, text: c => duration(c.write_us) }, { name: "in all", num: true, text: c => duration(c.took_us) },
  ], c => c.epoch, { empty: "none of this process yet" });
  const element = h("section", { class: "view" },
    h("div", { class: "pair" }, card("Duration", "From the opening of the epoch to the durable manifest.", times.element), card("Size", "Files are shared between checkpoints: only what changed is added.", sizes.element)), card("Checkpoints of this process", null, list.element));
  const show = ({ history }) => {
    const all = history.last.checkpoints;
    times.show(all.map(c => ({ key: c.epoch, a: c.cut_us, b: c.took_us, title: `epoch ${c.epoch}: ${duration(c.took_us)}, workers held ${duration(c.cut_us)}` })));
    sizes.show(all.map(c => ({ key: c.epoch, a: c.bytes_added, b: c.bytes, title: `epoch ${c.epoch}: ${bytes(c.bytes)}, ${bytes(c.bytes_added)} added` })));
    list.show([...all].reverse());
  };
  return { element, show };
}

export function rejected({ openAlert, openRefusal, chosen }) {
  const counts = table("Counts", [
    { name: "what", text: r => r.what }, { name: "why", text: r => r.why }, { name: "in all", num: true, text: r => count(r.count) }, { name: "a minute, lately", num: true, text: r => rate(r.rate == null ? null : r.rate * 60) },
  ], r => r.what + r.why);
  const place = r => `${r.topic}/${r.partition}/${r.offset}`;
  const late = table("Late records", [
    { name: "seen", class: "nowrap", text: r => time(r.at) }, { name: "record", open: openRefusal, text: place }, { name: "user", text: r => r.user_id }, { name: "late by", num: true, text: r => duration((millis(r.watermark) - millis(r.timestamp)) * 1000) },
  ], r => r.key, { empty: "none since this page was opened" });
  const dead = table("Dead letters", [
    { name: "seen", class: "nowrap", text: r => time(r.at) }, { name: "record", open: openRefusal, text: place }, { name: "reason", text: r => r.reason.replaceAll("_", " ") },
  ], r => r.key, { empty: "none since this page was opened" });
  const duplicates = table("Duplicates", [
    { name: "dropped at", class: "nowrap", text: d => time(d.clock) }, { name: "by", text: d => d.operator }, { name: "key", text: d => d.key }, { name: "event time", class: "nowrap", text: d => dateTime(d.time) },
  ], d => `${d.operator}/${d.key}/${d.time}/${d.clock}`, { empty: "none" });
  const withdrawn = alerts.list("Withdrawn findings", openAlert, chosen);
  const element = h("section", { class: "view" }, card("Left out or taken back", "Nothing is dropped in silence: every record is in one of the outputs or counted here.", counts.element),
    h("div", { class: "pair" }, card("Last late records", null, late.element), card("Last dead letters", null, dead.element)),
    card("Last withdrawn findings", null, withdrawn.element), card("Last duplicates", null, duplicates.element));
  const show = ({ history, rows }) => {
    const { status } = history.last;
    const row = (what, why, of) => ({ what, why, count: of(history.last), rate: history.rate(of, 60_000) });
    const labelled = (kind, what) => Object.keys(status.labelled).filter(l => l.startsWith(`${kind}.`)).map(l => row(what, l.slice(kind.length + 1).replaceAll("_", " "), s => s.status.labelled[l] ?? 0));
    counts.show([row("late", "below the watermark", s => s.status.late), ...duplicated(history.last).map(name => row("duplicate", `dropped by ${name}`, s => repeats(s, name))), ...labelled("dead_letters", "dead letter"), ...labelled("withdrawn", "withdrawn")]);
    late.show(rows.of.late.slice(-10).reverse());
    dead.show(rows.of.dead.slice(-10).reverse());
    withdrawn.show(rows.of.finding.filter(f => f.status === "withdrawn").slice(-10).reverse());
    duplicates.show(history.last.state_of.flatMap(o => o.duplicates.map(d => ({ ...d, operator: o.operator }))).sort((a, b) => b.clock.localeCompare(a.clock)).slice(0, 10));
  };
  return { element, show };
}

export function findings({ openAlert, chosen }) {
  let only = null;
  const filters = h("div", { class: "filters", role: "group", "aria-label": "Detectors" });
  const line = alerts.timeline(openAlert), list = alerts.list("Findings", openAlert, chosen);
  const element = h("section", { class: "view" }, card("Findings as they were committed", "A click on a mark, or on a finding below, shows its evidence.", filters, line.element), card("Findings, newest first", null, list.element));
  let context;
  const show = now => {
    context = now;
    const all = now.rows.of.finding, labelled = now.history.last.status.labelled;
    const names = Object.keys(labelled).filter(l => l.startsWith("raised.")).map(l => l.slice(7));
    const choices = [{ name: null, text: `all ${count(now.history.last.status.raised)}` }, ...names.map(name => ({ name, text: `${name.replaceAll("_", " ")} ${count(labelled[`raised.${name}`])}` }))];
    keep(filters, choices, c => c.name ?? "", c => h("button", { type: "button", onclick: () => { only = c.name; show(context); } }), (button, c) => { say(button, c.text); set(button, "aria-pressed", only === c.name ? "true" : "false"); });
    const shown = only ? all.filter(f => f.detector === only) : all;
    line.show(shown, now.history.last.now, chosen());
    list.show(shown.slice(-100).reverse());
  };
  return { element, show };
}
