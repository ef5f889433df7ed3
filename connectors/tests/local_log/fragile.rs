//! A storage in memory that stops at a chosen step and then loses what was not synced, as POSIX allows.

#![allow(clippy::unwrap_used)] // All of this file is a test.

use dataflow_core::{AppendFile, Error, Result, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Inode {
    content: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Default)]
struct Disk {
    inodes: Vec<Inode>,
    /// Names as the process sees them, and as they are after a crash.
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    dirs: BTreeSet<String>,
    /// Steps that still succeed.
    left: u64,
    steps: u64,
    /// Fail one step instead of all from it on.
    only_once: bool,
}

/// The storage; clones share the disk.
#[derive(Clone)]
pub(crate) struct Fragile(Arc<Mutex<Disk>>);

/// A small generator for what a crash keeps.
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 31)
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Fragile {
    pub(crate) fn new() -> Fragile {
        Fragile(Arc::new(Mutex::new(Disk { left: u64::MAX, ..Disk::default() })))
    }

    /// Steps taken so far.
    pub(crate) fn steps(&self) -> u64 {
        self.0.lock().unwrap().steps
    }

    /// Lets `left` more steps succeed; then every one fails, or (`only_once`) one.
    pub(crate) fn fail_after(&self, left: u64, only_once: bool) {
        let mut disk = self.0.lock().unwrap();
        (disk.left, disk.only_once) = (left, only_once);
    }

    /// The machine fails: of unsynced bytes a part remains, of unsynced folder entries some.
    pub(crate) fn crash(&self, seed: u64) {
        let mut disk = self.0.lock().unwrap();
        let mut state = seed;
        let (seen, mut names) = (disk.names.clone(), disk.synced_names.clone());
        for name in seen.keys().chain(disk.synced_names.keys()) {
            if seen.get(name) != disk.synced_names.get(name) && mix(&mut state).is_multiple_of(2) {
                match seen.get(name) {
                    Some(inode) => names.insert(name.clone(), *inode),
                    None => names.remove(name),
                };
            }
        }
        for inode in &mut disk.inodes {
            if inode.content.starts_with(&inode.synced) {
                let extra = (inode.content.len() - inode.synced.len()) as u64;
                let keep = inode.synced.len() + (mix(&mut state) % (extra + 1)) as usize;
                inode.content.truncate(keep);
                inode.synced = inode.content.clone();
            } else {
                inode.content = inode.synced.clone();
            }
        }
        (disk.names, disk.synced_names, disk.left) = (names.clone(), names, u64::MAX);
    }

    fn with<T>(&self, what: &str, act: impl FnOnce(&mut Disk) -> Result<T>) -> Result<T> {
        let mut disk = self.0.lock().unwrap();
        disk.steps += 1;
        if disk.left == 0 {
            if disk.only_once {
                disk.left = u64::MAX;
            }
            return Err(Error::outside(format!("{what}: the disk is gone")));
        }
        disk.left -= 1;
        act(&mut disk)
    }

    fn inode<T>(&self, path: &str, act: impl FnOnce(&mut Inode) -> T) -> Result<T> {
        self.with(path, |disk| match disk.names.get(path).copied() {
            Some(inode) => Ok(act(&mut disk.inodes[inode])),
            None => Err(Error::outside(format!("'{path}' is absent"))),
        })
    }
}

impl Storage for Fragile {
    fn append(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let inode = self.with(path, |disk| {
            if !disk.dirs.contains(folder(path)) {
                return Err(Error::outside(format!("'{path}' has no folder")));
            }
            if !disk.names.contains_key(path) {
                disk.inodes.push(Inode::default());
                let inode = disk.inodes.len() - 1;
                disk.names.insert(path.into(), inode);
            }
            Ok(disk.names[path])
        })?;
        Ok(Box::new(FragileFile { storage: self.clone(), inode }))
    }
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.inode(path, |inode| inode.content.clone())
    }
    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.inode(path, |i| i.content.iter().skip(offset as usize).take(length).copied().collect())
    }
    fn length(&self, path: &str) -> Result<Option<u64>> {
        self.with(path, |disk| Ok(disk.names.get(path).map(|i| disk.inodes[*i].content.len() as u64)))
    }
    fn list(&self, dir: &str) -> Result<Vec<String>> {
        self.with(dir, |disk| {
            let all = disk.names.keys().chain(&disk.dirs).filter_map(|p| p.strip_prefix(&format!("{dir}/")));
            let names: BTreeSet<_> = all.map(|p| p.split('/').next().unwrap().to_owned()).collect();
            Ok(names.into_iter().collect())
        })
    }
    fn create_dir(&self, dir: &str) -> Result<()> {
        self.with(dir, |disk| {
            disk.dirs.insert(dir.into());
            Ok(())
        })
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.with(from, |disk| {
            let inode = disk.names.remove(from).expect("the file exists");
            disk.names.insert(to.into(), inode);
            Ok(())
        })
    }
    fn remove(&self, path: &str) -> Result<()> {
        self.with(path, |disk| {
            disk.names.retain(|name, _| name != path && !name.starts_with(&format!("{path}/")));
            Ok(())
        })
    }
    fn truncate(&self, path: &str, length: u64) -> Result<()> {
        self.inode(path, |inode| {
            inode.content.truncate(length as usize);
            inode.synced = inode.content.clone();
        })
    }
    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.with(dir, |disk| {
            disk.synced_names.retain(|name, _| folder(name) != dir);
            let seen: Vec<_> =
                disk.names.iter().filter(|(n, _)| folder(n) == dir).map(|(n, i)| (n.clone(), *i)).collect();
            disk.synced_names.extend(seen);
            Ok(())
        })
    }
    fn import(&self, _: &Path, path: &str) -> Result<()> {
        Err(Error::us(format!("import '{path}': a local log imports nothing")))
    }
    fn local_path(&self, _: &str) -> Option<PathBuf> {
        None
    }
}

struct FragileFile {
    storage: Fragile,
    inode: usize,
}

impl AppendFile for FragileFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let inode = self.inode;
        self.storage.with("write", |disk| {
            disk.inodes[inode].content.extend_from_slice(bytes);
            Ok(())
        })
    }
    fn sync(&mut self) -> Result<()> {
        let inode = self.inode;
        self.storage.with("sync", |disk| {
            disk.inodes[inode].synced = disk.inodes[inode].content.clone();
            Ok(())
        })
    }
    fn length(&self) -> u64 {
        self.storage.0.lock().unwrap().inodes[self.inode].content.len() as u64
    }
}
