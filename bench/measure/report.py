"""From runs to files: JSON with every figure, a Markdown page with medians, spread and ratios, and a picture of it.

Results are `{group: {kind: [figures of a run]}}`. A kind is `IMPLEMENTATION, VARIANT`: within a group implementations of one variant are
compared, and variants of one implementation; both run by run, in the order in which they took turns."""

import datetime
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys

import plot

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OURS = "ours"
MORE, LESS = 1, -1

# Figures that have a direction, in the order of a table's columns: what is better. All others are kept in the JSON only, except LOAD.
BETTER = {
    "events_per_s": MORE, "steady_per_s": MORE, "filling_per_s": MORE, "from_start_s": LESS, "cpu_s_per_million": LESS, "steady_cpu_s_per_million": LESS,
    "p50_ms": LESS, "p90_ms": LESS, "p99_ms": LESS, "max_ms": LESS, "back_s": LESS, "all_back_s": LESS,
    "checkpoint_s": LESS, "cut_max_ms": LESS, "read_ms": LESS, "ready_s": LESS, "cores": LESS, "restore_s": LESS, "cpu_s": LESS, "memory_mb": LESS,
    "rss_peak_mb": LESS,
}
# What else a table shows: how large it was, and what the machine did meanwhile.
CONTEXT = ("rows", "first_ms", "view_rows", "files", "delete_files", "dip_share", "keys", "state_mb", "services_cores", "others_cores")

NOTES = """\
- A run whose output is not what its input demands (rows, different keys, and of two detectors the number of findings, which is
  computed apart) has no figure; it is listed as failed.
- `enrichment`: each login with its place. `detectors`: that, and the findings of new country and unresolved address; `ours (all detectors)`
  has all seven. `flink` uses a process table function for the two, its strongest form; `flink-sql` the `COUNT OVER` that one would write first.
- Kafka Streams commits every 100 ms (exactly-once) or 1 s, Flink takes a checkpoint every second, ours commits every tick: their defaults or
  what their latency needs, and what the other figures pay for.
- `events_per_s`: from the moment the job began to read, for ours from the start of its process, to the last row's visibility to a
  `read_committed` consumer. `from_start_s`: from the start of the process to there, for all alike. `steady_`: the second half of the rows,
  when compilers have compiled; none where that became visible at once.
- CPU-seconds: user and system of the engine's processes and all they start, without what the services spend for them; for Flink without
  the start of its cluster. `rss_peak_mb`: their resident memory together, sampled four times a second.
- Latency: from the producer's timestamp of the input record to the consumer's `poll`; the broker keeps whole milliseconds, so a
  figure is up to 1 ms too high. Up to 5,000 a second the producer sends each login at once, above it waits 1 ms for more.
- `back_s`: from the signal to the end of the longest silence that a consumer sees around it, the process being started again at once;
  `all_back_s`: the same for the last partition.
- `dip_share`: by how much fewer records a second were read while a checkpoint was under way. `cut_max_ms`: the longest time for which a
  checkpoint held a worker.
- `ready_s`: from the start of a process with all state in place to its `/readyz`, when its views stand again. `p50_ms` to `p99_ms` of the
  lakehouse: from the first record of an epoch to its changes of the tables, before they are committed; the page's histogram, so
  within its buckets.
- `p50_ms` of Spark: the median time of a full refresh of all silver and gold views by a process that has made one before (`first_ms`); a
  change waits that long at least. Three gold views are compared with ours, row by row.
- `read_ms`: DuckDB over all columns and rows of a table, the median of some reads by one connection. `by equality deletes`: the same rows, put in
  at once and then once more, a part in each of as many commits as have left data files of ours; each with a file of equality deletes.
- In memory, making the logins and their JSON is part of the process and of its figures.
- `services_cores`: Kafka, registry. `others_cores`: everything else on the machine that is no part of the run; where it is not near 0, the
  figures are too bad by an unknown amount."""


def about(options):
    """What was measured, on what."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    # The benchmarks themselves are not what is measured.
    changed = subprocess.run([*git, "status", "--porcelain", "--", ".", ":!bench", ":!Cargo.lock"], capture_output=True, text=True, check=False)
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    return {
        "commit": commit, "with_changes": bool(changed.stdout.strip()), "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {model}, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB, Linux {platform.release()}",
        "arguments": {name: value for name, value in vars(options).items() if name not in ("name", "keep", "failures", "left_out")},
        "command": shlex.join(["make", "bench", *([f"BENCH_ARGS={shlex.join(sys.argv[1:])}"] if sys.argv[1:] else [])]),
    }


def summary(runs):
    """Median, least and greatest of each figure that every run has."""
    figures = [name for name, value in runs[0].items() if isinstance(value, int | float) and all(name in run for run in runs)]
    return {name: {"median": statistics.median(run[name] for run in runs), "min": min(run[name] for run in runs),
                   "max": max(run[name] for run in runs)} for name in figures}


def pairs(kinds):
    """The comparisons within a group, as (numerator, denominator): ours over each peer, then each further variant over its first."""
    split = [(kind, *(kind.split(", ", 1) + [""])[:2]) for kind in kinds]
    found = [(kind, other) for kind, name, variant in split for other, peer, same in split
             if name.startswith(OURS) and not peer.startswith(OURS) and variant == same]
    firsts = {}
    for kind, name, _ in split:
        found += [(kind, firsts[name])] if name in firsts else []
        firsts.setdefault(name, kind)
    return found


def ratios(group):
    """By comparison and figure: the ratios run by run."""
    found = {}
    for above, below in pairs(group):
        of_pair = {}
        for figure in BETTER:
            values = [a[figure] / b[figure] for a, b in zip(group[above], group[below], strict=False) if figure in a and b.get(figure)]
            if values:
                of_pair[figure] = values
        found[f"{above} / {below}"] = of_pair
    return found


def shown(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else f"{value:g}"


def cell(figure):
    if figure is None:
        return ""
    if figure["min"] == figure["max"]:
        return shown(figure["median"])
    return f"{shown(figure['median'])} ({shown(figure['min'])}..{shown(figure['max'])})"


def table(head, rows):
    return [f"| {' | '.join(head)} |", "| --- " * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows), ""]


def section(title, group, summaries):
    names = [name for name in (*BETTER, *CONTEXT) if any(name in one for one in summaries.values())]
    lines = [f"## {title[0].upper()}{title[1:]}", ""]
    lines += table(["", "runs", *names],
                   [[kind, str(len(group[kind])), *(cell(summaries[kind].get(name)) for name in names)] for kind in group])
    compared = {pair: {figure: summary([{"": value} for value in values])[""] for figure, values in figures.items()}
                for pair, figures in ratios(group).items()}
    if compared := {pair: figures for pair, figures in compared.items() if figures}:
        names = [name for name in BETTER if any(name in figures for figures in compared.values())]
        lines += ["Ratios, run by run:", ""]
        lines += table(["", *names], [[pair, *(cell(figures.get(name)) for name in names)] for pair, figures in compared.items()])
    return [*lines, "<details><summary>Commands</summary>", "", "```sh",
            *(f"# {kind}\n{runs[0]['command']}" for kind, runs in group.items()), "```", "", "</details>", ""]


def markdown(name, facts, results, summaries):
    changes = ", with changes" if facts["with_changes"] else ""
    lines = ["# Figures", "", f"Commit `{facts['commit'][:12]}`{changes}, {facts['at']}; {facts['machine']}.",
             f"All of it: `{facts['command']}` ({facts['minutes']} minutes). Median (least..greatest) of the runs.", ""]
    lines += [line for left_out in facts["left_out"] for line in (f"Left out: {left_out}", "")]
    lines += [line for failure in facts["failures"] for line in (f"**Failed**: {failure}", "")]
    lines += [f"![The medians, and the spread of the runs]({name}.svg)", ""]
    lines += [line for title, group in results.items() for line in section(title, group, summaries[title])]
    return "\n".join([*lines, "## How to read them", "", NOTES, ""])


def write(folder, name, facts, results):
    """Writes the files; their paths."""
    folder.mkdir(exist_ok=True)
    summaries = {title: {kind: summary(runs) for kind, runs in group.items()} for title, group in results.items()}
    texts = {"json": json.dumps({"about": facts, "summary": summaries, "runs": results}, indent=1) + "\n",
             "md": markdown(name, facts, results, summaries), "svg": plot.svg(summaries, BETTER)}
    for end, text in texts.items():
        (folder / f"{name}.{end}").write_text(text)
    return [folder / f"{name}.{end}" for end in texts]
