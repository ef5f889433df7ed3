//! The machine's disk as one life sees it: [`MemoryStorage`] behind the life's fuse.
//!
//! Every call that changes something is traced and may be the one at which the process ends, before it, after it, or in
//! the middle of a write; or it fails and the process goes on. After a failed sync the file lies: the kernel takes the pages
//! for clean, so later syncs of that handle succeed and make nothing durable. A life may have little room: then a write is done
//! in part and fails, and nothing new can be created.
//!
//! Segments of the binding log that are trimmed away are kept aside: the check at the end needs every row.

use crate::life::{Blow, Life, Passage, gone};
use dataflow_core::{AppendFile, Error, Result, Storage};
use dataflow_runtime::plan::BINDINGS;
use dataflow_state::storage::MemoryStorage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What a new name takes of a disk's room.
const ENTRY_BYTES: u64 = 64;

/// Contents of files of the binding log when they were removed, by path.
pub(crate) type Graveyard = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// The storage of one life.
#[derive(Clone)]
pub(crate) struct SimStorage {
    pub(crate) disk: MemoryStorage,
    pub(crate) life: Arc<Life>,
    pub(crate) graveyard: Graveyard,
}

impl SimStorage {
    fn read_only<T>(&self, what: &str, path: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.life.may_read() { act() } else { Err(gone(what, path)) }
    }

    /// A call that needs room for something new.
    fn occupy<T>(&self, what: &str, path: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.change(what, path, || {
            if self.life.take_room(ENTRY_BYTES) < ENTRY_BYTES { Err(self.full(what, path)) } else { act() }
        })
    }

    fn full(&self, what: &str, path: &str) -> Error {
        self.life.found_full();
        Error::outside(format!("cannot {what} '{path}': no space left on device"))
    }

    fn change<T>(&self, what: &str, path: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.life.storage_call(what, path, 0) {
            Passage::Open => act(),
            Passage::Gone => Err(gone(what, path)),
            Passage::Blown(Blow::Fail) => {
                self.life.excuse();
                Err(Error::outside(format!("cannot {what} '{path}': input/output error")))
            }
            Passage::Blown(blow) => {
                let done = if blow == Blow::After { act().map(drop) } else { Ok(()) };
                self.life.end();
                done.and(Err(gone(what, path)))
            }
        }
    }
}

impl Storage for SimStorage {
    fn append(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let open = || self.disk.append(path);
        let file = match self.disk.length(path)? {
            Some(_) => self.change("open", path, open),
            None => self.occupy("open", path, open),
        }?;
        Ok(Box::new(SimFile { file, path: path.to_owned(), storage: self.clone(), lies: false }))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.read_only("read", path, || self.disk.read(path))
    }

    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.read_only("read", path, || self.disk.read_range(path, offset, length))
    }

    fn length(&self, path: &str) -> Result<Option<u64>> {
        self.read_only("measure", path, || self.disk.length(path))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        self.read_only("list", dir, || self.disk.list(dir))
    }

    fn create_dir(&self, dir: &str) -> Result<()> {
        let create = || self.disk.create_dir(dir);
        if self.disk.has_dir(dir) {
            self.change("create folder", dir, create)
        } else {
            self.occupy("create folder", dir, create)
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.change("rename", to, || self.disk.rename(from, to))
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.change("remove", path, || {
            if path.starts_with(BINDINGS) && path.ends_with(".log") && self.disk.length(path)?.is_some() {
                let bytes = self.disk.read(path)?;
                self.graveyard.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), bytes);
            }
            self.disk.remove(path)
        })
    }

    fn truncate(&self, path: &str, length: u64) -> Result<()> {
        self.change("cut", path, || self.disk.truncate(path, length))
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.change("sync folder", dir, || self.disk.sync_dir(dir))
    }

    fn import(&self, local: &Path, path: &str) -> Result<()> {
        self.change("import", path, || self.disk.import(local, path))
    }

    fn local_path(&self, _path: &str) -> Option<PathBuf> {
        None
    }
}

struct SimFile {
    file: Box<dyn AppendFile>,
    path: String,
    storage: SimStorage,
    /// A sync failed.
    lies: bool,
}

impl AppendFile for SimFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let life = self.storage.life.clone();
        match life.storage_call("write", &self.path, bytes.len() as u64) {
            Passage::Open => {
                let taken = life.take_room(bytes.len() as u64) as usize;
                self.file.write(&bytes[..taken])?;
                if taken < bytes.len() { Err(self.storage.full("write", &self.path)) } else { Ok(()) }
            }
            Passage::Gone => Err(gone("write", &self.path)),
            Passage::Blown(blow) => {
                // A write is no single act: a part of it may be done when it ends.
                let part = if blow == Blow::After { bytes.len() } else { bytes.len() / 2 };
                self.file.write(&bytes[..part])?;
                if blow == Blow::Fail {
                    life.excuse();
                    return Err(Error::outside(format!("cannot write '{}': no space left on device", self.path)));
                }
                life.end();
                Err(gone("write", &self.path))
            }
        }
    }

    fn sync(&mut self) -> Result<()> {
        let SimFile { file, path, storage, lies } = self;
        if *lies {
            return storage.change("sync", path, || Ok(()));
        }
        let synced = storage.change("sync", path, || file.sync());
        *lies = synced.is_err();
        synced
    }

    fn length(&self) -> u64 {
        self.file.length()
    }
}
