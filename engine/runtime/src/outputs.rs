//! In which epochs a sink, or a table of one, had output, with the hashes of their bindings: what manifests say of it (invariant 8).

use dataflow_core::{ChainHash, Epoch, Marker};
use dataflow_state::checkpoint::SinkPosition;
use std::collections::BTreeMap;

/// Epochs with output, each with its binding's hash once that is known; the first is the newest that older checkpoints may ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs(BTreeMap<Epoch, Option<ChainHash>>);

impl Outputs {
    /// What is known on a start, from the sink's marker and from the restored checkpoint. Epoch 0 is no output.
    pub(crate) fn after(marker: Option<Marker>, restored: Option<SinkPosition>) -> Outputs {
        let marker = marker.map(|marker| (marker.epoch, Some(marker.chain)));
        let restored = restored.map(|position| (position.last_output, position.chain));
        // Of the same epoch the marker speaks last: it always has the hash.
        Outputs(restored.into_iter().chain(marker).filter(|(epoch, _)| *epoch > 0).collect())
    }

    /// The epoch has output.
    pub(crate) fn note(&mut self, epoch: Epoch) {
        self.0.entry(epoch).or_default();
    }

    /// The hash of the binding of an epoch, if it has output.
    pub(crate) fn note_chain(&mut self, epoch: Epoch, chain: ChainHash) {
        if let Some(known) = self.0.get_mut(&epoch) {
            *known = Some(chain);
        }
    }

    /// The last epoch with output up to `c`, with its hash; 0 when there is none.
    pub(crate) fn last_up_to(&self, c: Epoch) -> (Epoch, Option<ChainHash>) {
        self.0.range(..=c).next_back().map(|(epoch, chain)| (*epoch, *chain)).unwrap_or_default()
    }

    /// Nothing before the last epoch with output up to `c` will be asked for.
    pub(crate) fn forget_before(&mut self, c: Epoch) {
        self.0 = self.0.split_off(&self.last_up_to(c).0);
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

    fn position(outputs: &Outputs, c: Epoch) -> SinkPosition {
        let (last_output, chain) = outputs.last_up_to(c);
        at(last_output, chain)
    }

    fn after(marker: Epoch, restored: Option<SinkPosition>) -> Outputs {
        let generation = Generation { number: 1, nonce: 1 };
        Outputs::after(Some(Marker { lineage: Lineage(7), generation, epoch: marker, chain: chain(marker) }), restored)
    }

    #[test]
    fn the_last_output_up_to_a_checkpoint_with_its_hash() {
        assert_eq!(position(&Outputs::after(None, None), 9), at(0, None));
        assert_eq!(position(&after(0, None), 9), at(0, None));
        let restored = after(7, Some(at(4, Some(chain(4)))));
        assert_eq!(position(&restored, 6), at(4, Some(chain(4))), "below the marker only the checkpoint knows");
        assert_eq!(position(&restored, 7), at(7, Some(chain(7))));
        let mut outputs = after(7, Some(at(7, Some(chain(7)))));
        assert_eq!(outputs.0.len(), 1);
        // Whatever the checkpoint that was restored knew, and whether a replay by another program has output there or not.
        assert_eq!(position(&outputs, 9), at(7, Some(chain(7))));
        outputs.0.extend([(10, None), (12, None)]);
        outputs.note_chain(10, chain(10));
        assert_eq!(position(&outputs, 9), at(7, Some(chain(7))));
        assert_eq!(position(&outputs, 11), at(10, Some(chain(10))));
        assert_eq!(position(&outputs, 12), at(12, None));
        outputs.forget_before(11);
        assert_eq!(position(&outputs, 11), at(10, Some(chain(10))));
        outputs.note_chain(12, chain(12));
        outputs.forget_before(40);
        assert_eq!(position(&outputs, 50), at(12, Some(chain(12))));
        assert_eq!(outputs.0.len(), 1);
    }
}
