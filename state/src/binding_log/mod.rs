//! The binding log: the durable rows that fix what each epoch is (invariants 1 and 2).
//!
//! ```text
//! bindings/00000000000000000001.log      a segment, named by the epoch of its first row
//!     head    magic, version, lineage and source names, CRC-32C
//!     full    the state and the chain hash before the first row
//!     row     epoch 1   |
//!     row     epoch 2   |  each a frame: length, CRC-32C, start of its batch, Binding, chain hash
//!     ...
//! bindings/00000000000000081234.log      the next one; older ones can go, its full row stands for them
//! ```
//!
//! Invariants:
//! - A batch of rows is one write and one sync, and [`BindingLog::append`] returns only after both.
//! - The chain hash of a row covers the row before it, across segments; full rows are not part of the chain.
//! - A full row equals what the rows before it add up to, which every reader that crosses it checks.
//! - Only the last segment can be torn. *Torn* is damage that an interrupted append explains: each frame names where its
//!   batch begins, and no batch is begun before the one before it is synced, so damage in front of a batch that follows is no torn
//!   write but corruption, and an error. Anything else from the first bad byte on belongs to the last batch.
//! - [`scan`] decides nothing: whether a torn tail may be cut is for invariant 8 to say, at the start of the job.
//!
//! It refuses rows that do not follow (an epoch that does not rise, a clock or an end that falls), a log of another lineage
//! or with other sources, and anything at all after a failed write or sync (invariant 5).

pub mod export;
mod frame;
mod local;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod walk;

pub use local::LocalBindingLog;
pub use scan::{Extent, Rows, Scan, Tail, chain_at, extent, rows, scan};

use dataflow_core::{Binding, ChainHash, Epoch, Lineage, Result};
use serde::{Deserialize, Serialize};

/// The log as its writer sees it.
pub trait BindingLog: Send {
    /// Appends rows as one write and one sync; they are durable when this returns. The answers are the rows' chain hashes.
    ///
    /// # Errors
    /// When a row does not follow the one before it, or the write or the sync fails; the log then refuses everything.
    fn append(&mut self, rows: &[Binding]) -> Result<Vec<ChainHash>>;

    /// Allows everything before `below` to go, the oldest epoch that a manifest or a sink's marker still needs. What goes
    /// is up to the log's retention; the row of `below` and all after it stay.
    fn trim(&mut self, below: Epoch) -> Result<()>;

    /// Its size.
    fn bytes(&self) -> u64;
}

/// When the log rolls and what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A segment that has reached this size gets no further batch.
    pub segment_bytes: u64,
    /// Trimmed segments go when the log is larger than this,
    pub retain_bytes: u64,
    /// or when their last row is older than this, by the epochs' clock.
    pub retain_us: i64,
}

impl Default for LogSettings {
    /// 64 MiB segments (read whole on a start), kept for 30 days or 10 GB.
    fn default() -> LogSettings {
        let retain_us = 30 * dataflow_core::time::DAY;
        LogSettings { segment_bytes: 64 << 20, retain_bytes: 10_000_000_000, retain_us }
    }
}

/// What every segment says about the log it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHeader {
    /// The history that the rows are of.
    pub lineage: Lineage,
    /// The names of the job's sources, in the order of their [`SourceId`](dataflow_core::SourceId)s.
    pub sources: Vec<String>,
}
