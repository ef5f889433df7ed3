//! State in RocksDB: one database per operator instance, in a live folder of its own.
//!
//! The live folder is scratch: wiped when a store is created, without a write-ahead log. A cut is a flush and a RocksDB
//! checkpoint (hard links) in the sibling folder `<live>-cuts/<label>`; SST files never change, so the checkpoint store
//! takes only the new ones. Deleting or compacting in the live folder unlinks names there and nothing else.
//!
//! A flush syncs what it wrote, some 10 to 100 ms: it is left to [`PendingCut::finish`]. Until it is finished the store holds back
//! every write (which does it itself if it must) and every later watermark, by which a compaction could drop what the cut still has.
//!
//! Memory is bounded for the process, not per store: all stores share one [`RocksMemory`]. The block cache holds data,
//! index and filter blocks, and is charged for the write buffers.
//!
//! Expired entries are dropped by compactions (a filter that compares `expires` with the watermark). A dropped entry
//! leaves a tombstone, so no older value of the key comes back.

use super::{
    BackendStats, Cut, CutFormat, KeyedBackend, PartContent, PartFile, PendingCut, SHARD_BYTES, Visit, check_label,
    expires_of,
};
use crate::storage::{diagnosed, explained};
use dataflow_core::{Error, Micros, Result, SHARDS, Shard};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::compaction_filter::Decision;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, LogLevel, Options, WriteBatch,
    WriteBufferManager, properties,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const FAMILY: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
/// An entry that nobody writes is compacted, and so checked for expiry, at least this often.
const PERIODIC_COMPACTION_SECONDS: u64 = 24 * 3600;
/// RocksDB's own log: for a look at a stall, not an archive.
const INFO_LOG_BYTES: usize = 1 << 20;
/// Immutable buffers beside the active one, before writes wait for a flush.
const WRITE_BUFFERS: i32 = 3;

/// Memory of all RocksDB stores of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RocksMemorySettings {
    /// The shared block cache: data, index and filter blocks, and the write buffers' share. The bound of the whole.
    pub block_cache_bytes: usize,
    /// The part of it that write buffers may take before the fullest are flushed early.
    pub write_buffers_bytes: usize,
}

impl Default for RocksMemorySettings {
    /// 512 MiB, a quarter of it for writes: fits beside the engine on the smallest machine we name (4 GiB).
    fn default() -> Self {
        RocksMemorySettings { block_cache_bytes: 512 << 20, write_buffers_bytes: 128 << 20 }
    }
}

/// One store's shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RocksSettings {
    /// A write buffer is flushed at this size. Small, because each operator instance has one.
    pub write_buffer_bytes: usize,
    /// The greatest SST file: a changed key costs a checkpoint at most a few files of this size.
    pub target_file_bytes: u64,
    /// A block: what a cold read brings in. Larger than RocksDB's 4 KiB for smaller indexes, as values are small.
    pub block_bytes: usize,
    /// Bits per key of the whole-key bloom filter: 10 give 1 % false positives. Most reads of a new key stop there.
    pub bloom_bits_per_key: u8,
    /// Open SST files per store; bounds file descriptors.
    pub max_open_files: i32,
    /// Flushes and compactions of one store at the same time; the threads are shared by all.
    pub background_jobs: i32,
}

impl Default for RocksSettings {
    fn default() -> Self {
        RocksSettings {
            write_buffer_bytes: 16 << 20,
            target_file_bytes: 32 << 20,
            block_bytes: 16 << 10,
            bloom_bits_per_key: 10,
            max_open_files: 512,
            background_jobs: 2,
        }
    }
}

/// The block cache and write buffers of all stores of a process. Cheap to clone.
#[derive(Clone)]
pub struct RocksMemory {
    cache: Cache,
    write_buffers: WriteBufferManager,
}

impl RocksMemory {
    /// Memory within the bounds of `settings`.
    pub fn new(settings: &RocksMemorySettings) -> RocksMemory {
        let cache = Cache::new_lru_cache(settings.block_cache_bytes);
        // No stall: a stalled writer waits for a flush that only a write to the store with the full buffer would start.
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(settings.write_buffers_bytes, false, cache.clone());
        RocksMemory { cache, write_buffers }
    }

    /// Bytes in use, write buffers included.
    pub fn used_bytes(&self) -> usize {
        self.cache.get_usage()
    }
}

impl std::fmt::Debug for RocksMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RocksMemory({} bytes used)", self.used_bytes())
    }
}

/// A backend in RocksDB.
pub struct RocksBackend {
    db: Arc<DB>,
    cuts: PathBuf,
    watermark: Arc<AtomicI64>,
    /// The last cut: its flush may still be to come.
    cut: Option<PendingCut>,
    /// Labels of cuts that were not released.
    labels: BTreeSet<String>,
}

impl RocksBackend {
    /// An empty store in the folder `live`, which is wiped.
    ///
    /// # Errors
    /// When the folder cannot be wiped or the database not be created.
    pub fn create(live: &Path, settings: &RocksSettings, memory: &RocksMemory) -> Result<RocksBackend> {
        RocksBackend::wipe(live)?;
        RocksBackend::open(live, settings, memory, true)
    }

    /// Empties the folder `live` and removes its cuts, so that files of a checkpoint can be laid into it.
    ///
    /// # Errors
    /// When that fails, with the folder's name.
    pub fn wipe(live: &Path) -> Result<()> {
        for folder in [live, &cuts_of(live)] {
            remove_folder(folder)?;
        }
        fs::create_dir_all(live).map_err(|e| on_folder("create the folder", live, e))
    }

    /// The store whose files have been laid into `live`.
    ///
    /// # Errors
    /// When RocksDB refuses them.
    pub fn open_restored(live: &Path, settings: &RocksSettings, memory: &RocksMemory) -> Result<RocksBackend> {
        RocksBackend::open(live, settings, memory, false)
    }

    fn open(live: &Path, settings: &RocksSettings, memory: &RocksMemory, create: bool) -> Result<RocksBackend> {
        let watermark = Arc::new(AtomicI64::new(i64::MIN));
        let mut options = options(settings, memory, watermark.clone());
        options.create_if_missing(create);
        options.set_error_if_exists(create);
        let families = [(FAMILY, options.clone())];
        let db = DB::open_cf_with_opts(&options, live, families).map_err(|e| on_state("open", live, e))?;
        Ok(RocksBackend { db: Arc::new(db), cuts: cuts_of(live), watermark, cut: None, labels: BTreeSet::new() })
    }

    /// Compacts everything now. For tests and benchmarks: production leaves it to RocksDB.
    pub fn compact(&self) {
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
    }

    fn failed(&self, what: &str) -> impl Fn(rocksdb::Error) -> Error {
        failed(&self.db, what)
    }
}

fn failed(db: &DB, what: &str) -> impl Fn(rocksdb::Error) -> Error {
    let (what, folder) = (what.to_owned(), db.path().to_owned());
    move |e| on_state(&what, &folder, e)
}

/// RocksDB says what failed, and not what to do: of an error of the disk the file system is asked.
fn on_state(what: &str, folder: &Path, cause: rocksdb::Error) -> Error {
    let is_of_disk = cause.kind() == rocksdb::ErrorKind::IOError;
    let error = Error::outside(format!("cannot {what} state in '{}'", folder.display())).because(cause);
    if is_of_disk { diagnosed(error, folder) } else { error }
}

impl KeyedBackend for RocksBackend {
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let family = self.db.cf_handle(FAMILY).expect("the default column family is opened by name");
        let values = self.db.batched_multi_get_cf(family, keys.iter().copied(), false);
        let value = |v: Result<Option<rocksdb::DBPinnableSlice<'_>>, _>| v.map(|v| v.map(|v| v.to_vec()));
        values.into_iter().map(value).collect::<Result<_, _>>().map_err(self.failed("read"))
    }

    fn write(&mut self, puts: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        if let Some(cut) = self.cut.take() {
            cut.finish()?;
        }
        let mut batch = WriteBatch::default();
        for (key, value) in puts {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        self.db.write_without_wal(batch).map_err(self.failed("write"))
    }

    fn cut(&mut self, label: &str) -> Result<PendingCut> {
        check_label(label)?;
        if let Some(before) = self.cut.take() {
            before.finish()?;
        }
        if !self.labels.insert(label.to_owned()) {
            return Err(Error::us(format!("cut state under '{label}', a label that is taken")));
        }
        fs::create_dir_all(&self.cuts).map_err(|e| on_folder("create the folder", &self.cuts, e))?;
        let (db, folder) = (self.db.clone(), self.cuts.join(label));
        let cut = PendingCut::new(move || {
            // Without a log the memtable is in no file yet: flush first, and let the checkpoint find nothing to add.
            db.flush().map_err(failed(&db, "flush"))?;
            Checkpoint::new(&db).and_then(|c| c.create_checkpoint(&folder)).map_err(failed(&db, "cut"))?;
            Ok(Cut { format: CutFormat::Rocks, files: files_of(&folder)?, shard_bytes: shard_bytes(&db) })
        });
        self.cut = Some(cut.clone());
        Ok(cut)
    }

    fn release(&mut self, label: &str) -> Result<()> {
        check_label(label)?;
        self.labels.remove(label);
        remove_folder(&self.cuts.join(label))
    }

    fn scan_shard(&self, shard: Shard, f: &mut Visit<'_>) -> Result<()> {
        let prefix = shard.0.to_be_bytes();
        for entry in self.db.iterator(IteratorMode::From(&prefix, Direction::Forward)) {
            let (key, value) = entry.map_err(self.failed("scan"))?;
            if !key.starts_with(&prefix) {
                break;
            }
            f(&key, &value)?;
        }
        Ok(())
    }

    fn set_watermark(&self, watermark: Micros) {
        if self.cut.as_ref().is_none_or(PendingCut::is_finished) {
            self.watermark.fetch_max(watermark.0, Ordering::Relaxed);
        }
    }

    fn stats(&self) -> BackendStats {
        let property =
            |name: &rocksdb::properties::PropName| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        BackendStats {
            keys_estimate: property(properties::ESTIMATE_NUM_KEYS),
            live_bytes: property(properties::ESTIMATE_LIVE_DATA_SIZE) + property(properties::CUR_SIZE_ACTIVE_MEM_TABLE),
            memory_bytes: property(properties::CUR_SIZE_ALL_MEM_TABLES)
                + property(properties::ESTIMATE_TABLE_READERS_MEM),
        }
    }
}

fn options(settings: &RocksSettings, memory: &RocksMemory, watermark: Arc<AtomicI64>) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_block_size(settings.block_bytes);
    table.set_bloom_filter(f64::from(settings.bloom_bits_per_key), false);
    // Index and filters inside the bounded cache, or they would be memory that nothing bounds.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_manager(&memory.write_buffers);
    options.set_write_buffer_size(settings.write_buffer_bytes);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    options.set_target_file_size_base(settings.target_file_bytes);
    options.set_max_open_files(settings.max_open_files);
    options.set_max_background_jobs(settings.background_jobs);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_periodic_compaction_seconds(PERIODIC_COMPACTION_SECONDS);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(1);
    options.set_compaction_filter("expired", move |_level, _key: &[u8], value: &[u8]| {
        let expired = expires_of(value).0 < watermark.load(Ordering::Relaxed);
        if expired { Decision::Remove } else { Decision::Keep }
    });
    options
}

fn cuts_of(live: &Path) -> PathBuf {
    let mut name = live.as_os_str().to_os_string();
    name.push("-cuts");
    PathBuf::from(name)
}

/// Bytes of each shard in the database's files, by its indexes: exact to a block at either end.
fn shard_bytes(db: &DB) -> Vec<u64> {
    let bounds: Vec<[u8; SHARD_BYTES]> = (0..=SHARDS).map(u16::to_be_bytes).collect();
    let ranges: Vec<_> = bounds.windows(2).map(|pair| rocksdb::Range::new(&pair[0], &pair[1])).collect();
    db.get_approximate_sizes(&ranges)
}

/// The files that make up the database in a cut's folder: all of them but its empty log.
fn files_of(folder: &Path) -> Result<Vec<PartFile>> {
    let failed = |e| on_folder("list", folder, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| Error::us(format!("cut state with a file '{}', which is not RocksDB's", name.display())))?;
        if name.ends_with(".log") {
            let length = entry.metadata().map_err(failed)?.len();
            assert_eq!(length, 0, "a store without a write-ahead log left {length} bytes in '{name}'");
            continue;
        }
        files.push(PartFile { name, content: PartContent::File(entry.path()) });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(on_folder("remove the folder", folder, e)),
        _ => Ok(()),
    }
}

fn on_folder(what: &str, folder: &Path, cause: std::io::Error) -> Error {
    let error = explained(what, folder)(cause);
    if error.hint.is_some() { error } else { error.hint("the folder must be writable and on a local disk with room") }
}
