//! What is measured of a running job: read by the live page and `/metrics`, never by anything that computes.
//!
//! Costs are kept off the records: operators and channels come from timely's own log ([`graph`]), everything else is noted once an
//! epoch, a commit or a checkpoint, under a lock that nobody holds for longer than a copy. Every list here is bounded.

pub mod checkpoints;
pub mod epochs;
pub mod graph;
pub mod histogram;
pub mod keys;
pub mod memory;
pub mod partitions;
pub mod restore;
pub mod rows;
pub mod tables;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Shared by all workers and tasks of a process.
#[derive(Default)]
pub struct Measures {
    /// How long epochs take to each stage, and how far each sink is.
    pub epochs: epochs::Epochs,
    /// What each source partition is at.
    pub partitions: partitions::Partitions,
    /// The last checkpoints.
    pub checkpoints: checkpoints::Checkpoints,
    /// State and load of each keyed operator.
    pub state: keys::KeyedState,
    /// Operators and channels, by worker.
    pub graph: graph::Graph,
    /// The newest committed rows.
    pub rows: rows::NewestRows,
    /// Tables, their sinks, the rows of small ones.
    pub tables: tables::Tables,
    /// What a start rebuilds.
    pub restore: restore::Restore,
    /// What the process has in memory.
    pub memory: memory::Memory,
    caught_up: AtomicBool,
}

impl Measures {
    /// The first epoch after the replay is bound.
    pub(crate) fn caught_up(&self) {
        self.caught_up.store(true, Ordering::Relaxed);
    }

    /// Whether the replay is behind us and every source has closed an epoch of its own.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Relaxed)
    }
}

/// Locks what is only ever copied under its lock.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("no holder of this lock can panic")
}
