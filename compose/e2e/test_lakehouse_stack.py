"""The checks of the whole stack find each planted fault."""

import types
import unittest

import debezium
from lakehouse_stack import shown_ends
from shop_views import TABLES
from warehouse import Wrong


def event(transaction, order):
    return {"transaction": {"id": f"{transaction}:1{order}", "total_order": order}}


# A transaction in two tables, one in a table alone, and a tombstone.
EVENTS = {"users": [event(1, 1), None, event(2, 1)], "items": [], "purchases": [event(1, 2)]}


def shown(offsets, read=9, events=EVENTS):
    """How far tables are that show these offsets."""
    warehouse = types.SimpleNamespace(by_trino=lambda table, columns, snapshot: {(offset,): 1 for offset in offsets[table]})
    binding = {f"{debezium.PREFIX}{table}/0": read for table in TABLES} | {"pageviews/0": 5}
    run = types.SimpleNamespace(bindings=lambda: [{"epoch": 2, "ends": binding}, {"epoch": 4, "ends": {}}], events=events, warehouse=warehouse)
    names = {f"bronze.{table}": table for table in offsets}
    return shown_ends(run, names, 3, names)


class EpochTest(unittest.TestCase):
    def test_ends(self):
        ends = lambda users, items, purchases: dict(zip((f"dbz.public.{table}/0" for table in TABLES), (users, items, purchases))) | {"pageviews/0": 5}
        self.assertEqual(shown({"users": [0, 2], "purchases": [0]}), ends(3, 0, 1))
        self.assertEqual(shown({"users": [0], "purchases": [0]}), ends(2, 0, 1))
        self.assertEqual(shown({}), ends(0, 0, 0))

    def test_what_connect_sends_again_is_no_part_of_a_transaction(self):
        again = EVENTS | {"purchases": [event(1, 2), event(1, 2)]}
        self.assertEqual(shown({"users": [0], "purchases": [0]}, events=again)["dbz.public.purchases/0"], 1)

    def test_planted_faults(self):
        planted = {"half a transaction": ({"users": [0]}, 9), "the other half": ({"purchases": [0]}, 9), "a hole": ({"users": [2], "purchases": [0]}, 9),
                   "a tombstone": ({"users": [0, 1], "purchases": [0]}, 9), "what nobody read": ({"users": [0], "purchases": [0]}, 0)}
        for what, (offsets, read) in planted.items():
            with self.subTest(what), self.assertRaises(Wrong):
                shown(offsets, read)
