//! A sink's committer, a task, and what is known of the sink's output: which epoch had some last, for the manifests (invariant 8).
//!
//! What the sink holds at the start it says itself, by its marker: whatever a replay computes anew below that changes nothing about it,
//! so a checkpoint of an epoch below the marker repeats what the restored one said.
//! The hash of an epoch's binding is noted with it, so that a later start can prove a marker whose row the log does not hold any more.

use crate::control::Control;
use crate::link::{Link, Replies};
use dataflow_core::{ChainHash, Environment, Epoch, EpochOutput, Marker, Result, Sink, TaskState};
use dataflow_state::checkpoint::SinkPosition;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// Epochs handed to a sink's committer; it takes all that wait into one transaction.
const COMMITTING_EPOCHS_MAX: usize = 256;

/// A sink with its committer.
pub(crate) struct SinkConnection {
    pub(crate) link: Link<EpochOutput, Result<Epoch>>,
    /// Epochs up to this one are in the sink already.
    pub(crate) marker_epoch: Epoch,
    outputs: Mutex<Outputs>,
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
        SinkConnection { link, marker_epoch, outputs: Mutex::new(Outputs::after(marker, restored)) }
    }

    /// The epoch has output; epochs come in order.
    pub(crate) fn note_output(&self, epoch: Epoch) {
        if epoch > self.marker_epoch {
            self.outputs().0.push_back((epoch, None));
        }
    }

    /// The hash of the binding of an epoch with output.
    pub(crate) fn note_chain(&self, epoch: Epoch, chain: ChainHash) {
        self.outputs().note_chain(epoch, chain);
    }

    /// out(s, c).
    pub(crate) fn position(&self, c: Epoch) -> SinkPosition {
        self.outputs().position(c)
    }

    /// The checkpoint of `c` is complete: no older one will be asked for.
    pub(crate) fn forget_outputs_before(&self, c: Epoch) {
        self.outputs().forget_before(c);
    }

    fn outputs(&self) -> MutexGuard<'_, Outputs> {
        self.outputs.lock().expect("no holder panics")
    }
}

/// Epochs with output since the last checkpoint, ascending, each with its binding's hash once that is known; the first is the newest
/// one at or before the checkpoint.
#[derive(Default)]
struct Outputs(VecDeque<(Epoch, Option<ChainHash>)>);

impl Outputs {
    fn after(marker: Option<Marker>, restored: Option<SinkPosition>) -> Outputs {
        let marker = marker.map(|m| (m.epoch, Some(m.chain))).filter(|(epoch, _)| *epoch > 0);
        let restored = restored.map(|p| (p.last_output, p.chain)).filter(|(epoch, _)| *epoch > 0);
        let below = restored.filter(|(epoch, _)| marker.is_none_or(|(newest, _)| *epoch < newest));
        Outputs(below.into_iter().chain(marker).collect())
    }

    fn note_chain(&mut self, epoch: Epoch, chain: ChainHash) {
        if let Some((_, known)) = self.0.iter_mut().rfind(|(e, _)| *e == epoch) {
            *known = Some(chain);
        }
    }

    fn position(&self, c: Epoch) -> SinkPosition {
        let last = self.0.iter().take_while(|(e, _)| *e <= c).last();
        let (last_output, chain) = last.copied().unwrap_or_default();
        SinkPosition { last_output, committed: last_output, chain }
    }

    fn forget_before(&mut self, c: Epoch) {
        while self.0.get(1).is_some_and(|(second, _)| *second <= c) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::{Generation, Lineage};

    fn chain(epoch: Epoch) -> ChainHash {
        ChainHash([epoch as u8; 16])
    }

    fn at(last_output: Epoch, chain: Option<ChainHash>) -> SinkPosition {
        SinkPosition { last_output, committed: last_output, chain }
    }

    fn after(marker: Epoch, restored: Option<SinkPosition>) -> Outputs {
        let generation = Generation { number: 1, nonce: 1 };
        Outputs::after(Some(Marker { lineage: Lineage(7), generation, epoch: marker, chain: chain(marker) }), restored)
    }

    #[test]
    fn the_last_output_up_to_a_checkpoint_with_its_hash() {
        assert_eq!(Outputs::after(None, None).position(9), at(0, None));
        assert_eq!(after(0, None).position(9), at(0, None));
        let restored = after(7, Some(at(4, Some(chain(4)))));
        assert_eq!(restored.position(6), at(4, Some(chain(4))), "below the marker only the checkpoint knows");
        assert_eq!(restored.position(7), at(7, Some(chain(7))));
        let mut outputs = after(7, Some(at(7, Some(chain(7)))));
        assert_eq!(outputs.0.len(), 1);
        // Whatever the checkpoint that was restored knew, and whether a replay by another program has output there or not.
        assert_eq!(outputs.position(9), at(7, Some(chain(7))));
        outputs.0.extend([(10, None), (12, None)]);
        outputs.note_chain(10, chain(10));
        assert_eq!(outputs.position(9), at(7, Some(chain(7))));
        assert_eq!(outputs.position(11), at(10, Some(chain(10))));
        assert_eq!(outputs.position(12), at(12, None));
        outputs.forget_before(11);
        assert_eq!(outputs.position(11), at(10, Some(chain(10))));
        outputs.note_chain(12, chain(12));
        outputs.forget_before(40);
        assert_eq!(outputs.position(50), at(12, Some(chain(12))));
        assert_eq!(outputs.0.len(), 1);
    }
}
