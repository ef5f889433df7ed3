"""The lakehouse in the middle of everything that it is made for, nothing of it a stand-in: the shop writes to Postgres and a bucket, Debezium
captures it, the job keeps tables in S3 behind a REST catalog, Trino queries them.

    loadgen ─► Postgres ─► Debezium ─► Kafka (Avro, registry) ─┐
         └───► MinIO (pageviews) ──────────────────────────────┴─► job ─► Iceberg in MinIO, REST catalog ─► Trino, PyIceberg, DuckDB

The job speaks TLS to storage and catalog, and to the latter through a gateway with a token and a prefix. It is killed -9 at random moments
while input flows, and so, if asked for, are services; then some of its commits are refused, too, or
their answers lost on the way back. Before half of the restarts the change events and objects below the newest manifest are deleted, and half of the lives
write small files anew all the time. Half-way the tables are upgraded to format 3. At last every row is changed once more. Then every table is
what `shop_views` makes of Debezium's messages and of the objects, and what Postgres makes of its own tables; so it was at the epoch that was
tagged and at others, none of which shows half a transaction. A row that somebody else deletes from a table that only grows stops nothing.
"""

import collections
import random
import time

import debezium
import product
import shop_views
import topics
from debezium import PREFIX, Captured
from lakehouse import check_formats, check_rows
from product import ProductFailed, StackLakehouse
from scene import Failure, say, until
from services import LakehouseServices
from shop_database import Probe, ShopDatabase
from tls import Authority, Terminator
from unreliable import FATES, TOKEN, UnreliableCatalog
from warehouse import RestWarehouse, Wrong, bag, check, check_files, check_history, noted_epochs, same

KILLS = 3
RATE = 150
CHECKPOINT_MS = 2_000
WORKERS = (1, 2, 3)
# From a start of the job, whatever else is slow, to a commit.
LIFE_SECONDS = 90
# From the end of the input until the tables show it.
SETTLE_SECONDS = 150
# So many kills make sure of what comes by chance with each.
MANY_KILLS = 6
# The share of the input's time in which something happens to somebody.
DISTURBED = (0.15, 0.9)
# The share of the job's commits to which the catalog's network does something, where services are killed as well.
UNRELIABLE_SHARE = 0.1
OUTAGE_SECONDS = {"minio": 20, "iceberg-rest": 5, "connect": 0}
# Epochs of the past that are read, beside the tagged one.
EPOCHS_LOOKED_AT = 2
TAG = "in-full-swing"
CATALOG, STORAGE = "ICEBERG_REST_URL", "S3_ENDPOINT"
EVENTS_DELETED, OBJECTS_DELETED = "change events deleted before a restart", "objects deleted before a restart"
# What is deleted from outside, and lines that come after it.
DELETED = "no_user_id"
MORE_PAGEVIEWS = b"""{"user_id": 1, "url": "/products/1", "channel": "social", "received_at": 1767434400}
{"url": "/products/1", "received_at": 1767434400}
not json
"""


class Run:
    """The job's lives, and what happens around them."""

    def __init__(self, folder, options, services, addresses, catalog, secured):
        """`secured`: what of its addresses the job is to take another way, and what it needs for that."""
        self.options, self.services, self.rng = options, services, random.Random(options.seed)
        self.addresses, self.catalog = addresses, catalog
        self.database = ShopDatabase(self.addresses, folder)
        self.warehouse = RestWarehouse(self.addresses)
        self.probe = Probe(self.database, lambda: RestWarehouse(self.addresses))
        self.reader = debezium.Reader(services.brokers, services.registry)
        self.job = StackLakehouse(addresses | secured, folder, CHECKPOINT_MS)
        self.seen, self.tagged, self.bound = collections.Counter(), None, None
        if options.format == 3:
            self.job.upgrade()

    def running(self):
        if (code := self.job.exit_code()) is not None:
            raise Failure(f"the job ended by itself with {code}; {self.job.last_lines()}")
        return True

    def noted(self):
        """(the table of epochs, {epoch: {table: snapshot}}, {epoch: clock})."""
        table = self.warehouse.tables().get(product.EPOCHS_TABLE)
        return table, *(noted_epochs(table) if table else ({}, {}))

    def bindings(self):
        """The rows of the bindings file; the job stands."""
        if self.bound is None:
            self.bound = self.job.bindings()
        return self.bound

    def live(self):
        """The input flows, and what is to happen happens."""
        for topic in (*debezium.TOPICS, debezium.TRANSACTIONS):
            topics.create_topic(self.services.brokers, topic, 1)
        self.database.start(self.options.seed, RATE, self.options.seconds)
        began = time.monotonic()
        debezium.register(self.addresses["CONNECT_URL"])
        self.job.start()
        self.probe.start()
        happenings = [self.kill] * self.options.kills + [self.tag]
        if self.options.faults:
            happenings += [lambda name=name: self.outage(name) for name in OUTAGE_SECONDS]
        self.rng.shuffle(happenings)
        low, high = (share * self.options.seconds for share in DISTURBED)
        for due, happening in zip(sorted(self.rng.uniform(low, high) for _ in happenings), happenings, strict=True):
            time.sleep(max(0.0, began + due - time.monotonic()))
            self.running()
            happening()
        self.database.finish()
        say("the shop has closed")
        self.probe.finish(SETTLE_SECONDS)
        say(self.probe.told())
        self.database.change_all()
        say("every row is changed once more")
        self.settle(self.database.close_shop())

    def note_life(self):
        """What the life that is about to end went through; its status."""
        status = self.job.status()
        self.seen["lives from a checkpoint"] += (status.get("restored_epoch") or 0) > 0
        self.seen["epochs replayed"] += status.get("replayed_epochs") or 0
        return status

    def kill(self):
        status = self.note_life()
        self.job.kill()
        say(f"kill -9 of the job at epoch {status.get('epoch_opened')}")
        self.seen["kills"] += 1
        if self.seen["kills"] == self.options.kills // 2:
            self.job.upgrade()
        if self.rng.random() < 0.5:
            self.delete_read_input()
        flags = ("--workers", str(self.rng.choice(WORKERS)))
        if self.rng.random() < 0.5:
            self.seen["lives with eager compaction"] += 1
            flags += ("--set", product.EAGER_COMPACTION)
        self.job.start(*flags)

    def delete_read_input(self):
        """Deletes the change events and objects below the newest manifest: the restart has to do without them. The verdict has read them."""
        self.reader.events()
        ends = self.job.manifest_ends()
        objects = self.database.delete_read(ends.pop(product.OBJECTS, {}).get(0, 0))
        deleted = sum(topics.delete_read(self.services.brokers, *of_topic) for of_topic in ends.items())
        self.seen[EVENTS_DELETED] += deleted
        self.seen[OBJECTS_DELETED] += objects
        say(f"deleted {deleted} change events and {objects} objects, below the newest manifest")

    def outage(self, name):
        # A job that is being started when a service goes is refused its start, as it is to be.
        newest = self.job.manifests()[-1:]
        until(LIFE_SECONDS, "the job makes a checkpoint", lambda: self.running() and self.job.manifests()[-1:] != newest)
        say(f"kill -9 of {name}, for {OUTAGE_SECONDS[name]} s")
        self.services.kill(name)
        time.sleep(OUTAGE_SECONDS[name])
        self.services.start(name)
        if name == "connect":
            debezium.await_task(self.addresses["CONNECT_URL"])

    def tag(self):
        until(LIFE_SECONDS, "an epoch is noted", lambda: self.running() and self.noted()[1], pause=0.5)
        self.tagged = self.job.tag(TAG)
        say(f"epoch {self.tagged[0]} is tagged")

    def settle(self, last):
        """Waits until Debezium has sent the last transaction, whose rows these are, and the tables show all of it and all pageviews."""
        sent = lambda table, events: any(event and event["op"] == "c" and event["after"]["id"] == last[table] for event in events)
        until(SETTLE_SECONDS, "Debezium has sent everything", lambda: all(sent(*item) for item in self.reader.events().items()), pause=1)
        self.events, lines = self.reader.events(), self.database.pageviews()
        self.given = Captured(self.events, lines)
        wanted = {f"bronze.{table}": sum(map(bool, events)) for table, events in self.events.items()}
        wanted["bronze.pageviews"] = sum(line is not None and line[0] == "pageview" for line in self.given.pageviews)

        def shown():
            self.running()
            return all(self.warehouse.ask(f"SELECT count(*) FROM {table}") == [[count]] for table, count in wanted.items())

        until(LIFE_SECONDS, "the tables are made", lambda: self.running() and wanted.keys() <= self.warehouse.tables().keys(), pause=1)
        until(SETTLE_SECONDS, f"the tables show {wanted}", shown, pause=1)
        say(f"the tables show everything: {wanted}")

    def stop(self):
        self.note_life()
        self.job.stop()
        needed = ["lives from a checkpoint", "epochs replayed"] if self.options.kills else []
        if self.options.kills >= MANY_KILLS:
            self.seen["rewrites"] = sum(line.get("message") == product.REWRITTEN for line in self.job.warnings(0))
            needed += ["lives with eager compaction", EVENTS_DELETED, OBJECTS_DELETED, "rewrites"]
        self.seen.update(self.catalog.met)
        needed += FATES if self.options.faults else ()
        missing = [what for what in needed if not self.seen[what]]
        check(not missing, f"the run did not go through everything it has to prove: never seen: {', '.join(missing)}")
        say(f"gone through: {dict(self.seen)}")


def play(folder, options):
    try:
        with LakehouseServices(folder) as services:
            addresses = services.addresses()
            share, authority = UNRELIABLE_SHARE if options.faults else 0.0, Authority(folder / "authority.pem")
            with (UnreliableCatalog(addresses[CATALOG], options.seed, share, authority.server()) as catalog,
                  Terminator(addresses[STORAGE], authority) as storage):
                secured = {CATALOG: catalog.address, STORAGE: storage.address,
                           product.CATALOG_TOKEN: TOKEN, product.AUTHORITIES: str(authority.file)}
                run = Run(folder, options, services, addresses, catalog, secured)
                try:
                    run.live()
                    run.stop()
                    verdict(run)
                    delete_from_outside(run)
                finally:
                    run.probe.give_up()
                    run.job.kill()
                    run.database.kill()
    except (ProductFailed, Wrong, TimeoutError, AssertionError) as error:
        raise Failure(str(error)) from error


def verdict(run):
    """All tables, as they are and as they were."""
    tables = run.warehouse.tables()
    noted, epochs, clocks = run.noted()
    same("dataflow.epochs: Trino, beside PyIceberg", *(read(noted, ("epoch", "table_name", "snapshot_id", "clock"))
                                                       for read in (run.warehouse.by_trino, run.warehouse.by_pyiceberg)))
    del tables[product.EPOCHS_TABLE]
    newest = max(epochs)
    check_now(run, tables, clocks[newest])
    check_formats(tables, run.job)
    for name, table in sorted(tables.items()):
        data, deletes = check_files(name, table)
        say(f"{name}: {len(check_history(name, table))} snapshots, {data} files of data and {deletes} of deletes")
    tagged, snapshots = run.tagged
    check(epochs[tagged] == snapshots, f"the tag is said to hold {snapshots}, epoch {tagged} has {epochs[tagged]}")
    others = sorted(set(epochs) - {tagged, newest})
    looked_at = sorted({tagged, newest, *run.rng.sample(others, min(EPOCHS_LOOKED_AT, len(others)))})
    for epoch in looked_at:
        check_epoch(run, tables, epoch, epochs[epoch], clocks[epoch], TAG if epoch == tagged else None)
    say(f"of {len(epochs)} epochs {looked_at} show whole transactions and are what the input was then, the tagged one under its name in Trino too")


def check_now(run, tables, clock, without=()):
    """The current rows of all tables but these, by three readers, by `shop_views`, and by Postgres."""
    wanted = shop_views.expected(run.given, run.given.ends(), clock)
    check(tables.keys() <= wanted.keys(), f"there are the tables {sorted(tables)}, expected {sorted(wanted)}")
    for name, (columns, rows) in wanted.items():
        check(name in tables or not rows, f"there is no table {name}, which has {len(rows)} rows")
        if name in tables and name not in without:
            check_rows(run.warehouse, name, tables[name], (columns, rows), clock)
        if name in tables:
            check_totals(run.warehouse, name, tables[name])
    for name, (columns, rows) in run.database.views().items():
        expected = bag(columns, (dict(zip(columns, row, strict=True)) for row in rows))
        same(f"{name}: Trino, beside Postgres", run.warehouse.by_trino(tables[name], columns), expected)
        check(rows, f"{name} came out empty: the run proves nothing about it")
    say("Trino, PyIceberg, DuckDB, the independent computation and Postgres agree on " + ", ".join(f"{name} {len(wanted[name][1])}" for name in sorted(tables)))
    return wanted


def check_totals(warehouse, name, table):
    """A snapshot says itself how many rows it has."""
    said = table.current_snapshot().summary.additional_properties
    total, rows = int(said["total-records"]) - int(said["total-position-deletes"]), warehouse.ask(f"SELECT count(*) FROM {name}")[0][0]
    check(total == rows, f"{name}: its newest snapshot says that it has {total} rows, Trino counts {rows}")


def check_epoch(run, tables, epoch, snapshots, clock, tag):
    """What the tables were at an epoch: whole transactions, and what `shop_views` makes of these."""
    ends = shown_ends(run, tables, epoch, snapshots)
    for name, (columns, rows) in shop_views.expected(run.given, ends, clock).items():
        if name not in snapshots:
            check(not rows, f"epoch {epoch} has no snapshot of {name}, which had {len(rows)} rows then")
            continue
        check_rows(run.warehouse, name, tables[name], (columns, rows), clock, snapshots[name])
        if tag:
            by_name, by_snapshot = (run.warehouse.by_trino(tables[name], columns, version) for version in (tag, snapshots[name]))
            same(f"{name} under the tag '{tag}', beside snapshot {snapshots[name]}", by_name, by_snapshot)


def shown_ends(run, tables, epoch, snapshots):
    """How far the tables are at an epoch, as bronze shows it. A transaction is there whole, or not at all."""
    # A row that repeats the ends of the one before may be left out.
    binding = [row for row in run.bindings() if row["epoch"] <= epoch][-1]["ends"]
    ends = {"pageviews/0": binding.get("pageviews/0", 0)}
    transactions = collections.defaultdict(dict)
    for table, events in run.events.items():
        name, partition = f"bronze.{table}", f"{PREFIX}{table}/0"
        shown = run.warehouse.by_trino(tables[name], ("offset",), snapshots[name]) if name in snapshots else {}
        end = next((offset for offset, event in enumerate(events) if event and (offset,) not in shown), len(events))
        below = {(offset,) for offset, event in enumerate(events[:end]) if event}
        check(set(shown) == below, f"{name} at epoch {epoch}: it has holes, or rows that are not in the topic")
        check(end <= binding.get(partition, 0), f"{name} at epoch {epoch}: it shows {end} changes, read were {binding.get(partition, 0)}")
        ends[partition] = end
        for offset, event in enumerate(events):
            if event and (id := debezium.transaction(event)):
                # The first time that it came: after a crash Connect sends some again.
                transactions[id].setdefault((table, event["transaction"]["total_order"]), offset < end)
    torn = [id for id, of_it in transactions.items() if len(set(of_it.values())) > 1]
    check(not torn, f"epoch {epoch} shows parts of the transactions {torn[:3]}")
    check(any(len(of_it) > 1 for of_it in transactions.values()), "no transaction has two changes: nothing is proved about whole ones")
    return ends


def delete_from_outside(run):
    """Somebody deletes rows of a table that only grows: the job goes on, and they do not come back."""
    run.job.start()
    name = "bronze.pageviews_dlq"
    deleted = run.warehouse.ask(f"SELECT count(*) FROM {name} WHERE reason = '{DELETED}'")[0][0]
    check(deleted, f"{name} has no row with reason '{DELETED}' to delete")
    run.warehouse.ask(f"DELETE FROM {name} WHERE reason = '{DELETED}'")
    before = len(run.given.pageviews)
    run.database.put_pageviews(MORE_PAGEVIEWS)
    run.settle(run.database.close_shop())
    check(len(run.given.pageviews) > before, "no pageview came after the delete")
    until(SETTLE_SECONDS, f"{name} shows what came after the delete",
          lambda: run.running() and run.warehouse.ask(f"SELECT count(*) FROM {name} WHERE reason = '{DELETED}'") == [[1]], pause=1)
    run.job.stop()
    _, _, clocks = run.noted()
    tables = run.warehouse.tables()
    del tables[product.EPOCHS_TABLE]
    # PyIceberg can not read the delete files that Trino writes.
    wanted = check_now(run, tables, clocks[max(clocks)], without=(name,))
    columns, rows = wanted[name]
    left = [dict(zip(columns, row, strict=True)) for row in rows]
    gone = [row for row in left if row["reason"] == DELETED][:deleted]
    expected = bag(columns, left) - bag(columns, gone)
    for reader in (run.warehouse.by_trino, run.warehouse.by_duckdb):
        same(f"{name} after a delete from outside", reader(tables[name], columns), expected)
    say(f"{deleted} rows of {name} that Trino deleted stay away, {len(rows) - deleted} are there; the job goes on")
