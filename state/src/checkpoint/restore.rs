//! From a checkpoint to a live store: as it was for the same number of workers, shard by shard for another one.
//!
//! With the same workers and the same backend the files are laid into the live folder and opened. Else the new worker
//! reads the parts of every old worker that has shards of its own, and copies those shards. Sizes are checked here; hashes
//! have been by [`CheckpointStore::newest_intact`].
//!
//! In memory at once, beside the store that is made: one chunk of a heap part (4 MiB, unless one entry alone is larger), one batch
//! of entries, one piece of a file that is not local. Never a part, never a table of RocksDB.

use super::files::{READ_BYTES, is_table};
use super::manifest::{FileRef, Manifest, PartRef};
use super::store::CheckpointStore;
use crate::backend::{
    BackendKind, CutFormat, HeapBackend, KeyedBackend, RocksBackend, RocksMemory, RocksMemorySettings, RocksSettings,
    heap,
};
use crate::storage::explained;
use dataflow_core::{Error, Result, SHARDS, Shard};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Entries copied per batch: RocksDB's write buffers stay within their size.
const COPY_BYTES: usize = 4 << 20;
/// Memory for reading a RocksDB part into the heap, where no shared memory is at hand. Read once, front to back.
const READ_MEMORY: RocksMemorySettings =
    RocksMemorySettings { block_cache_bytes: 32 << 20, write_buffers_bytes: 1 << 20 };

impl CheckpointStore {
    /// The state of `operator` for worker `worker` of `peers`; empty when the checkpoint does not know the operator.
    /// `live` is the folder of the instance, wiped first; only RocksDB uses it, but parts of RocksDB need it too.
    ///
    /// # Errors
    /// When the checkpoint does not hold all parts, a file is not as long as it says, or a store cannot be opened.
    pub fn restore_backend(
        &self,
        manifest: &Manifest,
        operator: &str,
        worker: usize,
        peers: usize,
        kind: &BackendKind,
        live: &Path,
    ) -> Result<Box<dyn KeyedBackend>> {
        assert!(worker < peers, "worker {worker} of {peers}");
        let parts = manifest.parts_of(operator)?;
        if let Some(part) = parts.get(worker).filter(|p| peers == manifest.workers && p.format == kind.format()) {
            return match kind {
                BackendKind::Heap => Ok(Box::new(self.heap_of(part)?)),
                BackendKind::Rocks { settings, memory } => {
                    RocksBackend::wipe(live)?;
                    self.lay_out(part, live, true)?;
                    Ok(Box::new(RocksBackend::open_restored(live, settings, memory)?))
                }
            };
        }
        let mut backend = kind.create(live)?;
        for part in parts {
            let shards: Vec<Shard> = (0..SHARDS)
                .map(Shard)
                .filter(|s| s.worker(peers) == worker && s.worker(manifest.workers) == part.worker)
                .collect();
            if shards.is_empty() {
                continue;
            }
            match part.format {
                CutFormat::Heap => self.copy_from_heap(part, &shards, backend.as_mut())?,
                CutFormat::Rocks => self.copy_from_rocks(part, &shards, kind, live, backend.as_mut())?,
            }
        }
        Ok(backend)
    }

    fn heap_of(&self, part: &PartRef) -> Result<HeapBackend> {
        let mut backend = HeapBackend::new();
        for file in &part.files {
            backend.add_chunk(&file.name, &self.bytes_of(file)?)?;
        }
        Ok(backend)
    }

    fn copy_from_heap(&self, part: &PartRef, shards: &[Shard], to: &mut dyn KeyedBackend) -> Result<()> {
        let mut copy = Copy::new(to);
        for file in &part.files {
            let Some(shard) = heap::shard_of_chunk(&file.name) else {
                return Err(Error::doubt(format!("restore chunk '{}', whose name has no shard", file.name)));
            };
            if !shards.contains(&shard) {
                continue;
            }
            heap::read_chunk(&file.name, &self.bytes_of(file)?, &mut |key, value| copy.put(key, value))?;
        }
        copy.finish()
    }

    fn copy_from_rocks(
        &self,
        part: &PartRef,
        shards: &[Shard],
        kind: &BackendKind,
        live: &Path,
        to: &mut dyn KeyedBackend,
    ) -> Result<()> {
        let memory = match kind {
            BackendKind::Rocks { memory, .. } => memory.clone(),
            BackendKind::Heap => RocksMemory::new(&READ_MEMORY),
        };
        let folder = import_folder(live);
        RocksBackend::wipe(&folder)?;
        self.lay_out(part, &folder, false)?;
        let from = RocksBackend::open_restored(&folder, &RocksSettings::default(), &memory)?;
        let mut copy = Copy::new(to);
        for shard in shards {
            from.scan_shard(*shard, &mut |key, value| copy.put(key, value))?;
        }
        copy.finish()?;
        drop(from);
        std::fs::remove_dir_all(&folder).map_err(explained("remove the folder", &folder))
    }

    /// Lays the files of a RocksDB part into `folder`: SST files as hard links where that is possible, as they never
    /// change; the others as copies, as RocksDB writes to them.
    fn lay_out(&self, part: &PartRef, folder: &Path, is_live: bool) -> Result<()> {
        for file in &part.files {
            let (stored, to) = (self.file_path(file), folder.join(&file.name));
            if self.storage.length(&stored)? != Some(file.bytes) {
                return Err(damaged(&stored, file));
            }
            let is_table = is_table(&file.name);
            match self.storage.local_path(&stored) {
                Some(from) if is_table && std::fs::hard_link(&from, &to).is_ok() => (),
                Some(from) => {
                    std::fs::copy(&from, &to).map_err(explained("copy to", &to))?;
                }
                None => self.fetch(file, &to)?,
            }
            if is_live && is_table {
                self.note_local(&part.operator, part.worker, &to, file)?;
            }
        }
        Ok(())
    }

    /// Copies a file of a storage that is not local, a piece at a time.
    fn fetch(&self, file: &FileRef, to: &Path) -> Result<()> {
        let stored = self.file_path(file);
        let failed = explained("write to", to);
        let (mut local, mut offset) = (File::create(to).map_err(&failed)?, 0);
        while offset < file.bytes {
            let piece = self.storage.read_range(&stored, offset, READ_BYTES)?;
            if piece.is_empty() {
                return Err(damaged(&stored, file));
            }
            local.write_all(&piece).map_err(&failed)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// A chunk of a heap part. What is longer than the manifest says is not read at all.
    fn bytes_of(&self, file: &FileRef) -> Result<Vec<u8>> {
        let stored = self.file_path(file);
        if self.storage.length(&stored)? != Some(file.bytes) {
            return Err(damaged(&stored, file));
        }
        let bytes = self.storage.read(&stored)?;
        if bytes.len() as u64 == file.bytes { Ok(bytes) } else { Err(damaged(&stored, file)) }
    }
}

/// Entries on their way into a store, in bounded batches.
struct Copy<'a> {
    to: &'a mut dyn KeyedBackend,
    batch: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    bytes: usize,
}

impl<'a> Copy<'a> {
    fn new(to: &'a mut dyn KeyedBackend) -> Copy<'a> {
        Copy { to, batch: Vec::new(), bytes: 0 }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.batch.push((key.to_vec(), Some(value.to_vec())));
        self.bytes += key.len() + value.len();
        if self.bytes >= COPY_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.to.write(&self.batch)?;
        self.batch.clear();
        self.bytes = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.flush()
    }
}

fn import_folder(live: &Path) -> PathBuf {
    let mut name = live.as_os_str().to_os_string();
    name.push("-import");
    PathBuf::from(name)
}

fn damaged(stored: &str, file: &FileRef) -> Error {
    Error::outside(format!(
        "restore file '{stored}' ('{}'): it is not the {} bytes of the checkpoint",
        file.name, file.bytes
    ))
    .hint("restore an older checkpoint: see the list of checkpoints")
}
