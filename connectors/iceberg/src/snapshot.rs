//! A snapshot from files that are written already: manifests, manifest list, summary, and the updates that make it current.
//!
//! New entries leave their sequence number to be inherited, so a file says nothing of the attempt that brings it in. Small manifests are
//! merged as their number grows, or each commit would make all later ones slower.

use crate::deletes::speaks_of;
use crate::marker::Properties;
use crate::names;
use crate::session::{Session, outside};
use crate::tally::Tally;
use dataflow_core::{Error, Result};
use iceberg::TableUpdate;
use iceberg::spec::{
    DataContentType, DataFile, FormatVersion, MAIN_BRANCH, ManifestContentType, ManifestEntryRef, ManifestFile,
    ManifestList, ManifestListWriter, ManifestWriter, ManifestWriterBuilder, Operation, Schema, Snapshot,
    SnapshotReference, SnapshotRetention, StructType, Summary, TableMetadata, deserialize_data_file_from_json,
    serialize_data_file_to_json,
};
use std::collections::{BTreeMap, BTreeSet};

/// The sequence number that says: inherited.
const INHERITED: i64 = -1;
/// Manifests of one kind below [`SMALL_MANIFEST_BYTES`] that are merged into one (Java's `commit.manifest.min-count-to-merge`).
const MERGE_AT: usize = 100;
/// Manifests from this size on stay as they are (Java's `commit.manifest.target-size-bytes`).
const SMALL_MANIFEST_BYTES: i64 = 8 << 20;

/// What a snapshot changes.
pub(crate) struct Change {
    pub(crate) operation: Operation,
    /// New files, with the partition spec of each.
    pub(crate) added: Vec<(i32, DataFile)>,
    /// Paths of files that the snapshot no longer holds. Delete files that refer to nothing else go with their data file.
    pub(crate) removed: BTreeSet<String>,
    /// Data files of which `added` has a deletion vector: what they had of deletes goes.
    pub(crate) outdated: BTreeSet<String>,
    /// Whether all small manifests become one of each kind: in a table of which each commit reads all of them.
    pub(crate) gathers: bool,
    /// Entries of the summary beside the counts.
    pub(crate) summary: Properties,
}

/// The manifests of a snapshot. None for a table without snapshots.
pub(crate) async fn manifests(
    session: &Session,
    table: &TableMetadata,
    at: Option<&Snapshot>,
) -> iceberg::Result<Vec<ManifestFile>> {
    let Some(at) = at else { return Ok(Vec::new()) };
    let list = session.io.new_input(at.manifest_list())?.read().await?;
    Ok(ManifestList::parse_with_version(&list, table.format_version())?.consume_entries().into_iter().collect())
}

/// The branches and tags of a table. The iceberg crate lets one be asked for by name alone, so they are read from what it would write down.
///
/// # Errors
/// When it can not be written down.
pub(crate) fn references(table: &TableMetadata) -> Result<BTreeMap<String, SnapshotReference>> {
    let what = || format!("list the branches and tags of the table at '{}'", table.location());
    let mut written = serde_json::to_value(table).map_err(|e| Error::us(what()).because(e))?;
    match written.get_mut("refs").map(serde_json::Value::take) {
        Some(references) => serde_json::from_value(references).map_err(|e| Error::us(what()).because(e)),
        None => Ok(BTreeMap::new()),
    }
}

/// Writes manifests and manifest list on top of the table's current snapshot; returns the new snapshot's id and the updates that make it
/// the current one.
///
/// # Errors
/// When the current snapshot does not hold a file that the change removes, or a file cannot be read or written.
pub(crate) fn prepare(session: &Session, table: &TableMetadata, change: &Change) -> Result<(i64, Vec<TableUpdate>)> {
    let id = std::iter::repeat_with(|| session.snapshot_id()).find(|id| table.snapshot_by_id(*id).is_none());
    let mut work = Work { session, table, id: id.expect("random numbers do not run out"), tally: Tally::default() };
    let what = || format!("prepare a snapshot of the table at '{}'", table.location());
    let mut missing = change.removed.clone();
    let manifests = session.wait(work.manifests(change, &mut missing)).map_err(outside(what()))?;
    if let Some(path) = missing.first() {
        let what = format!("{}: it no longer holds the file '{path}', which is to be removed", what());
        return Err(Error::doubt(what).hint("another program has rewritten the table: plan the rewrite anew"));
    }
    session.wait(work.snapshot(change, manifests)).map_err(outside(what()))
}

impl Change {
    /// One that adds and takes away nothing.
    pub(crate) fn empty(operation: Operation, summary: Properties) -> Change {
        let (added, removed, outdated) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Change { operation, added, removed, outdated, gathers: false, summary }
    }

    /// Whether a file that was there goes.
    fn takes_away(&self, file: &DataFile) -> bool {
        let goes = |data: &String| self.removed.contains(data) || self.outdated.contains(data);
        self.removed.contains(file.file_path()) || speaks_of(file).as_ref().is_some_and(goes)
    }
}

/// What becomes one manifest.
#[derive(Default)]
struct Group<'a> {
    added: Vec<&'a DataFile>,
    /// Manifests whose entries are taken over.
    old: Vec<ManifestFile>,
}

struct Work<'a> {
    session: &'a Session,
    table: &'a TableMetadata,
    id: i64,
    tally: Tally,
}

impl Work<'_> {
    async fn manifests(
        &mut self,
        change: &Change,
        missing: &mut BTreeSet<String>,
    ) -> iceberg::Result<Vec<ManifestFile>> {
        let mut groups: BTreeMap<(bool, i32), Group<'_>> = BTreeMap::new();
        for (spec_id, file) in &change.added {
            let is_deletes = file.content_type() != DataContentType::Data;
            groups.entry((is_deletes, *spec_id)).or_default().added.push(file);
        }
        let parent = self.table.current_snapshot();
        let mut old = Vec::new();
        for manifest in manifests(self.session, self.table, parent.map(AsRef::as_ref)).await? {
            let is_deletes = manifest.content == ManifestContentType::Deletes;
            if !(manifest.has_added_files() || manifest.has_existing_files()) {
                continue;
            }
            // Each commit takes the place of many vectors: left where they are, all manifests would be written anew each time.
            let is_gathered = change.gathers || is_deletes && !change.outdated.is_empty();
            if is_gathered && manifest.manifest_length < SMALL_MANIFEST_BYTES {
                groups.entry((is_deletes, manifest.partition_spec_id)).or_default().old.push(manifest);
            } else {
                old.push(self.without(manifest, change, missing).await?);
            }
        }
        let mut all = Vec::new();
        for ((is_deletes, spec_id), Group { added, old }) in groups {
            let content = if is_deletes { ManifestContentType::Deletes } else { ManifestContentType::Data };
            let mut writer = self.writer(spec_id, content)?;
            for file in added {
                self.tally.count(file, spec_id, true);
                writer.add_file(file.clone(), INHERITED)?;
            }
            for manifest in old {
                let entries = self.entries(&manifest).await?;
                self.take_over(&mut writer, &manifest, entries, change, missing)?;
            }
            all.push(writer.write_manifest_file().await?);
        }
        all.extend(self.merged(old).await?);
        Ok(all)
    }

    /// The manifest itself if it holds nothing that goes, else a copy that marks that as deleted.
    async fn without(
        &mut self,
        manifest: ManifestFile,
        change: &Change,
        missing: &mut BTreeSet<String>,
    ) -> iceberg::Result<ManifestFile> {
        let is_data = manifest.content == ManifestContentType::Data;
        if change.removed.is_empty() && (is_data || change.outdated.is_empty()) {
            return Ok(manifest);
        }
        let entries = self.entries(&manifest).await?;
        if !entries.iter().any(|(_, file)| change.takes_away(file)) {
            return Ok(manifest);
        }
        let mut writer = self.writer(manifest.partition_spec_id, manifest.content)?;
        self.take_over(&mut writer, &manifest, entries, change, missing)?;
        writer.write_manifest_file().await
    }

    /// Takes over what stays of a manifest, and marks as deleted what goes.
    fn take_over(
        &mut self,
        writer: &mut ManifestWriter,
        manifest: &ManifestFile,
        entries: Vec<(ManifestEntryRef, DataFile)>,
        change: &Change,
        missing: &mut BTreeSet<String>,
    ) -> iceberg::Result<()> {
        for (entry, file) in entries {
            if change.takes_away(&file) {
                missing.remove(file.file_path());
                self.tally.count(&file, manifest.partition_spec_id, false);
                let number = entry.sequence_number().unwrap_or(manifest.sequence_number);
                writer.add_delete_file(file, number, entry.file_sequence_number)?;
            } else {
                keep(writer, &entry, file, manifest)?;
            }
        }
        Ok(())
    }

    /// The live entries of a manifest, each with its file, which knows the number of its first row in format 3: in another manifest it would
    /// not inherit the one that it has (specification, "First Row ID Inheritance").
    async fn entries(&self, manifest: &ManifestFile) -> iceberg::Result<Vec<(ManifestEntryRef, DataFile)>> {
        let (entries, metadata) = manifest.load_manifest(&self.session.io).await?.into_parts();
        let mut next = manifest.first_row_id.filter(|_| manifest.content == ManifestContentType::Data);
        let kind = metadata.partition_spec().partition_type(metadata.schema())?;
        let mut all = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file().clone();
            let file = match &mut next {
                Some(next) if file.first_row_id().is_none() => {
                    let first = *next;
                    *next += file.record_count();
                    with_first_row(file, first, manifest.partition_spec_id, &kind, metadata.schema())?
                }
                _ => file,
            };
            all.push((entry, file));
        }
        Ok(all)
    }

    /// `old`, with small manifests merged where there are many of a kind.
    async fn merged(&self, old: Vec<ManifestFile>) -> iceberg::Result<Vec<ManifestFile>> {
        let mut small: BTreeMap<(bool, i32), Vec<ManifestFile>> = BTreeMap::new();
        let mut all = Vec::new();
        for manifest in old {
            // One that this commit has just rewritten tells of what it removes.
            if manifest.manifest_length < SMALL_MANIFEST_BYTES && manifest.added_snapshot_id != self.id {
                let kind = (manifest.content == ManifestContentType::Deletes, manifest.partition_spec_id);
                small.entry(kind).or_default().push(manifest);
            } else {
                all.push(manifest);
            }
        }
        for ((_, spec_id), group) in small {
            if group.len() < MERGE_AT {
                all.extend(group);
                continue;
            }
            let mut writer = self.writer(spec_id, group[0].content)?;
            for manifest in &group {
                for (entry, file) in self.entries(manifest).await? {
                    keep(&mut writer, &entry, file, manifest)?;
                }
            }
            all.push(writer.write_manifest_file().await?);
        }
        Ok(all)
    }

    async fn snapshot(self, change: &Change, manifests: Vec<ManifestFile>) -> iceberg::Result<(i64, Vec<TableUpdate>)> {
        let Work { session, table, id, tally } = self;
        let (number, parent) = (table.next_sequence_number(), table.current_snapshot());
        let parent_id = parent.map(|parent| parent.snapshot_id());
        let path = format!("{}/metadata/snap-{id}-{}.avro", table.location(), names::fresh(session));
        let output = session.io.new_output(&path)?.writer().await?;
        let first_row = table.next_row_id();
        let mut list = match table.format_version() {
            FormatVersion::V3 => ManifestListWriter::v3(output, id, parent_id, number, Some(first_row)),
            _ => ManifestListWriter::v2(output, id, parent_id, number),
        };
        list.add_manifests(manifests.into_iter())?;
        let next_row = list.next_row_id();
        list.close().await?;

        let mut summary = tally.summary(parent.map(|parent| &parent.summary().additional_properties));
        summary.extend(change.summary.clone());
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(parent_id)
            .with_sequence_number(number)
            // A table's log of snapshots never goes back in time, whatever this machine's clock says.
            .with_timestamp_ms(session.now_ms().max(table.last_updated_ms()))
            .with_manifest_list(path)
            .with_summary(Summary { operation: change.operation.clone(), additional_properties: summary })
            .with_schema_id(table.current_schema_id());
        let snapshot = match next_row {
            Some(next) => snapshot.with_row_range(first_row, next - first_row).build(),
            None => snapshot.build(),
        };
        let reference = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
        let current = TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference };
        Ok((id, vec![TableUpdate::AddSnapshot { snapshot }, current]))
    }

    fn writer(&self, spec_id: i32, content: ManifestContentType) -> iceberg::Result<ManifestWriter> {
        let (session, table) = (self.session, self.table);
        let spec = table.partition_spec_by_id(spec_id).ok_or_else(|| {
            let text = format!("the table has no partition spec {spec_id}");
            iceberg::Error::new(iceberg::ErrorKind::DataInvalid, text)
        })?;
        let output =
            session.io.new_output(format!("{}/metadata/{}-m0.avro", table.location(), names::fresh(session)))?;
        let schema = table.current_schema().clone();
        let builder = ManifestWriterBuilder::new(output, Some(self.id), schema, spec.as_ref().clone());
        Ok(match (table.format_version(), content) {
            (FormatVersion::V3, ManifestContentType::Data) => builder.build_v3_data(),
            (FormatVersion::V3, ManifestContentType::Deletes) => builder.build_v3_deletes(),
            (_, ManifestContentType::Data) => builder.build_v2_data(),
            (_, ManifestContentType::Deletes) => builder.build_v2_deletes(),
        })
    }
}

/// Takes an entry over unchanged.
fn keep(
    writer: &mut ManifestWriter,
    entry: &ManifestEntryRef,
    file: DataFile,
    from: &ManifestFile,
) -> iceberg::Result<()> {
    let added_by = entry.snapshot_id().unwrap_or(from.added_snapshot_id);
    let number = entry.sequence_number().unwrap_or(from.sequence_number);
    writer.add_existing_file(file, added_by, number, entry.file_sequence_number)
}

/// A file that says itself which number its first row has. The crate has no way to set that but through its JSON.
fn with_first_row(
    file: DataFile,
    first: u64,
    spec_id: i32,
    kind: &StructType,
    schema: &Schema,
) -> iceberg::Result<DataFile> {
    let unmade = |e: serde_json::Error| iceberg::Error::new(iceberg::ErrorKind::Unexpected, e.to_string());
    let written = serialize_data_file_to_json(file, kind, FormatVersion::V3)?;
    let mut fields: serde_json::Value = serde_json::from_str(&written).map_err(unmade)?;
    fields["first_row_id"] = first.into();
    deserialize_data_file_from_json(&fields.to_string(), spec_id, kind, schema)
}
