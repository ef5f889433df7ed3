"""Debezium: the connector that captures the shop's tables, and what it sent as fastavro reads it, as the input of `shop_views`."""

import collections
import datetime
import decimal
import io
import json
import time
import urllib.error
import urllib.request

import fastavro
import shop_views
import topics

PREFIX = "dbz.public."
TOPICS = [f"{PREFIX}{table}" for table in shop_views.TABLES]
TRANSACTIONS = "dbz.transaction"
CONNECTOR = "oneshop"
# From a registration to a running task, and for a worker to answer again.
SECONDS = 120
# Confluent's framing: a zero, the schema's id in four bytes, the value.
FRAME = 5
SETTINGS = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "tasks.max": "1",
    "database.hostname": "127.0.0.1",
    "database.port": "${env:PG_PORT}",
    "database.user": "postgres",
    "database.password": "",
    "database.dbname": "oneshop",
    "plugin.name": "pgoutput",
    "topic.prefix": "dbz",
    "slot.name": "dbz",
    "publication.name": "dbz",
    "publication.autocreate.mode": "filtered",
    "table.include.list": ",".join(f"public.{table}" for table in shop_views.TABLES),
    "skipped.operations": "none",
    "provide.transaction.metadata": "true",
    "schema.name.adjustment.mode": "avro",
    "field.name.adjustment.mode": "avro",
}


def register(connect):
    """Registers the connector and waits until its task runs. The tables have to be there."""
    request = urllib.request.Request(f"{connect}/connectors/{CONNECTOR}/config", json.dumps(SETTINGS).encode(),
                                     {"content-type": "application/json"}, method="PUT")
    urllib.request.urlopen(request, timeout=SECONDS).close()
    await_task(connect)


def await_task(connect):
    """Waits until the connector's task runs."""
    deadline, status = time.monotonic() + SECONDS, None
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{connect}/connectors/{CONNECTOR}/status", timeout=10) as answer:
                status = json.load(answer)
        except urllib.error.URLError as error:  # the worker is not up, or does not know the connector yet
            status = error
        else:
            if [task["state"] for task in status["tasks"]] == ["RUNNING"]:
                return
        time.sleep(0.3)
    raise TimeoutError(f"the connector's task does not run after {SECONDS} s: {status}")


class Reader:
    """Reads topics of one partition whose values are Avro in Confluent's framing. It keeps what it has read: records may be deleted."""

    def __init__(self, brokers, registry):
        self.brokers, self.registry, self.schemas, self.read = brokers, registry, {}, collections.defaultdict(list)

    def schema(self, number):
        if number not in self.schemas:
            with urllib.request.urlopen(f"{self.registry}/schemas/ids/{number}", timeout=30) as answer:
                self.schemas[number] = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))
        return self.schemas[number]

    def values(self, topic):
        """The values of a topic; the rank of one is its offset. None where there is none."""
        found = self.read[topic]
        (rows,) = topics.read_topic(self.brokers, topic, start=len(found))
        for row in rows:
            if row.offset != len(found):
                raise AssertionError(f"'{topic}' has offset {row.offset} at rank {len(found)}")
            found.append(row.value and fastavro.schemaless_reader(io.BytesIO(row.value[FRAME:]), self.schema(int.from_bytes(row.value[1:FRAME]))))
        return found

    def events(self):
        """{table: its events so far}."""
        return {table: list(self.values(f"{PREFIX}{table}")) for table in shop_views.TABLES}


class Captured(shop_views.Input):
    """Events of Debezium, {table: [event or None]}, and lines of pageviews, as an input. A position is a pair of numbers: its rank stands for it."""

    def __init__(self, events, pageviews):
        self.pageviews = [shop_views.pageview(line) for line in pageviews]
        positions = {position(event) for found in events.values() for event in found if event}
        rank = {place: number for number, place in enumerate(sorted(positions))}
        row = lambda cells: cells and {column: cell(column, value) for column, value in cells.items()}
        self.changes = {table: [event and {"op": event["op"], "lsn": rank[position(event)], "before": row(event["before"]), "after": row(event["after"])}
                                for event in found] for table, found in events.items()}


def position(event):
    return tuple(int(number or 0) for number in json.loads(event["source"]["sequence"]))


def transaction(event):
    """Its transaction's id without the position, which differs within one; None outside of one."""
    return event["transaction"] and event["transaction"]["id"].partition(":")[0]


def cell(column, value):
    if isinstance(value, dict):
        return value["decimal"]
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if value is not None and column in ("created_at", "updated_at"):
        at = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=value)
        return at.isoformat(timespec="microseconds") + "Z"
    return value
