//! Tags: a name for the snapshots of all tables at one epoch, so that `FOR VERSION AS OF 'NAME'` reads a consistent set.
//!
//! A tag is no snapshot, and main stays where it is: a commit of the running job that meets one is made again. All tables are looked at
//! before the first is tagged; ended in between, the same call sets what is missing.

use crate::catalog::CommitError;
use crate::snapshot::references;
use crate::{TableName, Warehouse};
use dataflow_core::{Error, Result};
use iceberg::spec::{SnapshotReference, SnapshotRetention, TableMetadata};
use iceberg::{TableRequirement, TableUpdate};
use std::time::Duration;

/// Attempts to set a tag. Each conflict is a commit of the job.
const ATTEMPTS_MAX: u32 = 24;

impl Warehouse {
    /// Whether the tag may be set, or stands there already.
    ///
    /// # Errors
    /// When the table or the snapshot is gone, or the name stands elsewhere.
    pub(crate) fn check_tag(&self, table: &TableName, tag: &str, snapshot: i64) -> Result<bool> {
        let now = self.look(table)?.ok_or_else(|| gone(table, tag))?.metadata;
        stands(table, &now, tag, snapshot)
    }

    /// Sets the tag, unless it stands there already.
    ///
    /// # Errors
    /// As [`Warehouse::check_tag`], and when the catalog cannot be reached.
    pub(crate) fn tag(&self, table: &TableName, tag: &str, snapshot: i64) -> Result<()> {
        let mut because = String::new();
        for _ in 0..ATTEMPTS_MAX {
            let now = self.look(table)?.ok_or_else(|| gone(table, tag))?.metadata;
            if stands(table, &now, tag, snapshot)? {
                return Ok(());
            }
            let reference = SnapshotReference::new(snapshot, SnapshotRetention::Tag { max_ref_age_ms: None });
            let requirements = [
                TableRequirement::UuidMatch { uuid: now.uuid() },
                TableRequirement::RefSnapshotIdMatch { r#ref: tag.to_owned(), snapshot_id: None },
            ];
            match self.change(
                table,
                &requirements,
                vec![TableUpdate::SetSnapshotRef { ref_name: tag.to_owned(), reference }],
            ) {
                // Looked at once more: an expiry may have come between in a catalog that does not check for it.
                Ok(()) => {}
                Err(CommitError::Refused(error)) => return Err(error),
                Err(CommitError::Conflict(text) | CommitError::Unknown(text)) => because = text,
            }
            self.pause(Duration::from_millis(50));
        }
        Err(Error::outside(format!("tag the table '{table}' as '{tag}': {because}")).retry())
    }
}

fn gone(table: &TableName, tag: &str) -> Error {
    Error::user(format!("tag the table '{table}' as '{tag}': there is no such table"))
        .hint("tag a newer epoch, which does not name it")
}

fn stands(table: &TableName, now: &TableMetadata, tag: &str, snapshot: i64) -> Result<bool> {
    let what = format!("tag the snapshot {snapshot} of the table '{table}' as '{tag}'");
    if let Some(has) = references(now)?.get(tag) {
        return match has.retention {
            SnapshotRetention::Tag { .. } if has.snapshot_id == snapshot => Ok(true),
            SnapshotRetention::Tag { .. } => Err(Error::user(format!("{what}: it stands at {}", has.snapshot_id))
                .hint("take another name, or drop that tag first")),
            SnapshotRetention::Branch { .. } => {
                Err(Error::user(format!("{what}: a branch has that name")).hint("take another name"))
            }
        };
    }
    if now.snapshot_by_id(snapshot).is_none() {
        return Err(Error::user(format!("{what}: the snapshot has expired"))
            .hint("tag a newer epoch; 'maintenance' of the sink says for how long snapshots are kept"));
    }
    Ok(false)
}
