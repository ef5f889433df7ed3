"""A picture of the medians as SVG: a panel for each group and figure, a bar for each kind, a line for the spread of its runs. Follows the
reader's choice of a light or a dark page; needs no library."""

from xml.sax.saxutils import escape

# The figures that are drawn, with their unit.
DRAWN = {"events_per_s": "events/s", "cpu_s_per_million": "CPU-seconds per million", "p50_ms": "p50, ms", "p99_ms": "p99, ms", "back_s": "seconds",
         "checkpoint_s": "seconds a checkpoint", "restore_s": "seconds to restore", "memory_mb": "MB of memory", "cores": "cores", "rss_peak_mb": "MB of memory"}
# A group's memory is drawn where it is what the group is about.
MEMORY_OF = ("state", "keys", "throughput")
COLUMNS, WIDTH, LABEL, BAR, ROW, HEAD, GAP = 2, 520, 200, 220, 20, 34, 26
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600; font-size: 13px } .unit, .value { fill: #57606a }
  .ours { fill: #2563eb } .peer { fill: #a8b3c2 } .spread { stroke: #24292f; stroke-width: 1.5 } .page { fill: #ffffff }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .unit, .value { fill: #9aa4b0 } .ours { fill: #5b8def } .peer { fill: #566170 }
    .spread { stroke: #e6edf3 } .page { fill: #0d1117 } }
"""


def panels(summaries):
    """(title, unit, better or not, [(kind, figure)]) of what is drawn."""
    for title, group in summaries.items():
        for name, unit in DRAWN.items():
            bars = [(kind, figures[name]) for kind, figures in group.items() if name in figures]
            if bars and (name != "rss_peak_mb" or title.startswith(MEMORY_OF)):
                yield title, name, unit, bars


def shown(value):
    return f"{value / 1000:,.0f}k" if value >= 10_000 else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def panel(title, unit, direction, bars, x, y):
    scale = BAR / max(max(figure["max"] for _, figure in bars), 1e-9)
    lines = [f'<text class="title" x="{x}" y="{y + 12}">{escape(title)}</text>',
             f'<text class="unit" x="{x}" y="{y + 27}">{escape(unit)}, {"more" if direction > 0 else "less"} is better</text>']
    for number, (kind, figure) in enumerate(bars):
        top, left = y + HEAD + number * ROW, x + LABEL
        median, low, high = (figure[name] * scale for name in ("median", "min", "max"))
        middle = top + ROW / 2 - 1
        lines += [f'<text x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(kind)}</text>',
                  f'<rect class="{"ours" if kind.startswith("ours") else "peer"}" x="{left}" y="{top + 2}" width="{max(median, 1):.1f}" height="{ROW - 6}" rx="2"/>']
        if high - low > 1:
            lines.append(f'<path class="spread" d="M{left + low:.1f} {middle - 3:.1f}v6m0 -3H{left + high:.1f}m0 -3v6" fill="none"/>')
        lines.append(f'<text class="value" x="{left + max(high, median) + 7:.1f}" y="{middle + 4:.1f}">{shown(figure["median"])}</text>')
    return lines


def svg(summaries, better):
    lines, heights = [], [GAP] * COLUMNS
    for title, name, unit, bars in panels(summaries):
        column = heights.index(min(heights))
        lines += panel(title, unit, better[name], bars, GAP + column * WIDTH, heights[column])
        heights[column] += HEAD + ROW * len(bars) + GAP
    width, height = GAP + COLUMNS * WIDTH, max(heights)
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
                      f"<style>{STYLE}</style>", f'<rect class="page" width="{width}" height="{height}"/>', *lines, "</svg>", ""])
