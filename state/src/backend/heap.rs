//! State on the heap: an ordered map per shard. For state that fits in memory, and for the simulation.
//!
//! A cut is whole, not incremental, but its chunks belong to a shard each: a shard without a change since the last cut
//! gives the same bytes (shared, not encoded again), so the checkpoint store finds them by their hash and stores nothing.
//! Expired entries are dropped when a cut is taken, from the shards that have any.
//!
//! A chunk: magic `DFH1`, then entries: key length u32 LE, value length u32 LE, key, value.

use super::{
    BackendStats, Cut, CutFormat, KeyedBackend, PartContent, PartFile, PendingCut, Visit, check_label, expires_of,
    shard_of,
};
use dataflow_core::{Error, Micros, Result, SHARDS, Shard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A chunk ends before it grows over this (unless one entry alone does): small enough to be uploaded and repeated as one request.
const CHUNK_BYTES: usize = 4 << 20;
/// A chunk is named by its shard and its number in the shard.
const CHUNK_PREFIX: &str = "shard-";
const MAGIC: &[u8; 4] = b"DFH1";
/// What an entry costs beside its bytes: two `Vec` headers and its share of a tree node.
const ENTRY_OVERHEAD: u64 = 64;

#[derive(Default)]
struct ShardMap {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// No entry expires before this.
    next_expiry: Option<Micros>,
    /// The chunks of the last cut, while nothing has changed.
    chunks: Option<Vec<Arc<[u8]>>>,
}

/// A backend on the heap.
pub struct HeapBackend {
    shards: Vec<ShardMap>,
    bytes: u64,
    watermark: AtomicI64,
    labels: BTreeSet<String>,
}

impl Default for HeapBackend {
    fn default() -> Self {
        HeapBackend::new()
    }
}

impl HeapBackend {
    /// An empty store.
    pub fn new() -> HeapBackend {
        HeapBackend {
            shards: (0..SHARDS).map(|_| ShardMap::default()).collect(),
            bytes: 0,
            watermark: AtomicI64::new(i64::MIN),
            labels: BTreeSet::new(),
        }
    }

    /// Adds the entries of one chunk.
    ///
    /// # Errors
    /// When the bytes are no chunk.
    pub fn add_chunk(&mut self, name: &str, chunk: &[u8]) -> Result<()> {
        read_chunk(name, chunk, &mut |key, value| self.put(key, Some(value)))
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let shard = shard_of(key).ok_or_else(|| Error::us("write state under a key without a shard"))?;
        let shard = &mut self.shards[usize::from(shard.0)];
        let before = match value {
            Some(value) => {
                let expires = expires_of(value);
                shard.next_expiry = Some(shard.next_expiry.map_or(expires, |t| t.min(expires)));
                self.bytes += (key.len() + value.len()) as u64;
                shard.entries.insert(key.to_vec(), value.to_vec())
            }
            None => shard.entries.remove(key),
        };
        if let Some(before) = &before {
            self.bytes -= (key.len() + before.len()) as u64;
        }
        if value != before.as_deref() {
            shard.chunks = None;
        }
        Ok(())
    }

    fn drop_expired(&mut self) {
        let watermark = Micros(self.watermark.load(Ordering::Relaxed));
        for shard in &mut self.shards {
            if shard.next_expiry.is_none_or(|t| t >= watermark) {
                continue;
            }
            let (mut next, mut dropped) = (None::<Micros>, 0);
            shard.entries.retain(|key, value| {
                let expires = expires_of(value);
                if expires < watermark {
                    dropped += (key.len() + value.len()) as u64;
                    return false;
                }
                next = Some(next.map_or(expires, |t| t.min(expires)));
                true
            });
            shard.next_expiry = next;
            self.bytes -= dropped;
            if dropped > 0 {
                shard.chunks = None;
            }
        }
    }
}

impl KeyedBackend for HeapBackend {
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let get = |key: &&[u8]| shard_of(key).and_then(|s| self.shards[usize::from(s.0)].entries.get(*key).cloned());
        Ok(keys.iter().map(get).collect())
    }

    fn write(&mut self, puts: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        puts.iter().try_for_each(|(key, value)| self.put(key, value.as_deref()))
    }

    fn cut(&mut self, label: &str) -> Result<PendingCut> {
        check_label(label)?;
        if !self.labels.insert(label.to_string()) {
            return Err(Error::us(format!("cut state under '{label}', a label that is taken")));
        }
        self.drop_expired();
        let (mut files, mut shard_bytes) = (Vec::new(), Vec::new());
        for (number, shard) in self.shards.iter_mut().enumerate() {
            let entries = &shard.entries;
            let chunks = shard.chunks.get_or_insert_with(|| encode_chunks(entries));
            shard_bytes.push(chunks.iter().map(|chunk| chunk.len() as u64).sum());
            files.extend(chunks.iter().enumerate().map(|(i, chunk)| PartFile {
                name: format!("{CHUNK_PREFIX}{number:05}-{i:05}"),
                content: PartContent::Bytes(chunk.clone()),
            }));
        }
        Ok(Cut { format: CutFormat::Heap, files, shard_bytes }.into())
    }

    fn release(&mut self, label: &str) -> Result<()> {
        self.labels.remove(label);
        Ok(())
    }

    fn scan_shard(&self, shard: Shard, f: &mut Visit<'_>) -> Result<()> {
        self.shards[usize::from(shard.0)].entries.iter().try_for_each(|(key, value)| f(key, value))
    }

    fn set_watermark(&self, watermark: Micros) {
        self.watermark.fetch_max(watermark.0, Ordering::Relaxed);
    }

    fn stats(&self) -> BackendStats {
        let keys = self.shards.iter().map(|s| s.entries.len() as u64).sum();
        BackendStats { keys_estimate: keys, live_bytes: self.bytes, memory_bytes: self.bytes + keys * ENTRY_OVERHEAD }
    }
}

fn encode_chunks(entries: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<Arc<[u8]>> {
    let mut chunks: Vec<Arc<[u8]>> = Vec::new();
    let mut chunk: Vec<u8> = Vec::new();
    for (key, value) in entries {
        if chunk.len() > MAGIC.len() && chunk.len() + 8 + key.len() + value.len() > CHUNK_BYTES {
            chunks.push(std::mem::take(&mut chunk).into());
        }
        if chunk.is_empty() {
            chunk.extend_from_slice(MAGIC);
        }
        for length in [key.len(), value.len()] {
            let length = u32::try_from(length).expect("a key or value of state is far below 4 GiB");
            chunk.extend_from_slice(&length.to_le_bytes());
        }
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(value);
    }
    if !chunk.is_empty() {
        chunks.push(chunk.into());
    }
    chunks
}

/// The shard that a chunk belongs to, by its name.
pub(crate) fn shard_of_chunk(name: &str) -> Option<Shard> {
    name.strip_prefix(CHUNK_PREFIX)?.split_once('-')?.0.parse().ok().map(Shard)
}

/// Calls `f` with each entry of a chunk.
///
/// # Errors
/// When the bytes are no chunk, or what `f` returns.
pub(crate) fn read_chunk(name: &str, chunk: &[u8], f: &mut Visit<'_>) -> Result<()> {
    let mut rest = chunk.strip_prefix(MAGIC).ok_or_else(|| damaged(name))?;
    while !rest.is_empty() {
        let key_length = take_length(&mut rest).ok_or_else(|| damaged(name))?;
        let value_length = take_length(&mut rest).ok_or_else(|| damaged(name))?;
        let (key, after) = rest.split_at_checked(key_length).ok_or_else(|| damaged(name))?;
        let (value, after) = after.split_at_checked(value_length).ok_or_else(|| damaged(name))?;
        if shard_of(key).is_none() {
            return Err(damaged(name));
        }
        f(key, value)?;
        rest = after;
    }
    Ok(())
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

fn damaged(name: &str) -> Error {
    Error::outside(format!("read state chunk '{name}': its bytes are not a chunk of this engine"))
}
