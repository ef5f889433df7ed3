//! Who writes: the lineage of a job's history, the generation of its processes, and the marker a sink keeps of both.

use crate::{ChainHash, Epoch};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A stable id of a job's history across restarts, upgrades and rescales. A new one comes only from an explicit start-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lineage(pub u64);

/// One life of a job's worker processes: a durable counter and a random nonce, which tells two processes
/// on copies of one data folder apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// Rises by one with each start.
    pub number: u64,
    /// Random for each start.
    pub nonce: u64,
}

/// What a sink keeps in itself, atomically with the data: whose output it has, and how far (invariant 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The history that the sink's content belongs to.
    pub lineage: Lineage,
    /// The generation that wrote it.
    pub generation: Generation,
    /// The last epoch whose output the sink holds; 0 when none (a marker that only fences).
    pub epoch: Epoch,
    /// The chain hash of that epoch's binding; all zero for epoch 0.
    pub chain: ChainHash,
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.number, self.nonce as u32)
    }
}
