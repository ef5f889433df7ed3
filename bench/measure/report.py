"""From runs to a JSON file with every figure and a Markdown page with medians, spread and ratios."""

import datetime
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# (title, kinds, [figure], (figure, numerator, denominator))
TABLES = (
    ("Throughput in memory: made-up logins (JSON) to a local log", ("heap", "rocksdb"),
     ("logins_per_s", "flowing_per_s", "logins_per_cpu_s", "cpu_s_per_million", "rss_peak_mb"), ("logins_per_s", "rocksdb", "heap")),
    ("Throughput from Kafka to Kafka: Avro through the registry, a backlog", ("exactly-once", "at-least-once"),
     ("logins_per_s", "flowing_per_s", "logins_per_cpu_s", "cpu_s_per_million", "rss_peak_mb"), ("logins_per_s", "exactly-once", "at-least-once")),
    ("Produce to visible, exactly-once, `read_committed`", ("latency",),
     ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "job_cores", "rss_peak_mb"), None),
    ("The same with 30 % of the load on one user", ("even load", "hot key"), ("p50_ms", "p90_ms", "p99_ms", "max_ms", "job_cores"),
     ("p99_ms", "hot key", "even load")),
    ("`kill -9` to the next committed output", ("recovery, direct", "recovery, launched by cargo"), ("back_s",), None),
)
LOAD = ("services_cores", "others_cores")

NOTES = """\
- All seven detectors and the enrichment, eager, in every run; a run whose output is incomplete, double or foreign fails and has no figure.
- `logins_per_s`: the whole life of the process, from its start to its end with the last checkpoint. `flowing_per_s`: between the first
  and the last record read, to a quarter of a second. CPU-seconds are user and system of the process (wait4), peak memory is its resident set.
- In memory, making the logins and their JSON is part of the process and of its figures.
- Latency: from the producer's timestamp of the input record to the consumer's `poll`; the broker keeps whole milliseconds, so a
  figure is up to 1 ms too high. The producer sends each login at once (`linger.ms=0`).
- `back_s`: from the signal to the end of the longest silence that a consumer sees around it, the process being started again at once.
- `services_cores`: Kafka, registry. `others_cores`: everything else on the machine that is no part of the run (for throughput: the
  driver too); where it is not near 0, the figures are too bad by an unknown amount."""


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
        "arguments": {"events": options.events, "rate": options.rate, "seconds": options.seconds, "repeat": options.repeat},
        "command": shlex.join(["make", "bench", *([f"BENCH_ARGS={shlex.join(sys.argv[1:])}"] if sys.argv[1:] else [])]),
    }


def summary(runs):
    """Median, least and greatest of each figure."""
    figures = [name for name, value in runs[0].items() if isinstance(value, int | float)]
    return {name: {"median": statistics.median(run[name] for run in runs), "min": min(run[name] for run in runs),
                   "max": max(run[name] for run in runs)} for name in figures}


def shown(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def cell(figure):
    if figure["min"] == figure["max"]:
        return shown(figure["median"])
    return f"{shown(figure['median'])} ({shown(figure['min'])}..{shown(figure['max'])})"


def markdown(facts, results, summaries):
    changes = ", with changes" if facts["with_changes"] else ""
    lines = ["# Figures of the login job", "", f"Commit `{facts['commit'][:12]}`{changes}, {facts['at']}; {facts['machine']}.",
             f"All of it: `{facts['command']}` ({facts['minutes']} minutes). Median (least..greatest) of the runs.", ""]
    lines += [line for failure in facts["failures"] for line in (f"**Failed**: {failure}", "")]
    for title, kinds, figures, ratio in TABLES:
        if not (there := [kind for kind in kinds if kind in results]):
            continue
        lines += [f"## {title}", "", "| | runs | " + " | ".join((*figures, *LOAD)) + " |", "| --- " * (len(figures) + 4) + "|"]
        lines += [f"| {kind} | {len(results[kind])} | " + " | ".join(cell(summaries[kind][name]) for name in (*figures, *LOAD)) + " |"
                  for kind in there]
        lines.append("")
        if ratio and set(ratio[1:]) <= set(there):
            name, above, below = ratio
            pairs = [a[name] / b[name] for a, b in zip(results[above], results[below], strict=False)]
            lines += [f"`{name}`, {above} over {below}, run by run: {statistics.median(pairs):.2f} ({min(pairs):.2f}..{max(pairs):.2f}).", ""]
        lines += ["```sh", *(f"# {kind}\n{results[kind][0]['command']}" for kind in there), "```", ""]
    return "\n".join([*lines, "## How to read them", "", NOTES, ""])


def write(folder, name, facts, results):
    """Writes both files; their paths."""
    folder.mkdir(exist_ok=True)
    summaries = {kind: summary(runs) for kind, runs in results.items()}
    (folder / f"{name}.json").write_text(json.dumps({"about": facts, "summary": summaries, "runs": results}, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown(facts, results, summaries))
    return folder / f"{name}.json", folder / f"{name}.md"
