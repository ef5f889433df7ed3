"""What a broker lets a client write and read in a second: Kafka's AlterClientQuotas (KIP-546), which confluent-kafka does not offer.

One request of version 0 over a connection of its own; https://kafka.apache.org/protocol.html#The_Messages_AlterClientQuotas."""

import socket
import struct

API_KEY, VERSION, CORRELATION = 49, 0, 1
RATES = ("producer_byte_rate", "consumer_byte_rate")
SECONDS = 30


def throttle(brokers, client, bytes_per_s):
    """Bounds both rates of the clients of this name; `None` lifts the bounds. Raises OSError when the broker refuses."""
    operations = b"".join(_string(rate) + struct.pack(">d?", bytes_per_s or 0.0, bytes_per_s is None) for rate in RATES)
    entity = struct.pack(">i", 1) + _string("client-id") + _string(client)
    entry = struct.pack(">i", 1) + entity + struct.pack(">i", len(RATES)) + operations
    request = struct.pack(">hhi", API_KEY, VERSION, CORRELATION) + _string("e2e") + entry + struct.pack(">?", False)
    host, port = brokers.rsplit(":", 1)
    with socket.create_connection((host, int(port)), SECONDS) as connection, connection.makefile("rb") as answers:
        connection.sendall(struct.pack(">i", len(request)) + request)
        (length,) = struct.unpack(">i", answers.read(4))
        correlation, _throttled_ms, count, code = struct.unpack_from(">iiih", answers.read(length))
    if (correlation, count, code) != (CORRELATION, 1, 0):
        raise OSError(f"the broker answers AlterClientQuotas with error {code}")


def _string(text):
    return struct.pack(">h", len(text)) + text.encode()
