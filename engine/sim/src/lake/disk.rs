//! The warehouse's disk as one life sees it: a [`MemoryStorage`] of its own behind the life's fuse, now and then full.
//!
//! The files' protocol (fsync of a file, then of its folder) is the product's; what was not synced is lost with the machine. A stray
//! process still reaches it: it stands elsewhere, as its catalog does.

use super::outage::{Outages, away};
use crate::life::{Blow, Life, Passage, gone};
use dataflow_core::{AppendFile, Storage};
use dataflow_iceberg::{Disk, DiskFile};
use dataflow_state::storage::MemoryStorage;
use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The folder of all tables, and the path that fuses and traces know the disk by.
pub(crate) const FOLDER: &str = "lake";

/// The disk, which outlives the job's lives.
pub(crate) struct LakeDisk {
    pub(crate) memory: MemoryStorage,
    pub(crate) outages: Outages,
    /// Writes that found it full.
    pub(crate) full: AtomicU64,
}

/// The disk of one life.
#[derive(Clone)]
pub(crate) struct LifeDisk {
    pub(crate) disk: Arc<LakeDisk>,
    pub(crate) life: Arc<Life>,
}

impl fmt::Debug for LifeDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LifeDisk")
    }
}

/// The path below the root.
fn relative(path: &Path) -> Result<&str> {
    path.to_str().and_then(|path| path.strip_prefix('/')).ok_or_else(|| Error::from(ErrorKind::InvalidInput))
}

fn told<T>(result: dataflow_core::Result<T>) -> Result<T> {
    result.map_err(|e| Error::other(e.to_string()))
}

impl LifeDisk {
    fn change<T>(&self, what: &str, path: &str, bytes: u64, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.life.network_call(what, path, bytes) {
            Passage::Open => act(),
            Passage::Gone => Err(Error::other(gone(what, path).to_string())),
            Passage::Blown(Blow::Fail) => Err(Error::other(away("input/output error"))),
            Passage::Blown(blow) => {
                let done = if blow == Blow::After { act().map(drop) } else { Ok(()) };
                self.life.end();
                done.and(Err(Error::other(gone(what, path).to_string())))
            }
        }
    }

    fn has_room(&self) -> Result<()> {
        if !self.disk.outages.is_away() {
            return Ok(());
        }
        self.disk.full.fetch_add(1, SeqCst);
        Err(Error::other(away("no space left on device")))
    }

    fn memory(&self) -> &MemoryStorage {
        &self.disk.memory
    }
}

impl Disk for LifeDisk {
    fn has_folder(&self, folder: &Path) -> bool {
        relative(folder).is_ok_and(|folder| self.memory().has_dir(folder))
    }

    fn make_folder(&self, folder: &Path) -> Result<()> {
        let folder = relative(folder)?;
        self.change("create folder", folder, 0, || {
            self.has_room()?;
            told(self.memory().create_dir(folder))
        })
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        let folder = relative(folder)?;
        self.change("sync folder", folder, 0, || told(self.memory().sync_dir(folder)))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let path = relative(path)?;
        if told(self.memory().length(path))?.is_some() {
            return Err(Error::from(ErrorKind::AlreadyExists));
        }
        let file = self.change("create", path, 0, || {
            self.has_room()?;
            told(self.memory().append(path))
        })?;
        Ok(Box::new(LifeFile { file, path: path.to_owned(), disk: self.clone() }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        told(self.memory().read(relative(path)?))
    }

    fn read_range(&self, path: &Path, range: Range<u64>) -> Result<Vec<u8>> {
        let length = range.end.saturating_sub(range.start) as usize;
        let bytes = told(self.memory().read_range(relative(path)?, range.start, length))?;
        if bytes.len() == length { Ok(bytes) } else { Err(Error::from(ErrorKind::UnexpectedEof)) }
    }

    fn length(&self, path: &Path) -> Result<u64> {
        told(self.memory().length(relative(path)?))?.ok_or_else(|| Error::from(ErrorKind::NotFound))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let path = relative(path)?;
        self.change("remove", path, 0, || told(self.memory().remove(path)))
    }

    fn files(&self, folder: &Path) -> Result<Vec<String>> {
        let folder = relative(folder)?;
        let is_file = |name: &String| {
            told(self.memory().length(&format!("{folder}/{name}"))).is_ok_and(|length| length.is_some())
        };
        Ok(told(self.memory().list(folder))?.into_iter().filter(is_file).collect())
    }
}

struct LifeFile {
    file: Box<dyn AppendFile>,
    path: String,
    disk: LifeDisk,
}

impl DiskFile for LifeFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let LifeFile { file, path, disk } = self;
        // A write is no single act: a part of it may be done when it ends.
        let half = &bytes[..bytes.len() / 2];
        let mut is_done = false;
        let written = disk.change("write", path, bytes.len() as u64, || {
            is_done = true;
            match disk.has_room() {
                Ok(()) => told(file.write(bytes)),
                Err(full) => told(file.write(half)).and(Err(full)),
            }
        });
        if !is_done {
            told(file.write(half))?;
        }
        written
    }

    fn sync(&mut self) -> Result<()> {
        let LifeFile { file, path, disk } = self;
        disk.change("sync", path, 0, || told(file.sync()))
    }
}
