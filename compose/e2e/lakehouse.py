"""The shop's files grow, and the lakehouse is killed -9 at random moments: soon after a start, after a checkpoint, inside the commits of
one. Before some restarts the newest checkpoint's manifest is damaged, so that tables are ahead of what is restored. In half of the lives
maintenance never rests: small files are written anew, snapshots expire. Half-way the tables are upgraded to format 3. At the end every table is exact, and was at each of its snapshots and
at each epoch that `dataflow.epochs` has: two readers agree with each other and with `shop_views`, an independent computation. No snapshot lacks
a file, and nothing is left of generations that have ended.
"""

import collections
import random
import time

import product
import shop_views
from product import Lakehouse, ProductFailed
from scene import Failure, say, until
from shop import Shop, Till
from warehouse import EPOCH, Warehouse, Wrong, ancestry, bag, check, check_files, check_history, check_no_orphans, noted_epochs, readable, same

KILLS = 6
LINES_PER_SECOND = 400
WORKERS = (1, 2, 3)
# Where a life ends. They take turns, so that a short run has each of them.
SOON, AFTER_CHECKPOINT, IN_COMMIT = "soon after its start", "after a checkpoint", "inside the commits of a checkpoint"
ENDS = (IN_COMMIT, AFTER_CHECKPOINT, SOON)
# A checkpoint is due every `Run.CHECKPOINT_MS`.
LIFE_SECONDS = 60
END_SECONDS = 120
# What chance left out is hunted for with this many more kills.
MORE_KILLS_MAX = 20
# Snapshots of each table that are compared with the input as far as their epoch had read it.
SNAPSHOTS_LOOKED_AT = 3
# Epochs of the table of epochs at which all tables are read.
EPOCHS_LOOKED_AT = 3
# Checkpoints after which a life has looked after every table: it does one a commit, once those before it are all its own.
TIDY_CHECKPOINTS = 45
TAG = "before-the-end"
TABLES_AHEAD = "starts with tables ahead"


class Run:
    """The job's lives on one folder, and what they went through. Within `with` input flows; what is wrong with the product or its tables fails the
    scenario."""

    CHECKPOINT_MS = 200

    def __init__(self, folder, options):
        self.rng = random.Random(options.seed)
        self.source = folder / "input"
        self.source.mkdir()
        self.shop = Shop(random.Random(options.seed + 1), time.time())
        self.till = Till(self.shop, self.source, LINES_PER_SECOND)
        self.job = Lakehouse(self.source, folder / "output", self.CHECKPOINT_MS)
        self.warehouse = Warehouse(self.job.warehouse)
        self.damaged, self.passed_over, self.ahead, self.since = set(), 0, set(), 0
        self.seen = collections.Counter()
        self.swept, self.tagged = None, None

    def __enter__(self):
        self.till.start()
        return self

    def __exit__(self, _, error, __):
        self.job.kill()
        self.till.stopping.set()
        if isinstance(error, (ProductFailed, Wrong)):
            raise Failure(str(error)) from error

    def start(self, *flags, eager=None):
        """Begins a life, in half of them with eager maintenance. What it must say is clear beforehand: which manifests are damaged, and which tables are ahead of the newest whole one."""
        whole, manifests = self.whole(), self.job.manifests()
        self.passed_over = len(manifests) - (manifests.index(whole[-1]) + 1 if whole else 0)
        known, epochs = self.standing(whole)
        self.ahead = ahead(known, epochs)
        self.seen[TABLES_AHEAD] += bool(self.ahead)
        self.seen["starts with some tables behind the checkpoint"] += any(last > epochs.get(table, 0) for table, last in known.items())
        self.since = self.job.log.stat().st_size if self.job.log.exists() else 0
        if eager if eager is not None else self.rng.random() < 0.5:
            flags = (*flags, "--set", product.EAGER_MAINTENANCE)
            self.seen["lives with eager maintenance"] += 1
        self.job.start("--workers", str(self.rng.choice(WORKERS)), *flags)

    def running(self):
        if (code := self.job.exit_code()) is not None:
            raise Failure(f"the job ended by itself with {code}; {self.job.last_lines()}")
        return True

    def said(self):
        """(damaged manifests, tables ahead) as this life's log has them so far."""
        lines = self.job.warnings(self.since)
        return (sum(line["message"] == product.DAMAGED for line in lines),
                {line["fields"]["table"] for line in lines if line["message"] == product.AHEAD})

    def told(self):
        """Waits until the life has said how many manifests are damaged, and of each table that is ahead, and no other, that it is."""
        until(LIFE_SECONDS, f"the job says that {self.passed_over} manifests are damaged and {sorted(self.ahead)} ahead of the checkpoint",
              lambda: self.said() == (self.passed_over, self.ahead) or not self.running())

    def whole(self):
        """The manifests that nobody damaged, newest last."""
        return [file for file in self.job.manifests() if file not in self.damaged]

    def standing(self, whole):
        """By table the last epoch with output as the newest of these manifests knows it, and the epoch that the table has."""
        return (product.last_outputs(whole[-1]) if whole else {}), self.warehouse.epochs()

    def kill(self, end):
        """Ends the life as planned."""
        newest = self.job.manifests()[-1:]
        if self.ahead or self.passed_over:
            self.told()
        if end == SOON:
            time.sleep(self.rng.uniform(0.05, 1.0))
        else:
            until(LIFE_SECONDS, "a new manifest is written", lambda: self.running() and self.job.manifests()[-1:] != newest, pause=0.002)
            if end == AFTER_CHECKPOINT:
                time.sleep(self.rng.uniform(0, 2))
            else:
                # Some tables have their snapshots, others do not, unless the job is faster than this loop.
                for _ in range(self.rng.randint(1, 8)):
                    before = self.warehouse.locations()
                    until(LIFE_SECONDS, "a table is committed", lambda: self.running() and self.warehouse.locations() != before, pause=0.001)
        self.running()
        status = self.job.status()
        self.seen["lives from a checkpoint"] += (status.get("restored_epoch") or 0) > 0
        self.seen["epochs replayed"] += status.get("replayed_epochs") or 0
        self.job.kill()
        say(f"kill -9 of the job, {end}; {self.till.count} lines in")

    def damage(self, until_ahead=False):
        """Flips a byte of the newest manifest, if there is another one to fall back to; and goes on with the one before until a table is
        ahead: commits may be several checkpoints behind."""
        whole = self.whole()
        if len(whole) < 2:
            return
        content = bytearray(whole[-1].read_bytes())
        at = self.rng.randrange(len(content))
        content[at] ^= self.rng.randint(1, 255)
        whole[-1].write_bytes(content)
        self.damaged.add(whole[-1])
        self.seen["manifests damaged"] += 1
        say(f"byte {at} of {whole[-1].name} is damaged")
        if until_ahead and not ahead(*self.standing(whole[:-1])):
            self.damage(until_ahead)

    def tidy(self):
        """A life that is long enough to tidy up after all before it, in which the tables are tagged; then it is killed as well."""
        before = len(self.job.manifests())
        self.start(eager=True)
        first = self.job.manifests()[-1:]
        seen = set()

        def made():
            seen.update(file.name for file in self.job.manifests())
            return self.running() and len(seen) >= before + TIDY_CHECKPOINTS

        until(LIFE_SECONDS, f"{TIDY_CHECKPOINTS} manifests are written", made, pause=0.02)
        check(self.job.manifests()[-1:] != first, "no manifest is new")
        self.tagged = self.job.tag(TAG)
        self.swept = int(self.job.manifests()[-1].stem.split("-")[1])
        self.kill(AFTER_CHECKPOINT)

    def logged(self, message):
        return sum(line.get("message") == message for line in self.job.warnings(0))

    def lacking(self):
        self.seen["rewrites"], self.seen["expiries"] = self.logged(product.REWRITTEN), self.logged(product.EXPIRED)
        needed = ("lives from a checkpoint", "epochs replayed", "manifests damaged", TABLES_AHEAD,
                  "starts with some tables behind the checkpoint", "lives with eager maintenance", "rewrites", "expiries")
        return [what for what in needed if not self.seen[what]]

    def end(self):
        """Ends the input and lets the job read it to its end."""
        self.till.finish()
        self.start("--until-end")
        until(END_SECONDS, "the job has read everything and ends", lambda: self.job.exit_code() is not None)
        code = self.job.exit_code()
        check(code == 0, f"the job ended with {code}; {self.job.last_lines()}")
        check(self.said() == (self.passed_over, self.ahead), f"the job says {self.said()} of damaged manifests and tables ahead of its "
              f"checkpoint, there are {(self.passed_over, self.ahead)}")


def ahead(known, epochs):
    """The tables that are ahead of what is known, without those that only grow: they have no index whose keys would be read anew."""
    return {table for table, epoch in epochs.items() if epoch > known.get(table, 0) and not table.startswith("bronze.")}


def play(folder, options):
    with Run(folder, options) as run:
        if options.format == 3:
            run.job.upgrade()
        run.start()
        number = 0
        while number < options.kills or number < options.kills + MORE_KILLS_MAX and options.kills and run.lacking():
            run.kill(ENDS[number % len(ENDS)])
            if number >= options.kills and not run.seen[TABLES_AHEAD]:
                run.damage(until_ahead=True)
            elif run.rng.random() < 0.4 or number == options.kills // 2:
                run.damage()
            if number == options.kills // 2:
                run.job.upgrade()
            run.start()
            number += 1
        until(LIFE_SECONDS, "a manifest is written", lambda: run.running() and run.job.manifests())
        run.kill(AFTER_CHECKPOINT)
        if options.kills and (missing := run.lacking()):
            raise Failure(f"the run did not go through everything it has to prove: never seen: {', '.join(missing)}")
        run.tidy()
        run.end()
        say(f"gone through: {dict(run.seen)}; made: {run.shop.counts}")
        verdict(run)


def verdict(run):
    given = shop_views.Input(run.source)
    bindings = run.job.bindings()
    check(bindings[-1]["ends"] == given.ends(), f"the last epoch ends at {bindings[-1]['ends']}, the input at {given.ends()}")
    tables = run.warehouse.tables()
    noted = tables.pop(product.EPOCHS_TABLE)
    wanted = shop_views.expected(given, bindings[-1]["ends"], bindings[-1]["clock"])
    check(set(tables) == set(wanted), f"there are the tables {sorted(tables)}, expected {sorted(wanted)}")
    snapshots = 0
    for name, table in sorted(tables.items()):
        epochs = check_history(name, table)
        data, deletes = check_files(name, table)
        check_rows(run.warehouse, name, table, wanted[name], bindings[-1]["clock"])
        snapshots += len(epochs)
        say(f"{name}: {len(wanted[name][1])} rows, {len(epochs)} snapshots, {data} files of data and {deletes} of deletes")
    for name in ("silver.users", "silver.purchases_enriched", "silver.pageviews_by_items", "bronze.pageviews_dlq", "bronze.dead_letters"):
        check(wanted[name][1], f"{name} came out empty: the run proves nothing about it")
    check_formats(tables, run.job)
    looked_at = check_past(run, given, bindings, tables)
    check_epochs(run, given, bindings, tables, noted)
    swept = [name for name, table in [*tables.items(), (product.EPOCHS_TABLE, noted)] if check_no_orphans(name, table, run.swept)]
    check(swept, f"generation {run.swept} made no snapshot: nothing is proved about what earlier ones left behind")
    say(f"nothing is left of generations before {run.swept} in {len(swept)} tables")
    say(f"PyIceberg, DuckDB and the independent computation agree on {len(tables)} tables, now and at {looked_at} of {snapshots} snapshots")


def check_formats(tables, job):
    """Tables that the job has written to since it was told to upgrade them are of format 3; some rows of them died by vectors."""
    if product.FORMAT_3 not in job.settings:
        return
    upgraded = {name: table for name, table in tables.items() if table.format_version == 3}
    vectors = [name for name, table in upgraded.items() if any("added-dvs" in snapshot.summary.additional_properties for snapshot in ancestry(table))]
    check(vectors, f"no table has deletion vectors, {sorted(upgraded)} are of format 3")
    say(f"{len(upgraded)} of {len(tables)} tables are of format 3, {len(vectors)} have deletion vectors")


def check_rows(warehouse, name, table, wanted, clock, snapshot=None):
    """What a snapshot holds: by each reader, by the independent computation."""
    columns, found = wanted
    expected = bag(columns, (dict(zip(columns, row, strict=True)) for row in found))
    at = f"{name} at snapshot {snapshot}" if snapshot else name
    (first, one), *others = ((reader, read(table, columns, snapshot)) for reader, read in warehouse.readers().items())
    for reader, other in others:
        same(f"{at}: {reader}, beside {first}", other, one)
    if name == "gold.user_engagement_segments":  # older dates stay as they were, and what that was is not known here
        date = columns.index("segment_date")
        one = collections.Counter({row: times for row, times in one.items() if row[date].isoformat() == clock[:10]})
    same(f"{at}: the readers, beside the independent computation", one, expected)
    if key := shop_views.KEYS.get(name):
        count, keys = warehouse.distinct(table, key, snapshot)
        check(count == keys, f"{at}: {count} rows, but {keys} keys")


def check_past(run, given, bindings, tables):
    """Some snapshots of each table hold what the input was when their epoch was read. Returns how many."""
    epochs, looked_at = collections.defaultdict(list), 0
    for name, table in tables.items():
        chain = ancestry(table)
        for snapshot in run.rng.sample(chain, min(SNAPSHOTS_LOOKED_AT, len(chain))):
            epochs[int(snapshot.summary.additional_properties[EPOCH])].append((name, snapshot.snapshot_id))
    for epoch, of_epoch in sorted(epochs.items()):
        # A row that repeats the ends of the one before may be left out.
        binding = [row for row in bindings if row["epoch"] <= epoch][-1]
        wanted = shop_views.expected(given, binding["ends"], binding["clock"])
        for name, snapshot in of_epoch:
            check_rows(run.warehouse, name, tables[name], wanted[name], binding["clock"], snapshot)
            looked_at += 1
    return looked_at


def check_epochs(run, given, bindings, tables, noted):
    """Each epoch is noted once; the last ones can be read, and all tables together are what the input was then. So is what is tagged."""
    check_history(product.EPOCHS_TABLE, noted)
    epochs, clocks = noted_epochs(noted)
    whole = readable(epochs, tables)
    last = sorted(epochs)[-product.KEEP_EPOCHS:]
    check(set(last) <= set(whole), f"of the last epochs {last} only {whole[-product.KEEP_EPOCHS:]} can be read still")
    check(len(whole) < len(epochs), f"none of {len(epochs)} epochs has expired: nothing is proved about expiry")
    tagged_epoch, tagged = run.tagged
    check(epochs[tagged_epoch] == tagged, f"the tag is said to hold {tagged}, epoch {tagged_epoch} has {epochs[tagged_epoch]}")
    for name, snapshot in tagged.items():
        check(tables[name].metadata.refs[TAG].snapshot_id == snapshot, f"{name}: the tag stands elsewhere")
    by_epoch = {row["epoch"]: row for row in bindings}
    for epoch in sorted({*run.rng.sample(whole, min(EPOCHS_LOOKED_AT, len(whole))), tagged_epoch, last[-1]}):
        binding = [row for row in bindings if row["epoch"] <= epoch][-1]
        check(epoch not in by_epoch or by_epoch[epoch]["clock"] == clocks[epoch], f"epoch {epoch} has the clock {binding['clock']}, noted is {clocks[epoch]}")
        wanted = shop_views.expected(given, binding["ends"], clocks[epoch])
        for name, (_, rows) in wanted.items():
            if name in epochs[epoch]:
                check_rows(run.warehouse, name, tables[name], wanted[name], clocks[epoch], epochs[epoch][name])
            else:
                check(not rows, f"epoch {epoch} has no snapshot of {name}, which had {len(rows)} rows then")
    say(f"{len(epochs)} epochs are noted, of which {len(whole)} can be read; files were written anew {run.seen['rewrites']} times, snapshots expired {run.seen['expiries']} times")
