"""Kafka and the schema registry of one run, through compose/stack, on ports of their own."""

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

    def __init__(self, folder, disk_mb=None):
        kafka, controller, registry = free_ports(3)
        self.brokers = f"127.0.0.1:{kafka}"
        self.registry = f"http://127.0.0.1:{registry}/apis/ccompat/v7"
        self.data = folder / "stack"
        self.disk_mb, self.has_small_disk = disk_mb, False
        self.env = os.environ | {
            "STACK_DATA": str(self.data),
            "KAFKA_PORT": str(kafka),
            "KAFKA_CONTROLLER_PORT": str(controller),
            "REGISTRY_PORT": str(registry),
        }

    def _stack(self, *arguments):
        subprocess.run([STACK, *arguments], env=self.env, check=True)

    def __enter__(self):
        self._mount()
        try:
            self._stack("start", "kafka", "schema-registry")
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self._clean()
        else:  # the logs stay for whoever looks into the failure
            self._stack("kill", "kafka", "schema-registry")

    def _mount(self):
        if self.disk_mb is None:
            return
        self.data.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.disk_mb}m", "tmpfs", str(self.data)]
        self.has_small_disk = subprocess.run(mount, check=False, capture_output=True).returncode == 0

    def _clean(self):
        if self.has_small_disk:
            # The mount itself cannot be removed: what stands in it goes with it.
            self._stack("kill", "kafka", "schema-registry")
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
        self._stack("kill", "kafka")

    def start_broker(self):
        self._stack("start", "kafka")

    def stop_registry(self):
        self._stack("stop", "schema-registry")

    def start_registry(self):
        """Under the same address, with the schemas that it had."""
        self._stack("start", "schema-registry")
