"""Kafka and the registry as an outside client sees them: producing the input, deleting it, reading topics to their end."""

import collections
import json
import threading
import time
import urllib.request
import zlib

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

# A broker that was killed is back within seconds; more means that something is wrong.
PATIENCE_S = 90
# Records on their way at most: the list of what was produced stays close to what is in the topic.
IN_FLIGHT = 2_000


def quiet(*_):
    """librdkafka reports each refused connection while a broker is down; that is this suite's doing."""


def client(brokers, **settings):
    return {"bootstrap.servers": brokers, "client.id": "e2e", "error_cb": quiet, "log_level": 0, "reconnect.backoff.max.ms": 500,
            **{name.replace("_", "."): value for name, value in settings.items()}}


def patiently(attempt):
    """Repeats a call until the broker answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return attempt()
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def create_topic(brokers, topic, partitions):
    admin = AdminClient(client(brokers))
    patiently(lambda: admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(PATIENCE_S))


def register(registry, subject, schema):
    """The id of the schema, as it stands in a record's framing."""
    request = urllib.request.Request(f"{registry}/subjects/{subject}/versions", method="POST",
                                     headers={"content-type": "application/vnd.schemaregistry.v1+json"},
                                     data=json.dumps({"schema": json.dumps(schema)}).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["id"]


def watermarks(brokers, topic):
    """{partition: (low, high)}, whatever transactions are open; {} when the topic does not exist."""
    consumer = Consumer(client(brokers, group_id="e2e-watermarks", isolation_level="read_uncommitted"))
    try:
        found = patiently(lambda: consumer.list_topics(topic, timeout=10)).topics[topic]
        return {p: patiently(lambda p=p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10))
                for p in ({} if found.error else found.partitions)}
    finally:
        consumer.close()


def delete_below(brokers, topic, offsets):
    """Deletes the records below these offsets; returns the low watermarks. An offset past the end is the caller's mistake."""
    admin = AdminClient(client(brokers))
    def delete():
        asked = admin.delete_records([TopicPartition(topic, p, offset) for p, offset in offsets.items()])
        return {tp.partition: result.result(PATIENCE_S).low_watermark for tp, result in asked.items()}
    return patiently(delete)


def delete_read(brokers, topic, offsets):
    """As `delete_below`; returns how many records went."""
    before = {p: low for p, (low, _) in watermarks(brokers, topic).items()}
    after = delete_below(brokers, topic, offsets)
    return sum(after[p] - before[p] for p in after)


class Row:
    """A record as a consumer saw it."""

    __slots__ = ("partition", "offset", "key", "value")

    def __init__(self, message):
        self.partition, self.offset = message.partition(), message.offset()
        self.key, self.value = message.key(), message.value()


def read_topic(brokers, topic, isolation="read_committed", start=0):
    """All records of a topic, from this offset of each partition on, in offset order by partition: [[Row]].

    Raises TimeoutError when a partition cannot be read to its high watermark: with read_committed that is a transaction
    which nobody ends.
    """
    ends = {p: high for p, (_, high) in watermarks(brokers, topic).items()}
    rows = [[] for _ in ends]
    consumer = Consumer(client(brokers, group_id="e2e-reader", isolation_level=isolation, enable_partition_eof=True,
                               enable_auto_commit=False))
    try:
        consumer.assign([TopicPartition(topic, p, start) for p in ends])
        left = {p for p, high in ends.items() if high > start}
        deadline = time.monotonic() + PATIENCE_S
        while left:
            for message in consumer.consume(1000, timeout=0.5):
                if message.error() is None:
                    rows[message.partition()].append(Row(message))
                elif message.error().code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(message.error())
                elif message.offset() >= ends[message.partition()]:
                    left.discard(message.partition())
            if time.monotonic() > deadline:
                raise TimeoutError(f"'{topic}' partitions {sorted(left)} cannot be read ({isolation}) to their ends {ends}")
        return rows
    finally:
        consumer.close()


def await_uncommitted(brokers, topics, timeout_s):
    """Returns True within about a millisecond of a record that is newly appended to one of the topics, mostly while its
    transaction is still open; False when none came in time."""
    consumer = Consumer(client(brokers, group_id="e2e-ambush", isolation_level="read_uncommitted", fetch_wait_max_ms=50,
                               enable_auto_commit=False))
    try:
        ends = [TopicPartition(topic, p, high) for topic in topics for p, (_, high) in watermarks(brokers, topic).items()]
        consumer.assign(ends)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            message = consumer.poll(0.05)
            if message is not None and message.error() is None:
                return True
        return False
    finally:
        # Closing takes long enough for a transaction to commit; the caller's kill must come first.
        threading.Thread(target=consumer.close).start()


def home(key, partitions):
    """The partition of a key's records."""
    return zlib.crc32(key) % partitions


class Arrivals(threading.Thread):
    """Reads a topic as it grows, as a consumer that waits for commits would, and notes when each record came."""

    def __init__(self, brokers, topic):
        super().__init__(name="arrivals", daemon=True)
        self.consumer = Consumer(client(brokers, group_id="e2e-arrivals", isolation_level="read_committed", fetch_wait_max_ms=20,
                                        enable_auto_commit=False))
        self.consumer.assign([TopicPartition(topic, p, 0) for p in watermarks(brokers, topic)])
        self.came = []  # (time.monotonic(), Row)
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            message = self.consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.came.append((time.monotonic(), Row(message)))
        self.consumer.close()

    def finish(self):
        self.stopping.set()
        self.join()


class Feeder(threading.Thread):
    """Produces traffic at a steady rate until told to stop, and keeps what it sent by partition.

    Idempotent, so that a killed broker neither repeats nor reorders anything; without transactions, so that offsets have no gaps:
    the n-th record sent to a partition has offset n. `finish` proves it. What is put into `first`, by any thread, goes before the
    traffic.
    """

    def __init__(self, brokers, topic, partitions, traffic, rate):
        super().__init__(name="feeder", daemon=True)
        self.brokers, self.topic, self.traffic, self.rate = brokers, topic, traffic, rate
        self.producer = Producer(client(brokers, enable_idempotence=True, linger_ms=2, message_timeout_ms=PATIENCE_S * 1000))
        self.sent = [[] for _ in range(partitions)]
        self.first = collections.deque()
        self.count = 0
        self.failure = None
        self.stopping = threading.Event()

    def run(self):
        try:
            started = time.monotonic()
            while not self.stopping.is_set():
                if self.count >= (time.monotonic() - started) * self.rate or len(self.producer) >= IN_FLIGHT:
                    self.producer.poll(0.005)
                    continue
                login = self.first.popleft() if self.first else next(self.traffic)
                partition = home(login.key, len(self.sent))
                login.sent_at = time.monotonic()
                self.producer.produce(self.topic, key=login.key, value=login.value, partition=partition, on_delivery=self._delivered)
                self.sent[partition].append(login)
                self.count += 1
                self.producer.poll(0)
            if self.producer.flush(PATIENCE_S) > 0:
                raise TimeoutError("the broker did not acknowledge all of the input")
        except Exception as error:
            self.failure = error

    def _delivered(self, error, _message):
        if error is not None:
            self.failure = KafkaException(error)
            self.stopping.set()

    def finish(self):
        """Ends the stream and returns the input: [[Login]] by partition and offset."""
        self.stopping.set()
        self.join()
        if self.failure is not None:
            raise self.failure
        ends = {p: high for p, (_, high) in watermarks(self.brokers, self.topic).items()}
        if ends != {p: len(logins) for p, logins in enumerate(self.sent)}:
            raise AssertionError(f"the input's ends {ends} are not what was sent: the suite's own producer is wrong")
        return self.sent
