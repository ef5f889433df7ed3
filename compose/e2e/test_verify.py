"""The suite's own checks: they agree with the project's cases, and they find each planted fault."""

import base64
import copy
import json
import os
import pathlib
import tempfile
import types
import unittest

import product
import traffic
import verify

CASES = pathlib.Path(os.environ.get("DATAFLOW_CASES", product.ROOT / "jobs" / "cases"))


def load(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_case(folder):
    """(input by partition, bindings) of a case folder."""
    bindings = load(folder / "bindings.ndjson")
    inputs = [[] for _ in bindings[-1]["ends"]]
    for line in load(folder / "login_events.ndjson"):
        partition, offset = line.pop("partition"), line.pop("offset")
        assert offset == len(inputs[partition])
        if "raw" in line:
            value, line = (None if line["raw"] is None else base64.b64decode(line["raw"])), None
            inputs[partition].append(traffic.Login(b"k", value, None))
        else:
            inputs[partition].append(traffic.Login(line["event"]["user_id"].encode(), b"value", line))
    return inputs, bindings


class Row:
    """What `topics.Row` is, without a broker."""

    def __init__(self, partition, offset, key, value):
        self.partition, self.offset, self.key, self.value = partition, offset, key, json.dumps(value).encode()


def outputs_of(inputs, bindings):
    """Right outputs, made from the rules. Two anomalies stand for all: what they say is not checked here."""
    found = verify.fates(inputs, bindings, product.INPUT)
    topics = {name: [[], []] for name in product.OUTPUTS}
    def put(topic, key, value, partition=0):
        rows = topics[topic][partition]
        rows.append(Row(partition, len(rows), key, value))
    for _, fate in sorted(verify.accepted(found), key=verify.said_in_order):
        event, time = fate.login.line["event"], verify.canonical(fate.time)
        put(product.ENRICHED, json.dumps({"user_id": event["user_id"], "timestamp": time}).encode(),
            {"user_id": event["user_id"], "timestamp": time, "ip": event["ip"], "platform": event["platform"],
             "device_type": verify.device_type(event["device"]), "country": None, "city": None}, sum(map(ord, event["user_id"])) % 2)
    for (partition, offset), fate in found.items():
        place = {"topic": product.INPUT, "partition": partition, "offset": offset, "epoch": fate.epoch}
        if fate.kind == "late":
            put(product.LATE, fate.login.key, place)
        elif fate.kind not in ("login", "duplicate"):
            raw = None if fate.login.value is None else base64.b64encode(fate.login.value).decode()
            put(product.DLQ, fate.login.key, place | {"reason": fate.kind, "raw": raw})
    for epoch, status, offset in ((3, "raised", 7), (4, "withdrawn", 7), (4, "raised", 8)):
        time = "2026-03-01T09:00:00.000000Z"
        put(product.ANOMALIES, json.dumps({"user_id": "u", "timestamp": time}).encode(),
            {"id": f"burst/login-events/0/{offset}", "status": status, "user_id": "u", "timestamp": time, "epoch": epoch, "detail": {}})
    return topics


class CaseTest(unittest.TestCase):
    def test_fates_are_those_of_the_cases(self):
        folders = [CASES / f"case-{n}" for n in (1, 2, 3, 4)]
        for folder in folders:
            with self.subTest(folder.name):
                inputs, bindings = read_case(folder)
                found = verify.fates(inputs, bindings, product.INPUT)
                expected = folder / "expected"
                logins = sorted((fate.login.line["event"]["user_id"], verify.canonical(fate.time), fate.login.line["event"]["ip"])
                                for _, fate in verify.accepted(found))
                self.assertEqual(logins, sorted((row["user_id"], row["timestamp"], row["ip"])
                                                for row in load(expected / f"{product.ENRICHED}.ndjson")))
                late = {(*place, fate.epoch) for place, fate in found.items() if fate.kind == "late"}
                rows = expected / f"{product.LATE}.ndjson"
                self.assertEqual(late, {(r["partition"], r["offset"], r["epoch"]) for r in (load(rows) if rows.exists() else [])})
                dead = {(*place, fate.epoch, fate.kind) for place, fate in found.items()
                        if fate.kind not in ("login", "duplicate", "late")}
                rows = expected / f"{product.DLQ}.ndjson"
                self.assertEqual(dead, {(r["partition"], r["offset"], r["epoch"], r["reason"]) for r in (load(rows) if rows.exists() else [])})


class FaultTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.inputs, cls.bindings = read_case(CASES / "case-2")
        cls.outputs = outputs_of(cls.inputs, cls.bindings)

    def check(self, outputs, bindings=None):
        return verify.check(self.inputs, bindings or self.bindings, outputs, product)

    def spoil(self, topic, spoil):
        outputs = copy.deepcopy(self.outputs)
        spoil(max(outputs[topic], key=len))
        with self.assertRaises(verify.Wrong) as caught:
            self.check(outputs)
        return str(caught.exception)

    def test_right_outputs_pass(self):
        counts = self.check(self.outputs)
        self.assertGreater(min(counts[kind] for kind in ("login", "duplicate", "late", "undecodable")), 0)
        self.assertEqual(counts["withdrawn"], 1)

    def test_a_lost_row(self):
        for topic in (product.ENRICHED, product.LATE, product.DLQ):
            self.assertIn("1 missing", self.spoil(topic, lambda rows: rows.pop(len(rows) // 2)))

    def test_a_row_twice(self):
        for topic in (product.ENRICHED, product.LATE, product.DLQ):
            self.assertIn("1 unexpected", self.spoil(topic, lambda rows: rows.append(rows[len(rows) // 2])))
        self.assertIn("out of order", self.spoil(product.ANOMALIES, lambda rows: rows.insert(0, rows[0])))

    def test_two_rows_of_a_user_exchanged(self):
        def exchange(rows):
            user = lambda row: json.loads(row.value)["user_id"]
            first = next(n for n, row in enumerate(rows) for other in rows[n + 1:] if user(row) == user(other) and row.value != other.value)
            second = next(n for n in range(first + 1, len(rows)) if user(rows[n]) == user(rows[first]) and rows[n].value != rows[first].value)
            rows[first], rows[second] = rows[second], rows[first]
        self.assertIn("out of order", self.spoil(product.ENRICHED, exchange))

    def test_a_user_in_two_partitions(self):
        outputs = copy.deepcopy(self.outputs)
        outputs[product.ENRICHED][1].append(outputs[product.ENRICHED][0][0])
        with self.assertRaisesRegex(verify.Wrong, "is in partitions"):
            self.check(outputs)

    def test_dead_letters_that_lie(self):
        def change(name, value):
            def spoil(rows):
                row = json.loads(rows[0].value)
                rows[0].value = json.dumps(row | {name: value}).encode()
            return spoil
        self.assertIn("reason", self.spoil(product.DLQ, change("reason", "made_up")))
        self.assertIn("raw is", self.spoil(product.DLQ, change("raw", "AAAA")))
        self.assertIn("read it", self.spoil(product.DLQ, change("epoch", 0)))

    def test_an_anomaly_withdrawn_before_it_was_raised(self):
        self.assertIn("was not raised so", self.spoil(product.ANOMALIES, lambda rows: rows.pop(0)))

    def test_bindings_that_fall_back_or_stop_early(self):
        with self.assertRaisesRegex(verify.Wrong, "the bindings end at"):
            self.check(self.outputs, self.bindings[:len(self.bindings) // 2])
        with self.assertRaisesRegex(verify.Wrong, "ends"):
            self.check(self.outputs, [*self.bindings, self.bindings[0] | {"epoch": 10**9, "clock": self.bindings[-1]["clock"]}])


class ManifestTest(unittest.TestCase):
    def test_offsets_of_the_newest_manifest(self):
        with tempfile.TemporaryDirectory() as folder:
            services = types.SimpleNamespace(brokers="b", registry="r")
            job = product.Product(folder, services, "geo", pathlib.Path(folder) / "log")
            self.assertIsNone(job.manifest_offsets())
            manifests = pathlib.Path(folder) / "checkpoints" / "manifests"
            manifests.mkdir(parents=True)
            for epoch, end in ((9, 5), (10, 7)):
                manifest = {"state": {"partitions": [{"source": 0, "index": 0, "end": end, "newest": None}, {"source": 0, "index": 1, "end": 2}]}}
                (manifests / f"{epoch:020}-1.json").write_text(json.dumps(manifest) + "\n" + json.dumps({"blake3": "00"}) + "\n")
            self.assertEqual(job.manifest_offsets(), {0: 7, 1: 2})

    def test_counters_name_what_never_happened(self):
        counters = product.Counters()
        self.assertEqual(counters.missing(), [*product.COUNTERS, product.WORKERS])
        counters.add(dict.fromkeys(product.COUNTERS, 3) | {product.WORKERS: [4, 0]})
        self.assertEqual(counters.missing(), [f"{product.WORKERS}[1]"])
        counters.add({product.WORKERS: {"1": 2}})
        self.assertEqual(counters.missing(), [])
