"""The services of one run, through compose/stack, on ports of their own: Kafka and the schema registry, or the whole stack of a lakehouse."""

import os
import pathlib
import random
import socket
import subprocess

STACK = pathlib.Path(__file__).resolve().parent.parent / "stack" / "stack"

# Below Linux's range of ephemeral ports: a client that tries to reach a killed broker on an ephemeral port can be given that
# very port as its own and so connect to itself.
PORTS = range(20_000, 32_000)


def free_ports(count):
    """That many ports, all free at this moment. Starts anywhere, so that two runs at once do not race for the same ones."""
    found = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


class Services:
    """Started by `with`; ended and their data removed on the way out. With `disk_mb` their data lie on a disk of this size, where one may be
    mounted (`has_small_disk`)."""

    # In the order in which they need each other, and the variables that name their ports.
    NAMES = ("kafka", "schema-registry")
    PORTS = ("KAFKA_PORT", "KAFKA_CONTROLLER_PORT", "REGISTRY_PORT")

    def __init__(self, folder, disk_mb=None):
        ports = dict(zip(self.PORTS, map(str, free_ports(len(self.PORTS))), strict=True))
        self.brokers = f"127.0.0.1:{ports['KAFKA_PORT']}"
        self.registry = f"http://127.0.0.1:{ports['REGISTRY_PORT']}/apis/ccompat/v7"
        self.data = folder / "stack"
        self.disk_mb, self.has_small_disk = disk_mb, False
        self.env = os.environ | {"STACK_DATA": str(self.data)} | ports

    def _stack(self, *arguments):
        subprocess.run([STACK, *arguments], env=self.env, check=True)

    def addresses(self):
        """Where the services are, as the variables that clients read."""
        said = subprocess.run([STACK, "env", *self.NAMES], env=self.env, check=True, capture_output=True, text=True).stdout
        return dict(line.split("=", 1) for line in said.splitlines())

    def kill(self, name):
        self._stack("kill", name)

    def start(self, name):
        """Under the same address, with the data that it had."""
        self._stack("start", name)

    def __enter__(self):
        self._mount()
        try:
            self._stack("start", *self.NAMES)
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self._clean()
        else:  # the logs stay for whoever looks into the failure
            self._stack("kill", *self.NAMES)

    def _mount(self):
        if self.disk_mb is None:
            return
        self.data.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.disk_mb}m", "tmpfs", str(self.data)]
        self.has_small_disk = subprocess.run(mount, check=False, capture_output=True).returncode == 0

    def _clean(self):
        if self.has_small_disk:
            # The mount itself cannot be removed: what stands in it goes with it.
            self._stack("kill", *self.NAMES)
            subprocess.run(["umount", "--lazy", str(self.data)], check=True)
        self._stack("clean")

    def is_broker_alive(self):
        try:
            pid = int((self.data / "run" / "kafka.pid").read_text())
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state != "Z"

    def kill_broker(self):
        self.kill("kafka")

    def start_broker(self):
        self.start("kafka")

    def stop_registry(self):
        self._stack("stop", "schema-registry")

    def start_registry(self):
        """With the schemas that it had."""
        self.start("schema-registry")


class LakehouseServices(Services):
    """Everything from the shop's database to an engine that queries the tables."""

    NAMES = (*Services.NAMES, "postgres", "connect", "minio", "iceberg-rest", "trino")
    PORTS = (*Services.PORTS, "PG_PORT", "CONNECT_PORT", "MINIO_PORT", "MINIO_CONSOLE_PORT", "ICEBERG_PORT", "TRINO_PORT")
