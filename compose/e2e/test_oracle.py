"""The oracle and this suite's own checks are two readings of SEMANTICS: on generated input they agree, and the generator's attacks
make every detector fire and take something back."""

import collections
import itertools
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import case
import product
import traffic
import verify
from test_verify import load, outputs_of

EVENTS = 6000
PARTITIONS = 4
EPOCH_RECORDS = 10
LATENESS_US = 5_000_000
NOW = 1_790_000_000_000_000


def bindings_of(inputs, order):
    """Bindings as a job would make them that reads the records in `order`: [(partition, offset)]; the last row has all idle."""
    ends, newest, watermark, rows = [0] * len(inputs), [None] * len(inputs), None, []
    text = lambda value: None if value is None else verify.canonical(value)
    def row(epoch, clock, idle):
        rows.append({"epoch": epoch, "clock": text(clock), "ends": {f"{product.INPUT}/{p}": end for p, end in enumerate(ends)},
                     "idle": idle, "watermark": text(watermark)})
    for epoch, start in enumerate(range(0, len(order), EPOCH_RECORDS), 1):
        clock = NOW + epoch * 5000
        for partition, offset in order[start:start + EPOCH_RECORDS]:
            ends[partition] = offset + 1
            kind, time = verify.judge(inputs[partition][offset], clock, None)
            if kind == "login":
                newest[partition] = max(newest[partition] or time, time)
        if None not in newest:
            watermark = max(watermark or 0, min(newest) - LATENESS_US)
        row(epoch, clock, [])
    watermark = max(newest) + 1
    row(len(rows) + 1, clock + 60_000_000, [f"{product.INPUT}/{p}" for p in range(len(inputs))])
    return rows


class OracleTest(unittest.TestCase):
    def test_two_readings_agree(self):
        inputs, order = [[] for _ in range(PARTITIONS)], []
        for login in itertools.islice(traffic.Traffic(4, EVENTS, NOW, {1: 1, 2: 2}), EVENTS):
            partition = sum(login.key) % PARTITIONS
            order.append((partition, len(inputs[partition])))
            inputs[partition].append(login)
        bindings = bindings_of(inputs, order)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            traffic.geography(folder / "geo.csv")
            case.write_case(folder / "case", inputs, folder / "geo.csv", bindings)
            command = [os.environ["DATAFLOW_ORACLE"], folder / "case", folder / "case" / "bindings.ndjson", "--emission", "eager"]
            done = subprocess.run([*command, "--out", folder / "out"], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            said = {topic: load(folder / "out" / f"{topic}.ndjson") for topic in product.OUTPUTS}
            again = subprocess.run([*command, "--check", folder / "out"], capture_output=True, text=True, check=False)
            self.assertEqual(again.returncode, 0, again.stdout + again.stderr)
        ours = outputs_of(inputs, bindings)
        plain = lambda topic: [json.loads(row.value) for rows in ours[topic] for row in rows]
        logins = lambda rows: sorted((r["user_id"], r["timestamp"], r["ip"], r["platform"], r["device_type"]) for r in rows)
        self.assertEqual(logins(said[product.ENRICHED]), logins(plain(product.ENRICHED)))
        dead = lambda rows: sorted((r["partition"], r["offset"], r["epoch"], r["reason"]) for r in rows)
        self.assertEqual(dead(said[product.DLQ]), dead(plain(product.DLQ)))
        late = lambda rows: sorted((r["partition"], r["offset"], r["epoch"]) for r in rows)
        self.assertEqual(late(said[product.LATE]), late(plain(product.LATE)))
        self.assertTrue(said[product.LATE])
        counts = collections.Counter((row["detector"], row["status"]) for row in said[product.ANOMALIES])
        print("\n  ", dict(counts))
        for detector in verify.DETECTORS:
            self.assertGreater(counts[detector, "raised"], 0, detector)
        self.assertGreater(sum(count for (_, status), count in counts.items() if status == "withdrawn"), 20)
        self.assertIn("critical", {row["severity"] for row in said[product.ANOMALIES]})
