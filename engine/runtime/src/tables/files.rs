//! The task beside a writer: writes its files and reads the keys of rewritten ones. Both block, and a worker does not.
//!
//! One request at a time. What may succeed later is tried again here: nothing names a file of a failed attempt, and a key that was not
//! handed over is read again.

use super::TableConnection;
use super::index::index_key;
use super::rewrites::Round;
use crate::link::{InBackground, Link};
use crate::plan::Plan;
use dataflow_core::{
    Error, Result, Row, RowLocation, Shard, TableChanges, TableFiles, TableRewrite, TableSchema, TableWriter, TaskState,
};
use std::sync::Arc;
use std::time::Duration;

/// Pause before something is tried again after an error that may pass.
const PAUSE: Duration = Duration::from_secs(1);
/// Rows of a rewrite that are handed over at a time.
const MOVED_BATCH: usize = 4_096;

/// What is asked of the task.
#[derive(Clone)]
pub(super) enum Request {
    /// Write the changes of these tables, by rank.
    Write(Vec<(u16, TableChanges)>),
    /// Read the next rows of this rewrite of a round.
    ReadMoved(Round, usize),
}

/// What comes back.
pub(super) enum Reply {
    /// What was written, in the order of the request.
    Written(Vec<TableFiles>),
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
        knows_restored: false,
        reading: None,
        waiting: None,
    };
    Link::spawn(&InBackground(&*plan.environment.spawner), &task, 1, move |requests: Vec<Request>, replies| {
        files.waiting = files.waiting.take().or_else(|| requests.into_iter().next());
        let Some(request) = files.waiting.clone() else { return TaskState::Waiting };
        match files.serve(&request) {
            Err(error) if error.transient => {
                tracing::warn!("{error}; it is tried again");
                control.measures.tables.failed(&sink, &what, &error, clock.wall());
                TaskState::Sleeping(PAUSE)
            }
            outcome => {
                files.waiting = None;
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
    /// Whether the writer was told of the intents in the restored checkpoint, those of all workers.
    knows_restored: bool,
    reading: Option<Reading>,
    waiting: Option<Request>,
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
    fn serve(&mut self, request: &Request) -> Result<Reply> {
        match request {
            Request::Write(tables) => self.write(tables).map(Reply::Written),
            Request::ReadMoved(round, number) => {
                let mut reading = self.reading.take().unwrap_or_else(|| Reading::of((round.clone(), *number)));
                let read = self.read(&mut reading);
                if !matches!(read, Ok((_, true))) {
                    self.reading = Some(reading);
                }
                read.map(|(rows, is_last)| Reply::Moved { rows, is_last })
            }
        }
    }

    fn write(&mut self, request: &[(u16, TableChanges)]) -> Result<Vec<TableFiles>> {
        if !self.knows_restored {
            for (table, intent) in self.connection.restored_intents() {
                self.writer.restored(&table, &intent)?;
            }
            self.knows_restored = true;
        }
        let changes: Vec<(&str, &TableChanges)> =
            request.iter().map(|(table, changes)| (self.tables[usize::from(*table)].as_str(), changes)).collect();
        self.writer.write(&changes)
    }

    /// The next rows of this worker, and whether they are the last.
    fn read(&mut self, reading: &mut Reading) -> Result<(Vec<Moved>, bool)> {
        let (mut run, mut row) = reading.at;
        let mut keys = reading.keys.take();
        let mut rows = Vec::new();
        let (round, number) = &reading.rewrite;
        let TableRewrite { table, moved, .. } = &round[*number];
        while let Some(moved_rows) = moved.get(run) {
            if rows.len() >= MOVED_BATCH {
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
