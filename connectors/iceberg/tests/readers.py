"""Two independent readers, PyIceberg and DuckDB, look at what this crate writes. Started by hand:

    python3 -m venv /tmp/readers && /tmp/readers/bin/pip install 'pyiceberg[sql-sqlite]==0.12.0' pyarrow \
        'duckdb==1.5.5' 'duckdb-extension-iceberg==1.5.5' 'duckdb-extension-avro==1.5.5' 'duckdb-extension-httpfs==1.5.5'
    cargo build -p dataflow-iceberg --example life
    /tmp/readers/bin/python connectors/iceberg/tests/readers.py .../debug/examples/life             SQLite catalog, local files
    /tmp/readers/bin/python connectors/iceberg/tests/readers.py .../debug/examples/life URI         REST catalog, S3 of the environment

It goes through formats 2 and 3, and a table that is upgraded.

Each step of the example's life is a snapshot. A reader must find in it exactly the rows that the example wrote down, value by value.
"""

import datetime
import decimal
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import duckdb
from pyiceberg.catalog import load_catalog

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def text(value):
    """A value as the example writes it, but for decimals, which come back as numbers."""
    if value is None or isinstance(value, (str, decimal.Decimal)):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, datetime.datetime):
        return str((value.astimezone(datetime.timezone.utc) - EPOCH) // datetime.timedelta(microseconds=1))
    if isinstance(value, datetime.date):
        return str((value - EPOCH.date()).days)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    return str(value)


def expected(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        for name in ("amount", "large"):
            if row[name] is not None:
                row[name] = decimal.Decimal(row[name])
    return sorted(rows, key=lambda row: int(row["id"]))


def compare(reader, step, found, wanted):
    rows = sorted(({name: text(value) for name, value in row.items()} for row in found), key=lambda row: int(row["id"]))
    if rows != wanted:
        different = [(a, b) for a, b in zip(rows, wanted) if a != b][:3]
        raise SystemExit(f"{reader} reads {step} otherwise: {len(rows)} rows, wanted {len(wanted)}; {different}")
    print(f"{reader} reads {step}: {len(rows)} rows, all equal")


def duck(uri):
    duck = duckdb.connect()
    for name in ("avro", "httpfs", "iceberg") if uri else ("avro", "iceberg"):
        module = __import__(f"duckdb_extension_{name}")
        extension = next(pathlib.Path(module.__path__[0]).rglob(f"{name}.duckdb_extension"))
        duck.execute(f"LOAD '{extension}'")
    duck.execute("SET TimeZone = 'UTC'")
    if uri:
        host = os.environ["S3_ENDPOINT"].split("://")[1]
        duck.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{os.environ['AWS_ACCESS_KEY_ID']}', SECRET '{os.environ['AWS_SECRET_ACCESS_KEY']}', "
            f"REGION '{os.environ['AWS_REGION']}', ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false)"
        )
    return duck


def main(example, uri=None):
    for form in ("2", "3", "upgraded"):
        print(f"format {form}")
        read(example, uri, form)


def read(example, uri, form):
    out = pathlib.Path(tempfile.mkdtemp(prefix="life-"))
    place = ["rest", uri] if uri else ["sqlite", str(out / "house")]
    subprocess.run([example, *place, str(out / "expected"), form], check=True)
    if uri:
        catalog = load_catalog(
            "default",
            **{"type": "rest", "uri": uri, "s3.endpoint": os.environ["S3_ENDPOINT"], "s3.region": os.environ["AWS_REGION"]},
            **{"s3.access-key-id": os.environ["AWS_ACCESS_KEY_ID"], "s3.secret-access-key": os.environ["AWS_SECRET_ACCESS_KEY"]},
        )
    else:
        catalog = load_catalog("default", type="sql", uri=f"sqlite:///{out}/house/catalog.db", warehouse=f"file://{out}/house/warehouse")
    name = (out / "expected" / "table").read_text()
    table = catalog.load_table(("check", "silver", name))
    database = duck(uri)
    for at in sorted((out / "expected").glob("*.at")):
        snapshot, location = at.read_text().split("\n")
        wanted = expected(at.with_suffix(".jsonl"))
        # An older snapshot reads under the columns that it was written with.
        compare("PyIceberg", at.stem, table.scan(snapshot_id=int(snapshot)).to_arrow().to_pylist(), wanted)
        result = database.execute(f"SELECT * FROM iceberg_scan('{location}')")
        columns = [column[0] for column in result.description]
        compare("DuckDB", at.stem, [dict(zip(columns, row)) for row in result.fetchall()], wanted)
    marker = {key: value for key, value in table.properties.items() if key.startswith("dataflow.")}
    summary = table.current_snapshot().summary.additional_properties
    if marker["dataflow.epoch"] != "3" or any(summary.get(key) != value for key, value in marker.items()):
        raise SystemExit(f"the markers differ: {marker}, {summary}")
    print(f"the marker is in the properties and in the summary: {marker}")


if __name__ == "__main__":
    main(*sys.argv[1:])
