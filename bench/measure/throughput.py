"""A backlog through the whole job, all seven detectors, until it has ended by itself: in memory, with RocksDB, and Kafka to Kafka."""

import datetime
import os
import time

import machine
from scene import ENRICHED, INPUT, OUTPUTS, PARTITIONS, RUN_SECONDS, USERS, BenchFailed, Running, status

# The job writes its counters this often; a shorter flow cannot be told from one that lasts as long.
STATUS_SECONDS = 0.25
LOOK_SECONDS = 0.05
# The made-up backlog begins this long ago and lasts an hour: no event of it lies in the future.
BEGINS_SECONDS_AGO = 7_200


def memory(scene, options, backend):
    """Generator to local log. The generator and its JSON are part of the job's process and of its CPU-seconds."""
    data = scene.data()
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=BEGINS_SECONDS_AGO)
    start = data / "generators" / INPUT
    start.parent.mkdir(parents=True)
    start.write_text(begin.strftime("%Y-%m-%dT%H:%M:%SZ"))
    prepare = scene.text_of(["mkdir", "-p", start.parent]) + f"; date -u -d '2 hours ago' +%FT%TZ > {scene.text_of([start])}; "
    source = f"sources.{INPUT}"
    sets = {f"{source}.paced": "false", f"{source}.count": options.events, f"{source}.rate": options.events / 3600,
            f"{source}.users": USERS, f"{source}.partitions": PARTITIONS, f"{source}.attacks": "6.0",
            f"{source}.duplicates": "0.0", f"{source}.poison": "0.0", "state.backend": f'"{backend}"'}
    figures = backlog(scene, options, scene.job_command("embedded", data, "--until-end", *set_of(sets)), data)
    return figures | {"command": prepare + figures["command"]}


def kafka(scene, options, delivery, fill):
    """Avro from Kafka, through the registry's schemas, to Kafka. Every run reads the same backlog, which the command `fill` wrote."""
    data = scene.data()
    before = {topic: scene.probe("ends", topic) for topic in OUTPUTS}
    # A new job on topics that hold an older one's output.
    sets = {"geo": scene.geo, "sinks.alerts.delivery": f'"{delivery}"', "sinks.alerts.start_over": "true"}
    figures = backlog(scene, options, scene.job_command("local", data, "--until-end", *set_of(sets)), data)
    visible = scene.probe("count", ENRICHED, "--from", before[ENRICHED])
    if visible != figures["rows_expected"]:
        raise BenchFailed(f"{visible} committed rows in '{ENRICHED}', not {figures['rows_expected']}")
    return figures | {"rows_visible": visible, "command": f"{fill}; {figures['command']}"}


def set_of(settings):
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def backlog(scene, options, command, data):
    """Runs the job until it has ended; its figures."""
    load, started = machine.Load(scene.service_pids()), time.monotonic()
    job = Running(command, scene.folder / "job.log", scene.env)
    first, full = watch(job, data, options.events, started)
    code = job.wait(RUN_SECONDS)
    wall = time.monotonic() - started
    cpu = job.usage.ru_utime + job.usage.ru_stime
    services, others = load.cores(cpu)
    counters = status(data)
    scene.drop(data)
    if code != 0:
        raise BenchFailed(f"the job ended with {code}: {job.last_lines()}")
    if counters.get("records") != options.events:
        raise BenchFailed(f"the job read {counters.get('records')} records, not {options.events}")
    return {
        "logins_per_s": round(options.events / wall), "flowing_per_s": round(options.events / max(full - first, STATUS_SECONDS)),
        "logins_per_cpu_s": round(options.events / cpu), "wall_s": round(wall, 2), "cpu_s": round(cpu, 2),
        "cpu_user_s": round(job.usage.ru_utime, 2), "cpu_s_per_million": round(cpu / options.events * 1e6, 2),
        "rss_peak_mb": round(job.usage.ru_maxrss * 1024 / 1e6),
        "rows_expected": counters["accepted"], "late": counters["late"],
        "dead_letters": counters["dead_letters"], "raised": counters["raised"], "withdrawn": counters["withdrawn"],
        "epochs": counters["epoch_opened"], "checkpoints": counters["checkpoints"], "transactions": counters["transactions"],
        "services_cores": services, "others_cores": others, "command": scene.text_of(command),
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
