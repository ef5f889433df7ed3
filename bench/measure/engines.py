"""The implementations of the login job, and one of them running.

Each is a script in bench/peers with the same verbs (`bench/peers/lib.sh`), so that all are run, measured and checked alike."""

import dataclasses
import os
import subprocess
import time

import machine
import traffic
from scene import LOGINS_PER_S_LEAST, ROOT, RUN_SECONDS, BenchFailed, free_ports, until
from topics import Ends

PEERS = ROOT / "bench" / "peers"
ENRICHMENT, TWO, ALL = "enrichment", "two detectors", "all detectors"
EXACTLY, AT_LEAST = "exactly-once", "at-least-once"
GUARANTEES = {EXACTLY: "eo", AT_LEAST: "alo"}
OURS = "ours"


@dataclasses.dataclass(frozen=True)
class Implementation:
    """`jobs`: what the script calls those jobs that it has. `waits`: a finding is said when the watermark has passed it."""

    script: str
    jobs: dict
    waits: bool = False


IMPLEMENTATIONS = {
    OURS: Implementation("dataflow", {ENRICHMENT: "a", TWO: "b", ALL: "all"}),
    "kafka-streams": Implementation("kstreams/kstreams", {ENRICHMENT: "a", TWO: "b"}),
    # In its strongest form, a process table function; and as one would write it first.
    "flink": Implementation("flink/flink", {ENRICHMENT: "a", TWO: "p"}),
    "flink-sql": Implementation("flink/flink", {TWO: "b"}, waits=True),
}
# What `bench/run` compares when nothing else is said.
USUAL = (OURS, "kafka-streams", "flink")

LOOK_SECONDS = 0.05
# A backlog is done when every row is visible and nothing more has come for so long; no run is done before its slowest commit.
QUIET_SECONDS = 4.0
# Processes are looked for only when nothing comes.
LOOK_ALIVE_SECONDS = 1.0
# An engine that shows nothing new for so long has failed.
STUCK_SECONDS = 90.0
START_SECONDS = 180


def environment():
    """What every script of a peer needs beside the surroundings of the scene."""
    return {"DATAFLOW_PEER_BIN": os.path.join(os.environ.get("DATAFLOW_BENCH_BIN", ""), "login_peer")}


def install(name):
    """Downloads and builds; what failed, or nothing."""
    return install_script(IMPLEMENTATIONS[name].script)


def install_script(script):
    done = subprocess.run([PEERS / script, "install"], env=os.environ | environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else None


def offering(names, job):
    """Of these implementations, those that have this job."""
    return [name for name in names if job in IMPLEMENTATIONS[name].jobs]


class Engine:
    """One implementation with one job, from an input topic into topics of its own. Ended, and its topics deleted, on the way out."""

    def __init__(self, scene, name, job, guarantee, topic, partitions=traffic.PARTITIONS, page=None, topic_settings=None):
        self.scene, self.name, self.implementation, self.job = scene, name, IMPLEMENTATIONS[name], job
        self.is_exact, self.partitions, self.topic_settings = guarantee == EXACTLY, partitions, topic_settings
        self.suffix = f"-{scene.number()}"
        self.words = ["start", self.implementation.jobs[job], GUARANTEES[guarantee], self.suffix]
        self.enriched, self.anomalies = (base + self.suffix for base in ("login-events-enriched", "login-anomalies"))
        rest, rpc = free_ports(2)
        self.settings = {"INPUT": topic} | ({"PAGE": str(page)} if page else {})
        self.env = scene.env | environment() | self.settings | {
            "PEER_WORK": str(scene.folder / "peers"), "FLINK_REST_PORT": str(rest), "FLINK_RPC_PORT": str(rpc)}

    def outputs(self):
        return [self.enriched] if self.job == ENRICHMENT else [self.enriched, self.anomalies]

    def verb(self, *words):
        done = subprocess.run([PEERS / self.implementation.script, *words], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, check=False, timeout=START_SECONDS)
        if done.returncode != 0:
            raise BenchFailed(f"{self.name} {words[0]}: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()

    def __enter__(self):
        # Both: an engine may open a topic that it has nothing for.
        self.scene.topics.create([self.enriched, self.anomalies], self.partitions, self.topic_settings)
        self.started = time.time()
        try:
            self.verb(*self.words)
            self.roots = [int(pid) for pid in self.verb("pids").split()]
            self.cpu_before_s = float(self.verb("base"))
            self.meter = machine.Meter(self.scene.service_pids(), self.roots)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "meter"):
            self.meter.stop()
        self.verb("stop")
        self.scene.topics.delete([self.enriched, self.anomalies], prefix=f"kstreams{self.suffix}-")

    def command(self):
        """How it is run."""
        settings = "".join(f"{name}={value} " for name, value in self.settings.items())
        return settings + self.scene.text_of([PEERS / self.implementation.script, *self.words])

    def consuming(self):
        """When it began to read, in seconds since 1970."""
        return float(until(START_SECONDS, f"{self.name} reads", lambda: self.verb("consuming"))) / 1000

    def pids(self):
        return [pid for pid in machine.tree(self.roots) if pid not in self.roots]

    def read_all(self, count, seen=0):
        """Waits until at least `count` rows beyond `seen` are visible and nothing more comes. The moments at which something new was visible,
        as (when, enriched rows, rows of all topics); markers of transactions count as rows here. Raises when a process has died."""
        ends, series, alive = Ends(self.scene.topics, self.outputs(), self.partitions), [], set(self.pids())
        bound = time.time() + RUN_SECONDS + count / LOGINS_PER_S_LEAST
        while True:
            found, now = ends.now(), time.time()
            if not series or sum(found.values()) != series[-1][2]:
                series.append((now, found[self.enriched], sum(found.values())))
            quiet = now - series[-1][0]
            if series[-1][1] - seen >= count and quiet > QUIET_SECONDS:
                return series
            if quiet > STUCK_SECONDS or now > bound:
                raise BenchFailed(f"{self.name}: {series[-1][1] - seen} of {count} rows are visible after {now - self.started:.0f} s")
            if quiet > LOOK_ALIVE_SECONDS and not alive <= set(self.pids()):
                raise BenchFailed(f"{self.name}: a process has died; its log is in {self.env['PEER_WORK']}")
            time.sleep(LOOK_SECONDS)

    def check(self, count, findings=None):
        """Raises unless what is committed is `count` logins and, where that is known, as many findings as the input holds."""
        rows = self._counted(self.enriched, count)
        if findings is None:
            return {"rows": rows}
        least = findings.passed if self.implementation.waits else findings.all
        return {"rows": rows, "findings": self._counted(self.anomalies, least, findings.all)}

    def _counted(self, topic, least, most=None):
        found = self.scene.probe("count", topic, seconds=RUN_SECONDS + least / LOGINS_PER_S_LEAST)
        records, keys = found["records"], found["keys"]
        if not least <= keys <= (most or least) or (self.is_exact and records != keys):
            raise BenchFailed(f"{self.name}: {records} committed records with {keys} keys in '{topic}', not {least}")
        return records
