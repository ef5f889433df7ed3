//! A job on a log and a disk in memory: lives that are stopped or killed when the test says so.

use bytes::Bytes;
use dataflow_core::{
    AppendFile, BindingState, Decode, Decoded, Discovered, Error, EventTime, Micros, Poll, Record, Result, Source,
    SourceReader, Storage, TableBinding, Task, TaskState, Waker,
};
use dataflow_runtime::plan::{BINDINGS, TableContent};
use dataflow_runtime::{JobScope, JobSetup, Plan, RuntimeSettings, prepare, threads};
use dataflow_state::backend::BackendKind;
use dataflow_state::binding_log;
use dataflow_state::storage::MemoryStorage;
use dataflow_state::table::TableSettings;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The name of the source.
pub(crate) const SOURCE: &str = "events";
/// How often a life is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Far more than any life here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What outlives the job: its disk, its input.
pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) log: Arc<Log>,
    /// What the next lives are made with.
    pub(crate) fingerprint: &'static str,
    pub(crate) settings: RuntimeSettings,
    pub(crate) table: Option<&'static str>,
}

/// How a life ends.
pub(crate) enum End {
    Stop,
    Kill,
}

impl World {
    pub(crate) fn new(partitions: &[&[i64]]) -> World {
        let log = Log::default();
        for (index, times) in partitions.iter().enumerate() {
            times.iter().for_each(|time| log.push(index, *time, 0));
        }
        // Nothing is checkpointed but by a stop, unless a test says otherwise.
        let settings =
            RuntimeSettings { tick_idle_ms: 20, checkpoint_interval_ms: 600_000, ..RuntimeSettings::default() };
        World { disk: Disk::default(), log: Arc::new(log), fingerprint: "f", settings, table: None }
    }

    pub(crate) fn prepare(&self) -> Result<Arc<Plan>> {
        let tables = self.table.iter().map(|text| TableContent {
            name: "table".to_owned(),
            hash: TableBinding::hash_of(text.as_bytes()),
            bytes: text.as_bytes().into(),
        });
        prepare(JobSetup {
            name: "tested".to_owned(),
            fingerprint: self.fingerprint.to_owned(),
            settings: self.settings.clone(),
            environment: threads::environment(),
            storage: Arc::new(self.disk.clone()),
            live: PathBuf::from("unused by the heap backend"),
            backend: BackendKind::Heap,
            tables: TableSettings::default(),
            workers: 1,
            sources: vec![Arc::new(TestSource(self.log.clone()))],
            sinks: Vec::new(),
            table_sinks: Vec::new(),
            lookups: tables.collect(),
            recorded: None,
        })
    }

    /// A life of a job that only reads, until `until` holds; how it failed, if not by being killed.
    pub(crate) fn live(&self, end: End, until: impl FnMut(&Plan) -> bool + Send + 'static) -> Result<Arc<Plan>> {
        self.live_with(|_| Ok(()), end, until)
    }

    /// The same, with more in its graph.
    pub(crate) fn live_with(
        &self,
        build: impl Fn(&mut JobScope<'_>) -> Result<()> + Send + Sync + 'static,
        end: End,
        until: impl FnMut(&Plan) -> bool + Send + 'static,
    ) -> Result<Arc<Plan>> {
        let plan = self.prepare()?;
        plan.environment.spawner.spawn("end", Box::new(Ending { plan: plan.clone(), end, until }));
        let ran = threads::run(plan.clone(), move |job| {
            job.source::<Event>(SOURCE, Box::new(Plain))?;
            build(job)
        });
        match ran {
            Err(error) if error.to_string() != KILLED => Err(error),
            _ => Ok(plan),
        }
    }

    /// The state of the bindings after each epoch, with the records that the epoch took of each partition.
    pub(crate) fn bound(&self) -> Vec<(BindingState, Vec<u64>, bool)> {
        let mut state = BindingState::default();
        let rows = binding_log::rows(&self.disk, BINDINGS, 1, u64::MAX).unwrap();
        rows.map(Result::unwrap)
            .map(|row| {
                state.apply(&row);
                let records = row.advances.values().map(|advance| advance.records).filter(|n| *n > 0).collect();
                (state.clone(), records, row.checkpoint)
            })
            .collect()
    }
}

const KILLED: &str = "killed by the test";

struct Ending<F> {
    plan: Arc<Plan>,
    end: End,
    until: F,
}

impl<F: FnMut(&Plan) -> bool + Send> Task for Ending<F> {
    fn run(&mut self) -> TaskState {
        let control = &self.plan.control;
        if self.plan.environment.clock.monotonic() > PATIENCE {
            control.fail(Error::us("what the test waits for did not come"));
        } else if !(self.until)(&self.plan) {
            return TaskState::Sleeping(LOOK_AGAIN);
        }
        match self.end {
            End::Stop => control.stop(),
            End::Kill => control.fail(Error::us(KILLED)),
        }
        TaskState::Done
    }
}

/// The input: partitions of (event time, value), and what was asked of the source.
#[derive(Default)]
pub(crate) struct Log {
    partitions: Mutex<Vec<Vec<Bytes>>>,
    calls: Mutex<Vec<String>>,
}

impl Log {
    /// Appends a record that is `longer` bytes longer than its time.
    pub(crate) fn push(&self, partition: usize, time: i64, longer: usize) {
        let mut partitions = self.partitions.lock().unwrap();
        while partitions.len() <= partition {
            partitions.push(Vec::new());
        }
        partitions[partition].push([&time.to_le_bytes()[..], &vec![0; longer]].concat().into());
    }

    /// The calls since the last time.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

struct TestSource(Arc<Log>);

impl Source for TestSource {
    fn name(&self) -> &str {
        SOURCE
    }
    fn open(&self, _: usize, _: usize, _: Waker) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(Reader { log: self.0.clone(), next: Vec::new() }))
    }
}

struct Reader {
    log: Arc<Log>,
    next: Vec<Option<usize>>,
}

impl SourceReader for Reader {
    fn discover(&mut self) -> Result<Vec<Discovered>> {
        let there = self.log.partitions.lock().unwrap().len();
        self.next.resize(there, None);
        let new = self.next.iter().enumerate().filter(|(_, next)| next.is_none());
        Ok(new.map(|(index, _)| Discovered { index: index as u32, start: 0 }).collect())
    }
    fn resume(&mut self) {
        self.log.note("resume".to_owned());
    }
    fn assign(&mut self, index: u32, next: u64) -> Result<()> {
        self.log.note(format!("assign {index} {next}"));
        let there = self.log.partitions.lock().unwrap().len();
        self.next.resize(there, None);
        self.next[index as usize] = Some(next as usize);
        Ok(())
    }
    fn poll(&mut self, index: u32, until: Option<u64>, budget: usize, out: &mut Vec<Record>) -> Result<Poll> {
        let next = self.next[index as usize].as_mut().unwrap();
        let partition = &self.log.partitions.lock().unwrap()[index as usize];
        let end = until.map_or(partition.len(), |until| until as usize);
        let to = end.min(*next + budget);
        let records = (*next..to).map(|at| Record { offset: at as u64, key: None, value: Some(partition[at].clone()) });
        out.extend(records);
        *next = to;
        Ok(if to < end { Poll::More } else { Poll::AtEnd })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event(i64);

impl EventTime for Event {
    fn event_time(&self) -> std::result::Result<Micros, &'static str> {
        Ok(Micros(self.0))
    }
}

struct Plain;

impl Decode<Event> for Plain {
    fn decode(&mut self, record: &Record) -> Decoded<Event> {
        let value = record.value.as_ref().unwrap();
        Decoded::Value(Event(i64::from_le_bytes(value[..8].try_into().unwrap())))
    }
}

/// A disk whose syncs below one folder can be made to wait.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    memory: MemoryStorage,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    shut: Mutex<Option<&'static str>>,
    changed: Condvar,
}

impl Disk {
    /// Syncs of files below `folder` wait from now on; with `None` none does.
    pub(crate) fn stall(&self, folder: Option<&'static str>) {
        *self.gate.shut.lock().unwrap() = folder;
        self.gate.changed.notify_all();
    }

    /// Flips a bit of a file.
    pub(crate) fn rot(&self, path: &str) {
        let mut bytes = self.memory.read(path).unwrap();
        bytes[0] ^= 1;
        self.memory.truncate(path, 0).unwrap();
        self.memory.append(path).unwrap().write(&bytes).unwrap();
    }
}

struct Stalling {
    file: Box<dyn AppendFile>,
    path: String,
    gate: Arc<Gate>,
}

impl AppendFile for Stalling {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write(bytes)
    }
    fn sync(&mut self) -> Result<()> {
        let shut = self.gate.shut.lock().unwrap();
        drop(
            self.gate
                .changed
                .wait_while(shut, |shut| shut.is_some_and(|folder| self.path.starts_with(folder)))
                .unwrap(),
        );
        self.file.sync()
    }
    fn length(&self) -> u64 {
        self.file.length()
    }
}

impl Storage for Disk {
    fn append(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let (file, gate) = (self.memory.append(path)?, self.gate.clone());
        Ok(Box::new(Stalling { file, path: path.to_owned(), gate }))
    }
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.memory.read(path)
    }
    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.memory.read_range(path, offset, length)
    }
    fn length(&self, path: &str) -> Result<Option<u64>> {
        self.memory.length(path)
    }
    fn list(&self, dir: &str) -> Result<Vec<String>> {
        self.memory.list(dir)
    }
    fn create_dir(&self, dir: &str) -> Result<()> {
        self.memory.create_dir(dir)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.memory.rename(from, to)
    }
    fn remove(&self, path: &str) -> Result<()> {
        self.memory.remove(path)
    }
    fn truncate(&self, path: &str, length: u64) -> Result<()> {
        self.memory.truncate(path, length)
    }
    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.memory.sync_dir(dir)
    }
    fn import(&self, local: &Path, path: &str) -> Result<()> {
        self.memory.import(local, path)
    }
    fn local_path(&self, path: &str) -> Option<PathBuf> {
        self.memory.local_path(path)
    }
}
