//! What a sink of tables implements: files are written first, an intent to commit them is kept with the checkpoint, and only then they
//! become visible as one snapshot of each table, with the marker in it (DESIGN section 6, Iceberg).
//!
//! ```text
//!  changes up to c ─► TableWriter::write (files, on every worker) ─► intent in the checkpoint of c ─► TableCommitter::commit
//! ```
//!
//! Why this order: a restart from c never sees the changes before c again, so what is not visible by then must be in the checkpoint.
//!
//! Rows also move, when small files are rewritten as larger ones. That is an intent as well, and the writers remap their indexes at one cut:
//!
//! ```text
//!  TableCompactor::rewrite ─► every worker at the cut of c: index remapped, rows dead since then ─► intents of c, and of the rewrite
//! ```

use crate::{Epoch, Error, Marker, Micros, Result, Row, SinkIdentity, TableSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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
    /// The epoch of the commit of this table before, whose rows the deletes speak of; 0 when there is none. That of `marker` itself when the
    /// table has the rows by its marker, and only the rewrite may be missing.
    pub after: Epoch,
    /// Whether its rows may go, so that the places of all of them are kept.
    pub has_index: bool,
    /// The intents of all workers.
    pub intents: Vec<Vec<u8>>,
    /// The intents of a rewrite, of all workers: a snapshot of its own, after that of `intents` and with the same marker. None mostly.
    pub rewrite: Vec<Vec<u8>>,
}

/// Rows that lie one after the other in one file, and then in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedRows {
    /// Where the first one was.
    pub from: RowLocation,
    /// Where it is then.
    pub to: RowLocation,
    /// How many they are.
    pub rows: u64,
}

/// Files of one table that hold what others of it hold, to take their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRewrite {
    /// The table.
    pub table: String,
    /// The new files and those that go, in the sink's own words, for [`TableCommit::rewrite`].
    pub intent: Vec<u8>,
    /// Every row of the new files, in the order of where they are then.
    pub moved: Vec<MovedRows>,
}

/// What is done about a table that is kept with an index, when others have changed rows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnForeignCommit {
    /// The job stops, and does not start until they are taken back.
    #[default]
    Stop,
    /// The job starts anew, reads the table, and makes it what its view is.
    Rebuild,
}

/// A table as a start finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoundTable {
    /// Whose output it has, and how far; `None` without any.
    pub marker: Option<Marker>,
    /// Whether others have changed it since the last commit of this job, as far as its history tells.
    pub is_changed_by_others: bool,
}

/// What is read of a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanColumns {
    /// The key; all columns of a table without one.
    Key,
    /// All columns.
    All,
}

/// What checkpoints that are kept may bring back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restorable {
    /// The epoch of the oldest of them; 0 when none is kept.
    pub oldest: Epoch,
    /// Whether this generation wrote all of them, and there is one: then no intent of an ended generation can come back that is not
    /// committed.
    pub is_of_this_generation: bool,
}

/// What a table holds after a commit, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// Its snapshot.
    pub snapshot: Option<i64>,
    /// Its rows, where that is known.
    pub rows: Option<u64>,
    /// Rows that the commit added.
    pub added: u64,
    /// Rows that the commit took away.
    pub deleted: u64,
}

/// The tables of a job in one catalog.
pub trait TableSink: Send + Sync {
    /// The sink's name in messages and manifests.
    fn name(&self) -> &str;

    /// The tables that it takes.
    fn tables(&self) -> Vec<String>;

    /// The tables that are there. Changes nothing: the start check comes after it.
    ///
    /// # Errors
    /// When the catalog can not be read, or a marker is damaged.
    fn open(&self, identity: &SinkIdentity) -> Result<BTreeMap<String, FoundTable>>;

    /// Shuts out what other generations have under way: from now on a table changes by this one's commits alone. Asked for where the
    /// restored checkpoint does not know all that may be under way.
    ///
    /// # Errors
    /// When a newer generation has a table, or the catalog can not be reached.
    fn shut_out_others(&self, identity: &SinkIdentity) -> Result<()>;

    /// What is done about tables that others have changed and that are kept with an index.
    fn on_foreign_commit(&self) -> OnForeignCommit {
        OnForeignCommit::Stop
    }

    /// The writer of one worker, for tables of these shapes. Cheap: tables are made or brought to their shapes at the first write.
    fn writer(&self, worker: usize, schemas: &BTreeMap<String, TableSchema>) -> Box<dyn TableWriter>;

    /// The committer. Cheap as well.
    fn committer(&self, schemas: &BTreeMap<String, TableSchema>) -> Box<dyn TableCommitter>;

    /// What rewrites files; none in a sink whose files stay as they were written.
    fn compactor(&self, _schemas: &BTreeMap<String, TableSchema>) -> Option<Box<dyn TableCompactor>> {
        None
    }
}

/// Writes files. Called from a task of its own and may block.
pub trait TableWriter: Send {
    /// Told first: what the restored checkpoint has of `table` and may not be committed. It is committed or will be.
    ///
    /// # Errors
    /// When the intent can not be read, or the table not be opened.
    fn restored(&mut self, table: &str, intent: &[u8]) -> Result<()>;

    /// Writes the changes of these tables, of several at once where the sink can; on return the files are durable. The answer is in the order
    /// of the tables.
    ///
    /// # Errors
    /// When a table can not be brought to its shape, or the files not be written; what was written of others is of no use then.
    fn write(&mut self, changes: &[(&str, &TableChanges)]) -> Result<Vec<TableFiles>>;

    /// Calls `f` with these columns of every row of `table` as it is visible now, and with its place. Returns the marker of that state.
    ///
    /// # Errors
    /// When the table can not be read, or what `f` returns.
    fn scan(
        &mut self,
        table: &str,
        columns: ScanColumns,
        f: &mut dyn FnMut(Row, RowLocation) -> Result<()>,
    ) -> Result<Option<Marker>>;

    /// The keys of all rows in a data file that a [`TableCompactor`] has written, by position. To be read while other calls are made.
    ///
    /// # Errors
    /// When the file can not be read, and of a sink without a compactor.
    fn keys(&mut self, table: &str, file: &str) -> Result<Box<dyn Iterator<Item = Result<Row>> + Send>> {
        Err(Error::us(format!("read the file '{file}' of table '{table}' in a sink that rewrites none")))
    }
}

/// Writes files anew that are small, or have many dead rows. Called from a task of its own and may block.
pub trait TableCompactor: Send {
    /// Writes some files anew of each table where that is worth it, as its newest snapshot has them; what is done at once is bounded. On
    /// return the new files are durable, and nothing of them is visible. Not called again before all of it is committed.
    ///
    /// # Errors
    /// When files can not be read or written. Nothing is lost then but work.
    fn rewrite(&mut self) -> Result<Vec<TableRewrite>>;
}

/// Makes files visible. Called from a task of its own and may block.
pub trait TableCommitter: Send {
    /// Makes one snapshot of each of these tables, of several at once where the sink can; none is named twice. When one with its marker is
    /// there already, it is left as it is. `made` is told of each that is there on return, by its number, and how long it took; also where
    /// others fail.
    ///
    /// # Errors
    /// After an unknown outcome the table is read again, and nothing is repeated blindly (invariant 5). An error when the table is not as
    /// the commit before left it: somebody else has written to it, or put it back. Of several errors one that lasts is told before one that
    /// may pass.
    fn commit(&mut self, commits: &[TableCommit], made: &mut dyn FnMut(usize, Duration)) -> Result<()>;

    /// Every table is current through the epoch of `marker`, whose clock is `clock`, and not beyond it. Said after the last commit of the
    /// epoch, and once more by a restart that can not tell: a sink that notes such epochs has each once.
    ///
    /// # Errors
    /// As of [`TableCommitter::commit`].
    fn complete(&mut self, _marker: &Marker, _clock: Micros) -> Result<()> {
        Ok(())
    }

    /// A moment without a commit to make, for work that keeps the tables small. It is short, and said often.
    ///
    /// # Errors
    /// When it could not be done. Nothing depends on it: a transient error is told and the job goes on.
    fn maintain(&mut self, _restorable: &Restorable) -> Result<()> {
        Ok(())
    }

    /// What the table holds after its last commit, for people who watch; `None` where that is not known.
    fn state(&mut self, _table: &str) -> Option<TableState> {
        None
    }
}
