"""Restarts of the lakehouse: how long its views take to be there again, and what they take in memory, by what the shop has."""

import time

import machine
from lake import CHANGES, add_purchases
from scene import RUN_SECONDS, START_SECONDS, BenchFailed, Running, status, until

# A backlog is read when nothing more has come for so long.
CALM_SECONDS = 3
# After a restore: until the allocator has given back what only the restore needed.
SETTLE_SECONDS = 5
ITEMS = 1_000


class Shop:
    """A shop in files; `has` says what of it the job reads: users (and items), `purchases` as well, pageviews as well."""

    def __init__(self, scene, users, events, purchases, has):
        self.scene, self.input, self.output = scene, scene.data(), scene.data()
        self.made = scene.shop(self.input, "--users", users, "--items", ITEMS, "--events", 1 if has == "users" else events)
        if has != "users" and purchases:
            self.made += f"; {purchases:,} purchases more in its snapshot"
            add_purchases(self.input / CHANGES, purchases, users)
        if has != "pageviews":
            (self.input / "pageviews.ndjson").write_bytes(b"")
            self.made += f"; : > {scene.text_of([self.input / 'pageviews.ndjson'])}"

    def command(self):
        return self.scene.lakehouse_command({"input": self.input, "output": self.output})

    def status(self):
        return status(self.output / ".data")

    def start(self):
        return Running(self.command(), self.scene.folder / "job.log", self.scene.env)

    def read(self):
        """Runs the job until it has read everything, and stops it at a checkpoint."""
        job, seen = self.start(), (0, time.monotonic())
        deadline = time.monotonic() + RUN_SECONDS
        while seen[0] == 0 or time.monotonic() < seen[1] + CALM_SECONDS:
            job.is_alive("the job")
            if time.monotonic() > deadline:
                raise BenchFailed(f"the job has not read the shop in {RUN_SECONDS} s")
            records = self.status().get("records", 0)
            seen = seen if records == seen[0] else (records, time.monotonic())
            time.sleep(0.1)
        stop(job)


def stop(job):
    if code := job.end():
        raise BenchFailed(f"the job ended with {code}: {job.last_lines()}")


def run(scene, users, events, purchases, has):
    """Figures of one restart."""
    shop = Shop(scene, users, events, purchases, has)
    shop.read()
    meter, began = machine.Meter([]), time.time()
    job = shop.start()
    generation_is_new = lambda: job.is_alive("the job") and shop.status().get("state") == "running"
    # What the life before has left is of a job that has stopped.
    until(RUN_SECONDS, "the views are there again", generation_is_new)
    back = time.time()
    time.sleep(SETTLE_SECONDS)
    found = until(START_SECONDS, "the job says how it is", shop.status)
    stop(job)
    meter.stop()
    scene.drop(shop.input)
    scene.drop(shop.output)
    restore = found["restore"]
    rows = {f"{name}_rows": of["rows"] for name, of in restore["by_collection"].items()}
    return {
        "restore_s": round(restore["seconds"], 2), "memory_mb": round(found["memory"]["bytes"] / 1e6), "rss_peak_mb": round(job.usage.ru_maxrss * 1024 / 1e6),
        "cpu_s": round(job.usage.ru_utime + job.usage.ru_stime, 2), "rows": restore["collections"]["rows"], "view_rows": restore["views"]["rows"], **rows,
        **meter.others(began, back), "command": f"{shop.made}; {scene.text_of(shop.command())}; Ctrl-C; the same again",
    }
