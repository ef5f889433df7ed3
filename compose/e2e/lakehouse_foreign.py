"""Somebody else writes to the lakehouse's tables, through PyIceberg and while the job runs or is dead: rows are deleted, changed, put there twice,
added. The job (`on_foreign_commit = "rebuild"`) notices, starts anew and makes the table what its view is; now and then it is killed on the way,
with the newest checkpoint damaged. At the end every table is exact for two readers, and was at the epochs that `dataflow.epochs` has. A job that is
to stop instead stops, says so, and starts again once the table was rolled back.
"""

import collections
import random
import time

import pyarrow
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import EqualTo

import product
import shop_views
from lakehouse import END_SECONDS, KILLS, LIFE_SECONDS, Run, check_rows  # noqa: F401  (KILLS: main)
from scene import Failure, say, until
from warehouse import EPOCH, ancestry, check, check_files, noted_epochs, readable

REBUILD = 'sinks.lakehouse.on_foreign_commit="rebuild"'
# Tables with one number or text as key, all of whose rows their view has.
TABLES = ("silver.users", "silver.items", "silver.purchases_enriched", "gold.top_selling_items", "gold.top_converting_items")
# Somebody gives up on a table who is overtaken so often. A commit of theirs takes longer than one of the job's.
ATTEMPTS = 3
EPOCHS_LOOKED_AT = 6
MENDED, ANEW = "others have changed the table: its rows are read anew, and become those of its view", "; the job starts anew"


def deleted(table, row, key):
    table.delete(EqualTo(key, row[key]))


def changed(table, row, key):
    column = next(field.name for field in table.schema().fields if not field.required and field.name != key)
    table.overwrite(rows(table, {**row, column: None}), overwrite_filter=EqualTo(key, row[key]))


def doubled(table, row, _):
    table.append(rows(table, row))


def added(table, row, key):
    table.append(rows(table, {**row, key: 1_000_000 if isinstance(row[key], int) else f"not {row[key]}"}))


WAYS = (deleted, changed, doubled, added)


def rows(table, row):
    return pyarrow.Table.from_pylist([row], schema=table.schema().as_arrow())


class Meddled(Run):
    """A run in which others write too."""

    CHECKPOINT_MS = 2_000

    def __init__(self, folder, options):
        super().__init__(folder, options)
        self.job.settings.append(REBUILD)
        self.theirs = collections.Counter()
        self.number = 0

    def meddle(self):
        """One change of one table by somebody else, who goes on to another one where the job is faster each time. Returns the table; nothing where none
        has rows yet, or the job was faster everywhere."""
        there = {name: table for name, table in self.warehouse.tables().items() if name in TABLES}
        self.rng.shuffle(order := sorted(there))
        for name in order:
            way = WAYS[self.number % len(WAYS)]
            for _ in range(ATTEMPTS):
                key, table = shop_views.KEYS[name], there[name].refresh()
                found = [row for row in table.scan().to_arrow().to_pylist() if row[key] is not None]
                if not found:
                    break
                try:
                    way(table, self.rng.choice(found), key)
                except (CommitFailedException, ValidationException):
                    continue
                self.number += 1
                self.theirs[way.__name__] += 1
                say(f"somebody has {way.__name__} a row of {name}")
                return name
        return None

    def logged_since(self, text):
        return sum(text in line["message"] for line in self.job.warnings(self.since))

    def lacking(self):
        self.seen["starts anew"] = sum(ANEW in line.get("message", "") for line in self.job.warnings(0))
        self.seen["tables made what their views are"] = sum(line.get("message") == MENDED for line in self.job.warnings(0))
        needed = ("starts anew", "tables made what their views are", "manifests damaged", "meddled with while it ran", "meddled with while it was dead")
        return [what for what in needed if not self.seen[what]] + [way.__name__ for way in WAYS if not self.theirs[way.__name__]]


def play(folder, options):
    with Meddled(folder, options) as run:
        number = 0
        while number < options.kills or run.lacking() and number < 4 * options.kills:
            life(run, damage=number % 3 == 1)
            number += 1
        if missing := run.lacking():
            raise Failure(f"the run did not go through everything it has to prove: never seen: {', '.join(missing)}")
        run.till.finish()
        end(run)
        say(f"gone through: {dict(run.seen)}; by others: {dict(run.theirs)}")
        verdict(run)
        stops(run)


def life(run, damage):
    """Others write before it, in half of the lives, and while it runs. It ends soon after, with what it noticed mended or not."""
    if run.job.manifests() and run.rng.random() < 0.5:
        run.seen["meddled with while it was dead"] += bool(run.meddle())
    if damage:
        run.damage()
    eager = ("--set", product.EAGER_MAINTENANCE) if run.rng.random() < 0.5 else ()
    run.job.start("--workers", str(run.rng.choice((1, 2, 3))), *eager)
    newest = run.job.manifests()[-1:]
    until(LIFE_SECONDS, "a new manifest is written", lambda: run.running() and run.job.manifests()[-1:] != newest, pause=0.01)
    # What the start has mended is of an earlier life.
    run.since = run.job.log.stat().st_size
    if run.meddle():
        run.seen["meddled with while it ran"] += 1
        # A table that the view does not change is not looked at before the next start.
        deadline = time.monotonic() + run.rng.uniform(0.2, 4)
        while time.monotonic() < deadline and run.running() and not run.logged_since(MENDED):
            time.sleep(0.02)
        time.sleep(run.rng.uniform(0, 1))
    run.running()
    run.job.kill()


def end(run):
    """Reads the input to its end; whoever has written last is noticed by the start."""
    run.meddle()
    code = once(run)
    check(code == 0, f"the job ended with {code}; {run.job.last_lines()}")


def verdict(run):
    given = shop_views.Input(run.source)
    bindings = run.job.bindings()
    tables = run.warehouse.tables()
    noted = tables.pop(product.EPOCHS_TABLE)
    wanted = shop_views.expected(given, bindings[-1]["ends"], bindings[-1]["clock"])
    check(set(tables) == set(wanted), f"there are the tables {sorted(tables)}, expected {sorted(wanted)}")
    for name, table in sorted(tables.items()):
        check_files(name, table)
        check_rows(run.warehouse, name, table, wanted[name], bindings[-1]["clock"])
        ours = [int(s.summary.additional_properties[EPOCH]) for s in reversed(ancestry(table)) if EPOCH in s.summary.additional_properties]
        check(ours == sorted(ours), f"{name}: its epochs fall: {ours}")
    looked_at = check_epochs(run, given, bindings, tables, noted)
    say(f"PyIceberg, DuckDB and the independent computation agree on {len(tables)} tables, now and {looked_at} times at an epoch")


def check_epochs(run, given, bindings, tables, noted):
    """What the table of epochs names is what the views were, whatever others did in between."""
    (epochs, clocks), looked_at = noted_epochs(noted), 0
    whole = readable(epochs, tables)
    for epoch in run.rng.sample(whole, min(EPOCHS_LOOKED_AT, len(whole))):
        binding = [row for row in bindings if row["epoch"] <= epoch][-1]
        wanted = shop_views.expected(given, binding["ends"], clocks[epoch])
        for name, snapshot in epochs[epoch].items():
            check_rows(run.warehouse, name, tables[name], wanted[name], clocks[epoch], snapshot)
            looked_at += 1
    check(looked_at, "no epoch can be read: nothing is proved about them")
    return looked_at


def stops(run):
    """The default: a job whose table others have changed does not start, and says what to do; rolled back, it does."""
    run.job.settings.remove(REBUILD)
    name = run.meddle()
    check(name, "no table has rows")
    table = run.warehouse.tables()[name]
    before = next(snapshot.snapshot_id for snapshot in ancestry(table) if EPOCH in snapshot.summary.additional_properties)
    check(once(run) == 4, f"the job did not stop before the changed table '{name}'; {run.job.last_lines()}")
    check(f"others have changed rows of table '{name}'" in "".join(run.job.last_lines()), f"the job does not say why it stops; {run.job.last_lines()}")
    run.warehouse.tables()[name].manage_snapshots().set_current_snapshot(snapshot_id=before).commit()
    check(once(run) == 0, f"the job does not go on with the table '{name}' rolled back; {run.job.last_lines()}")
    say(f"without 'rebuild' the job stops before {name}, and goes on once it is rolled back")


def once(run):
    """The exit code of a life that ends by itself, once it has read everything."""
    run.job.start("--until-end")
    until(END_SECONDS, "the job has read everything and ends", lambda: run.job.exit_code() is not None)
    code = run.job.exit_code()
    run.job.kill()
    return code
