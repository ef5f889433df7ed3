//! Somebody else who writes to the job's tables, now and then, while the job runs or starts: sets one back to what it was at an earlier
//! snapshot, or commits one that changes nothing. Each is a snapshot of theirs, with no marker, on top of the newest.

use crate::dice::Dice;
use dataflow_iceberg::{Loaded, TableName};
use iceberg::TableUpdate;
use iceberg::spec::{FormatVersion, MAIN_BRANCH, Operation, Snapshot, SnapshotReference, SnapshotRetention, Summary};
use std::collections::{BTreeMap, BTreeSet};

/// What a summary of theirs says.
const SAYS: &str = "written-by";

/// Percent of the catalog's calls before which they commit.
const PERCENT: u64 = 4;

/// They.
pub(crate) struct Meddler {
    pub(super) dice: Dice,
    /// The tables that they write to.
    pub(super) tables: BTreeSet<TableName>,
    /// So many times still.
    pub(super) times: u64,
}

impl Meddler {
    /// What they commit now, if anything: to which table, and how it changes.
    pub(crate) fn commits(&mut self, tables: &BTreeMap<TableName, Loaded>) -> Option<(TableName, Vec<TableUpdate>)> {
        if self.times == 0 || !self.dice.percent(PERCENT) {
            return None;
        }
        let written = self
            .tables
            .iter()
            .filter(|name| tables.get(*name).is_some_and(|table| table.metadata.current_snapshot().is_some()));
        let written: Vec<&TableName> = written.collect();
        if written.is_empty() {
            return None;
        }
        let name = (*self.dice.pick(&written)).clone();
        self.times -= 1;
        let updates = self.on_top(&tables[&name]);
        Some((name, updates))
    }

    fn on_top(&mut self, table: &Loaded) -> Vec<TableUpdate> {
        let now = &table.metadata;
        let current = now.current_snapshot().expect("chosen because it has one");
        let mut known: Vec<&Snapshot> = now.snapshots().map(AsRef::as_ref).collect();
        known.sort_by_key(|snapshot| snapshot.sequence_number());
        let (operation, like) = if self.dice.percent(25) {
            (Operation::Append, current.as_ref())
        } else {
            (Operation::Overwrite, *self.dice.pick(&known))
        };
        let id = (self.dice.next() >> 1) as i64;
        let mut summary = like.summary().additional_properties.clone();
        summary.retain(|key, _| key.starts_with("total-"));
        summary.insert(SAYS.to_owned(), "somebody else".to_owned());
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(Some(current.snapshot_id()))
            .with_sequence_number(now.next_sequence_number())
            .with_timestamp_ms(now.last_updated_ms())
            .with_manifest_list(like.manifest_list())
            .with_summary(Summary { operation, additional_properties: summary })
            .with_schema_id(now.current_schema_id());
        let snapshot = match now.format_version() {
            FormatVersion::V3 => snapshot.with_row_range(now.next_row_id(), 0).build(),
            _ => snapshot.build(),
        };
        let reference = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
        let current = TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference };
        vec![TableUpdate::AddSnapshot { snapshot }, current]
    }
}

/// Whether a snapshot is theirs.
pub(crate) fn is_theirs(snapshot: &Snapshot) -> bool {
    snapshot.summary().additional_properties.contains_key(SAYS)
}
