//! The trace: a running hash over every decision of the scheduler and every call to the outside, so that two runs of a seed can
//! be told to be the same run. With `DATAFLOW_SIM_TRACE=FILE` the entries are written out too, to find where two runs part.

use dataflow_core::stable_hash;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// A run's trace.
pub(crate) struct Trace(Mutex<Entries>);

struct Entries {
    hash: u64,
    count: u64,
    out: Option<std::io::BufWriter<std::fs::File>>,
}

impl Trace {
    /// An empty one.
    pub(crate) fn new() -> Trace {
        let file = std::env::var_os("DATAFLOW_SIM_TRACE").and_then(|path| std::fs::File::create(path).ok());
        Trace(Mutex::new(Entries { hash: 0, count: 0, out: file.map(std::io::BufWriter::new) }))
    }

    /// Adds an entry: what happened, to what, and a number that goes with it.
    pub(crate) fn note(&self, what: &str, object: &str, number: u64) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = [entries.hash, stable_hash(what.as_bytes()), stable_hash(object.as_bytes()), number];
        let mut bytes = [0; 32];
        for (slot, part) in bytes.chunks_exact_mut(8).zip(parts) {
            slot.copy_from_slice(&part.to_le_bytes());
        }
        entries.hash = stable_hash(&bytes);
        entries.count += 1;
        if let Some(out) = entries.out.as_mut() {
            // A trace that cannot be written is of no use, and no reason to end the run.
            let _ = writeln!(out, "{what} {object} {number}");
        }
    }

    /// The hash so far, and how many entries it covers.
    pub(crate) fn digest(&self) -> (u64, u64) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(out) = entries.out.as_mut() {
            let _ = out.flush();
        }
        (entries.hash, entries.count)
    }
}
