"""Equality deletes as the benchmark writes them are read by others as what they are."""

import pathlib
import tempfile
import unittest

import equality
import lake
import pyarrow
from pyiceberg.catalog import load_catalog
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType


class EqualityTest(unittest.TestCase):
    def test_rows_that_come_again_are_there_once(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "w").mkdir()
            catalog = load_catalog("bench", type="sql", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/w")
            catalog.create_namespace("bench")
            schema = Schema(NestedField(1, "id", LongType(), required=True), NestedField(2, "name", StringType()), identifier_field_ids=[1])
            once, by_key = (catalog.create_table(f"bench.{name}", schema=schema) for name in ("once", "by_key"))
            rows = pyarrow.table([list(range(100)), [f"n{id}" for id in range(100)]], schema=once.schema().as_arrow())
            once.append(rows)
            equality.upserted(by_key, rows, 3)
            self.assertEqual(sorted(file["content"] for file in by_key.inspect.files().to_pylist()), [0, 0, 0, 0, 2, 2, 2])
            (_, of_one), (_, of_other) = lake.read(once), lake.read(by_key)
            self.assertEqual(of_one, of_other)
            self.assertEqual(of_one[0], 100)
