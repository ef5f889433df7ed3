//! The scope in which a job's graph is built, the same on every worker: sources, then the binder, then operators and sinks.
//!
//! The order matters once: every source is declared before [`JobScope::bind`], because an epoch is fixed by what all of
//! them took. After it the facts of each epoch are there for operators that ask for watermark and clock.

use crate::checkpoint::checkpoints;
use crate::checkpoint_writer::PartCut;
use crate::facts::{EpochFacts, SourceFacts, Tick};
use crate::files::{self, FileOutput};
use crate::measures::keys::KeyLoad;
use crate::plan::Plan;
use crate::tables::{Changes, Schemas, TableMode};
use crate::ticker::Probes;
use crate::time::{Late, split_late};
use crate::{binder, restored, sink, source, tables, ticker};
use dataflow_core::{
    ChainHash, DeadLetter, Decode, Epoch, Error, EventTime, Micros, OutputFile, OutputRow, Result, SourceId, Stamped,
    TableSchema,
};
use dataflow_state::table::{KeyedTable, StateValue};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::operators::{Operator, Probe, vec::Map};
use timely::dataflow::{Scope, StreamVec};

/// The graph under construction on one worker.
pub struct JobScope<'s> {
    scope: Scope<'s, Epoch>,
    plan: Arc<Plan>,
    probes: Probes,
    ticks: StreamVec<'s, Epoch, Tick>,
    ticks_everywhere: StreamVec<'s, Epoch, Tick>,
    source_facts: Vec<StreamVec<'s, Epoch, SourceFacts>>,
    bound: Option<Bindings<'s>>,
    parts: Vec<StreamVec<'s, Epoch, ()>>,
    /// What is cut, but may be so long after its epoch: no open epoch waits for it.
    late_parts: Vec<StreamVec<'s, Epoch, ()>>,
    rows: BTreeMap<String, Vec<StreamVec<'s, Epoch, OutputRow>>>,
    /// By sink and table.
    tables: BTreeMap<String, BTreeMap<String, (TableSchema, TableMode, Changes<'s>)>>,
    /// Their frontiers say which files are written.
    files: Vec<StreamVec<'s, Epoch, ()>>,
}

#[derive(Clone)]
struct Bindings<'s> {
    facts: StreamVec<'s, Epoch, EpochFacts>,
    durable: StreamVec<'s, Epoch, (Epoch, ChainHash)>,
}

impl<'s> JobScope<'s> {
    /// Begins a job's graph with its ticker.
    pub fn new(scope: Scope<'s, Epoch>, plan: Arc<Plan>) -> JobScope<'s> {
        let probes = Probes::default();
        let (ticks, ticks_everywhere) = ticker::ticker(scope, &plan, probes.clone());
        JobScope {
            scope,
            plan,
            probes,
            ticks,
            ticks_everywhere,
            source_facts: Vec::new(),
            bound: None,
            parts: Vec::new(),
            late_parts: Vec::new(),
            rows: BTreeMap::new(),
            tables: BTreeMap::new(),
            files: Vec::new(),
        }
    }

    /// The timely scope.
    pub fn scope(&self) -> Scope<'s, Epoch> {
        self.scope
    }

    /// The plan that all workers share.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Reads the source `name` with `decoder`: its records with their event times, and its dead letters.
    ///
    /// # Errors
    /// When the plan has no source of that name, or the binder was built already.
    #[expect(clippy::type_complexity, reason = "two streams, each named in the docs")]
    pub fn source<T>(
        &mut self,
        name: &str,
        decoder: Box<dyn Decode<T>>,
    ) -> Result<(StreamVec<'s, Epoch, Stamped<T>>, StreamVec<'s, Epoch, DeadLetter>)>
    where
        T: EventTime + Clone + Serialize + DeserializeOwned + Send + 'static,
    {
        if self.bound.is_some() {
            return Err(Error::user(format!("declaring source '{name}': the epochs are bound already"))
                .hint("declare every source before the first operator that needs event time"));
        }
        let rank = self.plan.sources.iter().position(|s| s.name() == name);
        let rank =
            rank.ok_or_else(|| Error::user(format!("the job reads a source '{name}' that the profile does not wire")))?;
        let streams = source::source(self.ticks_everywhere.clone(), &self.plan, SourceId(rank as u16), decoder);
        self.source_facts.push(streams.facts);
        Ok((streams.records, streams.dead))
    }

    /// Builds the binder over the sources declared so far. Later calls do nothing.
    pub fn bind(&mut self) {
        if self.bound.is_none() {
            let facts = self.scope.concatenate(std::mem::take(&mut self.source_facts));
            let (facts, durable) = binder::binder(self.ticks.clone(), facts, &self.plan);
            self.bound = Some(Bindings { facts, durable });
        }
    }

    /// The facts of each epoch, one message an epoch on every worker. Builds the binder.
    pub fn facts(&mut self) -> StreamVec<'s, Epoch, EpochFacts> {
        self.bindings().facts.clone()
    }

    /// The clock of each epoch on every worker, that of the restored epoch first: the contents of tables come at that one. Builds the binder.
    pub fn clock(&mut self) -> StreamVec<'s, Epoch, (Epoch, Micros)> {
        let (restored, clock) = (self.plan.start.state.epoch, self.plan.start.state.clock);
        type Builder = CapacityContainerBuilder<Vec<(Epoch, Micros)>>;
        self.facts().unary::<Builder, _, _, _>(Pipeline, "Clock", move |mut capability, _| {
            capability.downgrade(&restored);
            let mut at_start = Some(capability).filter(|_| restored > 0);
            move |input, output| {
                if let Some(capability) = at_start.take() {
                    output.session(&capability).give((restored, clock));
                }
                input.for_each(|stamp, batch| {
                    output.session(&stamp).give_iterator(batch.drain(..).map(|facts| (facts.epoch, facts.clock)));
                });
            }
        })
    }

    /// Splits records into accepted and late ones. Builds the binder.
    pub fn accept<T: Clone + Serialize + DeserializeOwned + Send + 'static>(
        &mut self,
        records: StreamVec<'s, Epoch, Stamped<T>>,
    ) -> (StreamVec<'s, Epoch, Stamped<T>>, StreamVec<'s, Epoch, Late<T>>) {
        let facts = self.facts();
        split_late(records, facts, &self.plan)
    }

    /// Adds rows to what sink `name` delivers.
    ///
    /// # Errors
    /// When the plan has no sink of that name.
    pub fn write(&mut self, name: &str, rows: StreamVec<'s, Epoch, OutputRow>) -> Result<()> {
        if !self.plan.sinks.contains_key(name) {
            return Err(Error::user(format!("the job writes to a sink '{name}' that the profile does not wire")));
        }
        self.rows.entry(name.to_owned()).or_default().push(rows);
        Ok(())
    }

    /// Keeps `table` of the sink `name` as the collection that `changes` make up: rows with the epochs in which they come and, in
    /// [`TableMode::Upsert`], go.
    ///
    /// # Errors
    /// When the plan has no sink of tables of that name, or the table is written already.
    pub fn write_table(
        &mut self,
        name: &str,
        table: &str,
        schema: TableSchema,
        mode: TableMode,
        changes: Changes<'s>,
    ) -> Result<()> {
        if !self.plan.table_sinks.contains_key(name) {
            let what = format!("the job writes tables to a sink '{name}' that the profile does not wire");
            return Err(Error::user(what));
        }
        match self.tables.entry(name.to_owned()).or_default().insert(table.to_owned(), (schema, mode, changes)) {
            None => Ok(()),
            Some(_) => Err(Error::user(format!("the job writes table '{table}' twice"))),
        }
    }

    /// Writes files that come on worker 0, each when its epoch is durable, and again when it is replayed.
    pub fn write_files(&mut self, output: &FileOutput, files: StreamVec<'s, Epoch, OutputFile>) {
        let durable = self.bindings().durable.clone();
        self.files.push(files::files(files, durable, &self.plan, output));
    }

    /// Opens the state of operator `operator` on this worker; its cuts are announced on a stream given to [`JobScope::parts`].
    ///
    /// # Errors
    /// When the checkpoint's part is of a version that `V` can not read, or can not be restored.
    pub fn state<V: StateValue>(&self, operator: &str) -> Result<Stateful<V>> {
        self.state_since(operator, self.plan.start.state.watermark)
    }

    /// As [`JobScope::state`], for values that expire by the epoch's clock and not by the watermark.
    ///
    /// # Errors
    /// As there.
    pub fn state_by_clock<V: StateValue>(&self, operator: &str) -> Result<Stateful<V>> {
        self.state_since(operator, Some(self.plan.start.state.clock))
    }

    /// As [`JobScope::state`], for values that never expire.
    pub(crate) fn lasting_state<V: StateValue>(&self, operator: &str) -> Result<Stateful<V>> {
        self.state_since(operator, None)
    }

    fn state_since<V: StateValue>(&self, operator: &str, time: Option<Micros>) -> Result<Stateful<V>> {
        let worker = self.scope.index();
        let table = self.plan.open_table(operator, worker, time)?;
        let load = KeyLoad::new(operator, worker);
        Ok(Stateful { table, load, plan: self.plan.clone(), operator: operator.to_owned(), worker })
    }

    /// Declares the stream whose frontier says that an operator's cuts were taken.
    pub fn parts(&mut self, parts: StreamVec<'s, Epoch, ()>) {
        self.parts.push(parts);
    }

    /// Ends the graph: one operator for each sink, and the checkpoints. Before it no epoch is opened.
    ///
    /// # Errors
    /// When the checkpoint holds state of an operator that the graph does not have, or state can not be restored.
    pub fn finish(mut self) -> Result<()> {
        let Bindings { facts, durable } = self.bindings().clone();
        durable.clone().probe_with(&self.probes.durable);
        let (mut staged, mut settled) = (Vec::new(), vec![durable.clone().map(|_| ())]);
        let names: Vec<String> = self.plan.sinks.keys().cloned().collect();
        for name in names {
            let rows = self.scope.concatenate(self.rows.remove(&name).unwrap_or_default());
            let (of_sink, committed) = sink::sink(rows, durable.clone(), &self.plan, &name);
            staged.push(of_sink.probe_with(&self.probes.staged));
            settled.push(committed);
        }
        settled.append(&mut self.files);
        let commits = self.table_writers(&mut staged)?;
        self.plan.check_operators(self.scope.index())?;
        let parts = self.scope.concatenate(std::mem::take(&mut self.parts));
        staged.push(parts.clone().probe_with(&self.probes.staged));
        if self.plan.start.state.epoch > 0 {
            restored::restored(self.scope.concatenate(staged), &self.plan);
        }
        let late = std::mem::take(&mut self.late_parts);
        let parts = self.scope.concatenate(late.into_iter().chain([parts]));
        let settled = self.scope.concatenate(settled);
        let checkpointed = checkpoints(facts, parts, settled, &self.plan);
        checkpointed.clone().probe_with(&self.probes.checkpointed);
        for (name, schemas, intents) in commits {
            let connection = self.plan.table_sinks[&name].clone();
            // Its capabilities keep the dataflow running until all is committed; nothing else waits for it.
            tables::committer(intents, durable.clone(), checkpointed.clone(), &self.plan, &connection, &schemas);
        }
        Ok(())
    }

    /// The writers of all sinks of tables, with the intents that they give; their frontiers are added to `staged_by_all`.
    #[expect(clippy::type_complexity, reason = "what a committer takes, in its order")]
    fn table_writers(
        &mut self,
        staged_by_all: &mut Vec<StreamVec<'s, Epoch, ()>>,
    ) -> Result<Vec<(String, Arc<Schemas>, StreamVec<'s, Epoch, tables::Intent>)>> {
        let mut commits = Vec::new();
        for (name, tables) in std::mem::take(&mut self.tables) {
            let connection = self.plan.table_sinks[&name].clone();
            let (mut schemas, mut changes) = (Schemas::new(), Vec::new());
            for (table, (schema, mode, of_table)) in tables {
                schemas.insert(table, schema);
                changes.push((mode, of_table));
            }
            let schemas = Arc::new(schemas);
            let tables::WriterStreams { staged, parts, intents } =
                tables::writer(self, &connection, &schemas, changes)?;
            staged_by_all.push(staged.probe_with(&self.probes.staged));
            self.late_parts.push(parts);
            commits.push((name, schemas, intents));
        }
        Ok(commits)
    }

    fn bindings(&mut self) -> &Bindings<'s> {
        self.bind();
        self.bound.as_ref().expect("bound just now")
    }
}

/// An operator's state on one worker, with its cuts.
pub struct Stateful<V> {
    /// The table.
    pub table: KeyedTable<V>,
    /// What its keys have to do.
    pub load: KeyLoad,
    plan: Arc<Plan>,
    operator: String,
    worker: usize,
}

impl<V: StateValue> Stateful<V> {
    /// An epoch is over: now and then its load and sizes are made visible; `text` makes a key readable.
    pub fn measure(&mut self, clock: Micros, text: impl Fn(&[u8]) -> String) {
        let Stateful { table, load, plan, .. } = self;
        load.epoch(clock, &plan.control.measures.state, || table.stats(), text);
    }

    /// Cuts the state as of `epoch` and hands the cut to the checkpoint writer. To be called when the epoch and
    /// nothing of a later one has been applied.
    ///
    /// # Errors
    /// When the store can not be flushed.
    pub fn cut(&mut self, epoch: Epoch, time: Option<Micros>) -> Result<()> {
        let clock = self.plan.environment.clock.clone();
        let began = clock.monotonic();
        let cut = self.table.cut(&epoch.to_string(), time)?;
        let took = clock.monotonic().saturating_sub(began);
        self.plan.add_part(
            epoch,
            PartCut { operator: self.operator.clone(), worker: self.worker, version: V::VERSION, cut, took },
        );
        for done in self.plan.released_cuts(&self.operator, self.worker) {
            self.table.release(&done.to_string())?;
        }
        Ok(())
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
}
