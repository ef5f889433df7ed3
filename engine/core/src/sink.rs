//! What a sink connector implements: transactions of whole epochs, each with its marker inside.
//!
//! The runtime's sink operator stages, orders and waits for the durable frontier; a connector commits. A connector is
//! called from a task of its own and may block.

use crate::ChainHash;
use crate::{Epoch, Generation, Lineage, Marker, Micros, Position, Result};
use serde::{Deserialize, Serialize};

/// The rank of an output topic among the job's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub u16);

/// Where a row stands among the rows of its topic and epoch (invariant 1), as SEMANTICS says: by the record it speaks of, then
/// by the rank of who says it, what takes back before what says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowOrder {
    /// Event time of the record.
    pub time: Micros,
    /// Position of the record.
    pub position: Position,
    /// Rank of the detector; 0 elsewhere.
    pub rank: u16,
    /// 0 for what takes back, 1 for what says.
    pub phase: u8,
}

/// A serialised row on its way to a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRow {
    /// The topic.
    pub topic: TopicId,
    /// Its place in the epoch.
    pub order: RowOrder,
    /// What the row is partitioned by: our stable hash of the partitioning key.
    pub route: u64,
    /// The key bytes; `None` is a null key.
    pub key: Option<Vec<u8>>,
    /// The value bytes: one JSON object without a newline.
    pub value: Vec<u8>,
}

/// All rows of one closed epoch, ordered by (topic, order).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochOutput {
    /// The epoch.
    pub epoch: Epoch,
    /// Its binding's hash, for the marker.
    pub chain: ChainHash,
    /// The rows, in the order in which a consumer must see them.
    pub rows: Vec<OutputRow>,
}

/// Whose output a sink is about to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkIdentity {
    /// The job's name.
    pub job: String,
    /// The job's history.
    pub lineage: Lineage,
    /// This life of it.
    pub generation: Generation,
}

impl SinkIdentity {
    /// The marker of an epoch.
    pub fn marker(&self, epoch: Epoch, chain: ChainHash) -> Marker {
        Marker { lineage: self.lineage, generation: self.generation, epoch, chain }
    }
}

/// A sink with transactions. After an error of any call nothing further is called but `open` of a new process.
pub trait Sink: Send {
    /// The sink's name in messages and manifests.
    fn name(&self) -> &str;

    /// Returns the marker found (`None` when the sink never held output of this job), so that it stays the marker: a system
    /// that others can write to is fenced first. Beyond that nothing is changed: the start check comes after it. Called once,
    /// first.
    ///
    /// # Errors
    /// [`crate::Fault::Fenced`] when the marker names a higher generation or our own with another nonce.
    fn open(&mut self, identity: &SinkIdentity) -> Result<Option<Marker>>;

    /// The start check has passed (invariant 8): makes what is uncommitted go away, and the marker found durable under this
    /// generation. Called once, after `open` and before any commit.
    ///
    /// # Errors
    /// When the outside system fails.
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// Commits consecutive epochs (ascending, at least one, each with at least one row) as one transaction with the marker
    /// of the last. On return they are visible and durable.
    ///
    /// # Errors
    /// After an unknown outcome the connector re-reads its marker and either reports success or fails; it never repeats
    /// blindly (invariant 5).
    fn commit(&mut self, epochs: &[EpochOutput]) -> Result<()>;
}
