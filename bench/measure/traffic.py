"""The input: logins that `loadgen` makes, of one shape for every implementation.

All are writers of the newer schema, no login comes twice or broken, and a user's logins stand in order of their time: so every
implementation, whatever it does with disorder, has the same answer, and says it once."""

import dataclasses
import datetime
import time

USERS = 10_000
PARTITIONS = 4
# A user base that a live run of some minutes does not get to know: first logins, which are findings, go on coming.
LIVE_USERS_PER_RATE = 20
# From this rate on the producer waits a millisecond for more, as one that is tuned for it would.
LINGER_FROM_RATE = 5_000
PLAIN = ["--late", "0", "--disorder", "0", "--duplicates", "0", "--poison", "0", "--old-writers", "0"]


@dataclasses.dataclass(frozen=True)
class Backlog:
    """`count` logins over `seconds` of event time from `start` on. The same settings are the same logins."""

    count: int
    start: str
    users: int = USERS
    partitions: int = PARTITIONS
    skew: float = 0.0
    # Users take turns, and there are no attacks: with as many logins as users each user has one.
    in_turn: bool = False
    # Compressed by the producer: for those that are larger than a machine likes.
    compressed: bool = False
    seconds: int = 3_600
    seed: int = 1

    def words(self):
        """The arguments of `loadgen logins`."""
        words = ["--count", self.count, "--seconds", self.seconds, "--start", self.start, "--users", self.users, "--partitions", self.partitions,
                 "--seed", self.seed, "--skew", self.skew, *PLAIN]
        words += ["--in-turn", "--attacks", "0"] if self.in_turn else []
        words += ["--property", "compression.type=lz4"] if self.compressed else []
        return [str(word) for word in words]


def ago(seconds):
    """A start in the past: nothing of a backlog lies in the future, and what comes live follows it closely."""
    return datetime.datetime.fromtimestamp(int(time.time()) - seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def live_words(rate, partitions, skew, first_user):
    """The arguments for logins at a rate, from now on until ended."""
    linger = "1" if rate >= LINGER_FROM_RATE else "0"
    return ["--rate", str(rate), "--users", str(LIVE_USERS_PER_RATE * rate), "--first-user", str(first_user), "--partitions", str(partitions), "--skew", str(skew),
            "--seed", str(time.time_ns() % 1_000_000_007), *PLAIN,
            "--property", f"linger.ms={linger}", "--property", "socket.nagle.disable=true"]
