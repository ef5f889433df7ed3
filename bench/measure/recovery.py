"""`kill -9` under a steady load: how long the output stays away."""

import pathlib
import random
import time

import traffic
from engines import TWO
from live import compare, flow, settle
from scene import BenchFailed
from topics import Ends

RATE = 1_000
# From a kill; an engine that is not back by then has failed.
BACK_SECONDS = 90
# After the kill: within this the silence begins, at the latest.
CALM_SECONDS = 8
# Between kills, at random: a checkpoint is taken every 10 s at most, and a kill meets every distance from it.
KILL_AFTER_SECONDS = (12.0, 22.0)
KILLS = 2


def kills(scene, options, name):
    """An engine whose state holds as many users as there are keys, killed some times in one life: figures of each kill."""
    backlog = traffic.Backlog(options.keys, traffic.ago(traffic.Backlog.seconds + 60), users=options.keys, in_turn=True)
    rng = random.Random(options.seed)
    with flow(scene, name, TWO, backlog=backlog) as (engine, topic, commands):
        engine.read_all(options.keys)
        found, feed = killed(scene, engine, topic, rng, KILLS)
        return [one | {"command": "; ".join([*commands, feed]) + "; kill -9"} for one in found]


def killed(scene, engine, topic, rng, count):
    """Kills an engine that has read its backlog; figures of each kill, and the command of the load."""
    before, arrivals = scene.probe("ends", topic), scene.folder / "arrivals.csv"
    state_mb = folder_mb(engine.verb("state"))
    probe = scene.follow(engine.enriched, arrivals)
    feeder, feed = scene.feed(topic, RATE)
    moments = []
    try:
        for _ in range(count):
            time.sleep(rng.uniform(*KILL_AFTER_SECONDS))
            moments.append(time.time())
            engine.verb("crash")
            wait_for_output(scene, engine)
            time.sleep(CALM_SECONDS)
        feeder.is_alive("the producer")
        feeder.kill()
        settle(scene, engine, topic)
        probe.end()
    finally:
        feeder.kill()
        probe.kill()
    compare(scene, topic, before, arrivals, False, False)
    times = read(arrivals)
    rss = engine.meter.peak_mb()
    figures = []
    for moment in moments:
        killed_us = int(moment * 1e6)
        back_us = [longest_gap(of_partition, killed_us)[1] for of_partition in times.values()]
        first_us = longest_gap(sorted(at for of_partition in times.values() for at in of_partition), killed_us)[1]
        figures.append({"back_s": round((first_us - killed_us) / 1e6, 2), "all_back_s": round((max(back_us) - killed_us) / 1e6, 2),
                        "state_mb": state_mb, "rss_peak_mb": rss} | engine.meter.others(moment, moment + CALM_SECONDS))
    return figures, feed


def wait_for_output(scene, engine):
    """Until the engine commits again; what was on its way at the kill may come just after it."""
    ends = Ends(scene.topics, engine.outputs(), engine.partitions)
    time.sleep(0.5)
    start, deadline = ends.now()[engine.enriched], time.monotonic() + BACK_SECONDS
    while ends.now()[engine.enriched] <= start + RATE:
        if time.monotonic() > deadline:
            raise BenchFailed(f"{engine.name} has committed nothing for {BACK_SECONDS} s after a kill")
        time.sleep(0.1)


def read(arrivals):
    """When records became visible, in microseconds, by partition."""
    times = {}
    with pathlib.Path(arrivals).open(encoding="utf-8") as lines:
        for line in lines:
            at, partition, _ = line.split(",", 2)
            times.setdefault(partition, []).append(int(at))
    return times


def longest_gap(times, killed_us):
    """The longest silence that begins up to a second before a kill or after it: (its beginning, its end). What the dead process had
    committed may still reach the reader after the kill, so the first record after it says nothing."""
    near = [at for at in times if killed_us - 1_000_000 <= at <= killed_us + BACK_SECONDS * 1_000_000]
    calm = killed_us + CALM_SECONDS * 1_000_000
    gaps = [(after - before, before, after) for before, after in zip(near, near[1:], strict=False) if before <= calm]
    if not gaps:
        raise BenchFailed("no output around a kill")
    _, before, after = max(gaps)
    return before, after


def folder_mb(folder):
    return round(sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*") if file.is_file()) / 1e6)
