//! Reads a table anew on a start, where the restored index does not tell what is in it.
//!
//! A table that is *ahead* of the restored checkpoint holds what its marker says: its keys are read, and the index stands. In a table that
//! *others* have changed any row may be there or not. Its rows are read whole, as rows that go; the view's rows come again at the restored
//! epoch, and what does not net to nothing is written at the first checkpoint. So the table is what its view is once more, whatever was
//! done to it.

use super::changes::{INDEX_BATCH, forget, visit};
use super::index::{IndexEntry, index_key, index_prefix};
use super::{TableConnection, TableMode};
use crate::job::Stateful;
use dataflow_core::{
    Epoch, Error, Marker, OnForeignCommit, Result, Row, RowLocation, ScanColumns, TableSchema, TableWriter,
};

/// What the rows of a table are on one worker: which it owns, by the keys of its index.
pub(super) struct Reading<'a> {
    pub(super) index: &'a mut Stateful<IndexEntry>,
    pub(super) writer: &'a mut dyn TableWriter,
    pub(super) connection: &'a TableConnection,
    pub(super) owns: &'a dyn Fn(&[u8]) -> bool,
    /// Every worker reads; this one says so.
    pub(super) tells: bool,
}

/// A table that others have changed, before it is written.
pub(super) struct Mending {
    /// The epoch that the table has: it is written at the first checkpoint after that.
    pub(super) after: Epoch,
    /// Rows of keys that have one already.
    pub(super) surplus: Vec<RowLocation>,
}

impl Mending {
    /// Whether the table is written with what is written for the checkpoint `due`: the view's rows as of the table's epoch are netted then.
    pub(super) fn is_due(&self, due: Option<Epoch>) -> bool {
        due.is_some_and(|due| due > self.after)
    }
}

impl Reading<'_> {
    /// Makes the index of a table anew that is ahead of it.
    pub(super) fn keys(self, table: &str) -> Result<()> {
        if self.tells {
            tracing::warn!(table, "the table is ahead of the restored checkpoint: its keys are read anew");
        }
        self.read(table, ScanColumns::Key, |key| index_key(table, key), |places, _, _, location| places.push(location))
    }

    /// Makes the index of a table anew that others have changed, and hands over its rows, each of which goes unless its view has it.
    pub(super) fn rows(self, table: &str, schema: &TableSchema, mut goes: impl FnMut(Vec<u8>, Row)) -> Result<Mending> {
        if self.tells {
            tracing::warn!(
                table,
                "others have changed the table: its rows are read anew, and become those of its view"
            );
        }
        let (after, mut surplus) = (self.connection.restored(table).marker_epoch(), Vec::new());
        let key_of = |row: &Row| index_key(table, &schema.key_of(row));
        self.read(table, ScanColumns::All, key_of, |places, key, row, location| {
            if schema.key.is_empty() || places.is_empty() {
                places.push(location);
                goes(key, row);
            } else {
                surplus.push(location);
            }
        })?;
        Ok(Mending { after, surplus })
    }

    /// Reads every row of the table, and has `put` place those that this worker owns.
    fn read(
        self,
        table: &str,
        columns: ScanColumns,
        key_of: impl Fn(&Row) -> Vec<u8>,
        mut put: impl FnMut(&mut Vec<RowLocation>, Vec<u8>, Row, RowLocation),
    ) -> Result<()> {
        let Reading { index, writer, connection, owns, .. } = self;
        forget_table(index, table)?;
        let mut take = |batch: Vec<(Vec<u8>, (Row, RowLocation))>| {
            visit(index, batch, |table, slot, key, (row, location)| {
                put(&mut table.get_mut(slot).0, key, row, location);
                Ok(())
            })
        };
        let mut batch = Vec::new();
        let found = writer.scan(table, columns, &mut |row, location| {
            let key = key_of(&row);
            if owns(&key) {
                batch.push((key, (row, location)));
            }
            if batch.len() >= INDEX_BATCH { take(std::mem::take(&mut batch)) } else { Ok(()) }
        })?;
        take(batch)?;
        is_as_it_was(table, connection, found)
    }
}

/// Takes all that the index has of a table out of it.
fn forget_table(index: &mut Stateful<IndexEntry>, table: &str) -> Result<()> {
    let prefix = index_prefix(table);
    let mut keys = Vec::new();
    index.table.scan(&mut |key, _| {
        keys.extend(key.starts_with(&prefix).then(|| key.to_vec()));
        Ok(())
    })?;
    forget(index, keys)
}

/// Nobody may have written to the table since the start looked at it.
fn is_as_it_was(table: &str, connection: &TableConnection, found: Option<Marker>) -> Result<()> {
    let expected = connection.restored(table).marker;
    if found.map(|marker| (marker.epoch, marker.chain)) == expected.map(|marker| (marker.epoch, marker.chain)) {
        return Ok(());
    }
    let what = format!("reading table '{table}' anew: its marker changed from {expected:?} to {found:?}");
    Err(Error::doubt(what).hint("another process writes to it: stop that one and start again"))
}

/// Whether a table that others have changed may be made what its view is.
pub(super) fn may_be_mended(connection: &TableConnection, table: &str, mode: TableMode) -> Result<()> {
    let doubt =
        |what: &str| Error::doubt(format!("starting the job: others have changed rows of table '{table}'{what}"));
    match (connection.sink.on_foreign_commit(), mode) {
        (OnForeignCommit::Stop, _) => Err(doubt("").hint(
            "roll it back to this job's snapshot, or let it be made what its view is: on_foreign_commit = \"rebuild\"",
        )),
        (OnForeignCommit::Rebuild, TableMode::History) => {
            Err(doubt(", and those of days that are over stand nowhere else")
                .hint("roll it back to this job's snapshot"))
        }
        (OnForeignCommit::Rebuild, _) => Ok(()),
    }
}
