"""Reading a topic to its end: the engine's Kafka source beside bare loops over the same client library."""

import json
import time

import machine
from scene import BIN, RUN_SECONDS, BenchFailed, Running

# `probe ingest --reader`, as people call it.
READERS = {"ours": "source", "bare consumer": "base-consumer", "bare stream": "stream-consumer", "bare batches": "batch-queue"}


def read(scene, source, reader):
    """One reader over the backlog of a topic."""
    command = [BIN / "probe", "ingest", "--brokers", scene.services.brokers, "--topic", source.topic, "--reader", READERS[reader]]
    log = scene.folder / "ingest.log"
    log.unlink(missing_ok=True)
    meter, began = machine.Meter(scene.service_pids()), time.time()
    probe = Running(command, log, scene.env)
    code = probe.wait(RUN_SECONDS)
    ended = time.time()
    meter.stop()
    if code != 0:
        raise BenchFailed(f"reading ended with {code}: {probe.last_lines()}")
    found, count = json.loads(log.read_text()), source.backlog.count
    if found["records"] != count:
        raise BenchFailed(f"{found['records']} records were read, not {count}")
    cpu = probe.usage.ru_utime + probe.usage.ru_stime
    return {"events_per_s": round(count / found["seconds"]), "cpu_s_per_million": round(cpu / count * 1e6, 2),
            "rss_peak_mb": round(probe.usage.ru_maxrss * 1024 / 1e6), **meter.others(began, ended),
            "command": f"{source.fill}; {scene.text_of(command)}"}
