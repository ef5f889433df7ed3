//! [`Storage`] in memory that models durability, so that the simulation can lose what was not synced.
//!
//! Two views are kept. *Live* is what a running process sees. *Durable* is what a crash leaves: of a file the bytes up
//! to its last sync, of a folder the entries as of its last `sync_dir`. Entry changes since then are kept as a list
//! of operations, each of which a crash keeps or loses as a whole, independently of the others: POSIX promises no order
//! between them, only that a rename is never half done within a folder. A folder is durable as soon as `create_dir` returns.
//! A file handle from before a crash belongs to a dead process and refuses everything.

use super::local::explained;
use super::{below_root, checked};
use dataflow_core::{AppendFile, Error, Result, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The memory; clones are handles to the same one.
#[derive(Clone, Default)]
pub struct MemoryStorage(Arc<Mutex<Tree>>);

type Inode = usize;

#[derive(Default)]
struct Tree {
    /// Contents. Never reused, so that an unlinked file that is still open stays apart.
    files: Vec<File>,
    folders: BTreeSet<String>,
    live: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    /// Operations on entries that no `sync_dir` has covered yet, in order.
    pending: Vec<Vec<EntryChange>>,
    /// Ends of a process so far.
    deaths: u64,
}

/// `path` now names this file, or nothing.
type EntryChange = (String, Option<Inode>);

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    /// How many of them survive a crash for certain.
    synced: usize,
}

impl File {
    /// Some sectors of what was not synced are not what was written. How many.
    fn tear(&mut self, rng: &mut dyn FnMut(u64) -> u64) -> u64 {
        let (mut at, mut torn) = (self.synced, 0);
        while at < self.bytes.len() {
            let is_new = at % SECTOR_BYTES == 0;
            let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(self.bytes.len());
            let how = rng(4);
            match how {
                2 if !is_new => self.bytes[at..end].iter_mut().for_each(|byte| *byte = rng(256) as u8),
                1 | 2 => self.bytes[at..end].fill(0),
                _ => {}
            }
            torn += u64::from(matches!(how, 1 | 2));
            at = end;
        }
        torn
    }
}

impl MemoryStorage {
    /// An empty root folder.
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    /// The machine loses power. Each file keeps its synced bytes and a random prefix of the others, of which some sectors never reached
    /// the disk: they hold zeros, or, where a sector was being written anew for what was added to it, anything. Each operation on folder entries that was not synced is kept or lost.
    /// `rng(n)` returns a number below `n`; the same numbers give the same outcome. Returns how many such sectors there are.
    pub fn crash(&self, rng: &mut dyn FnMut(u64) -> u64) -> u64 {
        let mut tree = self.tree();
        let Tree { files, folders, live, durable, pending, deaths } = &mut *tree;
        *deaths += 1;
        for operation in pending.drain(..) {
            if rng(2) == 1 {
                operation.into_iter().for_each(|(path, inode)| set(durable, path, inode));
            }
        }
        live.clone_from(durable);
        let named: BTreeSet<Inode> = live.values().copied().collect();
        let mut torn = 0;
        for (inode, file) in files.iter_mut().enumerate() {
            if !named.contains(&inode) {
                *file = File::default(); // Without a name, and whoever had it open is dead.
                continue;
            }
            let unsynced = file.bytes.len() - file.synced;
            if unsynced > 0 {
                let kept = (rng(unsynced as u64 + 1) as usize).min(unsynced);
                file.bytes.truncate(file.synced + kept);
                torn += file.tear(rng);
                file.synced = file.bytes.len();
            }
        }
        for path in live.keys() {
            // The removal of a whole folder may have been lost, so its entries bring it back.
            path.match_indices('/').for_each(|(at, _)| _ = folders.insert(path[..at].to_owned()));
        }
        torn
    }

    /// The process dies and the machine lives on: nothing is lost, nothing becomes durable, and its file handles refuse
    /// everything from now on.
    pub fn kill(&self) {
        self.tree().deaths += 1;
    }

    /// Whether there is such a folder.
    pub fn has_dir(&self, dir: &str) -> bool {
        self.tree().folder("look at", dir).is_ok()
    }

    /// A byte of a file is not what it was: `mask` says which of its bits. Synced or not, on whatever handle.
    ///
    /// # Errors
    /// When there is no such file, or no such byte in it.
    pub fn flip(&self, path: &str, at: u64, mask: u8) -> Result<()> {
        let mut tree = self.tree();
        let inode = tree.inode("flip a bit of", path)?;
        let byte = tree.files[inode].bytes.get_mut(at as usize).ok_or_else(|| absent("flip a bit of", path))?;
        *byte ^= mask;
        Ok(())
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        // Nothing panics while it is held; if something did, the tree is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    fn inode(&self, what: &str, path: &str) -> Result<Inode> {
        self.live.get(checked(path)?).copied().ok_or_else(|| absent(what, path))
    }

    fn folder(&self, what: &str, path: &str) -> Result<()> {
        let exists = path.is_empty() || self.folders.contains(checked(path)?);
        if exists { Ok(()) } else { Err(absent(what, path)) }
    }

    /// Does an operation in the live view; durable later.
    fn change(&mut self, operation: Vec<EntryChange>) {
        operation.iter().for_each(|(path, inode)| set(&mut self.live, path.clone(), *inode));
        self.pending.push(operation);
    }

    fn create(&mut self, what: &str, path: &str, file: File) -> Result<Inode> {
        checked(path)?;
        self.folder(what, parent(path))?;
        if path.is_empty() || self.folders.contains(path) {
            return Err(Error::outside(format!("cannot {what} '{path}': it is a folder")));
        }
        let inode = self.files.len();
        self.files.push(file);
        self.change(vec![(path.to_owned(), Some(inode))]);
        Ok(inode)
    }
}

struct MemoryFile {
    storage: MemoryStorage,
    inode: Inode,
    path: String,
    deaths: u64,
}

impl MemoryFile {
    fn with<T>(&self, what: &str, act: impl FnOnce(&mut File) -> T) -> Result<T> {
        let mut tree = self.storage.tree();
        if tree.deaths != self.deaths {
            return Err(Error::outside(format!("cannot {what} '{}': its process is dead", self.path)));
        }
        Ok(act(&mut tree.files[self.inode]))
    }
}

impl AppendFile for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.with("write to", |file| file.bytes.extend_from_slice(bytes))
    }

    fn sync(&mut self) -> Result<()> {
        self.with("sync", |file| file.synced = file.bytes.len())
    }

    fn length(&self) -> u64 {
        self.storage.tree().files[self.inode].bytes.len() as u64
    }
}

impl Storage for MemoryStorage {
    fn append(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let mut tree = self.tree();
        let inode = match tree.live.get(path) {
            Some(inode) => *inode,
            None => tree.create("open", path, File::default())?,
        };
        let deaths = tree.deaths;
        Ok(Box::new(MemoryFile { storage: self.clone(), inode, path: path.to_owned(), deaths }))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let tree = self.tree();
        Ok(tree.files[tree.inode("read", path)?].bytes.clone())
    }

    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let tree = self.tree();
        let bytes = &tree.files[tree.inode("read", path)?].bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[start..start.saturating_add(length).min(bytes.len())].to_vec())
    }

    fn length(&self, path: &str) -> Result<Option<u64>> {
        let tree = self.tree();
        Ok(tree.live.get(checked(path)?).map(|inode| tree.files[*inode].bytes.len() as u64))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        let (tree, dir) = (self.tree(), checked(dir)?);
        let inside = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let files = tree.live.range(inside.clone()..).map(|(path, _)| path);
        let files = files.take_while(|path| path.starts_with(&inside));
        let folders = tree.folders.range(inside.clone()..).take_while(|path| path.starts_with(&inside));
        let names = files.chain(folders).map(|path| &path[inside.len()..]).filter(|name| !name.contains('/'));
        let names: BTreeSet<&str> = names.collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn create_dir(&self, dir: &str) -> Result<()> {
        let (mut tree, dir) = (self.tree(), checked(dir)?);
        let paths = dir.match_indices('/').map(|(at, _)| &dir[..at]).chain([dir]).filter(|path| !path.is_empty());
        for path in paths {
            if tree.live.contains_key(path) {
                return Err(Error::outside(format!("cannot create the folder '{path}': it is a file")));
            }
            tree.folders.insert(path.to_owned());
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut tree = self.tree();
        let inode = tree.inode("rename", from)?;
        tree.folder("rename to", parent(below_root(to)?))?;
        if tree.live.get(to) != Some(&inode) {
            tree.change(vec![(from.to_owned(), None), (to.to_owned(), Some(inode))]);
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        let (mut tree, path) = (self.tree(), below_root(path)?);
        let inside = format!("{path}/");
        let is_gone = |entry: &String| entry == path || entry.starts_with(&inside);
        let below =
            tree.live.range(inside.clone()..).map(|(entry, _)| entry).take_while(|entry| entry.starts_with(&inside));
        let gone: Vec<String> =
            tree.live.get_key_value(path).map(|(entry, _)| entry).into_iter().chain(below).cloned().collect();
        gone.into_iter().for_each(|entry| tree.change(vec![(entry, None)]));
        tree.folders.retain(|folder| !is_gone(folder));
        Ok(())
    }

    fn truncate(&self, path: &str, length: u64) -> Result<()> {
        let mut tree = self.tree();
        let inode = tree.inode("cut", path)?;
        let file = &mut tree.files[inode];
        if length > file.bytes.len() as u64 {
            let before = file.bytes.len();
            return Err(Error::us(format!("cannot cut '{path}' to {length} bytes: it has {before}")));
        }
        file.bytes.truncate(length as usize);
        file.synced = file.bytes.len();
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        let mut tree = self.tree();
        tree.folder("sync the folder", dir)?;
        let Tree { folders, durable, pending, .. } = &mut *tree;
        // What lay in a folder below that is gone by now goes with that folder's own entry.
        let covers = |path: &str| {
            let mut above = parent(path);
            while above != dir && !above.is_empty() && !folders.contains(above) {
                above = parent(above);
            }
            above == dir
        };
        for operation in pending.iter_mut() {
            operation.retain(|(path, inode)| {
                let covered = covers(path);
                if covered {
                    set(durable, path.clone(), *inode);
                }
                !covered
            });
        }
        pending.retain(|operation| !operation.is_empty());
        Ok(())
    }

    fn import(&self, local: &Path, path: &str) -> Result<()> {
        let bytes = std::fs::read(local).map_err(explained("read", local))?;
        let synced = bytes.len();
        self.tree().create("import", path, File { bytes, synced }).map(drop)
    }

    fn local_path(&self, _path: &str) -> Option<PathBuf> {
        None
    }
}

fn set(entries: &mut BTreeMap<String, Inode>, path: String, inode: Option<Inode>) {
    match inode {
        Some(inode) => entries.insert(path, inode),
        None => entries.remove(&path),
    };
}

fn parent(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..at])
}

fn absent(what: &str, path: &str) -> Error {
    Error::outside(format!("cannot {what} '{path}': it does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worst crash loses everything it may; the mildest loses nothing.
    fn worst(_: u64) -> u64 {
        0
    }
    fn mildest(below: u64) -> u64 {
        below - 1
    }

    fn write(storage: &MemoryStorage, path: &str, bytes: &[u8], sync: bool) {
        let mut file = storage.append(path).unwrap();
        file.write(bytes).unwrap();
        if sync {
            file.sync().unwrap();
        }
    }

    #[test]
    fn synced_bytes_need_a_synced_entry() {
        let storage = MemoryStorage::new();
        write(&storage, "a", b"synced", true);
        storage.crash(&mut worst);
        assert_eq!(storage.length("a").unwrap(), None);

        write(&storage, "a", b"synced", true);
        storage.sync_dir("").unwrap();
        write(&storage, "a", b" and not", false);
        storage.crash(&mut worst);
        assert_eq!(storage.read("a").unwrap(), b"synced");

        write(&storage, "a", b" and not", false);
        storage.crash(&mut mildest);
        assert_eq!(storage.read("a").unwrap(), b"synced and not");
        storage.crash(&mut worst);
        assert_eq!(storage.read("a").unwrap(), b"synced and not", "what a crash left is on the disk");
    }

    #[test]
    fn part_of_the_unsynced_bytes_may_stay() {
        let storage = MemoryStorage::new();
        write(&storage, "a", b"12", true);
        storage.sync_dir("").unwrap();
        write(&storage, "a", b"3456", false);
        assert_eq!(storage.crash(&mut crash(&[5, 4], &[2, 0])), 0);
        assert_eq!(storage.read("a").unwrap(), b"1234");
    }

    /// A crash that asks for numbers below these, in this order, and gets those.
    fn crash<'a>(below: &'a [u64], numbers: &'a [u64]) -> impl FnMut(u64) -> u64 + 'a {
        let mut next = below.iter().zip(numbers);
        move |asked| {
            let (below, number) = next.next().expect("no more is asked");
            assert_eq!(asked, *below);
            *number
        }
    }

    #[test]
    fn a_sector_of_the_unsynced_bytes_may_be_missing() {
        let storage = MemoryStorage::new();
        write(&storage, "a", &[7; 500], true);
        storage.sync_dir("").unwrap();
        write(&storage, "a", &[7; 1100], false);
        // Sectors from 500, 512, 1024 and 1536 on; the last one is cut short.
        let torn = storage.crash(&mut crash(&[1101, 4, 4, 4, 4], &[1098, 0, 1, 3, 2]));
        let bytes = storage.read("a").unwrap();
        assert_eq!((torn, bytes.len()), (2, 1598));
        assert_eq!(bytes[..512], [7; 512]);
        assert_eq!(bytes[512..1024], [0; 512]);
        assert_eq!(bytes[1024..1536], [7; 512]);
        assert_eq!(bytes[1536..], [0; 62]);
        write(&storage, "a", b"xy", false);
        assert_eq!(storage.crash(&mut crash(&[3, 4, 256, 256], &[2, 2, 200, 201])), 1);
        assert_eq!(storage.read("a").unwrap()[1598..], [200, 201]);
    }

    #[test]
    fn a_rename_is_whole_or_not_at_all() {
        for (crash, expected) in [(worst as fn(u64) -> u64, &b"old"[..]), (mildest, b"new")] {
            let storage = MemoryStorage::new();
            write(&storage, "a", b"old", true);
            write(&storage, "t", b"new", true);
            storage.sync_dir("").unwrap();
            storage.rename("t", "a").unwrap();
            assert_eq!(storage.read("a").unwrap(), b"new");
            storage.crash(&mut |below| crash(below));
            assert_eq!(storage.read("a").unwrap(), expected);
            assert_eq!(storage.length("t").unwrap().is_some(), expected == b"old");
        }
    }

    #[test]
    fn a_removal_comes_back_unless_synced() {
        let storage = MemoryStorage::new();
        storage.create_dir("d/e").unwrap();
        write(&storage, "d/e/a", b"x", true);
        storage.sync_dir("d/e").unwrap();
        storage.remove("d").unwrap();
        storage.crash(&mut worst);
        assert_eq!(storage.read("d/e/a").unwrap(), b"x");
        assert_eq!(storage.list("").unwrap(), ["d"]);
        storage.remove("d").unwrap();
        storage.sync_dir("").unwrap();
        storage.crash(&mut worst);
        assert_eq!(storage.list("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn handles_die_with_the_process() {
        let storage = MemoryStorage::new();
        let mut file = storage.append("a").unwrap();
        storage.sync_dir("").unwrap();
        storage.crash(&mut worst);
        assert!(file.write(b"x").is_err() && file.sync().is_err());
        assert_eq!(storage.read("a").unwrap(), b"");

        let mut file = storage.append("a").unwrap();
        file.write(b"x").unwrap();
        storage.kill();
        assert!(file.write(b"y").is_err() && file.sync().is_err());
        assert_eq!(storage.read("a").unwrap(), b"x", "the page cache outlives a process");
        storage.crash(&mut worst);
        assert_eq!(storage.read("a").unwrap(), b"", "and not the machine");
    }
}
