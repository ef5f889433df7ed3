"""The lakehouse's tables as readers see them, none of which shares code with the product: PyIceberg, DuckDB, and of a REST catalog Trino."""

import collections
import contextlib
import datetime
import json
import pathlib
import re
import sqlite3
import urllib.parse

import trino
from pyiceberg.catalog import load_catalog

from duck import open_duckdb
from product import EPOCHS_TABLE
from shop_views import rows

# The names under which a snapshot's summary holds whose output it is.
EPOCH, LINEAGE, GENERATION = "dataflow.epoch", "dataflow.lineage", "dataflow.generation"


class Wrong(Exception):
    """The tables are not as they have to be."""


def check(condition, what):
    if not condition:
        raise Wrong(what)


class Warehouse:
    """A warehouse on this machine, known to an SQLite catalog."""

    def __init__(self, folder, catalog="dataflow"):
        self.folder, self.database, self.name = folder, folder / "catalog.db", catalog
        self.duck = open_duckdb("avro", "iceberg")

    def locations(self):
        """{table: its newest metadata file}, straight from the catalog's file; {} before there is one."""
        if not self.database.exists():
            return {}
        # Not read-only: whoever looks first after a kill takes back what the killed process had begun, and may not be refused that.
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=rw", uri=True, timeout=20)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'iceberg_tables'").fetchall():
                return {}
            found = database.execute("SELECT table_namespace || '.' || table_name, metadata_location FROM iceberg_tables").fetchall()
        return dict(found)

    def epochs(self):
        """{table: the epoch of its newest snapshot}, of those that have one. Reads the metadata as text: it is asked for between a kill and a start."""
        epochs = {}
        for table, location in self.locations().items():
            if table == EPOCHS_TABLE:
                continue
            metadata = json.loads(path(location).read_text())
            newest = [s for s in metadata.get("snapshots", []) if s["snapshot-id"] == metadata.get("current-snapshot-id")]
            epochs |= {table: int(snapshot["summary"][EPOCH]) for snapshot in newest}
        return epochs

    def catalog(self):
        return load_catalog(self.name, type="sql", uri=f"sqlite:///{self.database}", warehouse=f"file://{self.folder}")

    def tables(self):
        """{name: PyIceberg's table}."""
        catalog = self.catalog()
        return {".".join(name): catalog.load_table(name) for namespace in catalog.list_namespaces() for name in catalog.list_tables(namespace)}

    def readers(self):
        """{reader: how it reads the columns of a table, of a snapshot or of the current one, as a bag}."""
        return {"PyIceberg": self.by_pyiceberg, "DuckDB": self.by_duckdb}

    def by_pyiceberg(self, table, columns, snapshot=None):
        return bag(columns, table.scan(selected_fields=tuple(columns), snapshot_id=snapshot).to_arrow().to_pylist())

    def by_duckdb(self, table, columns, snapshot=None):
        at = f", snapshot_from_id => {snapshot}" if snapshot else ""
        names, found = rows(self.duck.execute(f"SELECT * FROM iceberg_scan('{table.metadata_location}'{at})"))
        return bag(columns, (dict(zip(names, row, strict=True)) for row in found))

    def distinct(self, table, key, snapshot=None):
        """How many rows a snapshot has, and how many keys."""
        at = f", snapshot_from_id => {snapshot}" if snapshot else ""
        return self.duck.execute(f"SELECT count(*), count(DISTINCT row({key})) FROM iceberg_scan('{table.metadata_location}'{at})").fetchone()


class RestWarehouse(Warehouse):
    """A warehouse in a bucket, known to a REST catalog; `addresses` are those that the services tell."""

    def __init__(self, addresses):
        self.rest, self.duck = addresses["ICEBERG_REST_URL"], open_duckdb("avro", "httpfs", "iceberg")
        endpoint, key, secret, region = (addresses[name] for name in ("S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"))
        self.s3 = {"s3.endpoint": endpoint, "s3.access-key-id": key, "s3.secret-access-key": secret, "s3.region": region}
        self.duck.execute(f"CREATE SECRET (TYPE s3, KEY_ID '{key}', SECRET '{secret}', REGION '{region}', "
                          f"ENDPOINT '{urllib.parse.urlparse(endpoint).netloc}', URL_STYLE 'path', USE_SSL false)")
        engine = urllib.parse.urlparse(addresses["TRINO_URL"])
        self.trino = trino.dbapi.connect(host=engine.hostname, port=engine.port, user="e2e", catalog="iceberg", timezone="UTC")

    def catalog(self):
        return load_catalog("rest", type="rest", uri=self.rest, **self.s3)

    def readers(self):
        return {"Trino": self.by_trino} | super().readers()

    def ask(self, sql):
        """What Trino answers: a list of rows."""
        cursor = self.trino.cursor()
        cursor.execute(sql)
        return cursor.fetchall()

    def by_trino(self, table, columns, version=None):
        """A version is a snapshot's id or a tag's name."""
        found = self.ask(f"SELECT {', '.join(map(quoted, columns))} FROM {in_trino(table, version)}")
        return bag(columns, (dict(zip(columns, row, strict=True)) for row in found))

    def distinct(self, table, key, snapshot=None):
        columns = ", ".join(quoted(column) for column in key.split(", "))
        return tuple(self.ask(f"SELECT count(*), count(DISTINCT row({columns})) FROM {in_trino(table, snapshot)}")[0])


def in_trino(table, version=None):
    name = ".".join(map(quoted, table.name()))
    if version is None:
        return name
    return f"{name} FOR VERSION AS OF " + (f"'{version}'" if isinstance(version, str) else str(version))


def quoted(name):
    return f'"{name}"'


def path(location):
    return pathlib.Path(urllib.parse.unquote(urllib.parse.urlparse(location).path))


def bag(columns, found):
    """Rows as a multiset, whatever brought them."""
    return collections.Counter(tuple(plain(row[column]) for column in columns) for row in found)


def plain(value):
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return value


def same(what, found, wanted):
    """Both are bags of rows."""
    if found != wanted:
        more, less = list((found - wanted).items())[:3], list((wanted - found).items())[:3]
        raise Wrong(f"{what}: {found.total()} rows, {wanted.total()} expected; not expected (row, times): {more}; not there: {less}")


def ancestry(table):
    """The snapshots from the current one back to the first that has not expired, newest first."""
    chain, known = [], {snapshot.snapshot_id: snapshot for snapshot in table.snapshots()}
    at = table.current_snapshot()
    while at is not None:
        chain.append(at)
        at = known.get(at.parent_snapshot_id)
    return chain


def noted_epochs(table):
    """({epoch: {table: snapshot}}, {epoch: clock}) of the table of epochs; each is noted once."""
    epochs, clocks = collections.defaultdict(dict), {}
    for row in table.scan().to_arrow().to_pylist():
        check(row["table_name"] not in epochs[row["epoch"]], f"epoch {row['epoch']} of {row['table_name']} is noted twice")
        epochs[row["epoch"]][row["table_name"]] = row["snapshot_id"]
        clocks[row["epoch"]] = plain(row["clock"]).isoformat(timespec="microseconds") + "Z"
    return epochs, clocks


def readable(epochs, tables):
    """Those of the epochs, in order, of which no snapshot has expired."""
    is_there = {name: {snapshot.snapshot_id for snapshot in table.snapshots()} for name, table in tables.items()}
    return [epoch for epoch in sorted(epochs) if all(id in is_there[name] for name, id in epochs[epoch].items())]


def check_history(name, table):
    """Every snapshot has a marker; epochs rise, and strictly but where files were written anew; generations do not fall. Returns the epochs."""
    chain = ancestry(table)
    markers = [snapshot.summary.additional_properties for snapshot in reversed(chain)]
    for marker in (snapshot.summary.additional_properties for snapshot in table.snapshots()):
        check(marker.get(EPOCH, "").isdigit() and LINEAGE in marker and GENERATION in marker, f"{name}: a snapshot without a marker: {marker}")
    check(len({marker[LINEAGE] for marker in markers}) <= 1, f"{name}: snapshots of several histories")
    epochs, generations = ([int(marker[key]) for marker in markers] for key in (EPOCH, GENERATION))
    is_rewrite = [snapshot.summary.operation.value == "replace" for snapshot in reversed(chain)]
    check(all(a < b or a == b and rewrite for a, b, rewrite in zip(epochs, epochs[1:], is_rewrite[1:])), f"{name}: its epochs do not rise: {epochs}")
    check(generations == sorted(generations), f"{name}: its generations fall: {generations}")
    aside = [snapshot for snapshot in table.snapshots() if snapshot not in chain and int(snapshot.summary.additional_properties[EPOCH]) > epochs[0]]
    check(not aside, f"{name}: snapshots are not in the newest one's past: {aside}")
    return epochs


def named_files(name, table):
    """Every file that any snapshot or the log of metadata names; each is there."""
    named = {path(table.metadata_location)} | {path(entry.metadata_file) for entry in table.metadata.metadata_log}
    for snapshot in table.snapshots():
        named.add(path(snapshot.manifest_list))
        for manifest in snapshot.manifests(table.io):
            named.add(path(manifest.manifest_path))
            named |= {path(entry.data_file.file_path) for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)}
    missing = [file for file in named if not file.exists()]
    check(not missing, f"{name}: files are missing that a snapshot names: {missing[:3]}")
    return named


def check_no_orphans(name, table, swept):
    """No file is left of a generation before `swept`, which made a snapshot of the table and had the time to tidy up. Returns whether it did."""
    named, lineage = named_files(name, table), None
    generations = set()
    for snapshot in table.snapshots():
        lineage = snapshot.summary.additional_properties[LINEAGE]
        generations.add(int(snapshot.summary.additional_properties[GENERATION]))
    if lineage is None or swept not in generations:
        return False
    pattern = re.compile(rf"(?:snap-\d+-)?{lineage}-(\d+)-")
    for folder in ("data", "metadata"):
        for file in (path(table.location()) / folder).iterdir():
            of = pattern.match(file.name)
            check(file in named or of is None or int(of.group(1)) >= swept, f"{name}: nothing names {file.name}, of an ended generation")
    return True


def check_files(name, table):
    """Every file that the current snapshot names is there, in its length. Returns how many of data and of deletes."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return 0, 0
    is_there = lambda location: table.io.new_input(location).exists()
    check(is_there(snapshot.manifest_list), f"{name}: its manifest list {snapshot.manifest_list} is missing")
    counts = [0, 0]
    for manifest in snapshot.manifests(table.io):
        check(is_there(manifest.manifest_path), f"{name}: the manifest {manifest.manifest_path} is missing")
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            file = entry.data_file
            check(is_there(file.file_path), f"{name}: the file {file.file_path} is missing")
            length = len(table.io.new_input(file.file_path))
            check(length == file.file_size_in_bytes, f"{name}: {file.file_path} has {length} bytes, its manifest says {file.file_size_in_bytes}")
            counts[0 if file.content.name == "DATA" else 1] += 1
    return tuple(counts)
