"""One run's surroundings: folders, services, and the binaries under measurement, each with the command that repeats what it did."""

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

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "compose" / "e2e"))
from services import Services  # noqa: E402  (the end-to-end suite's: the same stack, on ports of its own)

BIN = pathlib.Path(os.environ["DATAFLOW_BENCH_BIN"])
JOB = "jobs/login_anomalies.rs"
INPUT, ENRICHED = "login-events", "login-events-enriched"
OUTPUTS = (ENRICHED, "login-anomalies", "login-events-late", "login-events-dlq")
PARTITIONS = 4
USERS = 10_000
# Bounds for waits; a run that takes longer has failed.
RUN_SECONDS = 300
START_SECONDS = 60
STOP_SECONDS = 60


class BenchFailed(Exception):
    """A run did not do what is measured."""


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

    def __enter__(self):
        subprocess.run([BIN / "loadgen", "geo", "--out", self.geo], check=True)
        if self.services:
            self.services.__enter__()
            self.env |= {"KAFKA_BROKERS": self.services.brokers, "REGISTRY_URL": self.services.registry}
        return self

    def __exit__(self, kind, *_):
        if self.services:
            self.services.__exit__(kind)

    def text_of(self, command):
        """A command as it can be typed in a checkout, with $RUN for the folder, and the services' addresses by their variables."""
        text = shlex.join(str(word).removeprefix(f"{BIN}/") for word in command).replace(str(self.folder), "$RUN")
        for variable in ("KAFKA_BROKERS", "REGISTRY_URL") if self.services else ():
            text = text.replace(self.env[variable], f"${variable}")
        return text

    def service_pids(self):
        if not self.services:
            return []
        return [int(file.read_text()) for file in (self.services.data / "run").glob("*.pid")]

    def data(self):
        """A new data folder."""
        self.made += 1
        return self.folder / f"data-{self.made}"

    def drop(self, data):
        shutil.rmtree(data, ignore_errors=True)

    def probe(self, verb, topic, *more):
        """What `probe` says, parsed."""
        command = [BIN / "probe", verb, "--brokers", self.services.brokers, "--topic", topic, *map(str, more)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_SECONDS)
        if done.returncode != 0:
            raise BenchFailed(done.stderr.strip())
        return json.loads(done.stdout)

    def fill(self, count):
        """Writes the backlog: an hour of event time, in the past, as fast as it goes. No login comes twice, so each that is accepted is one row, and
        none has a schema id that the registry does not know: for each of those the job asks again for a while, once."""
        command = [BIN / "loadgen", "logins", "--kafka", self.services.brokers, "--registry", self.services.registry, "--bulk",
                   "--count", str(count), "--seconds", "3600", "--users", str(USERS), "--partitions", str(PARTITIONS), "--duplicates", "0", "--poison", "0"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self.text_of(command)

    def feed(self, rate, skew):
        """Live logins at a rate, a share `skew` of them of one user, none late, double or broken, until ended; each is sent at once."""
        command = [BIN / "loadgen", "logins", "--kafka", self.services.brokers, "--registry", self.services.registry,
                   "--rate", str(rate), "--users", str(USERS), "--partitions", str(PARTITIONS), "--seed", str(time.time_ns() % 1_000_000_007),
                   "--late", "0", "--duplicates", "0", "--poison", "0", "--skew", str(skew),
                   "--property", "linger.ms=0", "--property", "socket.nagle.disable=true"]
        return Running(command, self.folder / "loadgen.log", self.env), self.text_of(command)

    def follow(self, out):
        """A `probe follow` that is ready."""
        command = [BIN / "probe", "follow", "--brokers", self.services.brokers, "--topic", ENRICHED, "--out", str(out)]
        log = self.folder / "probe.log"
        log.unlink(missing_ok=True)
        running = Running(command, log, self.env)
        until(START_SECONDS, "the probe follows", lambda: running.is_alive("the probe") and "following" in log.read_text())
        return running

    def job_command(self, profile, data, *more, program=None):
        """The job's own program, or with `program` the `dataflow` command, which asks cargo first."""
        return [program or BIN / "login_anomalies", "run", JOB, "--profile", profile, "--data", str(data), *more]


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
