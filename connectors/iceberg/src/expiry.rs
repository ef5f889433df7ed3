//! Old snapshots go, and then the files that no other one names.
//!
//! ```text
//!  snapshots ─► which may go (pure) ─► one commit that drops them ─► known to be in? ─► files that no kept snapshot names
//! ```
//! What is kept: the newest ones, young ones, those that checkpoints may bring back, those that `dataflow.epochs` names in its last rows,
//! and all that a tag or a branch holds. Where the outcome of the commit is not known, nothing is removed: a later generation finds what is
//! left over ([`crate::orphans`]).

use crate::catalog::{CommitError, TableName};
use crate::history::Ancestry;
use crate::marker;
use crate::reach::Reach;
use crate::session::{REQUESTS_AT_ONCE, outside};
use crate::snapshot::references;
use crate::table::Table;
use crate::{commit, session::Session};
use dataflow_core::{Epoch, Error, Result};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use iceberg::TableUpdate;
use iceberg::spec::{MAIN_BRANCH, Snapshot, SnapshotRetention, TableMetadata};
use std::collections::BTreeSet;

/// What an expiry leaves alone, beside what tags and branches hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest snapshots; the current one always.
    pub newest: usize,
    /// Those made at or after this time, in milliseconds since 1970.
    pub since_ms: i64,
    /// Those that hold epochs from this one on, and the one that was current then: what checkpoints may bring back.
    pub from_epoch: Epoch,
    /// These.
    pub named: BTreeSet<i64>,
}

impl Table {
    /// Lets old snapshots go, and then removes the files that no other one names. Returns how many snapshots went.
    ///
    /// # Errors
    /// When metadata cannot be read, the commit is refused or meets another one, or a file cannot be removed.
    pub fn expire(&self, keep: &Keep) -> Result<usize> {
        self.refresh()?;
        let now = self.metadata();
        let gone = expendable(self.name(), &now, keep)?;
        if gone.is_empty() {
            return Ok(0);
        }
        let session = self.session();
        let (go, stay): (Vec<&Snapshot>, Vec<&Snapshot>) =
            now.snapshots().map(AsRef::as_ref).partition(|snapshot| gone.contains(&snapshot.snapshot_id()));
        let kept = Reach::of(session, &now, stay, &Reach::default())?;
        let lost = Reach::of(session, &now, go, &kept)?;
        // To drop a snapshot is to drop its tags: one that was set meanwhile is looked for as late as can be.
        let had = references(&now)?;
        self.refresh()?;
        if references(&self.metadata())? != had {
            let what = format!("let old snapshots of the table '{}' go: it was tagged meanwhile", self.name());
            return Err(Error::outside(what).retry());
        }
        let updates = vec![TableUpdate::RemoveSnapshots { snapshot_ids: gone.iter().copied().collect() }];
        match self.catalog().commit(self.name(), &commit::requirements(&now), updates) {
            Ok(loaded) => self.put(loaded),
            Err(CommitError::Refused(error)) => return Err(error),
            Err(CommitError::Conflict(text) | CommitError::Unknown(text)) => {
                let what = format!("let old snapshots of the table '{}' go: {text}", self.name());
                return Err(Error::outside(what).retry());
            }
        }
        let removed = remove(session, lost.into_paths().filter(|path| !kept.names(path)))?;
        tracing::info!(table = %self.name(), snapshots = gone.len(), files = removed, "old snapshots are gone");
        Ok(gone.len())
    }
}

/// Removes files that nothing names, each only when those before it have been asked for. Returns how many.
pub(crate) fn remove(session: &Session, paths: impl Iterator<Item = String>) -> Result<usize> {
    let gone = stream::iter(paths).map(async |path| {
        let gone = session.io.delete(&path).await;
        gone.map_err(outside(format!("remove the file '{path}', which no snapshot names")))
    });
    session.wait(gone.buffered(REQUESTS_AT_ONCE).try_fold(0, async |removed, ()| Ok(removed + 1)))
}

/// The snapshots that may go.
fn expendable(name: &TableName, table: &TableMetadata, keep: &Keep) -> Result<BTreeSet<i64>> {
    let Some(current) = table.current_snapshot_id() else { return Ok(BTreeSet::new()) };
    let mut kept: BTreeSet<i64> = keep.named.clone();
    kept.insert(current);
    let main: BTreeSet<i64> = Ancestry::of(table).snapshots.iter().map(|snapshot| snapshot.snapshot_id()).collect();
    for (branch, reference) in &references(table)? {
        kept.insert(reference.snapshot_id);
        // What a branch has beside the table's own line is not ours to let go.
        let mut at = Some(reference.snapshot_id).filter(|_| branch != MAIN_BRANCH);
        let is_branch = matches!(reference.retention, SnapshotRetention::Branch { .. });
        while let Some(snapshot) =
            at.filter(|id| is_branch && !main.contains(id)).and_then(|id| table.snapshot_by_id(id))
        {
            kept.insert(snapshot.snapshot_id());
            at = snapshot.parent_snapshot_id();
        }
    }
    let mut newest_first: Vec<&Snapshot> = table.snapshots().map(AsRef::as_ref).collect();
    newest_first.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.sequence_number()));
    let mut is_before = false;
    let mut gone = BTreeSet::new();
    for (rank, snapshot) in newest_first.into_iter().enumerate() {
        let marker = marker::read(name, &snapshot.summary().additional_properties)?;
        let is_restorable = !is_before;
        is_before |= marker.is_some_and(|marker| marker.epoch <= keep.from_epoch);
        let is_young = snapshot.timestamp_ms() >= keep.since_ms;
        if rank >= keep.newest && !is_young && !is_restorable && !kept.contains(&snapshot.snapshot_id()) {
            gone.insert(snapshot.snapshot_id());
        }
    }
    Ok(gone)
}
