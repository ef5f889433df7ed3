//! The task beside a writer: sorts its rows, writes its files, and reads the keys of rewritten ones. All of it takes long, and a worker may not.
//!
//! One request at a time. What may succeed later is tried again here: nothing names a file of a failed attempt, and a key that was not
//! handed over is read again.

use super::TableConnection;
use super::changes::Changed;
use super::index::index_key;
use super::rewrites::Round;
use crate::link::{InBackground, Link};
use crate::plan::Plan;
use dataflow_core::{
    Error, Result, Row, RowLocation, Shard, TableChanges, TableRewrite, TableSchema, TableWriter, TaskState,
};
use std::sync::Arc;
use std::time::Duration;

/// Pause before something is tried again after an error that may pass.
const PAUSE: Duration = Duration::from_secs(1);

/// What is asked of the task.
pub(super) enum Request {
    /// Write what changes in these tables, by rank.
    Write(Vec<(u16, Changed)>),
    /// Read the next rows of this rewrite of a round.
    ReadMoved(Round, usize),
}

/// What comes back.
pub(super) enum Reply {
    /// What was written: what the sink says of it by rank of the table, and where the rows are that have come, by their keys in the index; none of a
    /// table without one.
    Written { intents: Vec<(u16, Vec<u8>)>, placed: Vec<(Vec<u8>, RowLocation)> },
    /// Rows of this worker's keys; none is left after the last batch.
    Moved { rows: Vec<Moved>, is_last: bool },
}

/// A row that a rewrite has moved.
pub(super) struct Moved {
    /// Its key in the index.
    pub(super) key: Vec<u8>,
    pub(super) from: RowLocation,
    pub(super) to: RowLocation,
}

/// The operator's end.
pub(super) type FilesLink = Link<Request, Result<Reply>>;

pub(super) fn spawn(
    plan: &Plan,
    connection: &Arc<TableConnection>,
    worker: usize,
    schemas: &[(String, TableSchema)],
    writer: Box<dyn TableWriter>,
) -> FilesLink {
    let tables = schemas.iter().map(|(name, _)| name.clone()).collect();
    let task = format!("files {} {worker}", connection.sink.name());
    let (sink, control, clock) =
        (connection.sink.name().to_owned(), plan.control.clone(), plan.environment.clock.clone());
    let what = format!("files of worker {worker}");
    let mut files = Files {
        connection: connection.clone(),
        tables,
        writer,
        worker,
        workers: plan.workers,
        step_rows: plan.settings.table_step_rows,
        knows_restored: false,
        reading: None,
        waiting: None,
    };
    Link::spawn(&InBackground(&*plan.environment.spawner), &task, 1, move |requests: Vec<Request>, replies| {
        let waiting = files.waiting.take().or_else(|| requests.into_iter().next().map(Waiting::from));
        let Some(mut waiting) = waiting else { return TaskState::Waiting };
        match files.serve(&mut waiting) {
            Err(error) if error.transient => {
                files.waiting = Some(waiting);
                tracing::warn!("{error}; it is tried again");
                control.measures.tables.failed(&sink, &what, &error, clock.wall());
                TaskState::Sleeping(PAUSE)
            }
            outcome => {
                control.measures.tables.succeeded(&sink, &what);
                let state = if outcome.is_ok() { TaskState::Waiting } else { TaskState::Done };
                replies.send(outcome);
                state
            }
        }
    })
}

struct Files {
    connection: Arc<TableConnection>,
    tables: Vec<String>,
    writer: Box<dyn TableWriter>,
    worker: usize,
    workers: usize,
    /// Rows of a rewrite that are handed over at a time: the operator takes them in one step.
    step_rows: usize,
    /// Whether the writer was told of the intents in the restored checkpoint, those of all workers.
    knows_restored: bool,
    waiting: Option<Waiting>,
    reading: Option<Reading>,
}

/// A request, in the form in which it is tried until it is served.
enum Waiting {
    Write(Vec<ToWrite>),
    ReadMoved(Round, usize),
}

/// What changes in a table, in order, with the index keys of the rows that come.
struct ToWrite {
    table: u16,
    changes: TableChanges,
    keys: Vec<Vec<u8>>,
}

impl From<Request> for Waiting {
    fn from(request: Request) -> Waiting {
        match request {
            Request::Write(tables) => Waiting::Write(tables.into_iter().map(ToWrite::from).collect()),
            Request::ReadMoved(round, number) => Waiting::ReadMoved(round, number),
        }
    }
}

impl From<(u16, Changed)> for ToWrite {
    fn from((table, Changed { mut deleted, mut added }): (u16, Changed)) -> ToWrite {
        deleted.sort_unstable();
        // In the order of the table's columns, so that files are clustered by what usually comes first: the key.
        added.sort_unstable();
        let (added, keys) = added.into_iter().unzip();
        ToWrite { table, changes: TableChanges { deleted, added }, keys }
    }
}

/// How far a rewrite is read.
struct Reading {
    rewrite: (Round, usize),
    /// The run of rows, and those of it that are handed over.
    at: (usize, u64),
    /// The keys from there on, once asked for.
    keys: Option<Box<dyn Iterator<Item = Result<Row>> + Send>>,
}

impl Files {
    fn serve(&mut self, waiting: &mut Waiting) -> Result<Reply> {
        match waiting {
            Waiting::Write(tables) => self.write(tables),
            Waiting::ReadMoved(round, number) => {
                let mut reading = self.reading.take().unwrap_or_else(|| Reading::of((round.clone(), *number)));
                let read = self.read(&mut reading);
                if !matches!(read, Ok((_, true))) {
                    self.reading = Some(reading);
                }
                read.map(|(rows, is_last)| Reply::Moved { rows, is_last })
            }
        }
    }

    fn write(&mut self, tables: &mut [ToWrite]) -> Result<Reply> {
        if !self.knows_restored {
            for (table, intent) in self.connection.restored_intents() {
                self.writer.restored(&table, &intent)?;
            }
            self.knows_restored = true;
        }
        let name = |table: &ToWrite| self.tables[usize::from(table.table)].as_str();
        let changes: Vec<(&str, &TableChanges)> = tables.iter().map(|table| (name(table), &table.changes)).collect();
        let written = self.writer.write(&changes)?;
        let (mut intents, mut placed) = (Vec::new(), Vec::new());
        for (ToWrite { table, keys, .. }, files) in tables.iter_mut().zip(written) {
            intents.push((*table, files.intent));
            placed.extend(std::mem::take(keys).into_iter().zip(files.added).filter(|(key, _)| !key.is_empty()));
        }
        Ok(Reply::Written { intents, placed })
    }

    /// The next rows of this worker, and whether they are the last.
    fn read(&mut self, reading: &mut Reading) -> Result<(Vec<Moved>, bool)> {
        let (mut run, mut row) = reading.at;
        let mut keys = reading.keys.take();
        let mut rows = Vec::new();
        let (round, number) = &reading.rewrite;
        let TableRewrite { table, moved, .. } = &round[*number];
        while let Some(moved_rows) = moved.get(run) {
            if rows.len() >= self.step_rows {
                *reading = Reading { rewrite: reading.rewrite.clone(), at: (run, row), keys };
                return Ok((rows, false));
            }
            let (from, to) = (&moved_rows.from, &moved_rows.to);
            if keys.is_none() {
                let mut from_start = self.writer.keys(table, &to.file)?;
                // Where an earlier attempt ended. Runs follow each other without a gap.
                for _ in 0..to.position + row {
                    next(&mut from_start, table, &to.file)?;
                }
                keys = Some(from_start);
            }
            let key = next(keys.as_mut().expect("made just now"), table, &to.file)?;
            let key = index_key(table, &key);
            if Shard::of(&key).worker(self.workers) == self.worker {
                let at = |start: &RowLocation| RowLocation { file: start.file.clone(), position: start.position + row };
                rows.push(Moved { key, from: at(from), to: at(to) });
            }
            row += 1;
            if row == moved_rows.rows {
                (run, row) = (run + 1, 0);
                keys = keys.filter(|_| moved.get(run).is_some_and(|next| next.to.file == to.file));
            }
        }
        Ok((rows, true))
    }
}

impl Reading {
    fn of(rewrite: (Round, usize)) -> Reading {
        Reading { rewrite, at: (0, 0), keys: None }
    }
}

fn next(keys: &mut dyn Iterator<Item = Result<Row>>, table: &str, file: &str) -> Result<Row> {
    keys.next().unwrap_or_else(|| {
        let what = format!("reading the keys of table '{table}': the file '{file}' ends before its last row");
        Err(Error::doubt(what).hint("it is not as it was written: look at the disk, and start again"))
    })
}
