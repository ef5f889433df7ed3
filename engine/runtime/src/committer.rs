//! A sink's committer, a task, and what is known of the sink's output: which epoch had some last, for the manifests (invariant 8).
//!
//! What the sink holds at the start it says itself, by its marker: whatever a replay computes anew below that changes nothing about it,
//! so a checkpoint of an epoch below the marker repeats what the restored one said.
//! The hash of an epoch's binding is noted with it, so that a later start can prove a marker whose row the log does not hold any more.

use crate::control::Control;
use crate::link::{Link, Replies};
use crate::outputs::Outputs;
use dataflow_core::{ChainHash, Environment, Epoch, EpochOutput, Marker, Result, Sink, TaskState};
use dataflow_state::checkpoint::SinkPosition;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// Epochs handed to a sink's committer; it takes all that wait into one transaction.
const COMMITTING_EPOCHS_MAX: usize = 256;

/// A sink with its committer.
pub(crate) struct SinkConnection {
    pub(crate) link: Link<EpochOutput, Result<Epoch>>,
    /// Epochs up to this one are in the sink already.
    pub(crate) marker_epoch: Epoch,
    outputs: Mutex<Outputs>,
    waiting: AtomicUsize,
}

impl SinkConnection {
    /// Starts the committer of a sink that was opened and holds `marker`, at least what the restored checkpoint says. All epochs that
    /// wait go into one transaction.
    pub(crate) fn start(
        environment: &Environment,
        control: &Arc<Control>,
        mut sink: Box<dyn Sink>,
        marker: Option<Marker>,
        restored: Option<SinkPosition>,
    ) -> SinkConnection {
        let name = format!("sink {}", sink.name());
        let (clock, control) = (environment.clock.clone(), control.clone());
        let commit = move |epochs: Vec<EpochOutput>, replies: &Replies<Result<Epoch>>| {
            let Some(last) = epochs.last().map(|e| e.epoch) else { return TaskState::Waiting };
            let began = clock.monotonic();
            match sink.commit(&epochs) {
                Ok(()) => {
                    let (measures, name) = (&control.measures, sink.name());
                    let rows = epochs.iter().map(|e| e.rows.len()).sum();
                    let bytes = epochs.iter().flat_map(|e| &e.rows).map(|row| row.value.len()).sum();
                    measures.epochs.delivered(name, clock.monotonic().saturating_sub(began), rows, bytes);
                    measures.rows.committed(name, &epochs, clock.wall());
                    replies.send(Ok(last));
                    TaskState::Waiting
                }
                Err(error) => {
                    replies.send(Err(error));
                    TaskState::Done
                }
            }
        };
        let link = Link::spawn(&*environment.spawner, &name, COMMITTING_EPOCHS_MAX, commit);
        let marker_epoch = marker.map_or(0, |m| m.epoch);
        SinkConnection {
            link,
            marker_epoch,
            outputs: Mutex::new(Outputs::after(marker, restored)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// So many epochs are staged and not committed.
    pub(crate) fn note_waiting(&self, epochs: usize) {
        self.waiting.store(epochs, Relaxed);
    }

    /// Epochs staged and not committed.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// The epoch has output; epochs come in order.
    pub(crate) fn note_output(&self, epoch: Epoch) {
        if epoch > self.marker_epoch {
            self.outputs().note(epoch);
        }
    }

    /// The hash of the binding of an epoch with output.
    pub(crate) fn note_chain(&self, epoch: Epoch, chain: ChainHash) {
        self.outputs().note_chain(epoch, chain);
    }

    /// out(s, c).
    pub(crate) fn position(&self, c: Epoch) -> SinkPosition {
        let (last_output, chain) = self.outputs().last_up_to(c);
        SinkPosition { last_output, committed: last_output, chain }
    }

    /// The checkpoint of `c` is complete: no older one will be asked for.
    pub(crate) fn forget_outputs_before(&self, c: Epoch) {
        self.outputs().forget_before(c);
    }

    fn outputs(&self) -> MutexGuard<'_, Outputs> {
        self.outputs.lock().expect("no holder panics")
    }
}
