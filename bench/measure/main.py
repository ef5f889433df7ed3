"""The benchmarks' command line: runs the cases in turn, repeats them, and writes what came out."""

import argparse
import datetime
import pathlib
import shutil
import sys
import tempfile
import time

import live
import report
import throughput
from scene import BenchFailed, Scene, say

CASES = ("memory", "kafka", "latency", "hotkey", "recovery")
RESULTS = pathlib.Path(__file__).resolve().parent.parent / "results"
# So that the input topic exists when no case reads a backlog.
FEW = 1_000


def parse():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--events", type=int, default=1_000_000, help="logins of a backlog")
    parser.add_argument("--rate", type=int, default=1_000, help="logins a second, live")
    parser.add_argument("--seconds", type=int, default=40, help="how long latency is measured, after the warm-up")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each kind, and kills of each kind")
    parser.add_argument("--seed", type=int, default=1, help="when to kill")
    parser.add_argument("--name", default=f"{datetime.date.today():%Y-%m-%d}", help="of the result files")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the runs")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case '{unknown.pop()}'; there are: {', '.join(CASES)}")
    options.cases = options.cases or list(CASES)
    return options


def pair(scene, options, run, kinds, results):
    """Kinds in turn, `repeat` times: what the machine does meanwhile meets both alike."""
    for number in range(options.repeat):
        for kind in kinds:
            say(f"{kind}, run {number + 1} of {options.repeat}")
            figures = run(scene, options, kind)
            say("  " + ", ".join(f"{name} {value}" for name, value in figures.items() if name != "command"))
            results.setdefault(kind, []).append(figures)


def play(scene, options, results):
    """Runs the cases; one that fails takes none of the others with it. What failed, as text."""
    failures = []

    def attempt(case, run):
        if case in options.cases:
            try:
                run()
            except BenchFailed as failure:
                failures.append(f"{case}: {failure}")
                say(f"FAILED, {failures[-1]}")

    attempt("memory", lambda: pair(scene, options, throughput.memory, ("heap", "rocksdb"), results))
    if scene.services is None:
        return failures
    say("filling the topic, warming the broker up")
    options.events = options.events if "kafka" in options.cases else FEW
    fill = scene.fill(options.events)
    throughput.kafka(scene, options, "exactly-once", fill)
    attempt("kafka", lambda: pair(scene, options, lambda *which: throughput.kafka(*which, fill), ("exactly-once", "at-least-once"), results))
    attempt("latency", lambda: pair(scene, options, lambda *which: live.latency(*which[:2]), ("latency",), results))
    attempt("hotkey", lambda: pair(scene, options, live.hot_key, (live.EVEN, live.HOT), results))
    attempt("recovery", lambda: recovery(scene, options, results))
    return failures


def recovery(scene, options, results):
    say(f"recovery: {options.repeat} kills of each kind")
    for kind, runs in live.recovery(scene, options).items():
        results[f"recovery, {kind}"] = runs
        say(f"  {kind}: {[run['back_s'] for run in runs]} s")


def main():
    options = parse()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dataflow-bench-"))
    started, results, failures = time.monotonic(), {}, []
    about = report.about(options)
    try:
        with Scene(folder, with_services=set(options.cases) != {"memory"}) as scene:
            failures = play(scene, options, results)
    except BenchFailed as failure:
        failures.append(f"the run: {failure}")
        say(f"FAILED, {failures[-1]}")
    finally:
        # What was measured before a failure is not lost.
        if results:
            minutes = round((time.monotonic() - started) / 60, 1)
            for path in report.write(RESULTS, options.name, about | {"minutes": minutes, "failures": failures}, results):
                say(f"wrote {path}")
    if failures:
        say(f"logs and data stay in {folder}")
        return 1
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
