"""The suite's command line: picks a scenario, gives it a temporary folder, reports, and says how to run a failure again."""

import argparse
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import crashes
import hard_broker
import lakehouse
import lakehouse_days
import lakehouse_foreign
import lakehouse_kafka
import lakehouse_stack
import registry_outage
import traffic
import two_processes
from scene import Failure, Scene, say, until
from services import Services, free_ports

SCENARIOS = {"crashes": crashes, "hard_broker": hard_broker, "registry_outage": registry_outage, "two_processes": two_processes}
LAKEHOUSES = {
    "lakehouse": lakehouse, "lakehouse_days": lakehouse_days, "lakehouse_foreign": lakehouse_foreign, "lakehouse_kafka": lakehouse_kafka,
    "lakehouse_stack": lakehouse_stack,
}
KILLS = 12


def parse(arguments):
    """`run --events N` is `run crashes --events N`."""
    if not arguments or arguments[0].startswith("--"):
        arguments = ["crashes", *arguments]
    parser = argparse.ArgumentParser(prog="compose/e2e/run", description=__doc__)
    parser.add_argument("scenario", choices=[*SCENARIOS, *LAKEHOUSES, "lakehouse_watch", "connectors", "objects", "harness", "watch"])
    parser.add_argument("--events", type=int, default=20_000, help="logins to produce at least (input flows while anything is killed)")
    parser.add_argument("--rate", type=float, default=400.0, help="logins a second")
    parser.add_argument("--kills", type=int, help=f"kill -9 of the job; {KILLS}, lakehouse and lakehouse_foreign {lakehouse.KILLS}, lakehouse_days {lakehouse_days.KILLS} of each case, lakehouse_stack {lakehouse_stack.KILLS}")
    parser.add_argument("--broker-kills", type=int, default=3, help="kill -9 of the broker")
    parser.add_argument("--outage", type=float, default=4.0, help="seconds for which the registry is away, beside the time it takes to start")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the shop of lakehouse_stack is open")
    parser.add_argument("--faults", action="store_true", help="lakehouse_stack: storage, catalog and Connect are killed too, and commits refused or their answers lost")
    parser.add_argument("--format", type=int, choices=(2, 3), default=2, help="of the tables of lakehouse and lakehouse_stack; after half of the kills it is 3")
    parser.add_argument("--seed", type=int, help="default: a new one each run, printed")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a run that passed")
    options = parser.parse_args(arguments)
    if options.kills is None:
        options.kills = getattr(LAKEHOUSES.get(options.scenario), "KILLS", KILLS)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 31)
    return options


def harness():
    tests = unittest.defaultTestLoader.discover(str(pathlib.Path(__file__).parent), pattern="test_*.py")
    return 0 if unittest.TextTestRunner(verbosity=2).run(tests).wasSuccessful() else 1


def connectors():
    """The connectors' own tests, each with topics of its own, against one broker."""
    with tempfile.TemporaryDirectory(prefix="dataflow-e2e-") as folder, Services(pathlib.Path(folder)) as services:
        environment = os.environ | {"KAFKA_BROKERS": services.brokers}
        programs = os.environ["DATAFLOW_KAFKA_TESTS"].splitlines()
        return max(subprocess.run([tests, "--ignored"], env=environment, check=False).returncode for tests in programs)


def objects():
    """The tests of the source of objects against an S3 service in memory."""
    (port,) = free_ports(1)
    endpoint, bucket = f"http://127.0.0.1:{port}", "objects"
    environment = os.environ | {"S3_ENDPOINT": endpoint, "S3_BUCKET": bucket, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until(30, "the S3 service makes a bucket", lambda: is_made(f"{endpoint}/{bucket}"))
            return subprocess.run([os.environ["DATAFLOW_OBJECTS_TESTS"], "--ignored"], env=environment, check=False).returncode
        finally:
            server.kill()


def is_made(bucket):
    try:
        with urllib.request.urlopen(urllib.request.Request(bucket, method="PUT")) as answer:
            return answer.status == 200
    except OSError:
        return False


def alone(play, options, again):
    """A part that is no `Scene`: `play` in a folder of its own. `again` is how to run it so once more."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dataflow-e2e-"))
    say(f"{again}, in {folder}")
    started = time.monotonic()
    try:
        play(folder)
    except Failure as failure:
        say(f"FAILED after {time.monotonic() - started:.0f} s: {failure}")
        say(f"what it left stays in {folder}; again: compose/e2e/run {again}")
        print("e2e: 0 passed, 1 failed", flush=True)
        return 1
    if options.keep:
        say(f"what it left is in {folder}")
    else:
        shutil.rmtree(folder)
    say(f"passed in {time.monotonic() - started:.0f} s")
    print("e2e: 1 passed, 0 failed", flush=True)
    return 0


def watch(options):
    """The live page; the only part that needs a browser."""
    import live_page

    return alone(live_page.play, options, "watch")


def watch_tables(options):
    """The live page of the lakehouse job; needs a browser too."""
    import live_tables

    return alone(live_tables.play, options, "lakehouse_watch")


def main():
    options = parse(sys.argv[1:])
    if options.scenario == "connectors":
        return connectors()
    if options.scenario == "objects":
        return objects()
    if options.scenario == "harness":
        return harness()
    if options.scenario == "watch":
        return watch(options)
    if options.scenario == "lakehouse_watch":
        return watch_tables(options)
    if options.scenario in LAKEHOUSES:
        again = f"{options.scenario} --seed {options.seed}"
        if options.scenario != "lakehouse_kafka":
            again += f" --kills {options.kills}"
        if options.scenario in ("lakehouse", "lakehouse_stack"):
            again += f" --format {options.format}"
        if options.scenario == "lakehouse_stack":
            again += f" --seconds {options.seconds:g}" + " --faults" * options.faults
        return alone(lambda folder: LAKEHOUSES[options.scenario].play(folder, options), options, again)
    seed = options.seed
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dataflow-e2e-"))
    say(f"{options.scenario}, seed {seed}, in {folder}")
    started = time.monotonic()
    scenario = SCENARIOS[options.scenario]
    # Event time runs many times faster than the clock, unless a scenario sets its pace.
    pace = getattr(scenario, "PACE", None)
    step_us = traffic.DENSE_STEP_US if pace is None else int(pace * 1_000_000 / options.rate)
    try:
        with Scene(folder, seed, options, step_us, getattr(scenario, "BROKER_DISK_MB", None)) as scene:
            scenario.play(scene, options)
    except Failure as failure:
        say(f"FAILED after {time.monotonic() - started:.0f} s: {failure}")
        say(f"logs and data stay in {folder}; again: compose/e2e/run {options.scenario} --seed {seed} --events {options.events} "
            f"--rate {options.rate:g} --outage {options.outage:g}")
        print("e2e: 0 passed, 1 failed", flush=True)
        return 1
    if not options.keep:
        shutil.rmtree(folder)
    say(f"passed in {time.monotonic() - started:.0f} s")
    print("e2e: 1 passed, 0 failed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
