//! What the process has in memory, and how much it may have.

use crate::control::Counter;
use serde::Serialize;

/// Set by whoever keeps the budget.
#[derive(Default)]
pub struct Memory {
    /// Bytes resident.
    pub used: Counter,
    /// The limit; 0 while there is none.
    pub limit: Counter,
}

/// [`Memory`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryMeasure {
    /// Bytes resident.
    pub bytes: u64,
    /// At more than these the job stops; 0: it is not known how many there are.
    pub limit_bytes: u64,
}

impl Memory {
    /// Both.
    pub fn snapshot(&self) -> MemoryMeasure {
        MemoryMeasure { bytes: self.used.get(), limit_bytes: self.limit.get() }
    }
}
