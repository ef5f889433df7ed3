// Small drawings: a line in a tile, bars, buckets.

import { h, keep, say, set, svg } from "./dom.js";
import { duration } from "./numbers.js";

/** A line of the last values, without axes: it shows a shape, the number stands beside it. */
export function spark() {
  const under = svg("path", { class: "under" }), line = svg("path");
  const element = svg("svg", { class: "spark", viewBox: "0 0 100 26", preserveAspectRatio: "none", "aria-hidden": "true" }, under, line);
  const show = values => {
    const most = Math.max(...values, 1e-9);
    const points = values.map((v, at) => `${(at / Math.max(1, values.length - 1) * 100).toFixed(2)} ${(24.5 - v / most * 22).toFixed(2)}`);
    set(line, "d", points.length > 1 ? `M${points.join("L")}` : "");
    set(under, "d", points.length > 1 ? `M0 26L${points.join("L")}L100 26Z` : "");
  };
  return { element, show };
}

/** Observations by bucket of a latency histogram. */
export function buckets(label) {
  const W = 520, H = 130, BASE = 108;
  const plot = svg("g"), axis = svg("g");
  const element = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label },
    svg("line", { class: "grid", x1: 0, x2: W, y1: BASE, y2: BASE }), plot, axis);
  const show = (counts, bounds) => {
    const all = counts?.reduce((a, b) => a + b, 0) ?? 0;
    const first = Math.max(0, (counts ?? []).findIndex(n => n > 0) - 1);
    const last = Math.min(bounds.length, (counts ?? []).findLastIndex(n => n > 0) + 1);
    const shown = all === 0 ? [] : counts.slice(first, last + 1).map((n, at) => ({ at: first + at, n }));
    const most = Math.max(1, ...shown.map(b => b.n)), step = W / Math.max(10, shown.length);
    keep(plot, shown, b => b.at, () => svg("rect", { class: "a" }, svg("title")), (rect, b) => {
      const tall = b.n / most * (BASE - 8), low = b.at === 0 ? 0 : bounds[b.at - 1];
      const upto = b.at < bounds.length ? `to ${duration(bounds[b.at])}` : "and more";
      set(rect, "x", ((b.at - first) * step + 2).toFixed(1)); set(rect, "y", (BASE - tall).toFixed(1));
      set(rect, "width", (step - 4).toFixed(1)); set(rect, "height", tall.toFixed(1));
      say(rect.firstElementChild, `${duration(low)} ${upto}: ${b.n} epochs, ${(b.n / all * 100).toFixed(1)} %`);
    });
    // At the upper bound of each third bucket: more would not fit.
    const named = shown.filter(b => (b.at - first) % 3 === 1 && b.at < last);
    keep(axis, named, b => b.at, () => svg("text", { class: "soft", "text-anchor": "middle", y: H - 6 }), (text, b) => {
      set(text, "x", ((b.at - first + 1) * step).toFixed(1));
      say(text, duration(bounds[b.at]).replace(".0 ", " "));
    });
  };
  return { element, show };
}

/** Bars of the last items, two parts each: `{ key, a, b, title }`, `a` stands in front of `b`. */
export function pairs(label, legend) {
  const W = 1000, H = 120;
  const plot = svg("g");
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", height: H, role: "img", "aria-label": label },
    svg("line", { class: "grid", x1: 0, x2: W, y1: H - 1, y2: H - 1 }), plot);
  const element = h("div", {}, chart, h("p", { class: "legend" },
    h("span", {}, h("i"), legend[0]), h("span", {}, h("i", { class: "b" }), legend[1])));
  const show = items => {
    const most = Math.max(1e-9, ...items.map(i => Math.max(i.a, i.b))), step = W / Math.max(30, items.length);
    keep(plot, items, i => i.key, () => svg("g", {}, svg("rect", { class: "b" }), svg("rect", { class: "a" }), svg("title")), (group, item) => {
      const at = items.indexOf(item);
      [["b", 0], ["a", 1]].forEach(([part, child]) => {
        const tall = item[part] / most * (H - 8), rect = group.children[child];
        set(rect, "x", (at * step + 3).toFixed(1)); set(rect, "width", (step - 6).toFixed(1));
        set(rect, "y", (H - 1 - tall).toFixed(1)); set(rect, "height", tall.toFixed(1));
      });
      say(group.lastElementChild, item.title);
    });
  };
  return { element, show };
}
