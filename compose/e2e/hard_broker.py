"""A broker that throttles the job, and then one whose disk is full and that dies of it: the job falls behind, says so, loses nothing and
says nothing twice, and catches up once it is let.

The broker's data lie on a small disk of its own, which only root may mount; without that the second half is left out, and says so."""

import errno
import os
import time

import product
import quotas
import topics
from scene import Failure, say, until

# The broker's disk: what Kafka writes in such a run, and its internal topics, take a tenth of it.
BROKER_DISK_MB = 512
# Input flows faster than this in bytes of rows, so that the job must fall behind.
THROTTLED_BYTES_PER_S = 20_000
THROTTLED_SECONDS = 12
# Rows that are behind by then at least, by what the job reads itself.
BEHIND_MIN = 500
# A broker without room ends at its next write.
FULL_SECONDS = 60
# The job waits for a cluster that is away for some minutes.
AWAY_SECONDS = 8
CATCH_UP_SECONDS = 120


def play(scene, options):
    job = scene.product()
    scene.feeder.start()
    job.start()
    scene.progress(job)
    until(CATCH_UP_SECONDS, "the dense part is reached", lambda: scene.running(job) and scene.feeder.count > scene.traffic.dense_from)
    throttled(scene, job)
    if scene.services.has_small_disk:
        full(scene, job)
    else:
        say("SKIPPED: a broker whose disk is full; mounting a small one needs root")
    until(3600, "all promised input is in", lambda: scene.running(job) and scene.feeder.count >= options.events)
    scene.verdict(*scene.settle(job))


def behind(scene, job):
    """Records produced that the job has not read yet, by its own count."""
    return scene.feeder.count - job.status().get("records", 0)


def throttled(scene, job):
    """The broker lets the job's clients write and read a trickle."""
    until(CATCH_UP_SECONDS, "the job is close", lambda: scene.running(job) and behind(scene, job) < BEHIND_MIN / 2)
    quotas.throttle(scene.services.brokers, product.CLIENT_ID, THROTTLED_BYTES_PER_S)
    began = time.monotonic()
    until(CATCH_UP_SECONDS, "the job falls behind", lambda: scene.running(job) and behind(scene, job) > BEHIND_MIN)
    time.sleep(max(0.0, THROTTLED_SECONDS - (time.monotonic() - began)))
    scene.running(job)
    most, committed = behind(scene, job), job.status()["epoch_committed"]
    quotas.throttle(scene.services.brokers, product.CLIENT_ID, None)
    freed = time.monotonic()
    until(CATCH_UP_SECONDS, "the job catches up", lambda: scene.running(job) and behind(scene, job) < BEHIND_MIN / 2)
    if job.status()["epoch_committed"] <= committed:
        raise Failure(f"the job is close, and has committed nothing beyond epoch {committed}")
    say(f"throttled to {THROTTLED_BYTES_PER_S} bytes a second: {most} records behind after {freed - began:.0f} s, "
        f"close again {time.monotonic() - freed:.1f} s after that")


def full(scene, job):
    """The broker's disk fills, which ends the broker; with room again it is started anew."""
    ballast = scene.services.data / "ballast"
    fill(ballast)
    until(FULL_SECONDS, "the broker has ended for want of room", lambda: scene.running(job) and not scene.services.is_broker_alive())
    time.sleep(AWAY_SECONDS)
    scene.running(job)
    ballast.unlink()
    scene.services.start_broker()
    back = time.monotonic()
    scene.progress(job)
    until(CATCH_UP_SECONDS, "the job catches up", lambda: scene.running(job) and behind(scene, job) < BEHIND_MIN / 2)
    if not any(topics.watermarks(scene.services.brokers, product.ENRICHED).values()):
        raise Failure("the broker came back without the output topic")
    say(f"the broker ended on its full disk and came back: the job is close again {time.monotonic() - back:.1f} s from then")


def fill(path):
    """Writes until nothing fits any more."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        os.fsync(file.fileno())
