// The page: asks twice a second while it is seen, keeps the last minutes, shows the view that is open.

import { h, keep, say, set, table } from "./dom.js";
import { History, count, duration, percent, rate, sum } from "./numbers.js";
import { busy, naming, taken } from "./graph.js";
import { Rows, details, refusal } from "./alerts.js";
import { tables } from "./tables.js";
import * as panels from "./panels.js";

const EVERY_MS = 1000, KEPT = 300;
const by = id => document.getElementById(id);
const history = new History(KEPT), rows = new Rows();
let open = null, paused = false, contents = {}, current, inDetail = null, before = null;

const context = () => ({ history, rows, contents, openedOperator: inDetail?.operator });
const chosen = () => inDetail?.alert?.key;
const hooks = {
  chosen,
  openOperator: id => detail({ operator: id }),
  openAlert: alert => detail({ alert }),
  openRefusal: row => detail({ alert: row, refused: true }),
};
const VIEWS = [
  ["overview", "Overview", panels.overview], ["findings", "Findings", panels.findings], ["operators", "Operators", panels.operators], ["epochs", "Epochs", panels.epochs],
  ["sources", "Sources", panels.sources], ["state", "State", panels.state], ["checkpoints", "Checkpoints", panels.checkpoints], ["rejected", "Left out", panels.rejected],
  ["tables", "Tables", tables],
].map(([id, title, make]) => ({ id, title, ...make(hooks) }));

function tabs() {
  for (const [at, view] of VIEWS.entries()) {
    view.tab = h("button", { type: "button", role: "tab", id: `tab-${view.id}`, "aria-controls": `view-${view.id}`, onclick: () => go(view), title: `${view.title} (${at + 1})` },
      view.title, view.badge = h("span", { class: "badge", hidden: true }));
    set(view.element, "id", `view-${view.id}`); set(view.element, "role", "tabpanel"); set(view.element, "aria-labelledby", `tab-${view.id}`);
    view.element.hidden = true;
    by("tabs").append(view.tab); by("panels").append(view.element);
  }
  by("tabs").addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], end = { Home: 0, End: VIEWS.length - 1 }[event.key];
    if (step == null && end == null) return;
    event.preventDefault();
    const to = VIEWS[end ?? (VIEWS.indexOf(open) + step + VIEWS.length) % VIEWS.length];
    go(to); to.tab.focus();
  });
}

function go(view) {
  open = view;
  for (const one of VIEWS) {
    one.element.hidden = one !== view;
    set(one.tab, "aria-selected", one === view ? "true" : "false"); set(one.tab, "tabindex", one === view ? 0 : -1);
  }
  if (location.hash !== `#${view.id}`) window.history.replaceState(null, "", `#${view.id}`);
  show();
}

function show() {
  if (!history.last) return;
  const s = history.last, word = current === "gone" ? "gone" : paused ? "paused" : s.state;
  say(by("job"), s.job); document.title = `${s.job}: ${word === "gone" ? "not answering" : word}`;
  say(by("state"), word === "gone" ? "not answering" : word); set(by("state"), "class", `pill ${word}`);
  say(by("about"), `profile ${s.profile} · generation ${s.generation} · ${s.workers} workers · up ${duration(s.uptime_ms * 1000)} · epoch ${count(s.status.epoch_opened)}`);
  const retried = Object.entries(s.table_sinks).flatMap(([sink, of]) => Object.entries(of.retrying).map(([what, r]) => `${sink}, ${what}: ${r.error}; tried again since ${r.since.slice(11, 19)} UTC`));
  const trouble = s.failure ?? retried.join(" · ");
  by("failure").hidden = !trouble; say(by("failure"), trouble); set(by("failure"), "class", s.failure ? null : "retried");
  badge("findings", s.status.raised); badge("rejected", s.status.late + s.status.dead_letters);
  open.show(context());
  if (inDetail?.operator != null) inDetail.show();
}

function badge(id, n) {
  const view = VIEWS.find(v => v.id === id);
  view.badge.hidden = !n; say(view.badge, count(n));
}

async function get(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(5000) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function look() {
  if (!paused && !document.hidden) {
    try {
      const snapshot = await get("watch.json");
      if (history.last && history.last.generation !== snapshot.generation) rows.reset();
      history.add(snapshot);
      await rows.ask(snapshot.topics, get);
      if (open.id === "tables") contents = await get("tables.json");
      current = "here";
    } catch {
      current = "gone";
      if (!history.last) { say(by("state"), "not answering"); set(by("state"), "class", "pill gone"); }
    }
    show();
  }
  setTimeout(look, EVERY_MS);
}

// Details: an alert, a refused record or an operator, beside the view.

function detail(what) {
  before ??= document.activeElement;
  inDetail = what;
  const body = what.operator != null ? operator(what) : what.refused ? refusal(what.alert) : details(what.alert);
  const close = h("button", { class: "close", type: "button", onclick: closeDetail }, "Close");
  by("detail").replaceChildren(close, ...body);
  by("detail").hidden = false;
  close.focus();
  show();
}

function closeDetail() {
  if (!inDetail) return;
  inDetail = null; by("detail").hidden = true;
  if (before?.isConnected) before.focus();
  before = null;
  show();
}

function operator(what) {
  const of = s => s.graph.nodes.find(n => n.id === what.operator), { kind, title } = naming(of(history.last).name);
  const facts = h("dl", { class: "facts" });
  const list = table("By worker", [
    { name: "worker", num: true, text: w => w.id }, { name: "messages in", num: true, text: w => count(w.received) }, { name: "waiting", num: true, text: w => count(w.queued) }, { name: "runs", num: true, text: w => count(w.runs) },
    { name: "busy", bars: w => [{ share: w.busy ?? 0, text: percent(w.busy) }] },
  ], w => w.id);
  what.show = () => {
    const n = of(history.last);
    if (!n) return closeDetail();
    const lines = [["records", `${rate(taken(history, n.id))}/s`], ["waiting", count(sum(n.queued))]];
    keep(facts, lines.flatMap(([name, value]) => [{ id: name, tag: "dt", text: name }, { id: `${name} value`, tag: "dd", text: value }]), l => l.id, l => h(l.tag), (e, l) => say(e, l.text));
    list.show(n.received.map((received, id) => ({ id, received, queued: n.queued[id], runs: n.activations[id], busy: busy(history, n.id, id) })));
  };
  return [h("h2", {}, title), h("p", { class: "soft" }, kind || "operator"), h("h3", {}, "Now"), facts, h("h3", {}, "By worker"), list.element];
}

// Theme, pause, keys.

const THEMES = ["system", "light", "dark"];
function theme(name) {
  set(document.documentElement, "data-theme", name === "system" ? null : name);
  say(by("theme"), `Theme: ${name}`);
  try { localStorage.setItem("dataflow-theme", name); } catch { /* a browser that keeps nothing */ }
}
function savedTheme() {
  try { return THEMES.find(t => t === localStorage.getItem("dataflow-theme")) ?? "system"; } catch { return "system"; }
}
function nextTheme() { theme(THEMES[(THEMES.indexOf(savedTheme()) + 1) % THEMES.length]); }

function pause() {
  paused = !paused;
  set(by("pause"), "aria-pressed", String(paused)); say(by("pause"), paused ? "Go on" : "Pause");
  show();
}

function step(by) {
  const buttons = [...open.element.querySelectorAll("button.row")];
  if (buttons.length === 0) return;
  const at = buttons.indexOf(document.activeElement);
  buttons[Math.max(0, Math.min(buttons.length - 1, at < 0 ? 0 : at + by))].focus();
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || by("keys").open) return;
  const view = VIEWS[Number(event.key) - 1];
  if (view) { go(view); view.tab.focus(); }
  else if (event.key === "t") nextTheme();
  else if (event.key === "p") pause();
  else if (event.key === "?") by("keys").showModal();
  else if (event.key === "Escape") closeDetail();
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
});

by("pause").addEventListener("click", pause);
by("theme").addEventListener("click", nextTheme);
by("help").addEventListener("click", () => by("keys").showModal());
theme(savedTheme());
tabs();
go(VIEWS.find(v => `#${v.id}` === location.hash) ?? VIEWS[0]);
look();
