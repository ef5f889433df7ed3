"""How many findings of new country and unresolved address a backlog holds, by their definition alone: shares no code with what is
measured.

A login fires when no login of its user with the same country (or, where the address is unresolved, with none) is in [t - 7 days, t - 1 s].
"""

import csv
import dataclasses
import datetime
import ipaddress
import json

SECOND_US = 1_000_000
WEEK_US = 7 * 24 * 3600 * SECOND_US
# Flink's form in SQL answers when the watermark has passed; the last 5 s of a topic keep it waiting.
WATERMARK_US = 5 * SECOND_US


@dataclasses.dataclass(frozen=True)
class Findings:
    all: int
    # Those that a watermark 5 s behind the slowest partition has passed at the end.
    passed: int


def micros(text):
    """`2026-03-02T08:00:00.123456Z`, always six digits."""
    at = datetime.datetime.fromisoformat(text)
    return int(at.replace(microsecond=0).timestamp()) * SECOND_US + at.microsecond


class Geography:
    """Networks by length; the longest that holds an address says its country."""

    def __init__(self, lines):
        self.by_length, self.known = {}, {}
        for row in csv.DictReader(lines):
            network = self._network(row["ip_prefix"])
            if network:
                key = (network.version, network.prefixlen)
                self.by_length.setdefault(key, {})[int(network.network_address)] = row["country"] or None

    @staticmethod
    def _network(prefix):
        if "/" not in prefix and ":" not in prefix:
            parts = prefix.rstrip(".").split(".")
            prefix = f"{'.'.join(parts + ['0'] * (4 - len(parts)))}/{8 * len(parts)}"
        try:
            return ipaddress.ip_network(prefix, strict=False)
        except ValueError:
            return None  # real tables have such rows, and so has this one

    def country(self, address):
        if address not in self.known:
            self.known[address] = self._search(ipaddress.ip_address(address))
        return self.known[address]

    def _search(self, address):
        for version, length in sorted(self.by_length, reverse=True):
            if version == address.version:
                bits = address.max_prefixlen - length
                network = int(address) >> bits << bits
                if network in self.by_length[version, length]:
                    return self.by_length[version, length][network]
        return None


def findings(lines, geography):
    """Of `login_events.ndjson` as `loadgen logins --out` writes it. A user's logins are all in one partition, in order."""
    seen, fired, newest = {}, [], {}
    for line in lines:
        record = json.loads(line)
        event, partition = record["event"], record["partition"]
        t = micros(event["timestamp"])
        times = seen.setdefault((event["user_id"], geography.country(event["ip"])), [])
        if not any(t - WEEK_US <= at <= t - SECOND_US for at in reversed(times)):
            fired.append(t)
        times.append(t)
        newest[partition] = max(t, newest.get(partition, t))
    watermark = min(newest.values(), default=0) - WATERMARK_US
    return Findings(len(fired), sum(t <= watermark for t in fired))
