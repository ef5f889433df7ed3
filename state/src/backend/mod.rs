//! Where keyed state lives: one store per stateful operator instance (operator x worker), behind [`KeyedBackend`].
//!
//! The cut. Every operator instance owns its own store and cuts it alone, in the moment when it has applied epoch c and
//! nothing of c+1. Operators may be epochs apart; no store ever has to hold an older version for another one, and the
//! files of checkpoint c never hold a write of c+1. Deduplication between checkpoints happens in the checkpoint store,
//! by content. What a cut has to write out is written after the moment, off the worker's thread ([`PendingCut`]): until then the
//! store takes no further write, and no later watermark.
//!
//! Keys are `shard (u16 big-endian) ++ key` ([`state_key`]), so a shard is one range of keys: that is what a rescale
//! copies. Values begin with `expires`, an event time as big-endian `i64` microseconds ([`expires_of`]): a backend may
//! drop an entry, at any moment and without being asked, once the watermark is greater. Readers must therefore take an
//! expired entry for an absent one; [`KeyedTable`](crate::table::KeyedTable) does.
//!
//! A live store is never restored from: it has no write-ahead log and starts empty or from checkpoint files.

mod cut;
pub mod heap;
pub mod rocks;

pub use cut::{Cut, CutFormat, PartContent, PartFile, PendingCut};
pub use heap::HeapBackend;
pub use rocks::{RocksBackend, RocksMemory, RocksMemorySettings, RocksSettings};

use dataflow_core::{Micros, Result, SHARDS, Shard};
use std::path::Path;

/// Bytes of the shard in front of every key.
pub const SHARD_BYTES: usize = 2;
/// Bytes of `expires` in front of every value.
pub const EXPIRES_BYTES: usize = 8;

/// What a scan calls with each key and value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// A store of one operator instance. Not shared between threads; it moves to the worker that owns it.
pub trait KeyedBackend: Send {
    /// The values of `keys`, in their order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>>;

    /// Applies all of `puts` or none of them; `None` removes. A key occurs once.
    ///
    /// # Errors
    /// When the store cannot be written; it is unusable from then on.
    fn write(&mut self, puts: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()>;

    /// Freezes the present contents under `label` (ASCII letters, digits, `-`), until [`KeyedBackend::release`]. The slow part
    /// may be left to [`PendingCut::finish`], on any thread; a later write waits for it.
    ///
    /// # Errors
    /// When the label is taken or the store cannot be written.
    fn cut(&mut self, label: &str) -> Result<PendingCut>;

    /// The files of a cut are stored elsewhere, or not wanted any more. Nothing when there is no such cut.
    ///
    /// # Errors
    /// When the local copy cannot be removed.
    fn release(&mut self, label: &str) -> Result<()>;

    /// Calls `f` with every entry of a shard, in key order.
    ///
    /// # Errors
    /// When the store cannot be read, or what `f` returns.
    fn scan_shard(&self, shard: Shard, f: &mut Visit<'_>) -> Result<()>;

    /// Calls `f` with every entry, in key order.
    ///
    /// # Errors
    /// As [`KeyedBackend::scan_shard`].
    fn scan(&self, f: &mut Visit<'_>) -> Result<()> {
        (0..SHARDS).try_for_each(|shard| self.scan_shard(Shard(shard), f))
    }

    /// From now on entries that expire before `watermark` may be dropped. Called with the watermark of epochs that are
    /// applied, so a cut at c has only ever seen watermarks up to W(c).
    fn set_watermark(&self, watermark: Micros);

    /// Sizes, for metrics and bounds.
    fn stats(&self) -> BackendStats;
}

/// Sizes of a store. Estimates: RocksDB counts overwritten entries until it compacts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// Entries.
    pub keys_estimate: u64,
    /// Bytes of live keys and values.
    pub live_bytes: u64,
    /// Memory of this store alone, without the block cache that all stores of the process share.
    pub memory_bytes: u64,
}

/// Which backend a job keeps its state in, with all that opening one takes.
#[derive(Clone, Debug)]
pub enum BackendKind {
    /// On the heap.
    Heap,
    /// In RocksDB.
    Rocks {
        /// The shape of each store.
        settings: RocksSettings,
        /// The memory that all stores of the process share.
        memory: RocksMemory,
    },
}

impl BackendKind {
    /// An empty store; RocksDB's lies in the folder `live`, which is wiped.
    ///
    /// # Errors
    /// When RocksDB cannot create its database there.
    pub fn create(&self, live: &Path) -> Result<Box<dyn KeyedBackend>> {
        Ok(match self {
            BackendKind::Heap => Box::new(HeapBackend::new()),
            BackendKind::Rocks { settings, memory } => Box::new(RocksBackend::create(live, settings, memory)?),
        })
    }

    /// Bytes that all its stores share in memory: RocksDB's block cache, with the write buffers. Stores on the heap share none.
    pub fn shared_bytes(&self) -> u64 {
        match self {
            BackendKind::Heap => 0,
            BackendKind::Rocks { memory, .. } => memory.used_bytes() as u64,
        }
    }

    /// The format of its cuts.
    pub fn format(&self) -> CutFormat {
        match self {
            BackendKind::Heap => CutFormat::Heap,
            BackendKind::Rocks { .. } => CutFormat::Rocks,
        }
    }
}

/// The key under which `key` is stored.
pub fn state_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(SHARD_BYTES + key.len());
    stored.extend_from_slice(&Shard::of(key).0.to_be_bytes());
    stored.extend_from_slice(key);
    stored
}

/// The event time in front of a value; one that is too short for it never expires.
pub fn expires_of(value: &[u8]) -> Micros {
    value.first_chunk::<EXPIRES_BYTES>().map_or(Micros(i64::MAX), |bytes| Micros(i64::from_be_bytes(*bytes)))
}

/// The shard of a stored key; the first two bytes are always there in a key of ours.
fn shard_of(stored_key: &[u8]) -> Option<Shard> {
    stored_key
        .first_chunk::<SHARD_BYTES>()
        .map(|bytes| Shard(u16::from_be_bytes(*bytes)))
        .filter(|shard| shard.0 < SHARDS)
}

/// A label becomes a folder name: nothing that could leave the folder.
fn check_label(label: &str) -> Result<()> {
    if label.is_empty() || !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(dataflow_core::Error::us(format!("cut state under '{label}', which is no label")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
