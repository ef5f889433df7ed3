"""The benchmarks' command line: runs the cases in turn, repeats them, and writes what came out."""

import argparse
import datetime
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import unittest

import engines
import flame
import ingest
import lake
import live
import recovery
import refresh
import report
import restore
import state
import throughput
from engines import ALL, ENRICHMENT, EXACTLY, GUARANTEES, OURS, TWO
from scene import FAILURES, Scene, say
from traffic import PARTITIONS

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "results"
HOT_SHARE = 0.3
MANY_PARTITIONS = 64
# Bytes of state that a user has who logged in once; what a run really had stands beside its figures.
STATE_BYTES_PER_USER = 120


def case_memory(scene, options, results):
    """Ours in memory, all detectors: made-up logins (JSON) to a local log, state on the heap and in RocksDB."""
    kinds = {f"{OURS}, {backend}": lambda backend=backend: throughput.memory(scene, options, backend) for backend in ("heap", "rocksdb")}
    rounds(options, f"in memory, {options.events:,} logins", kinds, results)


def case_throughput(scene, options, results):
    """A backlog through each job and implementation, exactly-once and at-least-once."""
    source = throughput.Input(scene, "login-events", options.events)
    # The broker's compiler has seen a run before the first that counts.
    first = options.engines[0]
    attempt(options, "warming the broker up", lambda: throughput.kafka(scene, source, first, ENRICHMENT, EXACTLY))
    for title, jobs in (("enrichment", [ENRICHMENT]), ("detectors", [TWO, ALL])):
        kinds = {f"{label}, {guarantee}": lambda name=name, job=job, guarantee=guarantee: throughput.kafka(scene, source, name, job, guarantee)
                 for label, name, job in offers(options, jobs) for guarantee in reversed(GUARANTEES)}
        rounds(options, f"throughput, {title}, {options.events:,} logins", kinds, results)
    scene.topics.delete([source.topic])


def case_latency(scene, options, results):
    """Produce to visible, each login enriched, exactly-once."""
    kinds = {name: lambda name=name: live.latency(scene, options, name, ENRICHMENT) for name in engines.offering(options.engines, ENRICHMENT)}
    rounds(options, "latency", kinds, results)


def case_alerts(scene, options, results):
    """Produce to visible, findings, exactly-once."""
    kinds = {label: lambda name=name, job=job: live.latency(scene, options, name, job, of_findings=True)
             for label, name, job in offers(options, [TWO, ALL])}
    rounds(options, "alerts", kinds, results)


def case_recovery(scene, options, results):
    """kill -9 to the next committed output, with a key of state for each of many users."""
    kinds = {name: lambda name=name: recovery.kills(scene, options, name) for name in engines.offering(options.engines, TWO)}
    rounds(options, f"recovery, {options.keys:,} keys", kinds, results)


def case_state(scene, options, results):
    """Ours with large state: throughput, checkpoints and the dip they cause, recovery."""
    for size_gb in options.state_gb:
        users = int(size_gb * 1e9 / STATE_BYTES_PER_USER)
        rounds(options, f"state of {size_gb:g} GB", {OURS: lambda users=users: state.run(scene, options, users)}, results)


def case_keys(scene, options, results):
    """Ours with very many keys: is its memory bounded?"""
    rounds(options, f"keys, {options.many_keys:,} users", {OURS: lambda: state.run(scene, options, options.many_keys)}, results)


def case_restore(scene, options, results):
    """The lakehouse started again, by what its shop has: users, purchases as well, pageviews as well. Needs no service."""
    for users in options.shop_users:
        kinds = {f"{OURS}, up to {has}": lambda has=has, users=users: restore.run(scene, users, options.shop_events, options.purchases, has)
                 for has in ("users", "purchases", "pageviews")}
        rounds(options, f"restore, {users:,} users, {options.purchases:,} purchases, {options.shop_events:,} events", kinds, results)


def case_ingest(scene, options, results):
    """The engine's Kafka source alone, beside bare loops over the same client library."""
    source = throughput.Input(scene, "login-events", options.events)
    kinds = {reader: lambda reader=reader: ingest.read(scene, source, reader) for reader in ingest.READERS}
    rounds(options, f"ingest, {options.events:,} logins", kinds, results)
    scene.topics.delete([source.topic])


def case_hotkey(scene, options, results):
    """Ours, even load beside 30 % of it on one user."""
    shapes(scene, options, results, "hot key", {"even load": {}, "hot key": {"skew": HOT_SHARE}})


def case_partitions(scene, options, results):
    """Ours, few partitions beside many."""
    shapes(scene, options, results, "partitions", {f"{PARTITIONS} partitions": {}, f"{MANY_PARTITIONS} partitions": {"partitions": MANY_PARTITIONS}})


def case_idle(scene, options, results):
    """What a job costs that has nothing to do."""
    rounds(options, "idle", {name: lambda name=name: live.idle(scene, options, name) for name in options.engines}, results)


def case_lakehouse(scene, options, results):
    """Ours, the lakehouse job: changes through all its views, and what its tables cost a reader, in each format."""
    shop = lake.Shop(scene, options.events)
    kinds = {f"{OURS}, format {form}": lambda form=form: shop.views(form) for form in options.formats}
    rounds(options, f"lakehouse, {options.events:,} events", kinds, results)
    for form in options.formats:
        for variant, figures in attempt(options, f"lakehouse, reading format {form}", lambda form=form: list(shop.reads(form))) or []:
            keep(results, f"lakehouse, reading{figures.pop('of')}", f"{OURS}, {variant}", figures)
    # Last, and once: it makes the input longer.
    if figures := attempt(options, "lakehouse, live", lambda: shop.live(options.formats[0])):
        keep(results, "lakehouse, one change more", f"{OURS}, format {options.formats[0]}", figures)
    scene.drop(shop.folder)


def case_gold(scene, options, results):
    """The gold views of a shop with many purchases: a change to there, beside Spark making all of them anew."""
    loaded, group = refresh.Loaded(scene, options), f"gold views, {options.purchases:,} purchases"
    if cause := engines.install_script(refresh.SPARK):
        say(f"leaving Spark out: {cause}")
        options.left_out.append(f"spark: {cause}")
    # Ours last: its live changes make the tables other than what Spark is given.
    for kind, run in (({} if cause else {"spark": loaded.spark}) | {OURS: loaded.ours}).items():
        if figures := attempt(options, f"{group}: {kind}", run):
            keep(results, group, kind, figures)
    scene.drop(loaded.shop.folder)


CASES = {name.removeprefix("case_"): case for name, case in list(globals().items()) if name.startswith("case_")}
OURS_ALONE = {"memory", "restore", "state", "keys", "ingest", "hotkey", "partitions", "lakehouse", "gold"}
WITHOUT_SERVICES = {"memory", "restore", "lakehouse", "gold"}


def offers(options, jobs):
    """Who has one of these jobs, as (label, implementation, job). The job that only ours has stands beside the others' most alike."""
    return [(f"{name} ({job})" if job == ALL else name, name, job) for job in jobs for name in engines.offering(options.engines, job)]


def rounds(options, title, kinds, results):
    """Kinds in turn, `repeat` times: what the machine does meanwhile meets all alike. A kind gives the figures of one run, or of several, which
    may say a group of their own (`of`). A run that fails has no figures, and takes no other with it."""
    for number in range(options.repeat):
        for kind, run in kinds.items():
            figures = attempt(options, f"{title}: {kind}, run {number + 1} of {options.repeat}", run)
            for one in figures if isinstance(figures, list) else [figures] if figures else []:
                keep(results, f"{title}{one.pop('of', '')}", kind, one)


def keep(results, group, kind, figures):
    """Says the figures of one run, and puts them with the results."""
    say(f"  {group}: " + ", ".join(f"{name} {value}" for name, value in figures.items() if name != "command"))
    results.setdefault(group, {}).setdefault(kind, []).append(figures)


def attempt(options, what, run):
    """What the run gives; nothing when it fails, which is noted."""
    say(what)
    try:
        return run()
    except FAILURES as failure:
        options.failures.append(f"{what}: {str(failure) or type(failure).__name__}")
        say(f"FAILED, {options.failures[-1]}")
        return None


def shapes(scene, options, results, title, variants):
    """Ours with inputs of different shapes: a backlog of each, and latency."""
    sources = {variant: throughput.Input(scene, f"login-events-{number}", options.events, **shape)
               for number, (variant, shape) in enumerate(variants.items())}
    kinds = {f"{OURS}, {variant}": lambda source=source: throughput.kafka(scene, source, OURS, ALL, EXACTLY) for variant, source in sources.items()}
    rounds(options, f"{title}, {options.events:,} logins", kinds, results)
    scene.topics.delete([source.topic for source in sources.values()])
    kinds = {f"{OURS}, {variant}": lambda shape=shape: live.latency(scene, options, OURS, ALL, shape) for variant, shape in variants.items()}
    rounds(options, f"{title}, latency", kinds, results)


def parse():
    parser = argparse.ArgumentParser(prog="bench/run", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
                                     epilog="cases:\n" + "\n".join(f"  {name:<12}{case.__doc__}" for name, case in CASES.items()))
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    parser.add_argument("--engines", nargs="+", metavar="ENGINE", help=f"of {', '.join(engines.IMPLEMENTATIONS)}; default: those of "
                        f"{', '.join(engines.USUAL)} that this machine can run")
    parser.add_argument("--events", type=int, default=1_000_000, help="logins of a backlog")
    parser.add_argument("--rates", type=int, nargs="+", default=[1_000, 10_000], help="logins a second, live")
    parser.add_argument("--warm-up", type=int, default=45, help="seconds at the highest rate before latency counts: the time compilers take")
    parser.add_argument("--seconds", type=int, default=40, help="how long latency and an idle job are measured")
    parser.add_argument("--keys", type=int, default=3_000_000, help="users of whom a state knows, in recovery")
    parser.add_argument("--many-keys", type=int, default=10_000_000, help="the same, in keys")
    parser.add_argument("--state-gb", type=float, nargs="+", default=[1.0, 5.0], help="sizes of state, about")
    parser.add_argument("--shop-users", type=int, nargs="+", default=[200_000, 400_000], help="users of shops, in restore")
    parser.add_argument("--shop-events", type=int, default=400_000, help="their events")
    parser.add_argument("--purchases", type=int, default=1_000_000, help="that the gold views are made of, and that shops have in restore, beside those of their events")
    parser.add_argument("--refreshes", type=int, default=4, help="of Spark's; the first does not count")
    parser.add_argument("--formats", type=int, nargs="+", choices=(2, 3), default=[2, 3], help="of the lakehouse's tables")
    parser.add_argument("--again", type=int, default=3_000_000, help="logins that meet a large state")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each kind")
    parser.add_argument("--seed", type=int, default=1, help="when to kill")
    parser.add_argument("--name", default=f"{datetime.date.today():%Y-%m-%d}", help="of the result files")
    parser.add_argument("--flame", action="store_true", help="draw flame graphs of ours too, in runs that do not count; needs perf")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the runs")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case '{unknown.pop()}'; there are: {', '.join(CASES)}")
    if unknown := set(options.engines or ()) - set(engines.IMPLEMENTATIONS):
        parser.error(f"no engine '{unknown.pop()}'; there are: {', '.join(engines.IMPLEMENTATIONS)}")
    options.cases = options.cases or list(CASES)
    return options


def install(options):
    """Keeps the engines that this machine can run; one that was asked for by name and cannot be run is a failure."""
    wanted, options.engines, options.left_out, options.failures = options.engines or engines.USUAL, [], [], []
    was_asked = wanted is not engines.USUAL
    for name in wanted:
        if set(options.cases) <= OURS_ALONE and name != OURS:
            continue
        if cause := engines.install(name):
            say(f"leaving {name} out: {cause}")
            (options.failures if was_asked else options.left_out).append(f"{name}: {cause}")
        else:
            options.engines.append(name)


def harness():
    """The harness's own tests; they need no service and no binary."""
    tests = unittest.defaultTestLoader.discover(str(pathlib.Path(__file__).parent), pattern="test_*.py")
    return 0 if unittest.TextTestRunner(verbosity=2).run(tests).wasSuccessful() else 1


def main():
    if sys.argv[1:] == ["harness"]:
        return harness()
    # Whoever ends it this way wants the services ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = parse()
    install(options)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dataflow-bench-"))
    started, results = time.monotonic(), {}
    facts = report.about(options)
    try:
        with Scene(folder, with_services=not set(options.cases) <= WITHOUT_SERVICES) as scene:
            for case in options.cases:
                attempt(options, f"case {case}", lambda case=case: CASES[case](scene, options, results))
                scene.keeps_logs = bool(options.failures)
            if options.flame:
                attempt(options, "flame graphs", lambda: flame.graphs(scene, options, RESULTS))
    except FAILURES as failure:
        options.failures.append(f"the run: {failure}")
        say(f"FAILED, {options.failures[-1]}")
    finally:
        # What was measured before a failure is not lost.
        if results:
            minutes = round((time.monotonic() - started) / 60, 1)
            facts |= {"minutes": minutes, "failures": options.failures, "left_out": options.left_out}
            for path in report.write(RESULTS, options.name, facts, results):
                say(f"wrote {path}")
    if options.failures:
        say(f"logs and data stay in {folder}")
        return 1
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
