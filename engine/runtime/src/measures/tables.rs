//! What is known of each table that the job writes, and whether its catalog and storage answer.
//!
//! Noted once a commit or attempt. The rows of small tables are noted by the writers as of each checkpoint, once someone watches, and shown
//! when that checkpoint's commit is known: what is seen here is what a reader of the table sees.

use super::lock;
use dataflow_core::{Epoch, Micros, Row, TableState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A table is small, and its rows are shown, while a worker has no more of them than this.
pub const SHOWN_ROWS_MAX: usize = 64;
/// Checkpoints whose rows wait for their commit: more than may have intents.
const WAITING_MAX: usize = 16;

/// A table since the start of the process.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TableMeasure {
    /// Its sink.
    pub sink: String,
    /// The newest epoch that was committed.
    pub epoch: Epoch,
    /// Rows after that; `None` where the sink does not know.
    pub rows: Option<u64>,
    /// Its snapshot, as text: more digits than a number of JSON has.
    pub snapshot: Option<String>,
    /// Commits.
    pub commits: u64,
    /// Rows that they added, and the last of them.
    pub added: u64,
    /// As `added`, of the last commit.
    pub added_last: u64,
    /// Rows that they took away.
    pub deleted: u64,
    /// As `deleted`, of the last commit.
    pub deleted_last: u64,
    /// Microseconds that the last commit took.
    pub took_us: u64,
}

/// A sink of tables.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TableSinkMeasure {
    /// Checkpoint epochs with files that are not committed.
    pub intents: u64,
    /// Errors after which a write or a commit was tried again.
    pub retries: u64,
    /// What is being tried again, with its error, since when.
    pub retrying: BTreeMap<String, Retrying>,
}

/// Something that failed and is tried again.
#[derive(Clone, Debug, Serialize)]
pub struct Retrying {
    /// The error of the last attempt.
    pub error: String,
    /// When the first attempt failed.
    pub since: Micros,
}

/// Rows with how often each is there; `None` for too many.
pub(crate) type SmallTable = Option<BTreeMap<Row, isize>>;

/// Written by writers and committers of tables.
#[derive(Default)]
pub struct Tables {
    is_watched: AtomicBool,
    tables: Mutex<BTreeMap<String, TableMeasure>>,
    sinks: Mutex<BTreeMap<String, TableSinkMeasure>>,
    /// By table.
    small: Mutex<BTreeMap<String, Small>>,
}

/// The rows of a table as of the last checkpoints.
#[derive(Default)]
struct Small {
    committed: Epoch,
    by_worker: BTreeMap<usize, BTreeMap<Epoch, SmallTable>>,
}

impl Tables {
    /// From now on the rows of small tables are kept.
    pub fn watch(&self) {
        self.is_watched.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// A table was committed through `epoch`.
    pub(crate) fn committed(&self, sink: &str, table: &str, epoch: Epoch, state: Option<TableState>, took: Duration) {
        let mut tables = lock(&self.tables);
        let measure = tables.entry(table.to_owned()).or_default();
        let TableState { snapshot, rows, added, deleted } = state.unwrap_or_default();
        sink.clone_into(&mut measure.sink);
        measure.epoch = epoch;
        measure.rows = rows;
        measure.snapshot = snapshot.map(|id| id.to_string());
        measure.commits += 1;
        (measure.added_last, measure.deleted_last) = (added, deleted);
        measure.added += added;
        measure.deleted += deleted;
        measure.took_us = took.as_micros() as u64;
    }

    /// So many checkpoint epochs of a sink have intents that are not committed.
    pub(crate) fn waiting(&self, sink: &str, intents: usize) {
        lock(&self.sinks).entry(sink.to_owned()).or_default().intents = intents as u64;
    }

    /// `what` of a sink failed and is tried again.
    pub(crate) fn failed(&self, sink: &str, what: &str, error: &dataflow_core::Error, now: Micros) {
        let mut sinks = lock(&self.sinks);
        let measure = sinks.entry(sink.to_owned()).or_default();
        measure.retries += 1;
        let first = Retrying { error: String::new(), since: now };
        measure.retrying.entry(what.to_owned()).or_insert(first).error = error.to_string();
    }

    /// `what` of a sink has succeeded.
    pub(crate) fn succeeded(&self, sink: &str, what: &str) {
        if let Some(measure) = lock(&self.sinks).get_mut(sink) {
            measure.retrying.remove(what);
        }
    }

    /// The rows that a worker has of a table as of a checkpoint.
    pub(crate) fn cut(&self, table: &str, worker: usize, epoch: Epoch, rows: SmallTable) {
        let mut small = lock(&self.small);
        let of_worker = small.entry(table.to_owned()).or_default().by_worker.entry(worker).or_default();
        of_worker.insert(epoch, rows);
        if of_worker.len() > WAITING_MAX {
            of_worker.pop_first();
        }
    }

    /// Tables hold what they had at checkpoint epoch `epoch`. What they had before is not shown again.
    pub(crate) fn visible(&self, tables: impl Iterator<Item = String>, epoch: Epoch) {
        let mut small = lock(&self.small);
        for table in tables {
            let Some(table) = small.get_mut(&table) else { continue };
            table.committed = epoch;
            for of_worker in table.by_worker.values_mut() {
                if let Some(newest) = of_worker.range(..=epoch).next_back().map(|(epoch, _)| *epoch) {
                    *of_worker = of_worker.split_off(&newest);
                }
            }
        }
    }

    /// The committed rows of each small table, sorted.
    pub fn rows(&self) -> BTreeMap<String, Vec<Row>> {
        let mut found = BTreeMap::new();
        for (table, Small { committed, by_worker }) in lock(&self.small).iter().filter(|(_, small)| small.committed > 0)
        {
            let of_workers: Option<Vec<&BTreeMap<Row, isize>>> =
                by_worker.values().map(|cuts| cuts.range(..=*committed).next_back()?.1.as_ref()).collect();
            let Some(of_workers) = of_workers else { continue };
            let counted = of_workers.into_iter().flatten();
            let copies = counted.flat_map(|(row, count)| std::iter::repeat_n(row, count.unsigned_abs()));
            let mut rows: Vec<Row> = copies.take(SHOWN_ROWS_MAX + 1).cloned().collect();
            rows.sort_unstable();
            if rows.len() <= SHOWN_ROWS_MAX {
                found.insert(table.clone(), rows);
            }
        }
        found
    }

    /// Each table.
    pub fn snapshot(&self) -> BTreeMap<String, TableMeasure> {
        lock(&self.tables).clone()
    }

    /// Each sink.
    pub fn sinks(&self) -> BTreeMap<String, TableSinkMeasure> {
        lock(&self.sinks).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::{Datum, Error};

    fn row(n: i32) -> Row {
        [Datum::Int(n)].into_iter().collect()
    }

    fn rows(of: impl IntoIterator<Item = i32>) -> SmallTable {
        Some(of.into_iter().map(|n| (row(n), 1)).collect())
    }

    #[test]
    fn rows_are_shown_once_their_commit_is_known() {
        let tables = Tables::default();
        let shown = |tables: &Tables| tables.rows().remove("t").map(|rows| rows.len());
        let visible = |epoch| tables.visible(["t".to_owned()].into_iter(), epoch);
        tables.cut("t", 0, 10, rows([1, 2]));
        tables.cut("t", 1, 10, rows([3]));
        assert_eq!(shown(&tables), None, "nothing is committed");
        visible(10);
        tables.cut("t", 0, 20, rows([2]));
        tables.cut("t", 1, 20, rows([]));
        assert_eq!(tables.rows()["t"], [row(1), row(2), row(3)]);
        visible(20);
        assert_eq!(tables.rows()["t"], [row(2)]);
        tables.cut("t", 1, 30, None);
        visible(30);
        assert_eq!(shown(&tables), None, "too many on one worker");
        tables.cut("t", 1, 40, rows(0..SHOWN_ROWS_MAX as i32));
        visible(40);
        assert_eq!(shown(&tables), None, "too many together");
    }

    #[test]
    fn what_is_tried_again_is_said_until_it_succeeds() {
        let tables = Tables::default();
        tables.failed("lake", "commit", &Error::outside("reach the catalog"), Micros(1));
        tables.failed("lake", "commit", &Error::outside("reach the catalog again"), Micros(2));
        let sink = tables.sinks().remove("lake").unwrap();
        assert_eq!((sink.retries, sink.retrying["commit"].since), (2, Micros(1)));
        assert_eq!(sink.retrying["commit"].error, "reach the catalog again");
        tables.succeeded("lake", "commit");
        let sink = tables.sinks().remove("lake").unwrap();
        assert!(sink.retries == 2 && sink.retrying.is_empty());
    }

    #[test]
    fn commits_add_up() {
        let tables = Tables::default();
        let state = |rows, added, deleted| Some(TableState { snapshot: Some(7), rows: Some(rows), added, deleted });
        tables.committed("lake", "t", 5, state(3, 3, 0), Duration::from_millis(2));
        tables.committed("lake", "t", 9, state(4, 2, 1), Duration::from_millis(3));
        let table = tables.snapshot().remove("t").unwrap();
        assert_eq!((table.epoch, table.rows, table.commits, table.took_us), (9, Some(4), 2, 3_000));
        assert_eq!((table.added, table.added_last, table.deleted, table.deleted_last), (5, 2, 1, 1));
    }
}
