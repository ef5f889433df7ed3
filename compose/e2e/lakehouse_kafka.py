"""What a real Debezium sent (connectors/tests/debezium), produced to a real Kafka in pieces, its schemas to a real registry. After each piece
the job is killed -9 once its tables show it, and the tables are compared with `shop_views` over what fastavro made of the same messages.
"""

import gzip
import json
import random

import product
import shop_views
import topics
from confluent_kafka import Producer
from debezium import FRAME, PREFIX, TOPICS, Captured
from lakehouse import check_rows
from product import KafkaLakehouse, ProductFailed
from scene import Failure, say, until
from services import Services
from warehouse import Warehouse, Wrong, check, check_files, check_history

MESSAGES = product.ROOT / "connectors" / "tests" / "debezium"
CHECKPOINT_MS = 200
SECONDS = 90
PIECES = 4
PAGEVIEWS = b"""{"user_id": 1, "url": "/products/1", "channel": "social", "received_at": 1767434400}
{"user_id": 1, "url": "/products/5", "channel": "social", "received_at": 1795379983}
{"user_id": 4, "url": "/products/5", "received_at": 1795379983}
{"user_id": 4, "url": "/about", "received_at": 1795379983}
{"user_id": "4"}
"""


def lines(file):
    read = (json.loads(line) for line in (MESSAGES / file).read_text(encoding="utf-8").splitlines())
    return [line for line in read if line.get("topic", TOPICS[0]) in TOPICS]


def events_of(decoded):
    """{table: its events, in order; None for a record without one}."""
    events = {table: [] for table in shop_views.TABLES}
    for line in decoded:
        events[line["topic"].removeprefix(PREFIX)].append(line["value"] and line["value"]["value"])
    return events


def framed(content, ids):
    """A key or value with the id that this registry gave its schema."""
    if content is None:
        return None
    content = bytes.fromhex(content)
    return content[:1] + ids[int.from_bytes(content[1:FRAME])].to_bytes(FRAME - 1) + content[FRAME:]


def play(folder, options):
    try:
        with Services(folder) as services:
            run(folder, random.Random(options.seed), services)
    except (ProductFailed, Wrong, TimeoutError) as error:
        raise Failure(str(error)) from error


def run(folder, rng, services):
    ids = {}
    for schema in sorted(lines("schemas.ndjson"), key=lambda schema: max(subject["version"] for subject in schema["subjects"])):
        for subject in schema["subjects"]:
            if subject["subject"].startswith(tuple(TOPICS)):
                ids[schema["id"]] = topics.register(services.registry, subject["subject"], json.loads(schema["schema"]))
    for topic in TOPICS:
        topics.create_topic(services.brokers, topic, 1)
    messages, given = lines("messages.ndjson"), Captured(events_of(lines("decoded.ndjson")), PAGEVIEWS.splitlines())
    pageviews = folder / "pageviews"
    pageviews.mkdir()
    for number, line in enumerate(PAGEVIEWS.splitlines()):
        (pageviews / f"{number:03}.gz").write_bytes(gzip.compress(line))
    job = KafkaLakehouse(services, pageviews, folder / "output", CHECKPOINT_MS)
    warehouse = Warehouse(job.warehouse)
    producer = Producer(topics.client(services.brokers))
    try:
        ends = dict.fromkeys((f"{topic}/0" for topic in TOPICS), 0) | {"pageviews/0": len(PAGEVIEWS.splitlines())}
        for piece in pieces(messages, rng):
            for message in piece:
                producer.produce(message["topic"], framed(message["value"], ids), framed(message["key"], ids), timestamp=message["timestamp_ms"])
                ends[f"{message['topic']}/0"] += 1
            check(producer.flush(SECONDS) == 0, "the broker does not take the messages")
            job.start("--workers", str(rng.randint(1, 3)))
            bindings = until(SECONDS, "the tables show the piece", lambda: shown(job, warehouse, ends))
            job.kill()
            wanted = shop_views.expected(given, ends, bindings[-1]["clock"])
            tables = warehouse.tables()
            tables.pop(product.EPOCHS_TABLE, None)
            check(all(name in tables or not rows for name, (_, rows) in wanted.items()), f"there are the tables {sorted(tables)} alone")
            for name, table in sorted(tables.items()):
                check_rows(warehouse, name, table, wanted[name], bindings[-1]["clock"])
                check_history(name, table)
                check_files(name, table)
            say(f"equal: {', '.join(f'{name} {len(wanted[name][1])}' for name in wanted)}; killed -9 at {dict(ends)}")
        check(ends == given.ends(), f"the messages end at {given.ends()}, sent were {ends}")
    finally:
        job.kill()


def pieces(messages, rng):
    """The messages, in each topic in order. The truncates that the capture ends with begin the last piece: before them tables have rows."""
    is_late, late = set(), []
    decoded = {(line["topic"], line["offset"]): line for line in lines("decoded.ndjson")}
    early = []
    for message in messages:
        value = decoded[message["topic"], message["offset"]]["value"]
        if value and value["value"]["op"] == "t":
            is_late.add(message["topic"])
        (late if message["topic"] in is_late else early).append(message)
    # Topics take turns, as they do in time; a moment of the shop is not the same one in each.
    early.sort(key=lambda message: message["timestamp_ms"])
    order = {topic: [message for message in early if message["topic"] == topic] for topic in TOPICS}
    early = [order[message["topic"]].pop(0) for message in early]
    cuts = [0, *sorted(rng.sample(range(1, len(early)), PIECES - 1)), len(early)]
    return [*(early[a:b] for a, b in zip(cuts, cuts[1:])), late]


def shown(job, warehouse, ends):
    """The bindings, once they are at `ends` and every table has what the newest checkpoint of these ends says; else False."""
    if (code := job.exit_code()) is not None:
        raise Failure(f"the job ended by itself with {code}; {job.last_lines()}")
    bindings = job.bindings() if job.manifests() else []
    if not bindings or bindings[-1]["ends"] != ends:
        return False
    first = next(row["epoch"] for row in bindings if row["ends"] == ends)
    newest = job.manifests()[-1]
    try:
        known = product.last_outputs(newest)
    except FileNotFoundError:
        return False
    is_after = int(newest.stem.split("-")[0]) >= first
    # A table is made with its first row.
    return is_after and {table: epoch for table, epoch in known.items() if epoch} == warehouse.epochs() and bindings
