"""The checks of tables find each planted fault, and the seeded shop makes everything that a run has to prove."""

import collections
import contextlib
import pathlib
import random
import shutil
import sqlite3
import tempfile
import types
import unittest

import shop_views
import warehouse
from shop import Shop, Till
from warehouse import EPOCH, GENERATION, LINEAGE, Wrong


def table(*snapshots):
    """A table with snapshots of (epoch, generation[, operation]), each on top of the one before; None: without a marker."""
    made = []
    for number, marker in enumerate(snapshots):
        entries = {} if marker is None else {EPOCH: str(marker[0]), GENERATION: str(marker[1]), LINEAGE: "1"}
        made.append(types.SimpleNamespace(snapshot_id=number, parent_snapshot_id=number - 1 if number else None,
                                          summary=types.SimpleNamespace(additional_properties=entries, operation=operation(*(marker or ())[2:]))))
    return types.SimpleNamespace(name=lambda: "t", snapshots=lambda: made, current_snapshot=lambda: made[-1] if made else None)


def operation(value="append"):
    return types.SimpleNamespace(value=value)


class WarehouseTest(unittest.TestCase):
    def test_history(self):
        self.assertEqual(warehouse.check_history("t", table((3, 1), (7, 1), (8, 2))), [3, 7, 8])
        self.assertEqual(warehouse.check_history("t", table((3, 1), (3, 1, "replace"), (8, 2))), [3, 3, 8])
        self.assertEqual(warehouse.check_history("t", table()), [])
        for planted in ([(3, 1), (3, 1)], [(3, 1), (2, 1, "replace")], [(3, 1), (2, 1)], [(3, 1), None], [None], [(3, 2), (4, 1)]):
            with self.subTest(planted=planted), self.assertRaises(Wrong):
                warehouse.check_history("t", table(*planted))
        aside = table((3, 1), (4, 1), (5, 1))
        aside.snapshots()[2].parent_snapshot_id = 0
        with self.assertRaises(Wrong):
            warehouse.check_history("t", aside)

    def test_locations_after_a_kill_within_a_commit(self):
        with tempfile.TemporaryDirectory(prefix="dataflow-e2e-test-") as folder:
            folder = pathlib.Path(folder)
            found = warehouse.Warehouse(folder)
            self.assertEqual(found.locations(), {})
            with contextlib.closing(sqlite3.connect(folder / "live.db", isolation_level=None)) as live:
                live.execute("CREATE TABLE iceberg_tables (table_namespace, table_name, metadata_location)")
                live.executemany("INSERT INTO iceberg_tables VALUES ('n', ?, ?)", [(f"t{number}", "old" * 100) for number in range(1_000)])
                # So much is changed that some of it is in the file before the commit: the journal takes it back.
                live.execute("PRAGMA cache_size = 2")
                live.execute("BEGIN IMMEDIATE")
                live.execute("UPDATE iceberg_tables SET metadata_location = 'new' || metadata_location")
                for suffix in ("", "-journal"):
                    shutil.copy(folder / f"live.db{suffix}", folder / f"catalog.db{suffix}")
            self.assertEqual(found.locations(), {f"n.t{number}": "old" * 100 for number in range(1_000)})

    def test_rows(self):
        wanted = collections.Counter({("a", 1): 1, ("b", None): 2})
        warehouse.same("t", collections.Counter(wanted), wanted)
        for planted in ({("a", 1): 1}, {("a", 1): 1, ("b", None): 1}, wanted | {("c", 1): 1}, wanted | {("a", 1): 2}):
            with self.subTest(planted=planted), self.assertRaises(Wrong):
                warehouse.same("t", collections.Counter(planted), wanted)


class ShopTest(unittest.TestCase):
    def make(self, seed):
        with tempfile.TemporaryDirectory(prefix="dataflow-e2e-test-") as folder:
            folder = pathlib.Path(folder)
            till = Till(Shop(random.Random(seed), 1_800_000_000), folder, 400)
            for lines in range(0, 20_000, 20):
                till.write(lines)
            till.start()
            till.finish()
            return till.shop.counts, [(folder / name).read_bytes() for name in (shop_views.CHANGES, shop_views.PAGEVIEWS)], shop_views.Input(folder)

    def test_what_is_made(self):
        counts, files, given = self.make(5)
        self.assertTrue(all(counts.values()), counts)
        self.assertTrue(all(content.endswith(b"\n") for content in files))
        views = shop_views.expected(given, given.ends(), "2027-01-15T08:00:00.000000Z")
        self.assertEqual([], [name for name, (_, rows) in views.items() if not rows])
        again = self.make(5)
        self.assertEqual(files[1], again[1][1])
        self.assertEqual(files[0], again[1][0])
