"""The lakehouse job, all its views, over a made-up shop in files: how many changes a second go through, how long one takes to the views with
all that in place, and what a table costs to read that was changed in many commits, in each format, beside the same rows written once and beside
equality deletes.

Readers' own time is measured, DuckDB's: what files, deletes and metadata of ours cost somebody else."""

import bisect
import itertools
import json
import random
import re
import shutil
import statistics
import time
import urllib.error
import urllib.request

import equality
import machine
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchNamespaceError
from scene import RUN_SECONDS, BenchFailed, Running, free_ports, open_duckdb, status, until

# A commit of each changed table that often: a run has many, and maintenance has its work.
CHECKPOINT_MS = 1_000
MAINTENANCE = "{ interval_seconds = 2, keep_snapshots = 5, keep_seconds = 0, keep_epochs = 5 }"
# The largest that is kept by key, and one of which much changes in each commit.
READ = ("silver.purchases_enriched", "gold.top_converting_items")
# So many reads of each, or fewer where they take longer than that together.
READS, FEW_READS, READ_MS = 9, 3, 10_000
QUERY = "SELECT count(*), sum(hash(COLUMNS(*))::HUGEINT) FROM iceberg_scan('{}')"
COPY = "bench"
USERS = 20_000
CHANGES = "oneshop.ndjson"
# Of purchases that are added: above the shop's own.
FIRST_ID = 1_000_000_000
# Lines that come later, live, at so many a second.
LATER, LATER_PER_S = 6_000, 200
# From the first record of an epoch to its changes of the tables.
LATENCY = re.compile(r'dataflow_epoch_latency_seconds_bucket\{(?=[^}]*stage="staged")(?=[^}]*sink="lakehouse")[^}]*le="([^"]+)"[^}]*\} (\d+)')


class Shop:
    """Change events and pageviews in a folder that runs read."""

    def __init__(self, scene, events, purchases=0):
        self.scene, self.events, self.folder = scene, events, scene.data()
        self.command = scene.shop(self.folder, "--events", events, "--users", USERS, "--items", 2_000, "--rate", 2_000)
        if purchases:
            self.command += f"; {purchases:,} purchases more in its snapshot"
            add_purchases(self.folder / CHANGES, purchases, USERS)
        self.later = self.cut()
        self.lines = sum(count(file) for file in self.folder.glob("*.ndjson"))
        # By format of the tables.
        self.warehouses = {}

    def cut(self):
        """Takes the last lines of each file off, as [(file, line)] in turn."""
        ends = []
        for file in sorted(self.folder.glob("*.ndjson")):
            lines = file.read_bytes().splitlines(keepends=True)
            end = min(LATER // 2, len(lines) // 10)
            file.write_bytes(b"".join(lines[: len(lines) - end]))
            ends.append([(file, line) for line in lines[len(lines) - end :]])
        return [one for turn in itertools.zip_longest(*ends) for one in turn if one]

    def command_of(self, out, form, *more):
        sets = {"input": self.folder, "output": out, "sinks.lakehouse.format": form, "runtime.checkpoint_interval_ms": CHECKPOINT_MS, "sinks.lakehouse.maintenance": MAINTENANCE}
        return self.scene.lakehouse_command(sets, "--workers", "2", *more)

    def views(self, form):
        """One run to the end of the input. Its warehouse stays, in the place of that of the run before."""
        out = self.scene.data()
        command = self.command_of(out, form, "--until-end")
        meter, started, began = machine.Meter([]), time.monotonic(), time.time()
        job = Running(command, self.scene.folder / "job.log", self.scene.env)
        code = job.wait(RUN_SECONDS)
        wall = time.monotonic() - started
        meter.stop()
        if code != 0:
            raise BenchFailed(f"the job ended with {code}: {job.last_lines()}")
        counters = status(out / ".data")
        if counters.get("records") != self.lines:
            raise BenchFailed(f"the job read {counters.get('records')} records, the input has {self.lines}")
        if form in self.warehouses:
            shutil.rmtree(self.warehouses[form].parent)
        self.warehouses[form] = out / "warehouse"
        cpu = job.usage.ru_utime + job.usage.ru_stime
        return {"events_per_s": round(self.lines / wall), "cpu_s_per_million": round(cpu / self.lines * 1e6, 2),
                "rss_peak_mb": round(job.usage.ru_maxrss * 1024 / 1e6), "wall_s": round(wall, 2), "checkpoints": counters["checkpoints"],
                **meter.others(began, time.time()), "command": f"{self.command}; {self.scene.text_of(command)}"}

    def live(self, form):
        """The job goes on where it ended, and further lines come. How long until it is ready, and from a line to the views."""
        (port,) = free_ports(1)
        command = self.command_of(self.left(form).parent, form, "--page", str(port))
        page, started = f"http://127.0.0.1:{port}", time.monotonic()
        job = Running(command, self.scene.folder / "job.log", self.scene.env)
        try:
            until(RUN_SECONDS, "the job is ready", lambda: job.is_alive("the job") and ask(f"{page}/readyz"))
            ready_s = time.monotonic() - started
            first, rss_mb, began = buckets(page), machine.rss_mb([job.pid]), time.time()
            meter = machine.Meter([], [job.pid])
            self.append()
            last = buckets(page)
            meter.stop()
            took = [(bound, last[bound] - first.get(bound, 0)) for bound in sorted(last)]
            return {"ready_s": round(ready_s, 2), "rss_peak_mb": round(rss_mb), "lines_live": len(self.later),
                    "p50_ms": quantile(took, 0.5), "p90_ms": quantile(took, 0.9), "p99_ms": quantile(took, 0.99),
                    "cores": round(meter.cores(began, time.time()), 3), **meter.others(began, time.time()), "command": self.scene.text_of(command)}
        finally:
            job.kill()

    def append(self):
        """The later lines, at their rate."""
        began = time.monotonic()
        for number, (file, line) in enumerate(self.later):
            time.sleep(max(0.0, began + number / LATER_PER_S - time.monotonic()))
            with file.open("ab") as out:
                out.write(line)

    def left(self, form):
        """The warehouse that a run left."""
        if form not in self.warehouses:
            raise BenchFailed(f"no run left a warehouse of format {form}")
        return self.warehouses[form]

    def reads(self, form):
        """By table: how long a reader takes over all its rows, as the job left them, written once, and put in by key with equality deletes."""
        catalog = catalog_of(self.left(form))
        try:
            catalog.list_tables(COPY)
        except NoSuchNamespaceError:
            catalog.create_namespace(COPY)
        for name in READ:
            table = catalog.load_table(name)
            files = table.inspect.files().to_pylist()
            deletes = sum(file["content"] != 0 for file in files)
            rows, once, by_key = table.scan().to_arrow(), copied(catalog, table, name, "once"), copied(catalog, table, name, "by_key")
            once.append(rows)
            # As many commits as have left files of ours.
            commits = max(len(files) - deletes - 1, 1)
            equality.upserted(by_key, rows, commits)
            (fresh, same), (found, as_left), (by_equality, as_put) = (read(one) for one in (once, table, by_key))
            if not same == as_left == as_put:
                raise BenchFailed(f"a copy of '{name}' reads differently")
            same_of_all = {"of": f" {name}, format {form}", "rows": same[0], "command": f"{QUERY.format('METADATA FILE')}, in DuckDB, after the run above"}
            yield "written once", same_of_all | {"read_ms": fresh, "files": 1}
            yield "as the job left it", same_of_all | {"read_ms": found, "files": len(files), "delete_files": deletes}
            yield "by equality deletes", same_of_all | {"read_ms": by_equality, "files": 2 * commits + 1, "delete_files": commits}


def catalog_of(warehouse):
    return load_catalog("dataflow", type="sql", uri=f"sqlite:///{warehouse / 'catalog.db'}", warehouse=f"file://{warehouse}")


def add_purchases(changes, number, users):
    """Purchases more in the snapshot with which the change events begin, like those that it has, by so many users and of items that it has; most of
    them of the last days."""
    lines = changes.read_bytes().splitlines(keepends=True)
    end = next(at for at, line in enumerate(lines) if b'"op":"r"' not in line)
    like = [json.loads(line) for line in lines[:end] if b'"table":"purchases"' in line]
    dice, more = random.Random(1), []
    for id in range(FIRST_ID, FIRST_ID + number):
        line, of = like[id % len(like)], like[dice.randrange(len(like))]["after"]
        row = line["after"] | {"id": id, "user_id": dice.randrange(users) + 1, "item_id": of["item_id"], "purchase_price": of["purchase_price"]}
        more.append(json.dumps(line | {"after": row}, separators=(",", ":")).encode() + b"\n")
    changes.write_bytes(b"".join(lines[:end] + more + lines[end:]))


def count(file):
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def ask(url):
    """What is answered; nothing where nobody does, or not yet."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None


def buckets(page):
    """{upper bound in seconds: epochs} of the latency; empty before there is any."""
    return {float(bound): int(count) for bound, count in LATENCY.findall(ask(f"{page}/metrics") or "")}


def quantile(took, share):
    """Milliseconds below which that share of the epochs lie, between two bounds in proportion."""
    bounds, counts = [bound for bound, _ in took], [count for _, count in took]
    if not counts or not counts[-1]:
        raise BenchFailed("no epoch with changes was seen")
    rank = share * counts[-1]
    at = bisect.bisect_left(counts, rank)
    (below, low), high = ((bounds[at - 1], counts[at - 1]) if at else (0.0, 0)), bounds[at]
    if high == float("inf"):
        return round(below * 1000, 1)
    return round((below + (high - below) * (rank - low) / max(counts[at] - low, 1)) * 1000, 1)


def copied(catalog, table, name, how):
    """A table of the same columns, empty."""
    return catalog.create_table(f"{COPY}.{name.replace('.', '_')}_{how}", schema=table.schema(), properties={"write.parquet.compression-codec": "zstd"})


def read(table):
    """(milliseconds, what was read)."""
    duck, took, seen = open_duckdb("avro", "iceberg"), [], None
    while len(took) < FEW_READS or len(took) < READS and sum(took) < READ_MS:
        began = time.perf_counter()
        # Each column of each row, whatever their order.
        seen = duck.execute(QUERY.format(table.metadata_location)).fetchone()
        took.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(took), 1), seen
