"""The schema registry goes away in mid-run: records with ids that the job knows go on flowing without delay, a record with an id that it
has never seen stalls its own partition and no other, and comes out when the registry is back. Before that, a record is produced
earlier than its schema is registered: it waits for the schema and is no dead letter. The output is exact.

The two records that stall are of ordinary users; their schema says what the newer one of the traffic says."""

import copy
import json
import statistics
import time

import product
import topics
import traffic
import verify
from scene import PARTITIONS, Failure, say, until

# Other partitions may run ahead of a stalled one by a minute of event time and no further (watermark alignment): at this pace, event time
# per time, that leaves two minutes for an outage, whose length is that of a registry's start.
PACE = 0.5

# The job has as many workers as the profile says (2), so partition 3 shares its worker with the stalled one.
EARLY_PARTITION, STALLED_PARTITION = 2, 1
# The job asks again for 5 s about an id that the registry does not know.
GRACE_SECONDS = 5
REGISTERED_AFTER_SECONDS = 2
# A commit takes some ms, and a machine that starts a registry meanwhile may take its time.
LATENCY_SECONDS_MAX = 3
# Late and dead records have no row.
SHARE_MIN = 0.8
# The job asks at most 10 s after the registry is back; then there is a backlog.
RECOVERY_SECONDS = 30
CATCH_UP_SECONDS = 60


def play(scene, options):
    job = scene.product()
    feeder = scene.feeder
    # Ids that mean nothing are learned with a grace of their own: the traffic's one is to be known before anything is stopped.
    unknown = scene.traffic.of_unknown_schema(scene.traffic.names[0])
    feeder.first.append(unknown)
    feeder.start()
    job.start()
    scene.progress(job)
    arrivals = topics.Arrivals(scene.services.brokers, product.ENRICHED)
    arrivals.start()
    flow = Flow(feeder, arrivals)
    until(CATCH_UP_SECONDS, "the dense part is reached and nothing is behind",
          lambda: scene.running(job) and feeder.count > scene.traffic.dense_from and flow.is_close(range(PARTITIONS)))
    place = flow.place(unknown)
    until(CATCH_UP_SECONDS, "the record of the unknown id is a dead letter", lambda: scene.running(job) and place in dead_letters(scene))

    late_schema, lost_schema = schema_with("registered_late"), schema_with("registered_before_the_outage")
    lost_id = register(scene, lost_schema)
    registered_late(scene, job, flow, late_schema, lost_id + 1)
    outage(scene, job, flow, lost_schema, lost_id)
    until(3600, "all promised input is in", lambda: scene.running(job) and feeder.count >= options.events)
    inputs, bindings = scene.settle(job)
    arrivals.finish()
    scene.verdict(inputs, bindings)


def registered_late(scene, job, flow, schema, schema_id):
    """A record whose id the registry gives out only later, within the grace."""
    login = send(scene, schema, schema_id, EARLY_PARTITION)
    others = [p for p in range(PARTITIONS) if p != EARLY_PARTITION]
    time.sleep(REGISTERED_AFTER_SECONDS)
    if flow.arrival(login) is not None:
        raise Failure(f"a record of schema id {schema_id} came out before the id was registered")
    before = time.monotonic()
    if (given := register(scene, schema)) != schema_id:
        raise Failure(f"the registry gave the id {given} and not {schema_id}, the next one: the record is of a schema that nobody knows")
    if (took := time.monotonic() - login.sent_at) >= GRACE_SECONDS:
        raise Failure(f"registering came {took:.1f} s after the record, and so proves nothing about the grace")
    came = until(GRACE_SECONDS, "the record comes out once its id is registered", lambda: scene.running(job) and flow.arrival(login))
    behind = flow.measured(EARLY_PARTITION, login.sent_at, before)
    say(f"an id registered {before - login.sent_at:.1f} s after its record: out {came - before:.1f} s later; others meanwhile "
        + flow.report(others, login.sent_at, before))
    flow.expect(others, login.sent_at, before)
    if any(at < before for _, at in behind):
        raise Failure(f"records behind the one that stalls '{product.INPUT}/{EARLY_PARTITION}' came out before it")
    until(CATCH_UP_SECONDS, "nothing is behind", lambda: scene.running(job) and flow.is_close(range(PARTITIONS)))


def outage(scene, job, flow, schema, schema_id):
    """The registry goes, then an id that it knows occurs for the first time, then it comes back."""
    others = [p for p in range(PARTITIONS) if p != STALLED_PARTITION]
    scene.services.stop_registry()
    login = send(scene, schema, schema_id, STALLED_PARTITION)
    time.sleep(scene.options.outage)
    down_until = time.monotonic()
    until(LATENCY_SECONDS_MAX, "the other partitions' records come out while the registry is away",
          lambda: scene.running(job) and flow.has_come(others, login.sent_at, down_until))
    flow.expect(others, login.sent_at, down_until)
    if flow.measured(STALLED_PARTITION, login.sent_at, down_until):
        raise Failure(f"'{product.INPUT}/{STALLED_PARTITION}' goes on although its schema id {schema_id} cannot be known")
    ends = job.bindings()[-1]["ends"]
    _, offset = flow.place(login)
    if ends[f"{product.INPUT}/{STALLED_PARTITION}"] != offset:
        raise Failure(f"the bindings end at {ends}, and the record that stalls its partition has offset {offset}")
    say(f"registry away, id {schema_id} unknown: '{product.INPUT}/{STALLED_PARTITION}' stands at offset {offset}; others "
        + flow.report(others, login.sent_at, down_until))
    scene.services.start_registry()
    back = time.monotonic()
    came = until(RECOVERY_SECONDS, "the stalled record comes out", lambda: scene.running(job) and flow.arrival(login))
    until(CATCH_UP_SECONDS, "nothing is behind", lambda: scene.running(job) and flow.is_close(range(PARTITIONS)))
    say(f"registry back after {back - login.sent_at:.1f} s: the stalled record is out {came - back:+.1f} s from then, and nothing is behind "
        f"{time.monotonic() - back:.1f} s from then; others over the whole outage {flow.report(others, login.sent_at, back)}")
    flow.expect(others, login.sent_at, back)
    # It says something once the outage is longer than the idle rule's 30 s, as in `make nightly`.
    if idle := [row["epoch"] for row in job.bindings() if f"{product.INPUT}/{STALLED_PARTITION}" in row.get("idle", [])]:
        raise Failure(f"'{product.INPUT}/{STALLED_PARTITION}' counts as idle in epochs {idle[0]}..{idle[-1]}, while it had input that waited")


def schema_with(field):
    """The newer schema of the traffic with one more field: another text, and so another id."""
    schema = copy.deepcopy(traffic.SCHEMAS[2])
    schema["fields"].append({"name": field, "type": "string", "default": ""})
    return schema


def register(scene, schema):
    return topics.register(scene.services.registry, f"{product.INPUT}-value", schema)


def send(scene, schema, schema_id, partition):
    """Sends a record of this schema into the partition; the record, once it is sent."""
    user = next(name for name in scene.traffic.names if topics.home(name.encode(), PARTITIONS) == partition)
    login = scene.traffic.of_another_writer(schema_id, schema, user)
    scene.feeder.first.append(login)
    until(10, "the record is sent", lambda: login.sent_at is not None, pause=0.01)
    return login


def dead_letters(scene):
    rows = (json.loads(row.value) for rows in topics.read_topic(scene.services.brokers, product.DLQ) for row in rows)
    return {(row["partition"], row["offset"]) for row in rows}


class Flow:
    """What was sent, and when its enriched row came. Of equal logins, whose row is said once, only the first counts."""

    def __init__(self, feeder, arrivals):
        self.feeder, self.arrivals = feeder, arrivals
        self.seen, self.first = 0, {}
        # By partition: how many records were looked at, their names, and (record, name) of the first with each.
        self.known = [(0, set(), []) for _ in feeder.sent]

    def _came(self):
        """{(user, timestamp): when its row came}."""
        came = self.arrivals.came
        for at, row in came[self.seen:len(came)]:
            self.seen += 1
            key = json.loads(row.key)
            self.first.setdefault((key["user_id"], key["timestamp"]), at)
        return self.first

    def place(self, login):
        """(partition, offset) of a record that was sent."""
        partition = topics.home(login.key, PARTITIONS)
        return partition, next(offset for offset, sent in enumerate(self.feeder.sent[partition]) if sent is login)

    def arrival(self, login):
        """When its row came; None while it has not."""
        return self._came().get(name_of(login))

    def measured(self, partition, since, to):
        """(record, when its row came) of what was sent to the partition between two moments and has come."""
        came = self._came()
        return [(login, came[name]) for login, name in self._sent(partition, since, to) if name in came]

    def _sent(self, partition, since, to):
        done, names, firsts = self.known[partition]
        sent = self.feeder.sent[partition]
        count = len(sent)  # the feeder goes on
        for login in sent[done:count]:
            if login.line is not None and (name := name_of(login)) not in names:
                names.add(name)
                firsts.append((login, name))
        self.known[partition] = count, names, firsts
        return [(login, name) for login, name in firsts if since < login.sent_at <= to]

    def is_close(self, partitions):
        """Whether each partition has rows of the last second."""
        now = time.monotonic()
        return all(self.measured(p, now - 1, now) for p in partitions)

    def expect(self, partitions, since, to):
        """What was sent to these partitions meanwhile has come, and without delay."""
        if not self.has_come(partitions, since, to):
            raise Failure(f"records did not come out while another partition stalled: {self.report(partitions, since, to)}")
        for p in partitions:
            if (longest := max(self._delays(p, since, to))) > LATENCY_SECONDS_MAX:
                raise Failure(f"'{product.INPUT}/{p}': a record took {longest:.2f} s while another partition stalled")

    def has_come(self, partitions, since, to):
        """Whether what was sent to each partition meanwhile has come, but for what has no row."""
        counts = [(len(self.measured(p, since, to)), len(self._sent(p, since, to))) for p in partitions]
        return all(0 < SHARE_MIN * sent <= came for came, sent in counts)

    def report(self, partitions, since, to):
        return ", ".join(f"/{p}: {len(delays)} rows, p50 {1000 * statistics.median(delays):.0f} ms, max {1000 * max(delays):.0f} ms"
                         for p in partitions if (delays := self._delays(p, since, to)))

    def _delays(self, partition, since, to):
        return [at - login.sent_at for login, at in self.measured(partition, since, to) if at >= login.sent_at]


def name_of(login):
    """User and timestamp, as the rows have them."""
    event = login.line["event"]
    time_us = verify.micros(event["timestamp"])
    return event["user_id"], None if time_us is None else verify.canonical(time_us)
