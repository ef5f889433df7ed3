//! The binding: the durable row that fixes what an epoch is, and the state that the rows add up to.
//!
//! Invariant 1 stands on this: with the rows and a checkpoint, every epoch can be computed again, to the byte.
//! A row holds what changed; [`BindingState`] is the sum of all rows so far and is what a full row, a manifest
//! and the watermark's computation hold. The rows are chained: [`ChainHash`] of a row covers the row before it.

use crate::{Epoch, Micros, Partition, SourceId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The hash of a binding row and, through the row before it, of the job's whole history: BLAKE3, cut to 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChainHash(pub [u8; 16]);

impl ChainHash {
    /// The hash of the row `payload` that follows the row with this hash.
    pub fn next(self, payload: &[u8]) -> ChainHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(payload);
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        ChainHash(hash)
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What an epoch took from one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    /// The next offset to read after this epoch.
    pub end: u64,
    /// Records read in the epoch, dead letters included.
    pub records: u64,
    /// XXH3 over the epoch's records of this partition in offset order: offset, key, value, each with its length.
    pub hash: u64,
    /// The greatest event time of the partition up to `end`, late records included, dead letters not.
    pub newest: Option<Micros>,
}

/// A writer's schema as it was first seen: what the id means from then on, whatever a registry answers later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SchemaBinding {
    /// The source whose records carry the id.
    pub source: SourceId,
    /// The id in the records' framing.
    pub id: u32,
    /// BLAKE3 (16 bytes) of the schema's text; `None` when the registry did not know the id.
    pub hash: Option<[u8; 16]>,
}

/// A lookup table in force from an epoch on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableBinding {
    /// The table's name in the job.
    pub name: String,
    /// BLAKE3 (16 bytes) of its content.
    pub hash: [u8; 16],
}

impl TableBinding {
    /// The hash of a table with this content.
    pub fn hash_of(content: &[u8]) -> [u8; 16] {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(content).as_bytes()[..16]);
        hash
    }
}

/// The durable row of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The epoch. Rises from row to row, not always by one.
    pub epoch: Epoch,
    /// The epoch's clock: `now()` for everything in it. Never falls.
    pub clock: Micros,
    /// The partitions that were listed or advanced in this epoch.
    pub advances: BTreeMap<Partition, Advance>,
    /// All idle partitions, when that set changed; else `None`.
    pub idle: Option<BTreeSet<Partition>>,
    /// W(e), the watermark at the end of the epoch.
    pub watermark: Option<Micros>,
    /// The bounded input has ended.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Whether the operators' state is cut at this epoch.
    pub checkpoint: bool,
    /// Schema ids first seen in this epoch.
    pub schemas: Vec<SchemaBinding>,
    /// Lookup tables that take effect with this epoch.
    pub tables: Vec<TableBinding>,
}

/// A partition as of some epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The next offset to read.
    pub end: u64,
    /// The greatest event time so far.
    pub newest: Option<Micros>,
}

/// The sum of all rows up to an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingState {
    /// The last epoch; 0 before the first row.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: Micros,
    /// Every partition listed so far.
    pub partitions: BTreeMap<Partition, PartitionState>,
    /// The idle ones.
    pub idle: BTreeSet<Partition>,
    /// W(epoch).
    pub watermark: Option<Micros>,
    /// The bounded input has ended.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Every schema id seen so far, by source and id.
    pub schemas: BTreeMap<(SourceId, u32), Option<[u8; 16]>>,
    /// The lookup tables in force, by name.
    pub tables: BTreeMap<String, [u8; 16]>,
}

impl BindingState {
    /// Adds the next row.
    ///
    /// # Panics
    /// When the row does not follow this state: the epoch does not rise, or the clock or an end falls. The log checks
    /// each row's chain before it is applied, so this is a broken promise of our own.
    pub fn apply(&mut self, row: &Binding) {
        assert!(row.epoch > self.epoch, "epoch {} does not follow {}", row.epoch, self.epoch);
        assert!(row.clock >= self.clock, "the clock of epoch {} falls", row.epoch);
        for (partition, advance) in &row.advances {
            let state = self.partitions.entry(*partition).or_insert(PartitionState { end: advance.end, newest: None });
            assert!(advance.end >= state.end, "the end of {partition:?} falls in epoch {}", row.epoch);
            *state = PartitionState { end: advance.end, newest: advance.newest };
        }
        if let Some(idle) = &row.idle {
            self.idle.clone_from(idle);
        }
        self.schemas.extend(row.schemas.iter().map(|s| ((s.source, s.id), s.hash)));
        self.tables.extend(row.tables.iter().map(|t| (t.name.clone(), t.hash)));
        (self.epoch, self.clock) = (row.epoch, row.clock);
        (self.watermark, self.is_final) = (row.watermark, row.is_final);
    }
}
