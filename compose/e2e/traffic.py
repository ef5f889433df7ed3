"""Seeded logins: people with habits, attacks, and every defect of SEMANTICS "Login records". Knows no Kafka.

Event time runs first over days in wide steps (so that silences, sessions and week-long windows have a past) and then densely,
with disorder inside the allowed lateness, records that are late, duplicates and poison. The stream has no end; the same seed
gives the same stream.
"""

import bisect
import datetime
import heapq
import io
import random
import struct

import fastavro

FIELDS = [{"name": name, "type": "string"} for name in ("user_id", "timestamp", "ip", "device", "platform", "user_agent")]
SCHEMAS = {
    1: {"type": "record", "name": "LoginEvent", "namespace": "com.shop.events", "fields": FIELDS},
    2: {"type": "record", "name": "LoginEvent", "namespace": "com.shop.events",
        "fields": [*FIELDS, {"name": "success", "type": "boolean", "default": True}]},
}
PARSED = {version: fastavro.parse_schema(schema) for version, schema in SCHEMAS.items()}

# (dotted prefix, country, city, latitude, longitude): documentation and other special ranges, so that nobody's address occurs.
PLACES = [
    ("203.0.113", "AU", "Sydney", -33.8688, 151.2093), ("198.51.100", "US", "New York", 40.7128, -74.006),
    ("192.0.2", "DE", "Berlin", 52.52, 13.405), ("198.18.0", "FR", "Paris", 48.8566, 2.3522),
    ("198.18.1", "GB", "London", 51.5074, -0.1278), ("198.18.2", "JP", "Tokyo", 35.6762, 139.6503),
    ("198.18.3", "BR", "São Paulo", -23.5505, -46.6333), ("198.18.4", "NL", "Amsterdam", 52.3676, 4.9041),
    ("198.18.5", "IN", "Mumbai", 19.076, 72.8777), ("198.18.6", "ZA", "Cape Town", -33.9249, 18.4241),
]
# In no row of the table, or no address at all.
NOWHERE = ["198.19.7.7", "198.19.0.1", "unknown", "10.0.0", "198.18.0.007", ""]
DEVICES = [("iPhone 15", "ios"), ("Android Pixel", "android"), ("Windows PC", "web"), ("MacBook", "web"), ("Linux", "")]
AGENTS = ["Mozilla/5.0", "shop/4.2", "okhttp/4.9"]

USERS = 400
HISTORY_SHARE = 0.2                # of the promised events
HISTORY_US = 3 * 86_400_000_000
# 20 logins a second of event time: the allowed lateness spans many epochs, so what is out of order arrives in a later one.
DENSE_STEP_US = 50_000
# Event time ends this far before now at the earliest, so that a longer run does not reach the rule against future timestamps.
HEADROOM_US = 3 * 3_600_000_000
LATENESS_US = 5_000_000            # the job's allowed lateness
DUPLICATE_WITHIN = 30              # records until the repeat at the latest
POISON = ["null", "no magic", "unknown id", "cut", "left over", "empty", "no user", "bad time", "future"]
UNKNOWN_ID = 0x7FFF_FFF0           # no registry has come so far
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def text_of(micros, rng):
    """An RFC 3339 form of the instant, one of those that SEMANTICS allows."""
    offset_minutes = rng.choice([0, 0, 0, 120, -330])
    local = EPOCH + datetime.timedelta(microseconds=micros + offset_minutes * 60_000_000)
    text = local.strftime("%Y-%m-%dT%H:%M:%S")
    text += rng.choice([f".{local.microsecond:06d}", f".{local.microsecond:06d}000"]) if local.microsecond else rng.choice(["", ".0"])
    if offset_minutes == 0:
        return text + rng.choice(["Z", "+00:00"])
    sign = "+" if offset_minutes > 0 else "-"
    return f"{text}{sign}{abs(offset_minutes) // 60:02d}:{abs(offset_minutes) % 60:02d}"


def body(schema, event):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, event)
    return out.getvalue()


def frame(schema_id, payload):
    """Confluent framing: magic byte 0, the id, the payload."""
    return struct.pack(">bI", 0, schema_id) + payload


class Login:
    """One record to produce. `line` is its line in the case format, without partition and offset, or None when it does not decode;
    `sent_at` is when it was sent, by the monotonic clock."""

    def __init__(self, key, value, line):
        self.key, self.value, self.line, self.sent_at = key, value, line, None


class Traffic:
    """An endless iterator of `Login`. `ids` are the registered ids of the schema versions, `now_us` the time it leads up to, `step_us`
    the event time between two records of the dense part."""

    def __init__(self, seed, events, now_us, ids, step_us=DENSE_STEP_US):
        self.rng = random.Random(seed)
        # What a scenario asks for beside the stream must not change the stream.
        self.beside = random.Random(seed)
        self.ids, self.step = ids, step_us
        # The first of each kind come in turn: a short run lacks none.
        self.kinds = self.rng.sample(POISON, len(POISON))
        self.dense_from = int(events * HISTORY_SHARE)
        self.history_step = HISTORY_US // max(1, self.dense_from)
        self.time = now_us - HEADROOM_US - events * step_us - HISTORY_US
        self.made = 0
        self.due = []        # heap of (time of arrival, tie, event time, fields): what campaigns have planned
        self.repeats = []    # heap of (count, tie, Login): duplicates to come
        self.ties = 0
        names = [f"user-{n:03d}" for n in range(USERS)]
        self.homes = {name: self.rng.randrange(len(PLACES)) for name in names}
        self.devices = {name: self.rng.sample(DEVICES, 2) for name in names}
        # Zipf: the r-th user comes with weight 1 / r. The first few stay away until the dense part (silence, then a new device).
        self.names, total = names, 0.0
        self.cumulative = [total := total + 1 / (rank + 3) for rank in range(USERS)]

    def __iter__(self):
        return self

    def __next__(self):
        self.made += 1
        if self.repeats and self.repeats[0][0] <= self.made:
            return heapq.heappop(self.repeats)[2]
        if self.due and self.due[0][0] <= self.time:
            _, _, time, fields = heapq.heappop(self.due)
            return self._login(time, **fields)
        dense = self.made > self.dense_from
        self.time += self.step if dense else self.history_step
        if self.rng.random() < 0.01:
            return self._poison()
        if dense and self.rng.random() < 0.02:
            self._plan(self.rng.choice([self._guessing, self._stuffing, self._travel, self._storm]))
        time = self.time - (self._delay() if dense else 0)
        return self._login(time, self._user())

    def _user(self):
        return self.names[bisect.bisect(self.cumulative, self.rng.random() * self.cumulative[-1])]

    def _delay(self):
        """How much older than its place in the stream a record is: out of order, sometimes too late."""
        draw = self.rng.random()
        if draw < 0.005:
            return self.rng.randrange(LATENESS_US, 20 * LATENESS_US)
        return self.rng.randrange(LATENESS_US) if draw < 0.3 else 0

    def _address(self, place):
        return f"{PLACES[place][0]}.{self.rng.randrange(1, 255)}"

    def _login(self, time, user, success=None, ip=None, device=None):
        rng = self.rng
        if ip is None:
            draw = rng.random()
            ip = rng.choice(NOWHERE) if draw < 0.01 else self._address(rng.randrange(len(PLACES)) if draw < 0.02 else self.homes[user])
        if device is None:
            device = rng.choice(DEVICES) if rng.random() < 0.01 else self.devices[user][rng.random() < 0.2]
        event = {"user_id": user, "timestamp": text_of(time, rng), "ip": ip, "device": device[0], "platform": device[1],
                 "user_agent": rng.choice(AGENTS)}
        success = rng.random() < 0.95 if success is None else success
        # The old schema cannot say that a login failed.
        version = rng.choice([1, 2]) if success else 2
        login = self._encode(version, event | {"success": success})
        if rng.random() < 0.02:
            self._repeat(version, event | {"success": success})
        return login

    def _encode(self, version, event):
        written = {name: value for name, value in event.items() if version == 2 or name != "success"}
        line = {"schema_version": version, "event": written}
        return Login(event["user_id"].encode(), frame(self.ids[version], body(PARSED[version], written)), line)

    def of_another_writer(self, schema_id, schema, user):
        """A login of `user` at the present end of the stream, by a writer with a schema that is none of `SCHEMAS` but holds the newer
        one's fields: to a reader it says what the newer one says. No login of the stream has its time."""
        event = {"user_id": user, "timestamp": text_of(self.time + 1, self.beside), "ip": f"{PLACES[self.homes[user]][0]}.7",
                 "device": "Linux", "platform": "", "user_agent": "another writer", "success": True}
        return Login(user.encode(), frame(schema_id, body(fastavro.parse_schema(schema), event)), {"schema_version": 2, "event": event})

    def of_unknown_schema(self, user, rng=None):
        """A dead letter whose id no registry knows."""
        event = {"user_id": user, "timestamp": text_of(self.time, rng or self.beside), "ip": "203.0.113.9", "device": "Linux", "platform": "",
                 "user_agent": "poison", "success": True}
        return Login(user.encode(), frame(UNKNOWN_ID, body(PARSED[2], event)), None)

    def _repeat(self, version, event):
        """The same login once more: the same bytes, or, where it succeeded, also from a writer with the other schema."""
        other = 3 - version if event["success"] and self.rng.random() < 0.5 else version
        self.ties += 1
        heapq.heappush(self.repeats, (self.made + self.rng.randrange(1, DUPLICATE_WITHIN), self.ties, self._encode(other, event)))

    def _poison(self):
        """A record for the dead letters."""
        rng = self.rng
        user = self._user()
        good = {"user_id": user, "timestamp": text_of(self.time, rng), "ip": "203.0.113.9", "device": "Linux", "platform": "",
                "user_agent": "poison", "success": True}
        kind = self.kinds.pop() if self.kinds else rng.choice(POISON)
        if kind == "unknown id":
            return self.of_unknown_schema(user, rng)
        if kind == "no user":
            return self._encode(2, good | {"user_id": ""})
        if kind == "bad time":
            bad = rng.choice(["yesterday", "2026-03-01 09:00:00Z", "2026-03-01T09:00:00", "2026-03-01T09:00:60Z", "2026-02-30T09:00:00Z",
                              "2026-03-01T09:00:00.1234567890Z", "2026-03-01T09:00:00.Z", ""])
            return self._encode(2, good | {"timestamp": bad})
        if kind == "future":
            return self._encode(2, good | {"timestamp": "2099-01-01T00:00:00Z"})
        whole = frame(self.ids[2], body(PARSED[2], good))
        value = {"null": None, "no magic": b"{}", "cut": whole[:-1], "left over": whole + b"\0", "empty": b""}[kind]
        return Login(user.encode(), value, None)

    def _plan(self, campaign):
        """Attacks come out of order more than people do: what is said of the first records must be taken back."""
        for after_us, fields in campaign():
            self.ties += 1
            time = self.time + after_us
            arrival = time + (self.rng.randrange(LATENESS_US) if self.rng.random() < 0.5 else 0)
            heapq.heappush(self.due, (arrival, self.ties, time, fields))

    def _guessing(self):
        """Brute force: failures of one user within a minute, half of them with success at the end."""
        user, ip, count = self._user(), self._address(self.rng.randrange(len(PLACES))), self.rng.randrange(5, 9)
        tries = [(n * 2_000_000, {"user": user, "success": False, "ip": ip}) for n in range(count)]
        if self.rng.random() < 0.5:
            tries.append((count * 2_000_000 + 1_000_000, {"user": user, "success": True, "ip": ip}))
        return tries

    def _stuffing(self):
        """Credential stuffing: one address, many users."""
        ip = self._address(self.rng.randrange(len(PLACES)))
        return [(n * 3_000_000, {"user": user, "success": n == 7, "ip": ip}) for n, user in enumerate(self.rng.sample(self.names, 13))]

    def _travel(self):
        """Two successes on two continents, minutes apart."""
        user = self._user()
        far = (self.homes[user] + self.rng.randrange(1, len(PLACES))) % len(PLACES)
        return [(0, {"user": user, "success": True, "ip": self._address(self.homes[user])}),
                (self.rng.randrange(60, 600) * 1_000_000, {"user": user, "success": True, "ip": self._address(far)})]

    def _storm(self):
        """Many logins of one user without a pause, at times to the same microsecond."""
        user = self._user()
        return [(n // 2 * 1_500_000, {"user": user, "success": True}) for n in range(18)]


def geography(path):
    """Writes the lookup table in the form of SEMANTICS "IP geography"."""
    rows = ["ip_prefix,country,city,lat,lon", *(",".join(map(str, place)) for place in PLACES), "198.19.7.300,XX,Nowhere,0,0"]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
