"""The product as this suite knows it: the one place that names its verbs, flags, exit codes, files and counters."""

import json
import os
import pathlib
import signal
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
JOB = "jobs/login_anomalies.rs"
PROFILE = "local"
INPUT = "login-events"
ENRICHED, ANOMALIES, LATE, DLQ = "login-events-enriched", "login-anomalies", "login-events-late", "login-events-dlq"
OUTPUTS = (ENRICHED, ANOMALIES, LATE, DLQ)
LAKEHOUSE = "jobs/lakehouse.rs"
LAKEHOUSE_SINK = "lakehouse"
# What it logs when a checkpoint's manifest is not whole, and when a table is ahead of the checkpoint that it restores.
DAMAGED, AHEAD = "a checkpoint is damaged and passed over", "the table is ahead of the restored checkpoint: its keys are read anew"
# What it logs when it has written small files anew, and when old snapshots are gone.
REWRITTEN, EXPIRED = "small files are written anew", "old snapshots are gone"
EPOCHS_TABLE = "dataflow.epochs"
# The lakehouse's source that reads no topic in profile `local`.
OBJECTS = "pageviews"
# Maintenance that never rests and keeps little; the names are those of the sink's settings.
KEEP_EPOCHS = 4
EAGER_MAINTENANCE = ("sinks.lakehouse.maintenance={ interval_seconds = 0, keep_snapshots = 2, keep_seconds = 0, "
                     f"keep_epochs = {KEEP_EPOCHS}, small_files = 2, dead_percent = 10 }}")
# The same for files alone: every snapshot stays.
EAGER_COMPACTION = "sinks.lakehouse.maintenance={ interval_seconds = 0, small_files = 2, dead_percent = 10 }"
FORMAT_3 = "sinks.lakehouse.format=3"
# The variable with the catalog's token, and the one that names the authorities that its TLS trusts.
CATALOG_TOKEN, AUTHORITIES = "CATALOG_TOKEN", "SSL_CERT_FILE"
EXIT_FENCED = 5
# What its Kafka clients call themselves: librdkafka's default.
CLIENT_ID = "rdkafka"

# What the run has to have gone through, or it has proved nothing. See `Counters`.
COUNTERS = ("restored_epoch", "replayed_epochs", "epochs_dropped_by_marker", "aborted_transactions", "withdrawn")
WORKERS = "records_by_worker"

# A stop flushes, commits and writes a last checkpoint.
STOP_SECONDS = 60


class ProductFailed(Exception):
    """The product did what its contract rules out."""


class Product:
    """One data folder and the processes that live on it, one after the other. They log to one file."""

    def __init__(self, data, services, geo, log):
        self.data, self.log = pathlib.Path(data), pathlib.Path(log)
        self.env = os.environ | {"KAFKA_BROKERS": services.brokers, "REGISTRY_URL": services.registry}
        self.flags = ["--set", f"geo={geo}"]
        self.process = None

    def _command(self, *verb):
        return [os.environ["DATAFLOW_BIN"], *verb, JOB, "--profile", PROFILE, "--data", str(self.data)]

    def start(self, *flags):
        assert self.process is None, "one life at a time"
        with self.log.open("ab") as log:
            log.write(b"---- start ----\n")
            log.flush()
            # A session of its own: what it starts (the job's binary) is killed with it.
            self.process = subprocess.Popen(
                [*self._command("run"), *self.flags, *flags],
                cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def exit_code(self):
        """None while it runs."""
        return None if self.process is None else self.process.poll()

    def kill(self):
        """kill -9 of everything it started."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process = None

    def stop(self):
        """SIGINT, as from a terminal; the exit code is 0 and comes in time."""
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProductFailed(f"SIGINT did not end it within {STOP_SECONDS} s; {self.last_lines()}") from None
        self.process = None
        if code != 0:
            raise ProductFailed(f"it ended with {code} after SIGINT, not with 0; {self.last_lines()}")

    def bindings(self):
        """The rows of the bindings file, as parsed JSON."""
        done = subprocess.run(self._command("bindings", "export"), cwd=ROOT, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ProductFailed(f"'bindings export' ended with {done.returncode}: {done.stderr.strip()}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]

    def manifests(self):
        """Complete manifests, newest last: EPOCH-GENERATION.json."""
        return sorted((self.data / "checkpoints" / "manifests").glob("*.json"), key=lambda file: [int(part) for part in file.stem.split("-")])

    def manifest_offsets(self):
        """{partition: next offset to read} of the newest manifest; None without one."""
        if not (found := self.manifests()):
            return None
        return offsets_of(parsed(found[-1]))

    def status(self):
        """What the process last wrote about itself; {} before it wrote anything."""
        try:
            return json.loads((self.data / "status.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def last_lines(self, count=15):
        lines = self.log.read_text(errors="replace").splitlines()[-count:] if self.log.exists() else []
        return "last lines of " + str(self.log) + ":\n    " + "\n    ".join(lines)


class Lakehouse(Product):
    """The lakehouse from a folder of files into a folder: profile `files`. Its log is JSON."""

    def __init__(self, source, output, checkpoint_ms):
        self._open("files", output / ".data", output, [f"input={source}", f"output={output}"], checkpoint_ms)

    def _open(self, profile, data, output, settings, checkpoint_ms):
        self.profile, self.data, self.log, self.env = profile, data, output.with_suffix(".log"), {"DATAFLOW_LOG": "info"} | os.environ
        self.warehouse, self.flags, self.process = output / "warehouse", ["--log-format", "json"], None
        self.settings = [*settings, f"runtime.checkpoint_interval_ms={checkpoint_ms}"]

    def _command(self, *verb):
        settings = [flag for setting in self.settings for flag in ("--set", setting)]
        return [os.environ["DATAFLOW_BIN"], *verb, LAKEHOUSE, "--profile", self.profile, "--data", str(self.data), *settings]

    def upgrade(self):
        """From the next life on tables are of format 3."""
        self.settings.append(FORMAT_3)

    def tag(self, name):
        """Tags the tables while the job runs: (epoch, {table: snapshot})."""
        done = subprocess.run([*self._command("tag"), name, "--output", "json"], cwd=ROOT, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ProductFailed(f"'tag' ended with {done.returncode}: {done.stderr.strip()}")
        said = json.loads(done.stdout)
        return said["epoch"], said["snapshots"]

    def warnings(self, since):
        """What it logged, as objects, from this byte of the log on."""
        with self.log.open("rb") as log:
            log.seek(since)
            lines = log.read().splitlines()
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


class KafkaLakehouse(Lakehouse):
    """The lakehouse from Debezium's topics into a folder: profile `local`, but for where the tables are and the pageviews come from: folders."""

    def __init__(self, services, pageviews, output, checkpoint_ms):
        warehouse = output / "warehouse"
        objects = f'sources.pageviews={{ connector = "objects", format = "lines", path = "{pageviews}", poll_ms = 50 }}'
        place = [f'sinks.lakehouse.catalog={{ sqlite = "{warehouse}/catalog.db" }}', f'sinks.lakehouse.storage={{ folder = "{warehouse}" }}',
                 f'sinks.segments.storage={{ folder = "{warehouse}/segments" }}']
        self._open("local", output / "data", output, [objects, *place], checkpoint_ms)
        self.env = os.environ | {"KAFKA_BROKERS": services.brokers, "REGISTRY_URL": services.registry}


class StackLakehouse(Lakehouse):
    """The lakehouse as profile `local` has it, from Debezium's topics and a bucket into a REST catalog's tables, the catalog by a token; whole
    transactions."""

    def __init__(self, addresses, folder, checkpoint_ms):
        catalog = f'sinks.lakehouse.catalog={{ rest = "${{env:ICEBERG_REST_URL}}", token = "env:{CATALOG_TOKEN}" }}'
        ends = ('sources."dbz.transaction"={ connector = "kafka", format = "avro", brokers = "${env:KAFKA_BROKERS}", group_id = "lakehouse", '
                'registry = { url = "${env:REGISTRY_URL}" } }')
        self._open("local", folder / "data", folder / "job", [catalog, ends], checkpoint_ms)
        self.env |= addresses

    def manifest_ends(self):
        """{source: {partition: next offset to read}} of the newest manifest, which has read something of each; {} without one."""
        if not (found := self.manifests()):
            return {}
        manifest = parsed(found[-1])
        ends = {name: offsets_of(manifest, rank) for rank, name in enumerate(manifest["sources"])}
        return {name: of_it for name, of_it in ends.items() if of_it}


def parsed(manifest):
    """What the file of a manifest says; its second line is a checksum of the first."""
    return json.loads(manifest.read_text().splitlines()[0])


def last_outputs(manifest):
    """{table: the last epoch with output of it} of the lakehouse, as of a manifest."""
    sinks = parsed(manifest)["sinks"]
    return {name.removeprefix(f"{LAKEHOUSE_SINK}/"): sink["last_output"] for name, sink in sinks.items()}


def offsets_of(manifest, source=0):
    """A manifest's end offsets of one of its sources, by partition."""
    return {partition["index"]: partition["end"] for partition in manifest["state"]["partitions"] if partition["source"] == source}


class Counters:
    """What the lives of a run reported, the greatest value of each: a life that was killed counts as far as it told."""

    def __init__(self):
        self.seen = dict.fromkeys(COUNTERS, 0)
        self.workers = {}

    def add(self, status):
        counters = status.get("counters", status)
        for name in COUNTERS:
            self.seen[name] = max(self.seen[name], counters.get(name) or 0)
        workers = counters.get(WORKERS) or []
        for worker, records in workers.items() if isinstance(workers, dict) else enumerate(workers):
            self.workers[str(worker)] = max(self.workers.get(str(worker), 0), records)

    def missing(self):
        """What never happened."""
        lacking = [name for name, value in self.seen.items() if value <= 0]
        if not self.workers:
            lacking.append(WORKERS)
        return lacking + [f"{WORKERS}[{worker}]" for worker, records in sorted(self.workers.items()) if records <= 0]

    def __str__(self):
        return ", ".join(f"{name} {value}" for name, value in self.seen.items()) + f", {WORKERS} {self.workers}"
