//! Simulated time, the job's own dice, and the environment they make with the scheduler.
//!
//! Time moves only when the scheduler moves it. A machine's wall clock is off by what its life was given, so that it may fall from one
//! life to the next.

use crate::dice::Dice;
use crate::traffic::BEGINNING;
use dataflow_core::{Clock, Micros, Random};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Microseconds since the simulation began.
#[derive(Default)]
pub(crate) struct SimTime(AtomicU64);

impl SimTime {
    /// Now.
    pub(crate) fn now_us(&self) -> u64 {
        self.0.load(SeqCst)
    }

    /// Moves it on.
    pub(crate) fn advance(&self, micros: u64) {
        self.0.fetch_add(micros, SeqCst);
    }
}

/// The clocks of one life.
pub(crate) struct SimClock {
    pub(crate) time: Arc<SimTime>,
    /// How far its wall clock is off.
    pub(crate) off_us: i64,
}

impl Clock for SimClock {
    fn wall(&self) -> Micros {
        BEGINNING.plus(self.time.now_us() as i64 + self.off_us)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.time.now_us())
    }
}

/// Lineage and nonces.
pub(crate) struct SimRandom(pub(crate) Mutex<Dice>);

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}
