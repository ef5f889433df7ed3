"""Rows kept by key as other sinks keep them: an equality delete on the key for each row that comes again (Flink's upserts, without the compaction
that has to follow them). PyIceberg writes no such deletes, but it has all the parts."""

import uuid

import pyarrow.parquet
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestWriterV2, write_manifest_list
from pyiceberg.schema import Schema
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, SetSnapshotRefUpdate
from pyiceberg.typedef import Record


class DeletesWriter(ManifestWriterV2):
    def content(self):
        return ManifestContent.DELETES

    @property
    def _meta(self):
        return super()._meta | {"content": "deletes"}


def upserted(copy, rows, commits):
    """Puts `rows` into an empty table, and then in so many commits a part of them once more, in the place of those with their keys."""
    copy.append(rows)
    bounds = [number * len(rows) // commits for number in range(commits + 1)]
    for begin, end in zip(bounds, bounds[1:]):
        # Older than the rows that take their place: deletes speak of what was there before them.
        delete(copy, rows.slice(begin, end - begin))
        copy.append(rows.slice(begin, end - begin))


def delete(table, rows):
    """A snapshot with one file of deletes, of the keys of these rows."""
    schema, io, folder = table.schema(), table.io, f"{table.location()}/metadata"
    key = Schema(*(schema.find_field(id) for id in schema.identifier_field_ids))
    path = f"{table.location()}/data/{uuid.uuid4()}-deletes.parquet"
    with io.new_output(path).create() as out:
        pyarrow.parquet.write_table(rows.select([field.name for field in key.fields]).cast(schema_to_pyarrow(key)), out, compression="zstd")
    file = DataFile.from_args(
        content=DataFileContent.EQUALITY_DELETES, file_path=path, file_format=FileFormat.PARQUET, partition=Record(), record_count=len(rows),
        file_size_in_bytes=len(io.new_input(path)), equality_ids=[field.field_id for field in key.fields])
    id, parent, number = table.metadata.new_snapshot_id(), table.current_snapshot(), table.metadata.next_sequence_number()
    with DeletesWriter(table.spec(), schema, io.new_output(f"{folder}/{uuid.uuid4()}-m0.avro"), id, "null") as writer:
        writer.add_entry(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=id, data_file=file))
    manifests = [writer.to_manifest_file(), *parent.manifests(io)]
    list_path = f"{folder}/snap-{id}-{uuid.uuid4()}.avro"
    with write_manifest_list(2, io.new_output(list_path), id, parent.snapshot_id, number, "null") as writer:
        writer.add_manifests(manifests)
    snapshot = Snapshot(
        snapshot_id=id, parent_snapshot_id=parent.snapshot_id, sequence_number=number, timestamp_ms=parent.timestamp_ms + 1, manifest_list=list_path,
        summary=Summary(Operation.DELETE, **parent.summary.additional_properties), schema_id=schema.schema_id)
    current = SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=id)
    table.catalog.commit_table(table, (AssertRefSnapshotId(ref="main", snapshot_id=parent.snapshot_id),), (AddSnapshotUpdate(snapshot=snapshot), current))
    table.refresh()
