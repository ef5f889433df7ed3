"""A backlog through a job: from Kafka to Kafka for every implementation, and in memory for ours."""

import datetime
import functools
import os
import time

import machine
from engines import TWO, Engine
from scene import RUN_SECONDS, BenchFailed, Running, status
from traffic import PARTITIONS, USERS, Backlog, ago

# The job writes its counters this often; a shorter flow cannot be told from one that lasts as long.
STATUS_SECONDS = 0.25
LOOK_SECONDS = 0.05
# Rows become visible by transactions: what took less says nothing of a rate.
STEADY_SECONDS = 0.5
# The made-up backlog begins this long ago and lasts an hour: no event of it lies in the future.
BEGINS_SECONDS_AGO = 7_200
MEMORY_INPUT = "login-events"


class Input:
    """A topic with a backlog that many runs read."""

    def __init__(self, scene, topic, count, **shape):
        self.scene, self.topic = scene, topic
        self.backlog = Backlog(count, ago(BEGINS_SECONDS_AGO), **shape)
        self.fill = scene.fill(topic, self.backlog)

    @functools.cached_property
    def findings(self):
        return self.scene.findings(self.backlog)


def kafka(scene, source, name, job, guarantee):
    """One run of one implementation over the backlog."""
    backlog = source.backlog
    with Engine(scene, name, job, guarantee, source.topic, backlog.partitions) as engine:
        series = engine.read_all(backlog.count)
        began, figures = engine.consuming(), {}
        end = series[-1][0]
        # The half that is in the middle and at the end: compilers have compiled, caches are warm.
        half = next(at for at, rows, _ in series if rows >= series[-1][1] / 2)
        full = next(at for at, rows, _ in series if rows >= series[-1][1])
        spent, spent_half = (engine.meter.cpu_s(at) - engine.cpu_before_s for at in (end, half))
        if full - half >= STEADY_SECONDS:
            figures |= {"steady_per_s": round(backlog.count / 2 / (full - half)),
                        "steady_cpu_s_per_million": round((spent - spent_half) / backlog.count * 2e6, 2)}
        figures |= {"events_per_s": round(backlog.count / (end - began)), "cpu_s_per_million": round(spent / backlog.count * 1e6, 2),
                    "rss_peak_mb": engine.meter.peak_mb(), "wall_s": round(end - began, 2), "from_start_s": round(end - engine.started, 2)}
        figures |= engine.check(backlog.count, source.findings if job == TWO else None) | engine.meter.others(began, end)
        return figures | {"command": f"{source.fill}; {engine.command()}"}


def memory(scene, options, backend):
    """Generator to local log, all seven detectors. The generator and its JSON are part of the job's process and of its CPU-seconds."""
    data = scene.data()
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=BEGINS_SECONDS_AGO)
    start = data / "generators" / MEMORY_INPUT
    start.parent.mkdir(parents=True)
    start.write_text(begin.strftime("%Y-%m-%dT%H:%M:%SZ"))
    prepare = scene.text_of(["mkdir", "-p", start.parent]) + f"; date -u -d '2 hours ago' +%FT%TZ > {scene.text_of([start])}; "
    source = f"sources.{MEMORY_INPUT}"
    sets = {f"{source}.paced": "false", f"{source}.count": options.events, f"{source}.rate": options.events / 3600,
            f"{source}.users": USERS, f"{source}.partitions": PARTITIONS, f"{source}.attacks": "6.0",
            f"{source}.duplicates": "0.0", f"{source}.poison": "0.0", "state.backend": f'"{backend}"'}
    words = [word for name, value in sets.items() for word in ("--set", f"{name}={value}")]
    figures = until_end(scene, options, scene.job_command("embedded", data, "--until-end", *words), data)
    return figures | {"command": prepare + figures["command"]}


def until_end(scene, options, command, data):
    """Runs the job until it has ended by itself; its figures."""
    meter, started, began = machine.Meter(scene.service_pids()), time.monotonic(), time.time()
    job = Running(command, scene.folder / "job.log", scene.env)
    first, full = watch(job, data, options.events, started)
    code = job.wait(RUN_SECONDS)
    wall = time.monotonic() - started
    cpu = job.usage.ru_utime + job.usage.ru_stime
    meter.stop()
    counters = status(data)
    scene.drop(data)
    if code != 0:
        raise BenchFailed(f"the job ended with {code}: {job.last_lines()}")
    if counters.get("records") != options.events:
        raise BenchFailed(f"the job read {counters.get('records')} records, not {options.events}")
    return {
        "events_per_s": round(options.events / wall), "steady_per_s": round(options.events / max(full - first, STATUS_SECONDS)),
        "cpu_s_per_million": round(cpu / options.events * 1e6, 2), "rss_peak_mb": round(job.usage.ru_maxrss * 1024 / 1e6),
        "wall_s": round(wall, 2), "late": counters["late"], "dead_letters": counters["dead_letters"],
        "raised": counters["raised"], "withdrawn": counters["withdrawn"], "epochs": counters["epoch_opened"],
        "checkpoints": counters["checkpoints"], **meter.others(began, time.time()), "command": scene.text_of(command),
    }


def watch(job, data, events, started):
    """When records began to flow, and when the last was read: to a quarter of a second."""
    first = None
    while True:
        records = status(data).get("records", 0)
        now = time.monotonic() - started
        if records > 0:
            first = now if first is None else first
        # WNOWAIT keeps the process for wait4, which alone says what it spent.
        if now > RUN_SECONDS:
            job.kill()
            raise BenchFailed(f"the job read {records} of {events} records in {RUN_SECONDS} s: {job.last_lines()}")
        if records >= events or is_over(job):
            return (first or 0.0), now
        time.sleep(LOOK_SECONDS)


def is_over(job):
    return os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
