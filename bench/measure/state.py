"""Our job, all seven detectors, with so much state that memory does not hold it: what reading costs, what a checkpoint costs, and how long
the way back is.

The job's own /metrics say when a checkpoint was taken and how large it is; rows and recovery are seen from outside, as everywhere."""

import collections
import contextlib
import random
import shutil
import statistics
import threading
import time
import urllib.error
import urllib.request

from confluent_kafka import KafkaException

import traffic
from engines import ALL, OURS
from live import flow
from recovery import killed
from scene import BenchFailed, free_ports
from topics import Ends

LOOK_SECONDS = 0.2
ANSWER_SECONDS = 5
CHECKPOINT_SECONDS = 120
KILLS = 3
# What input, output that is not yet trimmed, state and checkpoints take.
DISK_BYTES_PER_USER = 600
TRIM_SECONDS = 10
# A broker forgets whole files only: small ones, so that they go soon.
SEGMENTS = {"segment.bytes": str(64 << 20)}

# What one look at the metrics says. Seconds are of the last checkpoint.
Look = collections.namedtuple("Look", "at records checkpoints seconds cut_seconds state_bytes keys")


class Metrics(threading.Thread):
    """Looks at a job's metrics until it is stopped; a job that is being started again says nothing."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.address, self.looks, self.ended = f"http://127.0.0.1:{port}/metrics", [], threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(LOOK_SECONDS):
            try:
                with urllib.request.urlopen(self.address, timeout=ANSWER_SECONDS) as answer:
                    self.looks.append(parse(answer.read().decode(), time.time()))
            except (urllib.error.URLError, OSError):
                pass

    def stop(self):
        self.ended.set()
        self.join()

    def await_checkpoint(self):
        """A whole checkpoint from now on: its cut comes after everything that was done so far."""
        seen, deadline = self.looks[-1].checkpoints if self.looks else 0, time.monotonic() + CHECKPOINT_SECONDS
        while not self.looks or self.looks[-1].checkpoints < seen + 2:
            if time.monotonic() > deadline:
                raise BenchFailed(f"no two checkpoints in {CHECKPOINT_SECONDS} s")
            time.sleep(LOOK_SECONDS)
        return self.looks[-1]


def parse(text, at):
    sums = collections.defaultdict(float)
    for line in text.splitlines():
        if line.startswith("dataflow_"):
            series, _, value = line.rpartition(" ")
            sums[series.partition("{")[0]] += float(value)
    names = ("records_total", "checkpoints_total", "checkpoint_seconds", "checkpoint_cut_seconds", "checkpoint_bytes", "state_keys")
    return Look(at, *(sums[f"dataflow_{name}"] for name in names))


def checkpoints(looks):
    """The looks that first show a new checkpoint."""
    return [after for before, after in zip(looks, looks[1:], strict=False) if after.checkpoints > before.checkpoints]


def dip(looks):
    """By how much fewer records a second were read while a checkpoint was under way, as a share of what was read otherwise. None when one of
    the two did not occur."""
    spans = [(one.at - one.seconds, one.at) for one in checkpoints(looks)]
    inside, outside = [0.0, 0.0], [0.0, 0.0]
    for before, after in zip(looks, looks[1:], strict=False):
        middle = (before.at + after.at) / 2
        part = inside if any(start <= middle <= end for start, end in spans) else outside
        part[0] += after.records - before.records
        part[1] += after.at - before.at
    if not (inside[1] and outside[1] and outside[0]):
        return None
    return round(1 - (inside[0] / inside[1]) / (outside[0] / outside[1]), 3)


def run(scene, options, users):
    """One life of the job with that many users."""
    free, needed = shutil.disk_usage(scene.folder).free, DISK_BYTES_PER_USER * users
    if free < needed:
        raise BenchFailed(f"{users:,} users take {needed / 1e9:.0f} GB in '{scene.folder}', and {free / 1e9:.0f} GB are free; set TMPDIR, or ask for less")
    port, = free_ports(1)
    backlog = traffic.Backlog(users, traffic.ago(2 * traffic.Backlog.seconds + 100), users=users, in_turn=True, compressed=True)
    with flow(scene, OURS, ALL, backlog=backlog, page=port, topic_settings=SEGMENTS) as (engine, topic, commands):
        metrics = Metrics(port)
        try:
            with trimmed(scene, engine):
                filled_s = engine.read_all(users)[-1][0] - engine.started
                full = metrics.await_checkpoint()
                figures = {"state_mb": round(full.state_bytes / 1e6), "keys": round(full.keys), "filling_per_s": round(users / filled_s)}
                figures |= again(scene, options, engine, topic, users, metrics)
            back, _ = killed(scene, engine, topic, random.Random(options.seed), KILLS)
        finally:
            metrics.stop()
        for name in ("back_s", "all_back_s"):
            figures[name] = round(statistics.median(one[name] for one in back), 2)
        return figures | {"rss_peak_mb": engine.meter.peak_mb(), "command": "; ".join(commands)}


@contextlib.contextmanager
def trimmed(scene, engine):
    """Meanwhile the broker forgets output that is committed: nobody reads it, and it is several times as large as the state."""
    ends, ended = Ends(scene.topics, engine.outputs(), engine.partitions), threading.Event()

    def trim():
        while not ended.wait(TRIM_SECONDS):
            with contextlib.suppress(KafkaException):  # a broker that is busy is asked again
                scene.topics.trim(ends)

    thread = threading.Thread(target=trim, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def again(scene, options, engine, topic, users, metrics):
    """More logins of the same users, as a backlog: throughput with the state in place, and what checkpoints do to it."""
    count = min(users, options.again)
    backlog = traffic.Backlog(count, traffic.ago(traffic.Backlog.seconds + 60), users=users, in_turn=True, seed=2, compressed=True)
    scene.fill(topic, backlog)
    # What was read while the producer took its share of the machine does not count.
    written = time.time()
    ended = engine.read_all(users + count)[-1][0]
    looks = [one for one in metrics.looks if written <= one.at <= ended]
    records = looks[-1].records - looks[0].records if looks else 0
    if not records:
        raise BenchFailed("all was read while it was written; say a greater --again")
    taken, spent = checkpoints(looks), engine.meter.cpu_s(looks[-1].at) - engine.meter.cpu_s(looks[0].at)
    figures = {"events_per_s": round(records / (looks[-1].at - looks[0].at)), "cpu_s_per_million": round(spent / records * 1e6, 2),
               "checkpoints": len(taken)} | engine.meter.others(looks[0].at, looks[-1].at)
    if taken:
        figures |= {"checkpoint_s": round(statistics.median(one.seconds for one in taken), 2),
                    "cut_max_ms": round(max(one.cut_seconds for one in taken) * 1000, 1)}
    if (share := dip(looks)) is not None:
        figures["dip_share"] = share
    return figures
