//! When catalog and disk of the warehouse are away, and what their errors say: a life may end with such an error, as it may not with others.

use crate::clock::SimTime;
use dataflow_core::Error;
use std::sync::Arc;

/// What every error says that is made up here.
const MARK: &str = "(an outage)";

/// Times in which something is away.
pub(crate) struct Outages {
    pub(crate) time: Arc<SimTime>,
    /// From and to, in microseconds of the simulation.
    pub(crate) spans: Vec<(u64, u64)>,
}

impl Outages {
    /// Whether it is away now.
    pub(crate) fn is_away(&self) -> bool {
        let now = self.time.now_us();
        self.spans.iter().any(|(from, to)| (*from..*to).contains(&now))
    }
}

/// The text of an error that the outage of `what` is behind.
pub(crate) fn away(what: &str) -> String {
    format!("{what} {MARK}")
}

/// Whether an outage is behind an error.
pub(crate) fn explains(error: &Error) -> bool {
    error.to_string().contains(MARK)
}
