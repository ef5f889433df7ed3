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
    DataContentType, DataFile, MAIN_BRANCH, ManifestContentType, ManifestEntryRef, ManifestFile, ManifestList,
    ManifestListWriter, ManifestWriter, ManifestWriterBuilder, Operation, Snapshot, SnapshotReference,
    SnapshotRetention, Summary, TableMetadata,
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
        let mut all = Vec::new();
        let mut groups: BTreeMap<(bool, i32), Vec<&DataFile>> = BTreeMap::new();
        for (spec_id, file) in &change.added {
            groups.entry((file.content_type() != DataContentType::Data, *spec_id)).or_default().push(file);
        }
        for ((is_deletes, spec_id), files) in groups {
            let content = if is_deletes { ManifestContentType::Deletes } else { ManifestContentType::Data };
            let mut writer = self.writer(spec_id, content)?;
            for file in files {
                self.tally.count(file, spec_id, true);
                writer.add_file(file.clone(), INHERITED)?;
            }
            all.push(writer.write_manifest_file().await?);
        }
        let parent = self.table.current_snapshot();
        let mut old = Vec::new();
        for manifest in manifests(self.session, self.table, parent.map(AsRef::as_ref)).await? {
            if manifest.has_added_files() || manifest.has_existing_files() {
                old.push(self.without(manifest, &change.removed, missing).await?);
            }
        }
        all.extend(self.merged(old).await?);
        Ok(all)
    }

    /// The manifest itself if it holds none of `removed`, else a copy that marks those as deleted.
    async fn without(
        &mut self,
        manifest: ManifestFile,
        removed: &BTreeSet<String>,
        missing: &mut BTreeSet<String>,
    ) -> iceberg::Result<ManifestFile> {
        if removed.is_empty() {
            return Ok(manifest);
        }
        let entries = manifest.load_manifest(&self.session.io).await?.into_parts().0;
        let goes = |entry: &ManifestEntryRef| {
            let referenced = speaks_of(entry.data_file());
            removed.contains(entry.file_path()) || referenced.is_some_and(|file| removed.contains(&file))
        };
        if !entries.iter().any(|entry| entry.is_alive() && goes(entry)) {
            return Ok(manifest);
        }
        let mut writer = self.writer(manifest.partition_spec_id, manifest.content)?;
        for entry in entries.iter().filter(|entry| entry.is_alive()) {
            if goes(entry) {
                missing.remove(entry.file_path());
                self.tally.count(entry.data_file(), manifest.partition_spec_id, false);
                let number = entry.sequence_number().unwrap_or(manifest.sequence_number);
                writer.add_delete_file(entry.data_file().clone(), number, entry.file_sequence_number)?;
            } else {
                keep(&mut writer, entry, &manifest)?;
            }
        }
        writer.write_manifest_file().await
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
                for entry in manifest.load_manifest(&self.session.io).await?.entries() {
                    if entry.is_alive() {
                        keep(&mut writer, entry, manifest)?;
                    }
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
        let mut list = ManifestListWriter::v2(output, id, parent_id, number);
        list.add_manifests(manifests.into_iter())?;
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
            .with_schema_id(table.current_schema_id())
            .build();
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
        Ok(match content {
            ManifestContentType::Data => builder.build_v2_data(),
            ManifestContentType::Deletes => builder.build_v2_deletes(),
        })
    }
}

/// Takes an entry over unchanged.
fn keep(writer: &mut ManifestWriter, entry: &ManifestEntryRef, from: &ManifestFile) -> iceberg::Result<()> {
    let added_by = entry.snapshot_id().unwrap_or(from.added_snapshot_id);
    let number = entry.sequence_number().unwrap_or(from.sequence_number);
    writer.add_existing_file(entry.data_file().clone(), added_by, number, entry.file_sequence_number)
}
