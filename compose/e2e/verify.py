"""What a consumer may expect of the four outputs, checked without the product's code and without the oracle's.

The rules of SEMANTICS "Login records" that need no detector are computed here from the input and the exported bindings: which
record is accepted, late or dead, which is a duplicate, and in which order a user's logins are said. The anomalies' content is the
oracle's part; here only their order and that each id is raised and withdrawn in turn.
"""

import base64
import collections
import datetime
import json
import re

FUTURE_US = 60_000_000
FORMAT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
UNIX = datetime.datetime(1970, 1, 1)
DETECTORS = ["new_country", "unresolved_address", "impossible_travel", "brute_force", "credential_stuffing", "new_device", "burst"]
# Differences shown; one bug makes thousands.
SHOWN = 5


class Wrong(Exception):
    """An output is not what it has to be."""


def micros(text):
    """Microseconds since 1970, or None when the text is no timestamp by SEMANTICS."""
    if (parts := FORMAT.fullmatch(text)) is None:
        return None
    year, month, day, hour, minute, second = map(int, parts.groups()[:6])
    try:
        local = datetime.datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
    fraction = int((parts[7] or "0").ljust(6, "0")[:6])
    offset = 0
    if parts[8]:
        hours, minutes = int(parts[9]), int(parts[10])
        if hours > 23 or minutes > 59:
            return None
        offset = (hours * 60 + minutes) * 60 * (1 if parts[8] == "+" else -1)
    delta = local - UNIX
    return (delta.days * 86_400 + delta.seconds - offset) * 1_000_000 + fraction


def canonical(value):
    """The one form that outputs use: UTC, six digits, Z."""
    at = UNIX + datetime.timedelta(microseconds=value)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + f".{at.microsecond:06d}Z"


class Fate:
    """What becomes of an input record: `kind` is "login", "duplicate", "late" or a reason of the dead letters."""

    __slots__ = ("kind", "epoch", "time", "login")

    def __init__(self, kind, epoch, time, login):
        self.kind, self.epoch, self.time, self.login = kind, epoch, time, login


def fates(inputs, bindings, topic):
    """{(partition, offset): Fate} of every input record."""
    found, read = {}, [0] * len(inputs)
    watermark, previous_clock = None, None
    for row in bindings:
        clock = micros(row["clock"])
        if previous_clock is not None and clock < previous_clock:
            raise Wrong(f"the clock falls in epoch {row['epoch']}")
        previous_clock = clock
        for name, end in row["ends"].items():
            partition = int(name.removeprefix(topic + "/"))
            if end < read[partition] or end > len(inputs[partition]):
                raise Wrong(f"epoch {row['epoch']} ends '{name}' at {end}, after {read[partition]} of {len(inputs[partition])}")
            for offset in range(read[partition], end):
                login = inputs[partition][offset]
                kind, time = judge(login, clock, watermark)
                found[partition, offset] = Fate(kind, row["epoch"], time, login)
            read[partition] = end
        watermark = micros(row["watermark"]) if row.get("watermark") else watermark
    if read != [len(logins) for logins in inputs]:
        raise Wrong(f"the bindings end at {read}, the input at {[len(logins) for logins in inputs]}")
    seen = set()
    for place, fate in sorted(accepted(found), key=said_in_order):
        event = fate.login.line["event"]
        same = (fate.time, *(event[name] for name in ("user_id", "ip", "device", "platform", "user_agent")), event.get("success", True))
        if same in seen:
            found[place].kind = "duplicate"
        seen.add(same)
    return found


def judge(login, clock, watermark):
    if login.line is None:
        return "undecodable", None
    event = login.line["event"]
    if event["user_id"] == "":
        return "empty_user_id", None
    if (time := micros(event["timestamp"])) is None:
        return "bad_timestamp", None
    if time > clock + FUTURE_US:
        return "future_timestamp", time
    return ("late" if watermark is not None and time < watermark else "login"), time


def accepted(found):
    return [(place, fate) for place, fate in found.items() if fate.kind == "login"]


def said_in_order(item):
    """Epoch, then the order of logins: (t, partition, offset)."""
    (partition, offset), fate = item
    return fate.epoch, fate.time, partition, offset


def device_type(device):
    return "mobile" if "iphone" in device.lower() or "android" in device.lower() else "desktop"


def parsed(partitions):
    return [[(row, json.loads(row.value)) for row in rows] for rows in partitions]


def by_user(partitions, topic):
    """{user: [(row, value)]} in the order a consumer sees; a user lives in one partition and is the key's."""
    found, home = collections.defaultdict(list), {}
    for number, rows in enumerate(partitions):
        for row, value in rows:
            user, key = value["user_id"], json.loads(row.key)
            if key != {"user_id": user, "timestamp": value["timestamp"]}:
                raise Wrong(f"'{topic}' {number}/{row.offset}: the key is {key}")
            if home.setdefault(user, number) != number:
                raise Wrong(f"'{topic}': '{user}' is in partitions {home[user]} and {number}")
            found[user].append((row, value))
    return found


def complain(what, missing, extra):
    if missing or extra:
        show = lambda rows: "".join(f"\n      {row}" for row in list(rows)[:SHOWN])
        raise Wrong(f"{what}: {len(missing)} missing, {len(extra)} unexpected\n    missing:{show(missing)}\n    unexpected:{show(extra)}")


def check_enriched(found, partitions, topic):
    """Each login once, none twice, each user's in order."""
    expected = collections.defaultdict(list)
    for _, fate in sorted(accepted(found), key=said_in_order):
        event = fate.login.line["event"]
        expected[event["user_id"]].append((canonical(fate.time), event["ip"], event["platform"], device_type(event["device"])))
    actual = {user: [(value["timestamp"], value["ip"], value["platform"], value["device_type"]) for _, value in rows]
              for user, rows in by_user(parsed(partitions), topic).items()}
    for user in sorted(expected.keys() | actual.keys()):
        want, have = expected.get(user, []), actual.get(user, [])
        wanted, had = collections.Counter(want), collections.Counter(have)
        complain(f"'{topic}' of '{user}'", list((wanted - had).elements()), list((had - wanted).elements()))
        if want != have:
            at = next(n for n, (a, b) in enumerate(zip(want, have)) if a != b)
            raise Wrong(f"'{topic}' of '{user}' is out of order: row {at} is {have[at]}, not {want[at]}")


def check_places(found, kinds, partitions, topic):
    """Each late or dead record once, under its key, with the epoch that read it. Returns {(partition, offset): value}."""
    want = {place for place, fate in found.items() if fate.kind in kinds}
    rows = [pair for rows in parsed(partitions) for pair in rows]
    have = collections.Counter((value["partition"], value["offset"]) for _, value in rows)
    complain(f"'{topic}'", sorted(want - have.keys()), sorted((have - collections.Counter(want)).elements()))
    for row, value in rows:
        place = value["partition"], value["offset"]
        if row.key != found[place].login.key:
            raise Wrong(f"'{topic}' {place}: the key is {row.key}, the record's was {found[place].login.key}")
        if value["epoch"] != found[place].epoch:
            raise Wrong(f"'{topic}' {place}: epoch {value['epoch']}, but {found[place].epoch} read it")
    return {(value["partition"], value["offset"]): value for _, value in rows}


def check_dead(found, partitions, topic):
    """The reason is the first that holds, and `raw` is the record's value to the byte."""
    reasons = {"undecodable", "empty_user_id", "bad_timestamp", "future_timestamp"}
    for place, value in check_places(found, reasons, partitions, topic).items():
        fate = found[place]
        if value["reason"] != fate.kind:
            raise Wrong(f"'{topic}' {place}: reason '{value['reason']}', expected '{fate.kind}'")
        raw = None if value["raw"] is None else base64.b64decode(value["raw"], validate=True)
        if raw != fate.login.value:
            raise Wrong(f"'{topic}' {place}: raw is {raw!r}, the record was {fate.login.value!r}")


def check_anomalies(partitions, topic):
    """Epochs rise for each user; inside one, what is withdrawn and what is raised each stand in the order of logins and detectors;
    each id is raised and withdrawn in turn. Returns the number of withdrawals."""
    live, withdrawn = {}, 0
    for user, rows in by_user(parsed(partitions), topic).items():
        last = {}
        for row, value in rows:
            detector, _, partition, offset = value["id"].split("/")
            place = (value["epoch"], micros(value["timestamp"]), int(partition), int(offset), DETECTORS.index(detector))
            if place[0] < last.get("epoch", 0):
                raise Wrong(f"'{topic}' of '{user}': epoch {place[0]} stands after {last['epoch']} (offset {row.offset})")
            last["epoch"] = place[0]
            if place <= last.get(value["status"], ()):
                raise Wrong(f"'{topic}' of '{user}' is out of order at offset {row.offset}: '{value['id']}' {value['status']}")
            last[value["status"]] = place
            if value["status"] == "raised":
                if value["id"] in live:
                    raise Wrong(f"'{topic}': '{value['id']}' is raised twice")
                live[value["id"]] = value
            elif value["status"] == "withdrawn":
                withdrawn += 1
                without = lambda v: {k: x for k, x in v.items() if k not in ("status", "epoch")}
                if value["id"] not in live or without(live.pop(value["id"])) != without(value):
                    raise Wrong(f"'{topic}': '{value['id']}' is withdrawn, but was not raised so")
            else:
                raise Wrong(f"'{topic}': '{value['id']}' has status '{value['status']}'")
    return withdrawn


def check(inputs, bindings, outputs, names):
    """Everything above. `names` is the product module's topic names. Returns counts for the report."""
    found = fates(inputs, bindings, names.INPUT)
    check_enriched(found, outputs[names.ENRICHED], names.ENRICHED)
    check_places(found, {"late"}, outputs[names.LATE], names.LATE)
    check_dead(found, outputs[names.DLQ], names.DLQ)
    withdrawn = check_anomalies(outputs[names.ANOMALIES], names.ANOMALIES)
    kinds = collections.Counter(fate.kind for fate in found.values())
    return dict(kinds) | {"anomalies said": sum(map(len, outputs[names.ANOMALIES])), "withdrawn": withdrawn}
