"""Flame graphs of ours: where the CPU time of a backlog goes. `perf` samples, `inferno` (which bench/run installs) draws."""

import os
import pathlib
import shutil
import signal
import subprocess

import throughput
from engines import ALL, ENRICHMENT, EXACTLY, OURS, TWO, Engine
from scene import BenchFailed, Running, say

HZ = 199
# Release binaries have no frame pointers: stacks are unwound from so many bytes of each.
STACK_BYTES = 16_384
TOOLS = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "dataflow" / "tools" / "bin"


def graphs(scene, options, results):
    """One for each job, into `NAME-flame-JOB.svg`."""
    if not shutil.which("perf"):
        raise BenchFailed("a flame graph needs perf; on Debian: apt-get install linux-perf")
    source = throughput.Input(scene, "login-events", options.events)
    for job in (ENRICHMENT, TWO, ALL):
        path = results / f"{options.name}-flame-{job.replace(' ', '-')}.svg"
        record(scene, source, job, path)
        say(f"wrote {path}")
    scene.topics.delete([source.topic])


def record(scene, source, job, path):
    """One run over the backlog."""
    data = scene.folder / "perf.data"
    with Engine(scene, OURS, job, EXACTLY, source.topic, source.backlog.partitions) as engine:
        pids = ",".join(map(str, engine.pids()))
        perf = Running(["perf", "record", "--event", "cpu-clock", "--freq", str(HZ), "--call-graph", f"dwarf,{STACK_BYTES}",
                        "--output", str(data), "--pid", pids], scene.folder / "perf.log", scene.env)
        try:
            engine.read_all(source.backlog.count)
            # An interrupt is how perf is told to write what it has; it then ends with the signal.
            perf.end(signal.SIGINT)
        finally:
            perf.kill()
    title = f"{job}, {source.backlog.count:,} logins from Kafka to Kafka, exactly-once"
    with path.open("wb") as out:
        script = subprocess.Popen(["perf", "script", "--no-inline", "--input", str(data)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        collapse = subprocess.Popen([TOOLS / "inferno-collapse-perf"], stdin=script.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        subprocess.run([TOOLS / "inferno-flamegraph", "--title", title, "--minwidth", "0.2"], stdin=collapse.stdout, stdout=out, check=True)
    data.unlink()
