"""The naive views agree with the cases that others worked out."""

import datetime
import decimal
import json
import os
import pathlib
import unittest

import product
import shop_views

CASES = pathlib.Path(os.environ.get("DATAFLOW_CASES", product.ROOT / "jobs" / "cases"))


def as_json(value):
    """A value as a case has it."""
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="microseconds") + "Z"
    return value.isoformat() if isinstance(value, datetime.date) else value


class ViewsTest(unittest.TestCase):
    def test_cases(self):
        for folder in sorted(bindings.parent for bindings in CASES.rglob("bindings_lakehouse.ndjson")):
            last = json.loads((folder / "bindings_lakehouse.ndjson").read_text().splitlines()[-1])
            views = shop_views.expected(shop_views.Input(folder), last["ends"], last["clock"])
            compared = 0
            for table, (columns, found) in views.items():
                if not (path := folder / "expected" / f"{table}.ndjson").exists():
                    continue
                wanted = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
                if table == "gold.user_engagement_segments":
                    wanted = [row for row in wanted if row["segment_date"] == last["clock"][:10]]
                found = [dict(zip(columns, map(as_json, row), strict=True)) for row in found]
                text = lambda some: sorted(json.dumps(row, sort_keys=True) for row in some)
                with self.subTest(case=folder.name, table=table):
                    self.assertEqual(text(found), text(wanted))
                compared += 1
            self.assertGreater(compared, 0)
