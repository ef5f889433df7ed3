//! What a sink of tables implements: files are written first, an intent to commit them is kept with the checkpoint, and only then they
//! become visible as one snapshot of each table, with the marker in it (DESIGN section 6, Iceberg).
//!
//! ```text
//!  changes up to c ─► TableWriter::write (files, on every worker) ─► intent in the checkpoint of c ─► TableCommitter::commit
//! ```
//!
//! Why this order: a restart from c never sees the changes before c again, so what is not visible by then must be in the checkpoint.

use crate::{Epoch, Marker, Result, Row, SinkIdentity, TableSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a row of a table is: a data file, and the row's rank in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowLocation {
    /// The file, as the table names it.
    pub file: Arc<str>,
    /// The row's rank, from 0.
    pub position: u64,
}

/// What becomes of one table between two commits, as one worker has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableChanges {
    /// Where rows are that are there no more, in order.
    pub deleted: Vec<RowLocation>,
    /// Rows that are new, in the order in which they are to be written.
    pub added: Vec<Row>,
}

/// What was written for [`TableChanges`]. Nothing of it is visible yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFiles {
    /// The durable files, in the sink's own words, for [`TableCommitter::commit`].
    pub intent: Vec<u8>,
    /// Where each added row is.
    pub added: Vec<RowLocation>,
}

/// One table's snapshot to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableCommit {
    /// The table.
    pub table: String,
    /// The epoch through which it is current afterwards, and whose output that is.
    pub marker: Marker,
    /// The epoch of the commit of this table before, whose rows the deletes speak of; 0 when there is none.
    pub after: Epoch,
    /// The intents of all workers.
    pub intents: Vec<Vec<u8>>,
}

/// The tables of a job in one catalog.
pub trait TableSink: Send + Sync {
    /// The sink's name in messages and manifests.
    fn name(&self) -> &str;

    /// The tables that it takes.
    fn tables(&self) -> Vec<String>;

    /// The markers of the tables that hold output of this job. Changes nothing: the start check comes after it.
    ///
    /// # Errors
    /// When the catalog can not be read, or a marker is damaged.
    fn open(&self, identity: &SinkIdentity) -> Result<BTreeMap<String, Marker>>;

    /// The writer of one worker, for tables of these shapes. Cheap: tables are made or brought to their shapes at the first write.
    fn writer(&self, worker: usize, schemas: &BTreeMap<String, TableSchema>) -> Box<dyn TableWriter>;

    /// The committer. Cheap as well.
    fn committer(&self, schemas: &BTreeMap<String, TableSchema>) -> Box<dyn TableCommitter>;
}

/// Writes files. Called from a task of its own and may block.
pub trait TableWriter: Send {
    /// Told first: what the restored checkpoint has of `table` and may not be committed. It is committed or will be.
    ///
    /// # Errors
    /// When the intent can not be read, or the table not be opened.
    fn restored(&mut self, table: &str, intent: &[u8]) -> Result<()>;

    /// Writes the changes of `table`; on return the files are durable.
    ///
    /// # Errors
    /// When the table can not be brought to its shape, or the files not be written.
    fn write(&mut self, table: &str, changes: &TableChanges) -> Result<TableFiles>;

    /// Calls `f` with the key of every row of `table` as it is visible now, and with its place. Returns the marker of that state.
    ///
    /// # Errors
    /// When the table can not be read, or what `f` returns.
    fn scan(&mut self, table: &str, f: &mut dyn FnMut(Row, RowLocation) -> Result<()>) -> Result<Option<Marker>>;
}

/// Makes files visible. Called from a task of its own and may block.
pub trait TableCommitter: Send {
    /// Makes one snapshot of the table. When one with this marker is there already, it is left as it is.
    ///
    /// # Errors
    /// After an unknown outcome the table is read again, and nothing is repeated blindly (invariant 5). An error when the table is not as
    /// the commit before left it: somebody else has written to it, or put it back.
    fn commit(&mut self, commit: &TableCommit) -> Result<()>;
}
