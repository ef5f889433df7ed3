"""What every scenario has: services, input that flows, lives of the product, the wait for the end, and the verdict."""

import collections
import os
import random
import subprocess
import time

import case
import product
import topics
import traffic
import verify
from product import Counters, Product, ProductFailed
from services import Services

PARTITIONS = 4
# The job's idle rule takes 30 s without input; the rest is replay and commits.
SETTLE_SECONDS = 180
# From a start to the first sign of life, registry and broker being there.
PROGRESS_SECONDS = 90
# The oracle is naive: it takes minutes for some 100,000 logins.
ORACLE_SECONDS = 1_800


class Failure(Exception):
    """The scenario did not come out as it has to."""


def say(text):
    print(f"e2e: {text}", flush=True)


def until(seconds, what, condition, pause=0.2):
    """Waits for a condition; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds} s in vain until {what}")
        time.sleep(pause)
    return value


class Scene:
    """Context of one run, in one folder."""

    def __init__(self, folder, seed, options, step_us, broker_disk_mb=None):
        self.folder, self.rng, self.seed, self.options = folder, random.Random(seed), seed, options
        self.geo = folder / "ip_geo.csv"
        self.services = Services(folder, broker_disk_mb)
        self.step_us = step_us
        self.counters = Counters()
        self.products = []
        self.feeder = None

    def __enter__(self):
        traffic.geography(self.geo)
        self.services.__enter__()
        try:
            ids = {version: topics.register(self.services.registry, f"{product.INPUT}-value", schema)
                   for version, schema in traffic.SCHEMAS.items()}
            topics.create_topic(self.services.brokers, product.INPUT, PARTITIONS)
            self.traffic = traffic.Traffic(self.seed, self.options.events, int(time.time() * 1_000_000), ids, self.step_us)
            self.feeder = topics.Feeder(self.services.brokers, product.INPUT, PARTITIONS, self.traffic, self.options.rate)
        except BaseException as error:
            self.services.__exit__(type(error))
            raise
        return self

    def __exit__(self, kind, error, _):
        for one in self.products:
            one.kill()
        self.feeder.stopping.set()
        self.services.__exit__(kind)
        if isinstance(error, (ProductFailed, verify.Wrong, TimeoutError, AssertionError)):
            raise Failure(str(error)) from error

    def product(self, name="data"):
        """A product on the data folder `name`."""
        one = Product(self.folder / name, self.services, self.geo, self.folder / f"{name}.log")
        self.products.append(one)
        return one

    def end_life(self, one):
        """kill -9, and what it had told about itself is kept."""
        self.counters.add(one.status())
        one.kill()

    def running(self, one):
        """Raises when the process has ended by itself."""
        if (code := one.exit_code()) is not None:
            raise Failure(f"the product ended by itself with {code}; {one.last_lines()}")
        return True

    def progress(self, one):
        """Waits until some output topic has grown: the product reads, binds and commits."""
        def heights():
            return [topics.watermarks(self.services.brokers, name) for name in product.OUTPUTS]
        before = heights()
        until(PROGRESS_SECONDS, "an output grows", lambda: self.running(one) and heights() != before)

    def settle(self, one):
        """Ends the input, waits until every record of it is bound and released, and stops the product. Returns (input, bindings)."""
        inputs = self.feeder.finish()
        say(f"input ended with {self.feeder.count} records; waiting until the outputs cover it (the idle rule takes 30 s)")
        until(SETTLE_SECONDS, "the bindings cover the input and the idle watermark has released it",
              lambda: self.running(one) and released(one.bindings(), inputs), pause=1)
        one.stop()
        self.counters.add(one.status())
        bindings = one.bindings()
        if not released(bindings, inputs):
            raise Failure("the stop took bindings back")
        return inputs, bindings

    def verdict(self, inputs, bindings):
        """Reads the outputs as a consumer would and has them checked, here and by the oracle."""
        outputs = {name: topics.read_topic(self.services.brokers, name) for name in product.OUTPUTS}
        case.write_case(self.folder / "case", inputs, self.geo, bindings)
        case.write_outputs(self.folder / "actual", outputs, product.DLQ)
        counts = verify.check(inputs, bindings, outputs, product)
        say("own checks passed: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
        for kind in ("login", "duplicate", "late", "undecodable", "empty_user_id", "bad_timestamp", "future_timestamp"):
            if not counts.get(kind):
                raise Failure(f"the run had no '{kind}' record: it proves nothing about them")
        said = collections.Counter(row.value.split(b'"detector":"')[1].split(b'"')[0].decode()
                                   for rows in outputs[product.ANOMALIES] for row in rows)
        say("anomalies said: " + ", ".join(f"{name} {said[name]}" for name in verify.DETECTORS))
        oracle = subprocess.run(
            [os.environ["DATAFLOW_ORACLE"], self.folder / "case", self.folder / "case" / "bindings.ndjson", "--emission", "eager",
             "--check", self.folder / "actual"], capture_output=True, text=True, timeout=ORACLE_SECONDS, check=False)
        if oracle.returncode != 0:
            raise Failure(f"the oracle ended with {oracle.returncode}:\n{oracle.stdout[-4000:]}{oracle.stderr[-4000:]}")
        say("the oracle agrees with every row")
        return counts

    def aborted_rows(self):
        """Rows that are in the output topics but in no committed transaction."""
        total = 0
        for name in product.OUTPUTS:
            whole, committed = ({(row.partition, row.offset) for rows in topics.read_topic(self.services.brokers, name, isolation) for row in rows}
                                for isolation in ("read_uncommitted", "read_committed"))
            total += len(whole - committed)
        return total


def released(bindings, inputs):
    """The last row reads every partition to its end, holds all of them idle, and its watermark is above every accepted login."""
    if not bindings:
        return False
    last = bindings[-1]
    names = {f"{product.INPUT}/{p}": len(logins) for p, logins in enumerate(inputs)}
    if last["ends"] != names or not last.get("watermark") or sorted(last.get("idle", [])) != sorted(names):
        return False
    found = verify.fates(inputs, bindings, product.INPUT)
    return verify.micros(last["watermark"]) > max((fate.time for fate in found.values() if fate.kind in ("login", "duplicate")), default=0)
