//! The checkpoint writer: a task that stores cuts, writes manifests, and removes what nothing needs any more.
//!
//! One manifest at a time, in the order of their epochs; parts first, the manifest last, collection after it. What a complete
//! checkpoint allows (older bindings may go, local copies of cuts may go, offsets may be told to lag tools) is said from here.

use crate::committer::SinkConnection;
use crate::control::Control;
use crate::link::Link;
use crate::measures::checkpoints::CheckpointMeasure;
use crate::pace::CHECKPOINTS_OPEN_MAX;
use dataflow_core::{
    BindingState, ChainHash, Environment, Epoch, Generation, Lineage, Partition, Restorable, Result, TaskState,
};
use dataflow_state::backend::PendingCut;
use dataflow_state::checkpoint::{CheckpointStore, MANIFEST_VERSION, Manifest, SinkPosition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Checkpoints handed over and not complete: those that the ticker lets be open, and the last one of a stop.
const WRITING_CHECKPOINTS_MAX: usize = CHECKPOINTS_OPEN_MAX + 1;

/// The epoch below which the binding log may be trimmed, for its task to pick up.
pub(crate) type Trim = Arc<Mutex<Option<Epoch>>>;

/// A cut on its way to the checkpoint writer.
pub struct PartCut {
    /// The operator.
    pub operator: String,
    /// The worker.
    pub worker: usize,
    /// Version of its values.
    pub version: u16,
    /// The files, which this task may have to write first.
    pub cut: PendingCut,
    /// For how long the worker was held by it.
    pub took: Duration,
}

/// Everything a manifest says, and the cuts to store.
pub struct CheckpointRequest {
    pub(crate) epoch: Epoch,
    pub(crate) chain: ChainHash,
    pub(crate) state: BindingState,
    pub(crate) clean: bool,
    /// Monotonic time when the epoch was opened.
    pub(crate) opened: Duration,
    pub(crate) parts: Vec<PartCut>,
    pub(crate) sinks: BTreeMap<String, SinkPosition>,
}

/// What complete checkpoints allow others to do.
#[derive(Default)]
pub(crate) struct Completed {
    /// Offsets of the newest one.
    pub(crate) newest: BTreeMap<Partition, u64>,
    /// Offsets of the oldest kept one: what a source must still be able to read from.
    pub(crate) oldest: BTreeMap<Partition, u64>,
    /// What those that are kept may bring back.
    pub(crate) restorable: Restorable,
    /// Cuts whose local copies may go, by operator and worker.
    pub(crate) released: BTreeMap<(String, usize), Vec<Epoch>>,
}

impl Completed {
    /// What is allowed before this generation has written a checkpoint; `restored` is the one it begins with.
    pub(crate) fn on_start(restored: Option<&Manifest>, store: &CheckpointStore) -> Result<Completed> {
        let mut completed = Completed::default();
        if let Some(restored) = restored {
            completed.is_newest(restored, store)?;
            completed.restorable.is_of_this_generation = false;
        }
        Ok(completed)
    }

    /// Takes the offsets of the newest checkpoint, and of the oldest that can be read.
    fn is_newest(&mut self, manifest: &Manifest, store: &CheckpointStore) -> Result<()> {
        let kept = store.list()?;
        self.restorable = Restorable {
            oldest: kept.iter().map(|kept| kept.epoch).min().unwrap_or(0),
            is_of_this_generation: kept.iter().all(|kept| kept.generation == manifest.generation.number),
        };
        let oldest = kept.iter().rev().find_map(|kept| store.read(kept).ok());
        self.newest = offsets(manifest);
        self.oldest = oldest.as_ref().map_or_else(|| self.newest.clone(), offsets);
        Ok(())
    }
}

fn offsets(manifest: &Manifest) -> BTreeMap<Partition, u64> {
    manifest.state.partitions.iter().map(|(partition, state)| (*partition, state.end)).collect()
}

/// The checkpoint writer: stores the cuts, writes the manifest, removes what nothing needs.
pub(crate) struct Writer {
    pub(crate) job: String,
    pub(crate) fingerprint: String,
    pub(crate) lineage: Lineage,
    pub(crate) generation: Generation,
    pub(crate) sources: Vec<String>,
    pub(crate) workers: usize,
    pub(crate) store: Arc<CheckpointStore>,
    pub(crate) environment: Environment,
    pub(crate) control: Arc<Control>,
    pub(crate) completed: Arc<Mutex<Completed>>,
    pub(crate) trim: Trim,
    pub(crate) sinks: BTreeMap<String, Arc<SinkConnection>>,
    /// The files of the checkpoint before.
    pub(crate) files: BTreeSet<(String, u64)>,
    /// From which epoch on each kept checkpoint, by (epoch, generation), needs the binding log.
    pub(crate) needs: BTreeMap<(Epoch, u64), Epoch>,
}

impl Writer {
    /// Starts the task.
    pub(crate) fn spawn(mut self) -> Link<CheckpointRequest, Result<Epoch>> {
        let spawner = self.environment.spawner.clone();
        Link::spawn(
            &*spawner,
            "checkpoints",
            WRITING_CHECKPOINTS_MAX,
            move |requests: Vec<CheckpointRequest>, replies| {
                for request in requests {
                    let epoch = request.epoch;
                    match self.write(request) {
                        Ok(()) => replies.send(Ok(epoch)),
                        Err(error) => {
                            replies.send(Err(error));
                            return TaskState::Done;
                        }
                    }
                }
                TaskState::Waiting
            },
        )
    }

    fn write(&mut self, request: CheckpointRequest) -> Result<()> {
        let clock = self.environment.clock.clone();
        let began = clock.monotonic();
        let mut parts = Vec::new();
        for part in &request.parts {
            let cut = part.cut.finish()?;
            self.control.measures.state.cut(&part.operator, part.worker, &cut.shard_bytes);
            parts.push(self.store.store_part(
                &part.operator,
                part.worker,
                self.generation.number,
                part.version,
                &cut,
            )?);
        }
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            job: self.job.clone(),
            fingerprint: self.fingerprint.clone(),
            lineage: self.lineage,
            generation: self.generation,
            epoch: request.epoch,
            chain: request.chain,
            clock: request.state.clock,
            state: request.state,
            sources: self.sources.clone(),
            workers: self.workers,
            parts,
            sinks: request.sinks,
            clean: request.clean,
        };
        self.store.complete(&manifest)?;
        let status = &self.control.status;
        let now = clock.monotonic();
        let measure = CheckpointMeasure {
            at: clock.wall(),
            cut_us: request.parts.iter().map(|part| part.took.as_micros() as u64).max().unwrap_or(0),
            write_us: now.saturating_sub(began).as_micros() as u64,
            took_us: now.saturating_sub(request.opened).as_micros() as u64,
            ..sizes(&manifest, &mut self.files)
        };
        status.checkpoint_bytes.set(measure.bytes_added);
        status.checkpoint_cut_us.set(measure.cut_us);
        status.checkpoints.add(1);
        tracing::info!(
            epoch = measure.epoch,
            bytes = measure.bytes,
            added = measure.bytes_added,
            "a checkpoint is complete"
        );
        self.control.measures.checkpoints.completed(measure);
        self.store.collect(&[], self.generation.number)?;
        let needed = log_needed_from(&self.store, &mut self.needs)?;
        *self.trim.lock().expect("no holder panics") = needed;
        self.sinks.values().for_each(|sink| sink.forget_outputs_before(manifest.epoch));
        let mut completed = self.completed.lock().expect("no holder panics");
        completed.is_newest(&manifest, &self.store)?;
        for part in &request.parts {
            completed.released.entry((part.operator.clone(), part.worker)).or_default().push(manifest.epoch);
        }
        status.epoch_checkpointed.set(manifest.epoch);
        Ok(())
    }
}

/// The epoch from which on a restart from any checkpoint that is kept needs the binding log; `known` is what is known of those.
fn log_needed_from(store: &CheckpointStore, known: &mut BTreeMap<(Epoch, u64), Epoch>) -> Result<Option<Epoch>> {
    let kept = store.list()?;
    known.retain(|of, _| kept.iter().any(|kept| *of == (kept.epoch, kept.generation)));
    for kept in &kept {
        // One that can not be read is not restored from.
        let needs = || store.read(kept).map_or(kept.epoch, |manifest| needed_by(&manifest));
        known.entry((kept.epoch, kept.generation)).or_insert_with(needs);
    }
    Ok(known.values().min().copied())
}

/// A restart from a checkpoint replays what comes after it, and commits the intents of tables in it, which are of epochs before: each
/// under the hash of its epoch's binding.
fn needed_by(manifest: &Manifest) -> Epoch {
    let uncommitted = manifest.sinks.values().filter(|at| at.committed < at.last_output);
    uncommitted.map(|at| at.committed + 1).fold(manifest.epoch, Epoch::min)
}

/// Files and bytes, in all and of the files that the checkpoint before did not have.
fn sizes(manifest: &Manifest, known: &mut BTreeSet<(String, u64)>) -> CheckpointMeasure {
    let files: BTreeMap<_, _> = manifest.files().map(|f| ((f.hash.clone(), f.generation), f.bytes)).collect();
    let added: Vec<u64> = files.iter().filter(|(name, _)| !known.contains(*name)).map(|(_, bytes)| *bytes).collect();
    let measure = CheckpointMeasure {
        epoch: manifest.epoch,
        files: files.len(),
        bytes: files.values().sum(),
        files_added: added.len(),
        bytes_added: added.into_iter().sum(),
        ..CheckpointMeasure::default()
    };
    *known = files.into_keys().collect();
    measure
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::binding::PartitionState;
    use dataflow_core::{Micros, SourceId};
    use dataflow_state::storage::MemoryStorage;

    fn manifest(epoch: Epoch) -> Manifest {
        Manifest {
            version: MANIFEST_VERSION,
            job: "job".into(),
            fingerprint: String::new(),
            lineage: Lineage(1),
            generation: Generation { number: 1, nonce: 1 },
            epoch,
            chain: ChainHash::default(),
            clock: Micros(0),
            state: BindingState::default(),
            sources: vec!["s".into()],
            workers: 1,
            parts: Vec::new(),
            sinks: BTreeMap::new(),
            clean: false,
        }
    }

    #[test]
    fn the_log_reaches_back_to_the_intents_of_every_checkpoint_that_is_kept() {
        let storage = Arc::new(MemoryStorage::new());
        let store = CheckpointStore::open(storage, "checkpoints", 2).unwrap();
        let mut known = BTreeMap::new();
        let mut needed = |epoch, positions: &[(Epoch, Epoch)]| {
            let position = |(last_output, committed): &(Epoch, Epoch)| SinkPosition {
                last_output: *last_output,
                committed: *committed,
                chain: None,
            };
            let sinks = (0..).map(|n: u8| n.to_string()).zip(positions.iter().map(position)).collect();
            store.complete(&Manifest { sinks, ..manifest(epoch) }).unwrap();
            store.collect(&[], 1).unwrap();
            log_needed_from(&store, &mut known).unwrap()
        };
        assert_eq!(needed(10, &[(10, 10), (4, 4)]), Some(10), "all is committed");
        assert_eq!(needed(20, &[(20, 10), (20, 15)]), Some(10), "the older checkpoint is kept");
        assert_eq!(needed(30, &[(30, 20)]), Some(11), "one of epoch 11 to 20 is not committed");
        assert_eq!(needed(40, &[(40, 40)]), Some(21));
        assert_eq!(needed(50, &[(40, 40)]), Some(40));
    }

    #[test]
    fn sources_are_told_of_the_newest_and_of_the_oldest_kept_checkpoint() {
        const KEPT: usize = 3;
        let store = CheckpointStore::open(Arc::new(MemoryStorage::new()), "checkpoints", KEPT).unwrap();
        let partition = Partition { source: SourceId(0), index: 1 };
        let told = |completed: &Completed| (completed.newest[&partition], completed.oldest[&partition]);
        let mut newest = None;
        let mut completed = Completed::on_start(None, &store).unwrap();
        assert!(completed.newest.is_empty() && completed.oldest.is_empty());
        for epoch in 1..=5 {
            let mut state = BindingState::default();
            state.partitions.insert(partition, PartitionState { end: epoch * 100, newest: None });
            let manifest = Manifest { state, ..manifest(epoch) };
            store.complete(&manifest).unwrap();
            store.collect(&[], 1).unwrap();
            completed.is_newest(&manifest, &store).unwrap();
            assert_eq!(told(&completed), (epoch * 100, epoch.saturating_sub(KEPT as u64 - 1).max(1) * 100));
            newest = Some(manifest);
        }
        assert_eq!(completed.restorable, Restorable { oldest: 3, is_of_this_generation: true });
        let started = Completed::on_start(newest.as_ref(), &store).unwrap();
        assert_eq!(told(&started), (500, 300));
        assert_eq!(started.restorable, Restorable { oldest: 3, is_of_this_generation: false });
    }
}
