//! A rehearsal: the job's graph is built once, over sources and sinks that are only names, before anything outside is touched.
//!
//! So a parameter, a table or a topic that is wrong is found while an older generation of the job still runs and is left alone:
//! [`prepare`](super::prepare) shuts it out. Nothing of the graph runs. State is empty but for a changed program, which may refuse what
//! the old one left (a change of emission does): then the checkpoint is restored into `live`, which the real start wipes.

use super::{BINDINGS, CHECKPOINTS, JobSetup, Plan, StartPoint, TableContent, bound_by};
use crate::checkpoint_writer::Completed;
use crate::committer::SinkConnection;
use crate::control::Control;
use crate::job::JobScope;
use crate::link::Link;
use crate::start::check_program;
use crate::tables::TableConnection;
use dataflow_core::{
    BindingState, Discovered, Environment, EpochOutput, Error, FoundTable, Generation, Lineage, Marker, Micros, Poll,
    Record, Result, Row, RowLocation, ScanColumns, Sink, SinkIdentity, Source, SourceReader, Spawner, Storage,
    TableChanges, TableCommit, TableCommitter, TableFiles, TableSchema, TableSink, TableWriter, Task, TaskState, Waker,
};
use dataflow_state::backend::BackendKind;
use dataflow_state::binding_log;
use dataflow_state::checkpoint::{CheckpointStore, Manifest};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Builds the graph of `setup` and drops it. `data` is the data folder as it is, which is only read; `live` is a scratch folder.
///
/// # Errors
/// What the job's build function refuses, and what of log and checkpoint the settings alone are at odds with.
pub fn rehearse(
    setup: &JobSetup,
    data: &Arc<dyn Storage>,
    live: &Path,
    build: impl Fn(&mut JobScope<'_>) -> Result<()> + Send + Sync + 'static,
) -> Result<()> {
    let names: Vec<String> = setup.sources.iter().map(|s| s.name().to_owned()).collect();
    if let Some(extent) = binding_log::extent(&**data, BINDINGS)?.filter(|e| e.header.sources != names) {
        let (theirs, ours) = (extent.header.sources.join("', '"), names.join("', '"));
        let what = format!(
            "starting job '{}': its state was made from the sources '{theirs}', the profile wires '{ours}'",
            setup.name
        );
        return Err(Error::user(what).hint("wire the same sources, or start over with another data folder"));
    }
    let store = Arc::new(CheckpointStore::existing(data.clone(), CHECKPOINTS)?);
    let newest = newest_readable(&store)?;
    check_bound_by(setup, data, newest.as_ref())?;
    let restored = of_another_program(&store, newest.as_ref(), &setup.fingerprint)?;
    // A graph is the same on every worker, but for the state that each one restores.
    let workers = if restored.is_some() { setup.workers } else { 1 };
    let plan = Arc::new(plan(setup, store, restored, live, workers));
    let refused: Arc<Mutex<Option<Error>>> = Arc::default();
    let first = refused.clone();
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        worker.dataflow::<u64, _, _>(|scope| {
            let built = build(&mut JobScope::new(scope, plan.clone()));
            if let Err(error) = built.and_then(|()| plan.check_operators(scope.index())) {
                first.lock().expect("no holder panics").get_or_insert(error);
            }
        });
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    })
    .map_err(|cause| Error::us(format!("rehearsing the start on {workers} workers: {cause}")))?;
    for result in guards.join() {
        result.map_err(|cause| Error::us(format!("a worker of the rehearsal ended abnormally: {cause}")))?;
    }
    let refused = refused.lock().expect("no holder panics").take();
    refused.map_or(Ok(()), Err)
}

/// The newest checkpoint whose manifest can be read, without reading the files of a state that may be large.
fn newest_readable(store: &CheckpointStore) -> Result<Option<Manifest>> {
    Ok(store.list()?.iter().find_map(|found| store.read(found).ok()))
}

/// Whether the epochs that would be replayed were bound by this very program.
fn check_bound_by(setup: &JobSetup, data: &Arc<dyn Storage>, newest: Option<&Manifest>) -> Result<()> {
    let restored = newest.map_or(0, |manifest| manifest.epoch);
    // A log that does not reach back to the checkpoint is the start check's business.
    let is_there = binding_log::extent(&**data, BINDINGS)?.is_some_and(|extent| extent.base <= restored);
    if is_there && !setup.settings.replay_with_new_code {
        let scan = binding_log::scan(&**data, BINDINGS, restored)?;
        check_program(&setup.fingerprint, &bound_by(&**data, newest)?, restored, scan.last)?;
    }
    Ok(())
}

/// The checkpoint that a start would restore, when it was made by another program or with other parameters. A damaged one is passed
/// over, as the start does.
fn of_another_program(
    store: &CheckpointStore,
    newest: Option<&Manifest>,
    fingerprint: &str,
) -> Result<Option<Manifest>> {
    if newest.is_none_or(|newest| newest.fingerprint == fingerprint) {
        return Ok(None);
    }
    Ok(store.newest_intact()?.0.filter(|manifest| manifest.fingerprint != fingerprint))
}

fn plan(
    setup: &JobSetup,
    store: Arc<CheckpointStore>,
    manifest: Option<Manifest>,
    live: &Path,
    workers: usize,
) -> Plan {
    let control = Control::new();
    let environment = Environment { spawner: Arc::new(Nowhere), ..setup.environment.clone() };
    let sink = |name: &str| {
        let sink = Box::new(Named(name.to_owned()));
        (name.to_owned(), Arc::new(SinkConnection::start(&environment, &control, sink, None, None)))
    };
    let table_sink = |name: &str, tables: Vec<String>| {
        let identity = SinkIdentity {
            job: setup.name.clone(),
            lineage: Lineage(0),
            generation: Generation { number: 0, nonce: 0 },
        };
        let sink = Arc::new(NamedTables { name: name.to_owned(), tables });
        let connection = TableConnection::open(sink, identity, None).expect("a name holds nothing");
        (name.to_owned(), Arc::new(connection))
    };
    let empty = || BindingState { watermark: manifest.as_ref().and_then(|m| m.state.watermark), ..Default::default() };
    Plan {
        name: setup.name.clone(),
        generation: Generation { number: 0, nonce: 0 },
        lineage: Lineage(0),
        settings: setup.settings.clone(),
        workers,
        sources: setup.sources.iter().map(|s| Arc::new(Named(s.name().to_owned())) as Arc<dyn Source>).collect(),
        start: StartPoint { state: empty(), bound: empty(), clock_floor: Micros(0) },
        replay: Vec::new(),
        recorded: None,
        log: Link::spawn(&Nowhere, "bindings", 1, |_, _| TaskState::Done),
        sinks: setup.sinks.iter().map(|s| sink(s.name())).collect(),
        table_sinks: setup.table_sinks.iter().map(|s| table_sink(s.name(), s.tables())).collect(),
        checkpoints: Link::spawn(&Nowhere, "checkpoints", 1, |_, _| TaskState::Done),
        is_changed: manifest.is_some(),
        backend: if manifest.is_some() { setup.backend.clone() } else { BackendKind::Heap },
        manifest,
        store,
        storage: setup.storage.clone(),
        live: live.to_owned(),
        tables: setup.tables,
        lookups: setup.lookups.iter().map(TableContent::clone).collect(),
        old_lookups: BTreeMap::new(),
        completed: Arc::new(Mutex::new(Completed::default())),
        operators: Mutex::default(),
        control,
        environment,
    }
}

/// Starts no task.
struct Nowhere;

impl Spawner for Nowhere {
    fn spawn(&self, _: &str, _: Box<dyn Task>) -> Waker {
        Waker::none()
    }
}

/// A source, or a sink, that is a name and nothing else. No epoch is opened, so nothing is asked of it.
struct Named(String);

impl Source for Named {
    fn name(&self) -> &str {
        &self.0
    }

    fn open(&self, _: usize, _: usize, _: Waker) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(Named(self.0.clone())))
    }
}

impl SourceReader for Named {
    fn discover(&mut self) -> Result<Vec<Discovered>> {
        Ok(Vec::new())
    }

    fn assign(&mut self, _: u32, _: u64) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self, _: u32, _: Option<u64>, _: usize, _: &mut Vec<Record>) -> Result<Poll> {
        Ok(Poll::Pending)
    }
}

impl Sink for Named {
    fn name(&self) -> &str {
        &self.0
    }

    fn open(&mut self, _: &SinkIdentity) -> Result<Option<Marker>> {
        Ok(None)
    }

    fn commit(&mut self, _: &[EpochOutput]) -> Result<()> {
        Err(self.never("commit to"))
    }
}

/// A sink of tables that is names and nothing else.
struct NamedTables {
    name: String,
    tables: Vec<String>,
}

impl TableSink for NamedTables {
    fn name(&self) -> &str {
        &self.name
    }

    fn tables(&self) -> Vec<String> {
        self.tables.clone()
    }

    fn open(&self, _: &SinkIdentity) -> Result<BTreeMap<String, FoundTable>> {
        Ok(BTreeMap::new())
    }

    fn shut_out_others(&self, _: &SinkIdentity) -> Result<()> {
        Ok(())
    }

    fn writer(&self, _: usize, _: &BTreeMap<String, TableSchema>) -> Box<dyn TableWriter> {
        Box::new(Named(self.name.clone()))
    }

    fn committer(&self, _: &BTreeMap<String, TableSchema>) -> Box<dyn TableCommitter> {
        Box::new(Named(self.name.clone()))
    }
}

impl Named {
    fn never(&self, what: &str) -> Error {
        Error::us(format!("{what} sink '{}' in a rehearsal", self.0))
    }
}

impl TableWriter for Named {
    fn restored(&mut self, _: &str, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &[(&str, &TableChanges)]) -> Result<Vec<TableFiles>> {
        Err(self.never("write files of"))
    }

    fn scan(
        &mut self,
        _: &str,
        _: ScanColumns,
        _: &mut dyn FnMut(Row, RowLocation) -> Result<()>,
    ) -> Result<Option<Marker>> {
        Err(self.never("read"))
    }
}

impl TableCommitter for Named {
    fn commit(&mut self, _: &[TableCommit], _: &mut dyn FnMut(usize, Duration)) -> Result<()> {
        Err(self.never("commit to"))
    }
}
