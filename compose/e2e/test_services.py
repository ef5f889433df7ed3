"""The suite against its real services: a stream survives the broker's death without a gap, and what is read is what was sent."""

import json
import pathlib
import tempfile
import time
import unittest
import urllib.request

import case
import product
import topics
import traffic
from confluent_kafka import Producer
from services import Services

PARTITIONS = 4
SENT = 3000


class ServicesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="dataflow-e2e-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.services = Services(self.folder)
        self.services.__enter__()
        self.addCleanup(self.services.__exit__, None, None, None)
        self.brokers = self.services.brokers

    def test_input_deletion_and_case(self):
        ids = {version: topics.register(self.services.registry, "login-events-value", schema) for version, schema in traffic.SCHEMAS.items()}
        self.assertNotEqual(ids[1], ids[2])
        for version, schema_id in ids.items():
            with urllib.request.urlopen(f"{self.services.registry}/schemas/ids/{schema_id}", timeout=10) as answer:
                self.assertEqual(json.loads(json.load(answer)["schema"]), traffic.SCHEMAS[version])
        topics.create_topic(self.brokers, product.INPUT, PARTITIONS)
        stream = traffic.Traffic(9, SENT, int(time.time() * 1e6), ids)
        feeder = topics.Feeder(self.brokers, product.INPUT, PARTITIONS, stream, 1500)
        feeder.start()
        while feeder.count < SENT // 2:
            time.sleep(0.02)
        self.services.kill_broker()
        self.services.start_broker()
        while feeder.count < SENT:
            self.assertIsNone(feeder.failure)
            time.sleep(0.02)
        inputs = feeder.finish()
        rows = topics.read_topic(self.brokers, product.INPUT)
        self.assertEqual([[(row.key, row.value) for row in partition] for partition in rows],
                         [[(login.key, login.value) for login in logins] for logins in inputs])

        self.assertEqual(topics.delete_below(self.brokers, product.INPUT, {0: 10, 2: 3}), {0: 10, 2: 3})
        lows = {p: low for p, (low, _) in topics.watermarks(self.brokers, product.INPUT).items()}
        self.assertEqual(lows, {0: 10, 1: 0, 2: 3, 3: 0})

        geo = self.folder / "ip_geo.csv"
        traffic.geography(geo)
        case.write_case(self.folder / "case", inputs, geo, [{"epoch": 1}])
        lines = [json.loads(line) for line in (self.folder / "case" / "login_events.ndjson").read_text().splitlines()]
        self.assertEqual(len(lines), feeder.count)
        self.assertEqual([line["offset"] for line in lines if line["partition"] == 1], list(range(len(inputs[1]))))

    def test_what_is_aborted_and_what_is_left_open(self):
        topics.create_topic(self.brokers, "out", 1)
        self.assertEqual(topics.watermarks(self.brokers, "nothing"), {})
        producer = Producer(topics.client(self.brokers, transactional_id="t"))
        producer.init_transactions()
        for number, finish in enumerate([producer.commit_transaction, producer.abort_transaction, producer.commit_transaction]):
            producer.begin_transaction()
            producer.produce("out", f"{number}".encode())
            producer.flush()
            finish()
        values = lambda isolation: [row.value for rows in topics.read_topic(self.brokers, "out", isolation) for row in rows]
        self.assertEqual(values("read_committed"), [b"0", b"2"])
        self.assertEqual(values("read_uncommitted"), [b"0", b"1", b"2"])
        self.assertFalse(topics.await_uncommitted(self.brokers, ["out"], 1))

        producer.begin_transaction()
        producer.produce("out", b"3")
        producer.flush()
        patience, topics.PATIENCE_S = topics.PATIENCE_S, 3
        self.addCleanup(setattr, topics, "PATIENCE_S", patience)
        with self.assertRaises(TimeoutError):
            topics.read_topic(self.brokers, "out")

    def test_topics_are_not_made_by_accident(self):
        producer = Producer(topics.client(self.brokers, message_timeout_ms=3000))
        failures = []
        producer.produce("missing", b"x", on_delivery=lambda error, _: failures.append(error))
        producer.flush(10)
        self.assertEqual(len(failures), 1)
        self.assertIsNotNone(failures[0])
