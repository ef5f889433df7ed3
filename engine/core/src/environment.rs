//! What is passed in rather than reached for: clocks, randomness, spawning. `clippy.toml` bans the direct calls.

use crate::{Micros, Spawner};
use std::sync::Arc;
use std::time::Duration;

/// Wall-clock and monotonic time.
pub trait Clock: Send + Sync {
    /// UTC now, as the machine believes.
    fn wall(&self) -> Micros;
    /// Time since some fixed instant of this process; never goes back.
    fn monotonic(&self) -> Duration;
}

/// Random numbers. Only identities (lineage, nonce) and generators use them, never a computation.
pub trait Random: Send + Sync {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}

/// The outside world of a job, but for its storage.
#[derive(Clone)]
pub struct Environment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Background tasks.
    pub spawner: Arc<dyn Spawner>,
}
