//! The last checkpoints: size, files, duration.

use super::lock;
use dataflow_core::{Epoch, Micros};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Mutex;

/// Checkpoints that are remembered.
const KEPT: usize = 60;

/// A complete checkpoint of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckpointMeasure {
    /// Its epoch.
    pub epoch: Epoch,
    /// When its manifest was durable, by the machine's clock.
    pub at: Micros,
    /// Files that a restore would read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that the checkpoint before did not have.
    pub files_added: usize,
    /// Their bytes: what was stored for this one.
    pub bytes_added: u64,
    /// Microseconds for which the slowest worker was held by its cut.
    pub cut_us: u64,
    /// Microseconds that the writer took for copies and manifest.
    pub write_us: u64,
    /// Microseconds from the opening of its epoch to the durable manifest.
    pub took_us: u64,
}

/// Written by the checkpoint writer.
#[derive(Default)]
pub struct Checkpoints(Mutex<VecDeque<CheckpointMeasure>>);

impl Checkpoints {
    pub(crate) fn completed(&self, checkpoint: CheckpointMeasure) {
        let mut kept = lock(&self.0);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(checkpoint);
    }

    /// The remembered ones, oldest first.
    pub fn snapshot(&self) -> Vec<CheckpointMeasure> {
        lock(&self.0).iter().cloned().collect()
    }
}
