"""One run's surroundings: folders, services, traffic, and the binaries under measurement, each with the command that repeats what it did."""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

from confluent_kafka import KafkaException
from topics import Topics

import expected
import traffic

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "compose" / "e2e"))
from duck import open_duckdb  # noqa: E402, F401  (the end-to-end suite's)
from services import Services, free_ports  # noqa: E402, F401  (the same stack, on ports of its own)

BIN = pathlib.Path(os.environ.get("DATAFLOW_BENCH_BIN", ""))
JOB = "jobs/login_anomalies.rs"
LAKEHOUSE = "jobs/lakehouse.rs"
# Bounds for waits; a run that takes longer has failed.
RUN_SECONDS = 300
START_SECONDS = 60
STOP_SECONDS = 60
# Slower than this, a backlog has failed.
LOGINS_PER_S_LEAST = 2_000


class BenchFailed(Exception):
    """A run did not do what is measured."""


# What ends a run and not the benchmark.
FAILURES = (BenchFailed, subprocess.SubprocessError, KafkaException, OSError)


def say(text):
    print(f"bench: {text}", flush=True)


def until(seconds, what, condition, pause=0.05):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise BenchFailed(f"waited {seconds} s in vain until {what}")
        time.sleep(pause)
    return value


class Scene:
    """A folder, and the services when the cases need them."""

    def __init__(self, folder, with_services):
        self.folder = pathlib.Path(folder)
        self.services = Services(self.folder) if with_services else None
        self.env = dict(os.environ)
        self.geo = self.folder / "ip_geo.csv"
        self.made = 0
        # Set when something went wrong: what the services wrote then stays.
        self.keeps_logs = False

    def __enter__(self):
        subprocess.run([BIN / "loadgen", "geo", "--out", self.geo], check=True)
        if self.services:
            self.services.__enter__()
            self.env |= {"KAFKA_BROKERS": self.services.brokers, "REGISTRY_URL": self.services.registry, "GEO_CSV": str(self.geo)}
            self.topics = Topics(self.services.brokers)
        return self

    def __exit__(self, kind, *_):
        if self.services:
            self.services.__exit__(kind or (BenchFailed if self.keeps_logs else None))

    def text_of(self, command):
        """A command as it can be typed in a checkout, with $RUN for the folder, and the services' addresses by their variables."""
        text = shlex.join(str(word).removeprefix(f"{BIN}/").removeprefix(f"{ROOT}/") for word in command)
        for variable in ("KAFKA_BROKERS", "REGISTRY_URL") if self.services else ():
            text = text.replace(self.env[variable], f"${variable}")
        return text.replace(str(self.folder), "$RUN")

    def service_pids(self):
        if not self.services:
            return []
        return [int(file.read_text()) for file in (self.services.data / "run").glob("*.pid")]

    def number(self):
        """One that no other run of this scene has."""
        self.made += 1
        return self.made

    def data(self):
        """A new data folder."""
        return self.folder / f"data-{self.number()}"

    def drop(self, data):
        shutil.rmtree(data, ignore_errors=True)

    def probe(self, verb, topic, *more, seconds=RUN_SECONDS):
        """What `probe` says, parsed."""
        command = [BIN / "probe", verb, "--brokers", self.services.brokers, "--topic", topic, *map(str, more)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
        if done.returncode != 0:
            raise BenchFailed(done.stderr.strip())
        return json.loads(done.stdout)

    def _loadgen(self, topic, *words):
        return [BIN / "loadgen", "logins", "--kafka", self.services.brokers, "--registry", self.services.registry, "--topic", topic, *words]

    def fill(self, topic, backlog):
        """Writes the backlog as fast as it goes; the command that does so."""
        command = self._loadgen(topic, "--bulk", *backlog.words())
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise BenchFailed(f"filling '{topic}': {done.stderr.strip()[-500:]}")
        return self.text_of(command)

    def shop(self, folder, *words):
        """Writes a made-up shop into a folder; the command that does so."""
        command = [BIN / "loadgen", "shop", "--bulk", *map(str, words), "--out", folder]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise BenchFailed(f"making a shop: {done.stderr.strip()[-500:]}")
        return self.text_of(command)

    def findings(self, backlog):
        """How many findings the backlog holds, from the generator's own file."""
        folder = self.data()
        subprocess.run([BIN / "loadgen", "logins", "--out", folder, *backlog.words()], check=True, stdout=subprocess.DEVNULL)
        with self.geo.open(encoding="utf-8") as rows, (folder / "login_events.ndjson").open(encoding="utf-8") as lines:
            found = expected.findings(lines, expected.Geography(rows))
        self.drop(folder)
        return found

    def feed(self, topic, rate, partitions=traffic.PARTITIONS, skew=0.0, first_user=0):
        """Live logins at a rate until ended; the process, and the command."""
        command = self._loadgen(topic, *traffic.live_words(rate, partitions, skew, first_user))
        return Running(command, self.folder / "loadgen.log", self.env), self.text_of(command)

    def follow(self, topic, out):
        """A `probe follow` that is ready."""
        command = [BIN / "probe", "follow", "--brokers", self.services.brokers, "--topic", topic, "--out", str(out)]
        log = self.folder / "probe.log"
        log.unlink(missing_ok=True)
        running = Running(command, log, self.env)
        until(START_SECONDS, "the probe follows", lambda: running.is_alive("the probe") and "following" in log.read_text())
        return running

    def job_command(self, profile, data, *more):
        """The whole job's own program."""
        return [BIN / "login_anomalies", "run", JOB, "--profile", profile, "--data", str(data), *more]

    def lakehouse_command(self, sets, *more):
        """The lakehouse's program, from files into a folder; `sets` names both."""
        return [BIN / "lakehouse", "run", LAKEHOUSE, "--profile", "files", *more, *(word for name, value in sets.items() for word in ("--set", f"{name}={value}"))]


class Running:
    """A process that runs beside this one."""

    def __init__(self, command, log, env):
        self.log = pathlib.Path(log)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.pid = self.process.pid
        self.usage = None

    def is_alive(self, what):
        """Raises when it has ended by itself."""
        if self.process.poll() is not None:
            raise BenchFailed(f"{what} ended with {self.process.returncode}: {self.last_lines()}")
        return True

    def wait(self, seconds):
        """Its exit code; `usage` then holds what it has spent."""
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        _, status, self.usage = os.wait4(self.pid, 0)
        timer.cancel()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode

    def end(self, how=signal.SIGTERM, seconds=STOP_SECONDS):
        self.process.send_signal(how)
        return self.wait(seconds)

    def kill(self):
        """kill -9, whatever state it is in."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    def last_lines(self, count=10):
        return "\n    ".join(self.log.read_text(errors="replace").splitlines()[-count:])


def status(data):
    """What the job in a data folder last wrote about itself."""
    try:
        return json.loads((data / "status.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
