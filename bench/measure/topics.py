"""Topics of one broker: created, deleted, and how far they are committed. Reads and writes no records."""

import time

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

ANSWER_SECONDS = 30
# What a broker says of a topic that is being created, or of itself when it is busy.
LATER = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REQUEST_TIMED_OUT,
         KafkaError._NOENT}


def client(brokers):
    return AdminClient({"bootstrap.servers": brokers, "log_level": 0})


class Topics:
    def __init__(self, brokers):
        self.brokers, self.admin = brokers, client(brokers)

    def create(self, names, partitions, settings=None):
        for made in self.admin.create_topics([NewTopic(name, partitions, 1, config=settings or {}) for name in names]).values():
            made.result(ANSWER_SECONDS)
        # Created is not yet led: until then the broker refuses whoever asks.
        Ends(self, names, partitions).now()

    def delete(self, names=(), prefix=None):
        """Those of these names that exist, and all that begin with the prefix."""
        there = self.admin.list_topics(timeout=ANSWER_SECONDS).topics
        gone = [name for name in there if name in names or (prefix and name.startswith(prefix))]
        for deleted in self.admin.delete_topics(gone).values() if gone else ():
            try:
                deleted.result(ANSWER_SECONDS)
            except KafkaException:
                time.sleep(0.1)  # an engine that is ending has deleted it as well


    def trim(self, ends):
        """Lets the broker forget what a reader of these `Ends` could have seen."""
        gone = [TopicPartition(place.topic, place.partition, offset) for place, offset in ends.by_partition().items()]
        for trimmed in self.admin.delete_records(gone).values():
            trimmed.result(ANSWER_SECONDS)


class Ends:
    """Committed ends of topics: what a read_committed consumer can see, with the markers of transactions counted as records."""

    def __init__(self, topics, names, partitions):
        self.brokers, self.admin = topics.brokers, client(topics.brokers)
        self.request = {TopicPartition(name, partition): OffsetSpec.latest() for name in names for partition in range(partitions)}

    def now(self):
        """By topic, over all partitions."""
        ends = {}
        for place, offset in self.by_partition().items():
            ends[place.topic] = ends.get(place.topic, 0) + offset
        return ends

    def by_partition(self):
        """Asks again while the broker says that it will know later."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                answers = self.admin.list_offsets(self.request, isolation_level=IsolationLevel.READ_COMMITTED)
                return {place: answer.result(ANSWER_SECONDS).offset for place, answer in answers.items()}
            except KafkaException as failure:
                if failure.args[0].code() not in LATER or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                # What a client has once not found it goes on not finding.
                self.admin = client(self.brokers)
