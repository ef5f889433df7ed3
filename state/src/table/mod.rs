//! A keyed table: typed values per key over a [`KeyedBackend`], with a bounded write-back cache.
//!
//! ```text
//!   load(keys) --one multi_get--> cache --get_mut--> dirty --end_epoch: old, or over the bound--> one batch --> backend
//!                                   ^                                                              |
//!                                   +--- stays, clean; evicted by the clock when over its bound ---+
//!   cut: all dirty entries are written, then the backend cuts itself, which it may finish later
//! ```
//!
//! The life of an epoch: `load` what it touches, `get_mut`, `end_epoch`. Within an epoch the cache may outgrow its bounds
//! by what that epoch loads, which the epoch's own bound on records limits.
//!
//! Expiry. A value whose [`StateValue::expires`] is below the watermark of the last ended epoch is loaded as the default,
//! whether or not the backend has dropped it and whether it comes from the cache or from disk: what an operator sees
//! does not depend on compactions, cache sizes or restarts.
//!
//! In the backend a value is `expires` (i64 big-endian) ++ [`StateValue::VERSION`] (u16 big-endian) ++ its encoding.

mod cache;

use crate::backend::{EXPIRES_BYTES, KeyedBackend, PendingCut, SHARD_BYTES};
use cache::Cache;
use dataflow_core::{Error, Micros, Result, SHARDS, Shard};
use serde::{Deserialize, Serialize};

const VERSION_BYTES: usize = 2;

/// A value of keyed state.
pub trait StateValue: Default {
    /// The version of the encoding. Rises when old bytes would decode to something else.
    const VERSION: u16;

    /// The oldest version that [`StateValue::migrate`] reads. A checkpoint with an older one is refused at the start.
    const READS_FROM: u16 = Self::VERSION;

    /// Appends the encoding. Equal values give equal bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads an encoding of this version.
    ///
    /// # Errors
    /// When the bytes are none.
    fn decode(bytes: &[u8]) -> Result<Self>;

    /// Reads an encoding of an older version.
    ///
    /// # Errors
    /// When there is no migration from that version, which is so unless a type says otherwise.
    fn migrate(version: u16, bytes: &[u8]) -> Result<Self> {
        let _ = bytes;
        Err(Error::user(format!(
            "read state of version {version} with code for version {}, which has no migration from it",
            Self::VERSION
        ))
        .hint("give the state a migration, or start over with a new lineage"))
    }

    /// The event time after which (watermark > it) this value equals the default. `Micros(i64::MAX)`: never.
    fn expires(&self) -> Micros;

    /// Bytes in memory, estimated.
    fn weight(&self) -> usize;

    /// Whether it equals the default: such a value is not stored.
    fn is_default(&self) -> bool;

    /// Brings the value to the form it is stored in, before it is written out: drop what the watermark made irrelevant.
    fn settle(&mut self, watermark: Option<Micros>) {
        let _ = watermark;
    }
}

/// Appends a value's postcard encoding: what [`StateValue::encode`] of plain data does.
pub fn encode_postcard<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    *out = postcard::to_extend(value, std::mem::take(out)).expect("state values have no unsized or untagged parts");
}

/// Reads what [`encode_postcard`] wrote; `what` it is says the error.
///
/// # Errors
/// When the bytes are none.
pub fn decode_postcard<'b, T: Deserialize<'b>>(bytes: &'b [u8], what: &str) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|cause| Error::doubt(format!("reading {what}")).because(cause))
}

/// Epochs for which a changed value may wait to be written. Epochs are short where latency counts: then little is left for a cut, which
/// writes all of it on the flow's way (at 10,000 changes a second and ticks of 5 ms some 3,000 values). In a backlog they are long, and
/// the bytes are the bound.
const DIRTY_EPOCHS_MAX: u64 = 64;

/// The bounds of a table's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSettings {
    /// Bytes of values and keys kept in memory between epochs.
    pub cache_bytes: usize,
    /// Bytes of changed values after which those changed first are written to the backend.
    pub dirty_bytes: usize,
}

impl Default for TableSettings {
    /// 64 MiB of hot values; writes in batches of 16 MiB, which is a RocksDB write buffer.
    fn default() -> Self {
        TableSettings { cache_bytes: 64 << 20, dirty_bytes: 16 << 20 }
    }
}

/// Sizes and counts of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Cached entries.
    pub cached: usize,
    /// Their bytes, as of the last ended epoch.
    pub cached_bytes: usize,
    /// Bytes of those not written yet.
    pub dirty_bytes: usize,
    /// Keys that `load` found in the cache, since the start.
    pub hits: u64,
    /// Keys that it had to ask the backend for.
    pub misses: u64,
    /// The backend's sizes.
    pub backend: crate::backend::BackendStats,
}

/// Where a loaded key's value is, until its epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// Typed state per key.
pub struct KeyedTable<V> {
    backend: Box<dyn KeyedBackend>,
    settings: TableSettings,
    cache: Cache<V>,
    watermark: Option<Micros>,
    hits: u64,
    misses: u64,
}

impl<V: StateValue> KeyedTable<V> {
    /// A table over `backend`, which may hold what an earlier table of the same type wrote. `watermark` is W of the epoch
    /// that the backend was restored from, `None` for an empty one.
    pub fn new(backend: Box<dyn KeyedBackend>, settings: TableSettings, watermark: Option<Micros>) -> KeyedTable<V> {
        let mut table = KeyedTable { backend, settings, cache: Cache::default(), watermark: None, hits: 0, misses: 0 };
        table.advance(watermark);
        table
    }

    /// Brings `keys` into the cache, with one read for those that are not there. Says where each of them is, until the epoch ends.
    ///
    /// # Errors
    /// When the backend cannot be read or a value not be decoded.
    pub fn load(&mut self, keys: &[&[u8]]) -> Result<Vec<Slot>> {
        let mut slots = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for (rank, key) in keys.iter().enumerate() {
            let found = self.cache.find(key);
            slots.push(Slot(found.unwrap_or(usize::MAX)));
            match found {
                Some(slot) => {
                    self.hits += 1;
                    self.cache.expire(slot, self.watermark);
                }
                None => {
                    self.misses += 1;
                    missing.push((crate::backend::state_key(key), rank));
                }
            }
        }
        if missing.is_empty() {
            return Ok(slots);
        }
        missing.sort_unstable();
        let mut asked: Vec<&[u8]> = missing.iter().map(|(key, _)| key.as_slice()).collect();
        asked.dedup();
        let found = self.backend.multi_get(&asked)?;
        let mut slot = usize::MAX;
        let mut found = asked.into_iter().zip(found).peekable();
        for (key, rank) in &missing {
            if let Some((key, stored)) = found.next_if(|(asked, _)| *asked == key.as_slice()) {
                let value = match &stored {
                    Some(bytes) => decode_stored::<V>(key, bytes, self.watermark)?.unwrap_or_default(),
                    None => V::default(),
                };
                slot = self.cache.insert(key.to_vec(), value, stored.is_some());
            }
            slots[*rank] = Slot(slot);
        }
        Ok(slots)
    }

    /// The value of a key loaded in this epoch, for reading.
    pub fn get(&mut self, slot: Slot) -> &V {
        self.cache.read(slot.0)
    }

    /// The value of a key loaded in this epoch, for changing.
    pub fn get_mut(&mut self, slot: Slot) -> &mut V {
        self.cache.change(slot.0)
    }

    /// The epoch is applied; `watermark` is W of it.
    ///
    /// # Errors
    /// When changed values have to be written and cannot be.
    pub fn end_epoch(&mut self, watermark: Option<Micros>) -> Result<()> {
        self.advance(watermark);
        self.cache.weigh_changed();
        self.cache.end_epoch();
        self.write_dirty(DIRTY_EPOCHS_MAX, self.settings.dirty_bytes)?;
        self.cache.evict_to(self.settings.cache_bytes);
        if self.cache.bytes() > self.settings.cache_bytes && self.cache.dirty_bytes() > 0 {
            // What is left is dirty: a cache smaller than the dirty bound.
            self.write_all()?;
            self.cache.evict_to(self.settings.cache_bytes);
        }
        Ok(())
    }

    /// Freezes the table as of the ended epoch with this watermark.
    ///
    /// # Errors
    /// When the backend cannot be written or cut.
    pub fn cut(&mut self, label: &str, watermark: Option<Micros>) -> Result<PendingCut> {
        self.advance(watermark);
        self.write_all()?;
        self.cache.evict_to(self.settings.cache_bytes);
        self.backend.cut(label)
    }

    /// The cut's files are stored elsewhere.
    ///
    /// # Errors
    /// As [`KeyedBackend::release`].
    pub fn release(&mut self, label: &str) -> Result<()> {
        self.backend.release(label)
    }

    /// Calls `f` with every key and value that is not the default, ordered by shard and key. Writes what is dirty first.
    ///
    /// # Errors
    /// When the backend cannot be read, a value not be decoded, or what `f` returns.
    pub fn scan(&mut self, f: &mut dyn FnMut(&[u8], V) -> Result<()>) -> Result<()> {
        self.write_all()?;
        (0..SHARDS).try_for_each(|shard| self.scan_written(Shard(shard), f))
    }

    /// As [`KeyedTable::scan`], of one shard.
    ///
    /// # Errors
    /// As there.
    pub fn scan_shard(&mut self, shard: Shard, f: &mut dyn FnMut(&[u8], V) -> Result<()>) -> Result<()> {
        self.write_all()?;
        self.scan_written(shard, f)
    }

    fn scan_written(&self, shard: Shard, f: &mut dyn FnMut(&[u8], V) -> Result<()>) -> Result<()> {
        let watermark = self.watermark;
        self.backend.scan_shard(shard, &mut |key, bytes| match decode_stored::<V>(key, bytes, watermark)? {
            Some(value) => f(&key[SHARD_BYTES..], value),
            None => Ok(()),
        })
    }

    /// Sizes and counts.
    pub fn stats(&self) -> TableStats {
        TableStats {
            cached: self.cache.len(),
            cached_bytes: self.cache.bytes(),
            dirty_bytes: self.cache.dirty_bytes(),
            hits: self.hits,
            misses: self.misses,
            backend: self.backend.stats(),
        }
    }

    fn advance(&mut self, watermark: Option<Micros>) {
        assert!(watermark >= self.watermark, "the watermark falls from {:?} to {watermark:?}", self.watermark);
        self.watermark = watermark;
        if let Some(watermark) = watermark {
            self.backend.set_watermark(watermark);
        }
    }

    /// Writes all changed values. Afterwards all are clean.
    fn write_all(&mut self) -> Result<()> {
        self.write_dirty(0, 0)
    }

    /// Writes the changed values that [`Cache::take_dirty`] gives, in key order, as one batch. Afterwards they are clean.
    fn write_dirty(&mut self, age_max: u64, bytes_max: usize) -> Result<()> {
        let watermark = self.watermark;
        let mut puts = Vec::new();
        for slot in self.cache.take_dirty(age_max, bytes_max) {
            let entry = self.cache.entry(slot);
            let value = entry.value_for_write(watermark);
            value.settle(watermark);
            let bytes = (!value.is_default()).then(|| encode_stored(value));
            // A key that the backend has never seen needs no tombstone.
            let (was_stored, is_stored) = (entry.stored, bytes.is_some());
            if was_stored || is_stored {
                puts.push((entry.key.to_vec(), bytes));
            }
            entry.stored = is_stored;
            self.cache.weigh(slot);
        }
        if puts.is_empty() {
            return Ok(());
        }
        puts.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.backend.write(&puts)
    }
}

fn encode_stored<V: StateValue>(value: &V) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(EXPIRES_BYTES + VERSION_BYTES + value.weight());
    bytes.extend_from_slice(&value.expires().0.to_be_bytes());
    bytes.extend_from_slice(&V::VERSION.to_be_bytes());
    value.encode(&mut bytes);
    bytes
}

/// The value in `bytes`; `None` when it has expired.
fn decode_stored<V: StateValue>(stored_key: &[u8], bytes: &[u8], watermark: Option<Micros>) -> Result<Option<V>> {
    let key = || format!("read state of key '{}'", stored_key[SHARD_BYTES..].escape_ascii());
    let header = bytes.split_at_checked(EXPIRES_BYTES).and_then(|(_, rest)| rest.split_first_chunk::<VERSION_BYTES>());
    let Some((version, encoded)) = header else {
        return Err(Error::outside(format!("{}: {} bytes are no value", key(), bytes.len())));
    };
    if Some(crate::backend::expires_of(bytes)) < watermark {
        return Ok(None);
    }
    let version = u16::from_be_bytes(*version);
    let value = match version.cmp(&V::VERSION) {
        std::cmp::Ordering::Equal => V::decode(encoded),
        std::cmp::Ordering::Less => V::migrate(version, encoded),
        std::cmp::Ordering::Greater => Err(Error::user(format!(
            "read state of version {version} with code for version {}, which is older",
            V::VERSION
        ))
        .hint("run the version of the job that wrote the checkpoint, or a newer one")),
    };
    let value = value.map_err(|e| Error { what: format!("{}: {}", key(), e.what), ..e })?;
    // A migration may have given it another expiry than the one it was stored with.
    Ok((Some(value.expires()) >= watermark).then_some(value))
}

#[cfg(test)]
mod tests;
