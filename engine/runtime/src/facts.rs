//! What travels beside the records: the tick that opens an epoch, what sources say of it, and the facts that fix it.

use dataflow_core::{Advance, Binding, Epoch, Micros, Partition, SchemaBinding, SourceId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Opens an epoch on every worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tick {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: Micros,
    /// State is cut at the end of this epoch.
    pub checkpoint: bool,
    /// The last epoch before a clean stop or the end of the input.
    pub last: bool,
    /// What the epoch reads, when that is decided already; else whatever comes until the next tick.
    pub bound: Option<Arc<Bound>>,
}

/// An epoch whose extent is known beforehand: a replayed row of the log, or a row of a bindings file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bound {
    /// The next offset to read of each partition that advances.
    pub ends: BTreeMap<Partition, u64>,
    /// The idle partitions.
    pub idle: BTreeSet<Partition>,
    /// The bounded input has ended.
    pub is_final: bool,
    /// The watermark that must come out (possibly none), when the row says it.
    pub watermark: Option<Option<Micros>>,
    /// The durable row, in a replay: count and hash of what is read must equal it.
    pub replay: Option<Binding>,
}

/// What one worker's share of one source did in an epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceFacts {
    /// The source.
    pub source: SourceId,
    /// The worker.
    pub worker: usize,
    /// Partitions that were listed or advanced.
    pub advances: Vec<(Partition, Advance)>,
    /// Partitions that brought a record that is no dead letter, or were first listed.
    pub active: Vec<Partition>,
    /// Partitions read to their end.
    pub at_end: Vec<Partition>,
    /// Every partition of this share is bounded and over.
    pub exhausted: bool,
    /// Schema ids first resolved.
    pub schemas: Vec<SchemaBinding>,
}

/// What fixes an epoch for the operators; broadcast as soon as it is gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochFacts {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: Micros,
    /// W(e-1): what decides lateness in this epoch.
    pub watermark_before: Option<Micros>,
    /// W(e): what it releases.
    pub watermark: Option<Micros>,
    /// State is cut at the end of this epoch.
    pub checkpoint: bool,
}
