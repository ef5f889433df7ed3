//! One suite for the simulated outside and the real one: what a run relies on holds for both, or the runs prove nothing.
//!
//! Each part is a function over what is to conform. Storage runs on all of them here; the cluster on the simulated broker here and on a
//! real one in `tests/cluster.rs` (`compose/e2e/run connectors`).

mod clock;
mod cluster;
mod storage;
mod warehouse;

pub use clock::{clock, spawner};
pub use cluster::cluster;
pub use storage::storage;
pub use warehouse::warehouse;

#[cfg(test)]
mod tests;
