"""The generator: the same seed is the same stream, and each kind of record occurs."""

import collections
import io
import itertools
import struct
import unittest

import fastavro
import traffic
import verify

NOW = 1_790_000_000_000_000
IDS = {1: 11, 2: 12}


def stream(seed, events):
    return list(itertools.islice(traffic.Traffic(seed, events, NOW, IDS), events))


class TrafficTest(unittest.TestCase):
    def test_the_seed_decides_everything(self):
        plain = lambda logins: [(login.key, login.value, login.line) for login in logins]
        self.assertEqual(plain(stream(5, 2000)), plain(stream(5, 2000)))
        self.assertNotEqual(plain(stream(5, 2000)), plain(stream(6, 2000)))

    def test_what_is_produced_is_what_is_written_down(self):
        for login in stream(1, 3000):
            if login.line is None:
                continue
            magic, schema_id = struct.unpack(">bI", login.value[:5])
            version = login.line["schema_version"]
            self.assertEqual((magic, schema_id), (0, IDS[version]))
            body = io.BytesIO(login.value[5:])
            self.assertEqual(fastavro.schemaless_reader(body, traffic.PARSED[version], None), login.line["event"])
            self.assertEqual(body.read(), b"")
            self.assertEqual(login.key.decode(), login.line["event"]["user_id"])

    def test_every_kind_occurs_and_all_but_poison_is_in_the_past(self):
        kinds, versions, latest = collections.Counter(), collections.Counter(), 0
        for login in stream(2, 6000):
            kind, time = verify.judge(login, NOW, None)
            kinds[kind] += 1
            if kind == "login":
                versions[login.line["schema_version"]] += 1
                latest = max(latest, time)
        self.assertEqual(set(kinds), {"login", "undecodable", "empty_user_id", "bad_timestamp", "future_timestamp"})
        self.assertGreater(min(versions[1], versions[2]), 1000)
        self.assertLess(latest, NOW)
        self.assertGreater(latest, NOW - 6 * 3_600_000_000)

    def test_a_short_run_lacks_no_kind(self):
        for seed in range(20):
            kinds = {verify.judge(login, NOW, None)[0] for login in stream(seed, 3000)}
            self.assertEqual(len(kinds), 5, seed)

    def test_beside_the_stream(self):
        made = traffic.Traffic(3, 3000, NOW, IDS)
        before = list(itertools.islice(made, 500))
        schema = {**traffic.SCHEMAS[2], "fields": [*traffic.SCHEMAS[2]["fields"], {"name": "more", "type": "string", "default": ""}]}
        login = made.of_another_writer(77, schema, "user-003")
        self.assertEqual(struct.unpack(">bI", login.value[:5]), (0, 77))
        read = fastavro.schemaless_reader(io.BytesIO(login.value[5:]), fastavro.parse_schema(schema), traffic.PARSED[2])
        self.assertEqual(read, login.line["event"])
        self.assertEqual(verify.judge(login, NOW, None)[0], "login")
        self.assertEqual(verify.judge(made.of_unknown_schema("user-003"), NOW, None)[0], "undecodable")
        # The stream is what it is without them.
        after = list(itertools.islice(made, 500))
        self.assertEqual([login.value for login in before + after], [login.value for login in stream(3, 3000)[:1000]])


class TimestampTest(unittest.TestCase):
    def test_the_grammar(self):
        good = {"1970-01-01T00:00:00Z": 0, "1970-01-01T02:00:00.1234567+02:00": 123_456, "1969-12-31T23:30:00-00:30": 0,
                "2026-03-01T09:00:00.123456789Z": verify.micros("2026-03-01T09:00:00.123456Z")}
        for text, value in good.items():
            self.assertEqual(verify.micros(text), value, text)
        for text in ("", "1970-01-01T00:00:00", "1970-01-01 00:00:00Z", "1970-01-01T00:00:60Z", "1970-01-01T00:00:00.Z",
                     "1970-01-01T00:00:00.0123456789Z", "1970-02-30T00:00:00Z", "1970-01-01T00:00:00Z ", "1970-01-01T00:00:00+24:00",
                     "١٩٧٠-01-01T00:00:00Z"):
            self.assertIsNone(verify.micros(text), text)
