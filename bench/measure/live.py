"""A job under steady input: how long a login, or a finding, takes to be seen. And what a job costs that has nothing to do."""

import contextlib
import time

import traffic
from engines import ALL, EXACTLY, IMPLEMENTATIONS, TWO, Engine
from scene import BenchFailed, until
from topics import Ends

# After a change of the rate.
RAMP_SECONDS = 5
# Longer than the pause between any engine's commits; and what an engine that lags may take to catch up.
SETTLE_SECONDS = 3
SETTLE_SECONDS_MAX = 180
# An idle job is measured when its partitions have been declared idle, which takes 30 s.
IDLE_AFTER_SECONDS = 40
FEW = 1_000


@contextlib.contextmanager
def flow(scene, name, job, partitions=traffic.PARTITIONS, backlog=None, **more):
    """An engine that reads a topic of its own, with a backlog in it, exactly-once: (engine, topic, the commands so far)."""
    topic = f"logins-{scene.number()}"
    scene.topics.create([topic], partitions)
    try:
        commands = [scene.fill(topic, backlog)] if backlog else []
        with Engine(scene, name, job, EXACTLY, topic, partitions, **more) as engine:
            yield engine, topic, [*commands, engine.command()]
    finally:
        scene.topics.delete([topic])


def latency(scene, options, name, job, shape=None, of_findings=False):
    """Produce to visible at each rate, in one life of the engine: figures of each."""
    shape, found = shape or {}, []
    partitions, skew = shape.get("partitions", traffic.PARTITIONS), shape.get("skew", 0.0)
    with flow(scene, name, job, partitions) as (engine, topic, commands):
        output = engine.anomalies if of_findings else engine.enriched
        feeder, _ = scene.feed(topic, max(options.rates), partitions, skew)
        time.sleep(options.warm_up)
        feeder.kill()
        for number, rate in enumerate(options.rates, 1):
            settle(scene, engine, topic)
            # Other people each time: their first logins are findings.
            people = number * traffic.LIVE_USERS_PER_RATE * max(options.rates)
            figures, feed = at_rate(scene, options, engine, topic, rate, output, (partitions, skew, people))
            found.append({"of": f" at {rate:,}/s"} | figures | {"command": f"{commands[-1]}; {feed}"})
    return found


def at_rate(scene, options, engine, topic, rate, output, shape):
    before, arrivals = scene.probe("ends", topic), scene.folder / "arrivals.csv"
    probe = scene.follow(output, arrivals)
    feeder, feed = scene.feed(topic, rate, *shape)
    try:
        time.sleep(RAMP_SECONDS)
        started = time.time()
        time.sleep(options.seconds)
        ended = time.time()
        for one, what in ((feeder, "the producer"), (probe, "the reader")):
            one.is_alive(what)
        feeder.kill()
        settle(scene, engine, topic)
        probe.end()
    finally:
        feeder.kill()
        probe.kill()
    compared = compare(scene, topic, before, arrivals, output == engine.anomalies, engine.job == ALL, RAMP_SECONDS * 1000)
    return compared | {"cores": round(engine.meter.cores(started, ended), 3), "rss_peak_mb": engine.meter.peak_mb()} | engine.meter.others(
        started, ended), feed


def compare(scene, topic, before, arrivals, of_findings, many_a_login, warm_up_ms=0):
    """What `probe latency` says, when what became visible is what was produced. Of findings nobody knows how many there must be, and
    seven detectors say more than one about a login."""
    found = scene.probe("latency", topic, "--from", before, "--arrivals", arrivals, "--warm-up-ms", warm_up_ms)
    is_wrong = found["foreign"] or (found["double"] and not many_a_login) or (found["missing"] and not of_findings)
    if is_wrong or found["p50_ms"] is None:
        raise BenchFailed(f"not what was produced became visible: {found}")
    return {name: round(value, 1) for name, value in found.items() if name.endswith("_ms")} | {"produced": found["produced"]}


def settle(scene, engine, topic):
    """Waits until as many rows are visible as there are logins, and nothing more comes. The markers of transactions count as rows, so
    neither is enough alone."""
    ends, last, logins = Ends(scene.topics, engine.outputs(), engine.partitions), None, sum(scene.probe("ends", topic))
    changed = time.monotonic()

    def is_quiet():
        nonlocal last, changed
        if (now := ends.now()) != last:
            last, changed = now, time.monotonic()
        return last[engine.enriched] >= logins and time.monotonic() - changed > SETTLE_SECONDS

    until(SETTLE_SECONDS_MAX, f"{engine.name} has caught up", is_quiet, pause=0.2)


def idle(scene, options, name):
    """Few logins, then none: what is spent on waiting."""
    backlog = traffic.Backlog(FEW, traffic.ago(traffic.Backlog.seconds + 60))
    with flow(scene, name, ALL if ALL in IMPLEMENTATIONS[name].jobs else TWO, backlog=backlog) as (engine, _, commands):
        engine.read_all(FEW)
        time.sleep(IDLE_AFTER_SECONDS)
        started = time.time()
        time.sleep(options.seconds)
        ended = time.time()
        figures = {"cores": round(engine.meter.cores(started, ended), 4), "rss_peak_mb": engine.meter.peak_mb()}
        return figures | engine.meter.others(started, ended) | {"command": "; ".join(commands)}
