//! The plan of a generation: what was recovered, and what all workers share. [`prepare`] makes it, in the order of DESIGN section 3:
//! identity, checkpoint, log, sinks (which fences older generations), start check; only then is anything cut or written.

mod rehearsal;

pub use rehearsal::rehearse;

use crate::checkpoint_writer::{CheckpointRequest, Completed, PartCut, Trim, Writer};
use crate::clock::check_jump;
use crate::committer::SinkConnection;
use crate::control::Control;
use crate::facts::Bound;
use crate::link::Link;
use crate::pace::UNDURABLE_EPOCHS_MAX;
use crate::settings::RuntimeSettings;
use crate::start::{self, CheckpointFacts, Doubt, LogFacts, SinkFacts, StartFacts};
use crate::tables::{self, TableConnection};
use dataflow_core::binding::{BindingState, PartitionState};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{
    Binding, ChainHash, Environment, Epoch, Error, Generation, Lineage, Marker, Micros, Partition, Result,
    SchemaBinding, Sink, SinkIdentity, Source, SourceId, Storage, TableBinding, TableSink, TaskState,
};
use dataflow_state::backend::BackendKind;
use dataflow_state::binding_log::{
    self, BindingLog, LocalBindingLog, LogHeader, LogSettings, Tail, export::RecordedEpoch,
};
use dataflow_state::checkpoint::{CheckpointStore, Manifest};
use dataflow_state::folder::identity;
use dataflow_state::folder::programs::{Program, note_program, programs};
use dataflow_state::table::{KeyedTable, StateValue, TableSettings};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Folder of the binding log in the data folder.
pub const BINDINGS: &str = "bindings";
/// Folder of the checkpoints in the data folder.
pub const CHECKPOINTS: &str = "checkpoints";
/// Folder of the lookup tables, by content hash, in the data folder.
pub const TABLES: &str = "tables";
/// A lookup table with its content.
#[derive(Clone, Debug)]
pub struct TableContent {
    /// Its name in the job.
    pub name: String,
    /// BLAKE3 (16 bytes) of the content.
    pub hash: [u8; 16],
    /// The content.
    pub bytes: Arc<[u8]>,
}

/// Sinks of tables by name.
type TableSinks = BTreeMap<String, Arc<TableConnection>>;

/// What a job brings to [`prepare`].
pub struct JobSetup {
    /// The job's name.
    pub name: String,
    /// Hash of its source, the engine's version, its parameters.
    pub fingerprint: String,
    /// Settings.
    pub settings: RuntimeSettings,
    /// Clocks, randomness, tasks.
    pub environment: Environment,
    /// The data folder.
    pub storage: Arc<dyn Storage>,
    /// A local folder for live state, wiped on start.
    pub live: PathBuf,
    /// Where operator state lives.
    pub backend: BackendKind,
    /// Bounds of each operator's cache on each worker.
    pub tables: TableSettings,
    /// Worker threads.
    pub workers: usize,
    /// The sources, in an order that stays.
    pub sources: Vec<Arc<dyn Source>>,
    /// The sinks.
    pub sinks: Vec<Box<dyn Sink>>,
    /// The sinks of tables.
    pub table_sinks: Vec<Arc<dyn TableSink>>,
    /// The lookup tables as they are now.
    pub lookups: Vec<TableContent>,
    /// Epochs of a bindings file to run instead of ticking.
    pub recorded: Option<Vec<RecordedEpoch>>,
}

/// Where a start begins.
pub struct StartPoint {
    /// The bindings' state at the restored epoch c.
    pub state: BindingState,
    /// The last bound epoch b and its state.
    pub bound: BindingState,
    /// The live clock begins at or after this.
    pub clock_floor: Micros,
}

/// Shared by all workers of a generation.
pub struct Plan {
    /// The job's name.
    pub name: String,
    /// This life of the job.
    pub generation: Generation,
    /// Its history.
    pub lineage: Lineage,
    /// Settings.
    pub settings: RuntimeSettings,
    /// Clocks, randomness, tasks.
    pub environment: Environment,
    /// Stop, failure, counters.
    pub control: Arc<Control>,
    /// Workers, over all processes.
    pub workers: usize,
    /// The sources, by [`SourceId`].
    pub sources: Vec<Arc<dyn Source>>,
    /// Where this start begins.
    pub start: StartPoint,
    /// The rows after it.
    pub replay: Vec<(Binding, ChainHash)>,
    /// The bindings file, resolved.
    pub(crate) recorded: Option<Vec<(Epoch, Micros, Arc<Bound>)>>,
    pub(crate) log: Link<Binding, Result<(Epoch, ChainHash)>>,
    pub(crate) sinks: BTreeMap<String, Arc<SinkConnection>>,
    pub(crate) table_sinks: TableSinks,
    pub(crate) checkpoints: Link<CheckpointRequest, Result<Epoch>>,
    manifest: Option<Manifest>,
    /// The restored state was made by another program or with other parameters.
    pub is_changed: bool,
    store: Arc<CheckpointStore>,
    /// The data folder.
    pub(crate) storage: Arc<dyn Storage>,
    live: PathBuf,
    backend: BackendKind,
    tables: TableSettings,
    lookups: Vec<TableContent>,
    /// Content of tables that were in force before, by hash.
    old_lookups: BTreeMap<[u8; 16], Arc<[u8]>>,
    pub(crate) completed: Arc<Mutex<Completed>>,
    /// The operators with state that the graph has so far.
    operators: Mutex<BTreeSet<String>>,
}

/// Recovers a job's history and makes the plan of a new generation of it.
///
/// # Errors
/// Whatever is wrong with log, checkpoints, sinks, or their belonging together. Nothing of the job's output was written then.
pub fn prepare(setup: JobSetup) -> Result<Arc<Plan>> {
    let JobSetup { name, fingerprint, settings, environment, storage, workers, sources, recorded, .. } = setup;
    let (control, began) = (Control::new(), environment.clock.monotonic());
    let lineage = identity::load_or_create(&*storage, &*environment.random, &name)?;
    let generation = identity::next_generation(&*storage, &*environment.random)?;
    let store = Arc::new(CheckpointStore::open(storage.clone(), CHECKPOINTS, settings.checkpoints_kept)?);
    let (manifest, damaged) = store.newest_intact()?;
    for damage in &damaged {
        tracing::error!(%damage, "a checkpoint is damaged and passed over");
        control.status.damaged_checkpoints.add(1);
    }
    let restored = manifest.as_ref().map_or(0, |m| m.epoch);
    if restored > 0 {
        control.measures.restore.begin(&environment.clock, began);
    }
    let extent = binding_log::extent(&*storage, BINDINGS)?;
    if let Some(extent) = extent.as_ref().filter(|extent| extent.base > 0 && manifest.is_none()) {
        return Err(Doubt::NoCheckpointForLog { first: extent.first }.into()); // there is no state to scan the rest from
    }
    let scan = binding_log::scan(&*storage, BINDINGS, restored)?;
    let bound_by = bound_by(&*storage, manifest.as_ref())?;
    let identity = SinkIdentity { job: name.clone(), lineage, generation };
    let (mut opened, mut sink_facts) = (Vec::new(), Vec::new());
    let facts_of = |name: String, marker: Option<Marker>| -> Result<SinkFacts> {
        let chain_in_log = marker.map_or(Ok(None), |m| binding_log::chain_at(&*storage, BINDINGS, m.epoch))?;
        Ok(SinkFacts { name, marker, chain_in_log })
    };
    for mut sink in setup.sinks {
        let marker = sink.open(&identity)?;
        sink_facts.push(facts_of(sink.name().to_owned(), marker)?);
        opened.push((sink, marker));
    }
    let open_tables = || -> Result<(TableSinks, Vec<SinkFacts>)> {
        let (mut connections, mut found) = (TableSinks::new(), Vec::new());
        let checkpoint = manifest.as_ref().map(|m| (m.epoch, &m.sinks));
        for sink in &setup.table_sinks {
            let connection = TableConnection::open(sink.clone(), identity.clone(), checkpoint)?;
            for (name, table) in connection.found() {
                found.push(facts_of(name, table.marker)?);
            }
            connections.insert(connection.sink.name().to_owned(), Arc::new(connection));
        }
        Ok((connections, found))
    };
    let (mut table_sinks, mut table_facts) = open_tables()?;
    let is_table = |name: &str| {
        let sink = name.rsplit_once('/').map(|(sink, _)| sink);
        setup.table_sinks.iter().any(|of| Some(of.name()) == sink)
    };
    let row_sinks = sink_facts.len();
    sink_facts.append(&mut table_facts);
    let mut facts = StartFacts {
        lineage,
        fingerprint: fingerprint.clone(),
        replay_with_new_code: settings.replay_with_new_code,
        bound_by,
        log: LogFacts {
            first: scan.first,
            last: scan.last,
            is_whole: extent.as_ref().is_none_or(|extent| extent.base == 0),
            torn: match &scan.tail {
                Tail::Clean => None,
                Tail::Torn { segment, offset, .. } => Some((segment.clone(), *offset)),
            },
        },
        checkpoint: manifest.as_ref().map_or(Ok::<_, Error>(None), |m| {
            let chain_in_log = binding_log::chain_at(&*storage, BINDINGS, m.epoch)?;
            Ok(Some(CheckpointFacts {
                epoch: m.epoch,
                chain: m.chain,
                chain_in_log,
                lineage: m.lineage,
                last_outputs: (m.sinks.iter())
                    .map(|(name, at)| (name.clone(), if is_table(name) { tables::expected(at) } else { *at }))
                    .collect(),
            }))
        })?,
        sinks: sink_facts,
    };
    start::check(&facts)?;
    let is_under_way = !damaged.is_empty() && !setup.table_sinks.is_empty() && !is_planted(Bug::OthersNotShutOut);
    if is_under_way || table_sinks.values().any(|sink| sink.is_changed_by_others()) {
        // What a checkpoint that is passed over had its tables told may be under way still, and this generation knows nothing of it. Nor is
        // an intent committed to a table that others have changed.
        setup.table_sinks.iter().try_for_each(|sink| sink.shut_out_others(&identity))?;
        facts.sinks.truncate(row_sinks);
        (table_sinks, table_facts) = open_tables()?;
        facts.sinks.append(&mut table_facts);
        start::check(&facts)?;
    }
    if manifest.as_ref().is_some_and(|m| m.state != scan.base) {
        return Err(Error::doubt(format!(
            "starting the job: the checkpoint of epoch {restored} and the binding log tell different offsets"
        )));
    }
    let start = start_point(&scan, &settings, &environment)?;
    let is_changed = manifest.as_ref().is_some_and(|m| m.fingerprint != fingerprint);
    let has_tables = manifest.as_ref().is_some_and(|m| m.sinks.keys().any(|name| is_table(name)));
    if is_changed && has_tables && !settings.views_unchanged {
        return Err(Error::user(format!("starting job '{name}': another program, or other parameters, made the tables that it writes"))
            .hint("a table keeps what the old one computed: write new tables with a new data folder, or, if both compute the same rows, set 'runtime.views_unchanged = true'"));
    }
    control.status.restored_epoch.set(restored);
    control.status.epoch_checkpointed.set(restored);
    let names: Vec<String> = sources.iter().map(|s| s.name().to_owned()).collect();
    let recorded = recorded.map(|rows| resolve_recorded(rows, &names, start.bound.epoch)).transpose()?;
    let base = extent.map_or(0, |extent| extent.base);
    note_program(&*storage, &facts.bound_by, restored, base, &fingerprint)?;
    let log_settings = LogSettings {
        segment_bytes: settings.bindings_segment_bytes,
        retain_bytes: settings.bindings_retain_bytes,
        retain_us: settings.bindings_retain_hours as i64 * dataflow_core::time::HOUR,
    };
    let log = LocalBindingLog::open(
        storage.clone(),
        BINDINGS,
        LogHeader { lineage, sources: names.clone() },
        &scan,
        log_settings,
    )?;
    let (log, trim) = spawn_log(&environment, log);
    let mut sinks = BTreeMap::new();
    for (mut sink, marker) in opened {
        sink.begin()?;
        let name = sink.name().to_owned();
        let restored = manifest.as_ref().and_then(|m| m.sinks.get(&name)).copied();
        sinks.insert(name, Arc::new(SinkConnection::start(&environment, &control, sink, marker, restored)));
    }
    let completed = Arc::new(Mutex::new(Completed::on_start(manifest.as_ref(), &store)?));
    let writer = Writer {
        job: name.clone(),
        fingerprint,
        lineage,
        generation,
        sources: names,
        workers,
        store: store.clone(),
        environment: environment.clone(),
        control: control.clone(),
        completed: completed.clone(),
        trim,
        sinks: sinks.clone(),
        files: BTreeSet::new(),
        needs: BTreeMap::new(),
    };
    let old_lookups = keep_lookups(&*storage, &setup.lookups, &scan.rows, &start)?;
    let checkpoints = writer.spawn();
    Ok(Arc::new(Plan {
        name,
        generation,
        lineage,
        settings,
        environment,
        control,
        workers,
        sources,
        start,
        replay: scan.rows,
        recorded,
        log,
        sinks,
        table_sinks,
        checkpoints,
        manifest,
        is_changed,
        store,
        storage,
        live: setup.live,
        backend: setup.backend,
        tables: setup.tables,
        lookups: setup.lookups,
        old_lookups,
        completed,
        operators: Mutex::default(),
    }))
}

/// Which programs bound the log's epochs; in a folder that never noted it, that of its newest checkpoint.
///
/// # Errors
/// When the note is damaged.
pub fn bound_by(storage: &dyn Storage, manifest: Option<&Manifest>) -> Result<Vec<Program>> {
    let of_manifest = || manifest.map(|m| Program { after: 0, fingerprint: m.fingerprint.clone() });
    Ok(programs(storage)?.unwrap_or_else(|| of_manifest().into_iter().collect()))
}

fn start_point(scan: &binding_log::Scan, settings: &RuntimeSettings, environment: &Environment) -> Result<StartPoint> {
    let mut bound = scan.base.clone();
    scan.rows.iter().for_each(|(row, _)| bound.apply(row));
    check_jump(&bound, environment.clock.wall(), settings)?;
    Ok(StartPoint { state: scan.base.clone(), clock_floor: bound.clock.plus(1), bound })
}

/// Turns the rows of a bindings file into bounds, leaving out what is bound already.
fn resolve_recorded(
    rows: Vec<RecordedEpoch>,
    sources: &[String],
    after: Epoch,
) -> Result<Vec<(Epoch, Micros, Arc<Bound>)>> {
    let partition = |name: &str| -> Result<Partition> {
        let unknown =
            || Error::user(format!("reading the bindings file: partition '{name}' is of no source of this job"));
        let (source, index) = name.rsplit_once('/').ok_or_else(unknown)?;
        let rank = sources.iter().position(|s| s == source).ok_or_else(unknown)?;
        Ok(Partition { source: SourceId(rank as u16), index: index.parse().map_err(|_| unknown())? })
    };
    rows.into_iter()
        .filter(|row| row.epoch > after)
        .map(|row| {
            let ends = row.ends.iter().map(|(name, end)| Ok((partition(name)?, *end))).collect::<Result<_>>()?;
            let idle: BTreeSet<_> = row.idle.iter().map(|name| partition(name)).collect::<Result<_>>()?;
            let bound = Bound { ends, idle, is_final: row.is_final, watermark: row.watermark, replay: None };
            Ok((row.epoch, row.clock, Arc::new(bound)))
        })
        .collect()
}

/// The log's task: one write and one fsync for all rows that wait, which are fewer than the epochs that the ticker opens before they are durable.
fn spawn_log(environment: &Environment, mut log: LocalBindingLog) -> (Link<Binding, Result<(Epoch, ChainHash)>>, Trim) {
    let trim: Trim = Arc::default();
    let asked = trim.clone();
    let link =
        Link::spawn(&*environment.spawner, "bindings", UNDURABLE_EPOCHS_MAX, move |rows: Vec<Binding>, replies| {
            let below = asked.lock().expect("no holder panics").take();
            if let Some(Err(error)) = below.map(|below| log.trim(below)) {
                replies.send(Err(error));
                return TaskState::Done;
            }
            if rows.is_empty() {
                return TaskState::Waiting;
            }
            match log.append(&rows) {
                Ok(chains) => {
                    rows.iter().zip(chains).for_each(|(row, chain)| replies.send(Ok((row.epoch, chain))));
                    TaskState::Waiting
                }
                Err(error) => {
                    replies.send(Err(error));
                    TaskState::Done
                }
            }
        });
    (link, trim)
}

/// Stores the content of every table by its hash, durably, before an epoch can be bound to it; reads those a replay needs.
fn keep_lookups(
    storage: &dyn Storage,
    now: &[TableContent],
    rows: &[(Binding, ChainHash)],
    start: &StartPoint,
) -> Result<BTreeMap<[u8; 16], Arc<[u8]>>> {
    let name = |hash: &[u8; 16]| ChainHash(*hash).to_string();
    let path = |hash: &[u8; 16]| format!("{TABLES}/{}", name(hash));
    let is_whole = |bytes: &[u8], hash: &[u8; 16]| TableBinding::hash_of(bytes) == *hash;
    storage.create_dir(TABLES)?;
    for table in now {
        let is_kept =
            storage.length(&path(&table.hash))?.is_some() && is_whole(&storage.read(&path(&table.hash))?, &table.hash);
        if !is_kept {
            dataflow_core::replace_file(storage, TABLES, &name(&table.hash), &table.bytes)?;
        }
    }
    let bound =
        start.state.tables.values().copied().chain(rows.iter().flat_map(|(row, _)| row.tables.iter().map(|t| t.hash)));
    let mut old = BTreeMap::new();
    for hash in bound {
        let bytes = storage.read(&path(&hash))?;
        if !is_whole(&bytes, &hash) {
            let path = path(&hash);
            return Err(Error::doubt(format!("reading the kept lookup table '{path}': its content does not have the hash that it is named by"))
                .hint("the epochs bound with it can not be computed again without it: put the table as it was back in its place, or start over with a new data folder"));
        }
        old.insert(hash, Arc::from(bytes));
    }
    Ok(old)
}

impl Plan {
    /// Epochs whose extent is known before they are opened: the replay, then the bindings file.
    pub(crate) fn known_epochs(&self) -> VecDeque<(Epoch, Micros, bool, Arc<Bound>)> {
        let replay = self.replay.iter().map(|(row, _)| {
            let ends = row.advances.iter().map(|(p, advance)| (*p, advance.end)).collect();
            let bound = Bound {
                ends,
                idle: BTreeSet::new(),
                is_final: row.is_final,
                watermark: Some(row.watermark),
                replay: Some(row.clone()),
            };
            (row.epoch, row.clock, false, Arc::new(bound))
        });
        let recorded =
            self.recorded.iter().flatten().map(|(epoch, clock, bound)| (*epoch, *clock, false, bound.clone()));
        replay.chain(recorded).collect()
    }

    /// `source/index`, as bindings and messages name a partition.
    pub fn partition_name(&self, partition: Partition) -> String {
        format!("{}/{}", self.sources[usize::from(partition.source.0)].name(), partition.index)
    }

    /// The schema ids of a source that were bound up to the restored checkpoint; a replayed row brings its own.
    pub(crate) fn bound_schemas(&self, source: SourceId) -> Vec<SchemaBinding> {
        let all = self.start.state.schemas.iter().filter(|((s, _), _)| *s == source);
        all.map(|((source, id), hash)| SchemaBinding { source: *source, id: *id, hash: *hash }).collect()
    }

    /// The tables that take effect with the first new epoch.
    pub(crate) fn new_tables(&self) -> Vec<TableBinding> {
        let is_new = |t: &&TableContent| self.start.bound.tables.get(&t.name) != Some(&t.hash);
        self.lookups.iter().filter(is_new).map(|t| TableBinding { name: t.name.clone(), hash: t.hash }).collect()
    }

    /// The versions of a lookup table with the first epoch of each, ascending: a replayed epoch sees the one it was bound with.
    ///
    /// # Errors
    /// When the profile does not wire a table of that name.
    pub fn lookup_versions(&self, name: &str) -> Result<Vec<(Epoch, Arc<[u8]>)>> {
        let now = self.lookups.iter().find(|t| t.name == name);
        let now = now
            .ok_or_else(|| Error::user(format!("the job looks up a table '{name}' that the profile does not wire")))?;
        let old = |hash: &[u8; 16]| self.old_lookups.get(hash).expect("kept on start for every bound hash").clone();
        let mut versions = Vec::new();
        if let Some(hash) = self.start.state.tables.get(name) {
            versions.push((0, old(hash)));
        }
        for (row, _) in &self.replay {
            versions.extend(row.tables.iter().filter(|t| t.name == name).map(|t| (row.epoch, old(&t.hash))));
        }
        if self.start.bound.tables.get(name) != Some(&now.hash) {
            versions.push((self.start.bound.epoch + 1, now.bytes.clone()));
        }
        Ok(versions)
    }

    /// The watermark of the epoch that this run goes on from.
    pub fn watermark_at_start(&self) -> Option<Micros> {
        self.start.state.watermark
    }

    /// Whether an epoch cuts state: a replayed one does not, as a rule.
    pub(crate) fn cuts_at(&self, epoch: Epoch) -> bool {
        // A bindings file that is bound to its end has no later epoch: what its last one wrote may be in no checkpoint.
        let is_end = epoch == self.start.bound.epoch && self.recorded.as_ref().is_some_and(Vec::is_empty);
        epoch > self.start.bound.epoch || is_end
    }

    pub(crate) fn note_chain(&self, epoch: Epoch, chain: ChainHash) {
        self.control.status.epoch_durable.raise(epoch);
        self.control.measures.epochs.durable(epoch, self.environment.clock.monotonic());
        if let Some(cut) = self.control.cuts().get_mut(&epoch) {
            cut.chain = Some(chain);
        }
    }

    /// The hash of the binding of an epoch that the restored checkpoint has intents of: the log is kept for as long as one may need it.
    pub(crate) fn chain_before_start(&self, epoch: Epoch) -> Result<ChainHash> {
        let chain = binding_log::chain_at(&*self.storage, BINDINGS, epoch)?;
        chain.ok_or_else(|| {
            Error::doubt(format!(
                "committing what the checkpoint holds of epoch {epoch}: the binding log has no row of it"
            ))
        })
    }

    pub(crate) fn add_part(&self, epoch: Epoch, part: PartCut) {
        self.control.cuts().entry(epoch).or_default().parts.push(part);
    }

    /// Takes what was gathered for a checkpoint; `None` when its binding is not durable.
    pub(crate) fn checkpoint_request(&self, epoch: Epoch) -> Option<CheckpointRequest> {
        let mut cuts = self.control.cuts();
        let chain = cuts.get(&epoch)?.chain?;
        let cut = cuts.remove(&epoch)?;
        let mut parts = cut.parts;
        parts.sort_by(|a, b| (&a.operator, a.worker).cmp(&(&b.operator, b.worker)));
        Some(CheckpointRequest {
            epoch,
            chain,
            state: cut.state?,
            clean: cut.clean,
            opened: cut.opened,
            parts,
            sinks: (self.sinks.iter().map(|(name, sink)| (name.clone(), sink.position(epoch))))
                .chain(self.table_sinks.values().flat_map(|sink| sink.positions(epoch, chain)))
                .collect(),
        })
    }

    /// Offsets that the newest checkpoint would restore, and those of the oldest, by partition.
    pub(crate) fn checkpointed_offsets(&self, source: SourceId) -> Option<(BTreeMap<u32, u64>, BTreeMap<u32, u64>)> {
        let completed = self.completed.lock().expect("no holder panics");
        let of_source = |offsets: &BTreeMap<Partition, u64>| -> BTreeMap<u32, u64> {
            offsets.iter().filter(|(p, _)| p.source == source).map(|(p, end)| (p.index, *end)).collect()
        };
        let (newest, oldest) = (of_source(&completed.newest), of_source(&completed.oldest));
        (!newest.is_empty()).then_some((newest, oldest))
    }

    /// Cuts of this operator and worker that are stored: their local copies may go.
    pub(crate) fn released_cuts(&self, operator: &str, worker: usize) -> Vec<Epoch> {
        let mut completed = self.completed.lock().expect("no holder panics");
        completed.released.remove(&(operator.to_owned(), worker)).unwrap_or_default()
    }

    /// The state of an operator on a worker, restored or empty. `time` is what its values expire by, as of the restored epoch.
    pub(crate) fn open_table<V: StateValue>(
        &self,
        operator: &str,
        worker: usize,
        time: Option<Micros>,
    ) -> Result<KeyedTable<V>> {
        self.operators.lock().expect("no holder panics").insert(operator.to_owned());
        let live = self.live.join(format!("{operator}-{worker}"));
        let backend = match &self.manifest {
            Some(manifest) => {
                let stored = manifest.parts_of(operator)?.first().map(|part| part.value_version);
                start::check_state(operator, manifest.epoch, stored, V::READS_FROM..=V::VERSION)?;
                self.store.restore_backend(manifest, operator, worker, self.workers, &self.backend, &live)?
            }
            None => self.backend.create(&live)?,
        };
        Ok(KeyedTable::new(backend, self.tables, time))
    }

    /// The graph of a worker is built: whether every state in the checkpoint has found its operator.
    pub(crate) fn check_operators(&self, worker: usize) -> Result<()> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let operators = self.operators.lock().expect("no holder panics");
        let stored = manifest.parts.iter().map(|part| part.operator.as_str()).collect();
        match start::check_operators(&stored, &operators, manifest.epoch) {
            Err(Doubt::DroppedState { operators, .. }) if self.settings.drop_unknown_state => {
                if worker == 0 {
                    tracing::warn!(
                        ?operators,
                        "the job has these operators no more: their state in the checkpoint is dropped"
                    );
                }
                Ok(())
            }
            checked => Ok(checked?),
        }
    }

    /// The partitions and their state at the last bound epoch.
    pub fn partitions(&self) -> &BTreeMap<Partition, PartitionState> {
        &self.start.bound.partitions
    }
}
