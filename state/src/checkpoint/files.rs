//! The files of parts: stored once under the hash of their content, checked on every read.
//!
//! The index in memory says which contents are there, so that a part costs one upload per new file. It also reserves
//! what a part uses until a manifest names it: a collector in the same process cannot take a file that a part just
//! found and so did not store again.
//!
//! An SST file is hashed once. RocksDB never changes one, never uses its name again, and hard-links it from the live folder
//! into every cut: so name, inode, length and modification time stand for the content that they had in the part before.

use super::manifest::{FileRef, PartRef};
use super::store::{CheckpointStore, FILES};
use crate::backend::{Cut, PartContent};
use crate::storage::explained;
use dataflow_core::{Epoch, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is read at a time of a file that may be large: large enough for a disk, small beside every other buffer.
pub(super) const READ_BYTES: usize = 1 << 20;

/// Which local file a content came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    name: String,
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

type Contents = BTreeMap<Identity, String>;

#[derive(Default)]
pub(super) struct FileIndex {
    /// The contents in the store, with the generations that stored them.
    known: BTreeMap<String, BTreeSet<u64>>,
    /// Contents of parts that no manifest names yet.
    pub(super) reserved: BTreeSet<String>,
    /// Paths that a removed manifest named.
    pub(super) retired: BTreeSet<String>,
    /// Manifests (epoch, generation) that this process completed or verified.
    pub(super) trusted: BTreeSet<(Epoch, u64)>,
    /// The local files of each instance's last part, with their hashes.
    local: BTreeMap<(String, usize), Contents>,
}

impl FileIndex {
    pub(super) fn of(names: &[String]) -> FileIndex {
        let mut index = FileIndex::default();
        for (hash, generation) in names.iter().filter_map(|name| parse_name(name)) {
            index.known.entry(hash.to_string()).or_default().insert(generation);
        }
        index
    }

    pub(super) fn release(&mut self, hash: &str) {
        self.reserved.remove(hash);
    }

    pub(super) fn forget(&mut self, hash: &str, generation: u64) {
        if let Some(generations) = self.known.get_mut(hash) {
            generations.remove(&generation);
            if generations.is_empty() {
                self.known.remove(hash);
            }
        }
    }
}

/// (hash, generation) of a file's name in the store; `None` for foreign files and for temporary ones, which have a suffix.
pub(super) fn parse_name(name: &str) -> Option<(&str, u64)> {
    let (hash, generation) = name.split_once('-')?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    is_hash.then_some((hash, generation.parse().ok()?))
}

impl CheckpointStore {
    /// Stores the files of a cut that are not there yet. On return all are durable, and kept until a manifest names them.
    ///
    /// # Errors
    /// When a file cannot be read or stored.
    pub fn store_part(
        &self,
        operator: &str,
        worker: usize,
        generation: u64,
        value_version: u16,
        cut: &Cut,
    ) -> Result<PartRef> {
        let instance = (operator.to_string(), worker);
        let before = self.index().local.get(&instance).cloned().unwrap_or_default();
        let (mut files, mut contents, mut stored) = (Vec::new(), Contents::new(), false);
        for file in &cut.files {
            let (hash, bytes) = match &file.content {
                PartContent::Bytes(content) => (hex(blake3::hash(content)), content.len() as u64),
                PartContent::File(path) => {
                    let identity = identity_of(path, &file.name)?;
                    let known = before.get(&identity).filter(|_| is_table(&file.name));
                    let hash = known.map_or_else(|| hash_local(path), |hash| Ok(hash.clone()))?;
                    let bytes = identity.bytes;
                    contents.insert(identity, hash.clone());
                    (hash, bytes)
                }
            };
            let mut file_ref = FileRef { name: file.name.clone(), hash, bytes, generation };
            match self.reserve(&file_ref)? {
                Some(there) => file_ref.generation = there,
                None => {
                    self.store_file(&file_ref, &file.content)?;
                    stored = true;
                }
            }
            files.push(file_ref);
        }
        if stored {
            self.storage.sync_dir(&self.path(FILES))?;
        }
        let mut index = self.index();
        for file in &files {
            index.known.entry(file.hash.clone()).or_default().insert(file.generation);
        }
        index.local.insert(instance, contents);
        Ok(PartRef { operator: operator.to_string(), worker, value_version, format: cut.format, files })
    }

    /// The path of a file in the storage.
    pub fn file_path(&self, file: &FileRef) -> String {
        format!("{}/{FILES}/{}-{}", self.dir, file.hash, file.generation)
    }

    /// Notes that the local file at `path` has the content of `file`, so that the next part need not read it.
    pub(super) fn note_local(&self, operator: &str, worker: usize, path: &Path, file: &FileRef) -> Result<()> {
        let identity = identity_of(path, &file.name)?;
        let instance = (operator.to_string(), worker);
        self.index().local.entry(instance).or_default().insert(identity, file.hash.clone());
        Ok(())
    }

    /// What is wrong with a stored file, if anything.
    pub(super) fn check_file(&self, file: &FileRef) -> std::result::Result<(), String> {
        let path = self.file_path(file);
        match self.storage.length(&path).map_err(|e| e.to_string())? {
            None => return Err("it is missing".to_string()),
            Some(length) if length != file.bytes => {
                return Err(format!("it has {length} bytes, not {}", file.bytes));
            }
            Some(_) => (),
        }
        let (mut hasher, mut offset) = (blake3::Hasher::new(), 0);
        while offset < file.bytes {
            let bytes = self.storage.read_range(&path, offset, READ_BYTES).map_err(|e| e.to_string())?;
            if bytes.is_empty() {
                return Err(format!("it ends after {offset} bytes, not {}", file.bytes));
            }
            hasher.update(&bytes);
            offset += bytes.len() as u64;
        }
        let hash = hex(hasher.finalize());
        if hash == file.hash { Ok(()) } else { Err(format!("its content has hash {hash}, not {}", file.hash)) }
    }

    /// Keeps the content from the collector; the generation under which it is there already, whole.
    fn reserve(&self, file: &FileRef) -> Result<Option<u64>> {
        let generations = {
            let mut index = self.index();
            index.reserved.insert(file.hash.clone());
            index.known.get(&file.hash).cloned().unwrap_or_default()
        };
        for generation in generations.into_iter().rev() {
            let there = FileRef { generation, ..file.clone() };
            if self.storage.length(&self.file_path(&there))? == Some(file.bytes) {
                return Ok(Some(generation));
            }
        }
        Ok(None)
    }

    /// Puts a new file in, durable once the folder is synced. Under its name it is whole or not there.
    fn store_file(&self, file: &FileRef, content: &PartContent) -> Result<()> {
        let path = self.file_path(file);
        match content {
            PartContent::File(local) => self.storage.import(local, &path),
            PartContent::Bytes(bytes) => {
                let temporary = format!("{path}.tmp");
                self.storage.remove(&temporary)?;
                let mut stored = self.storage.append(&temporary)?;
                stored.write(bytes)?;
                stored.sync()?;
                self.storage.rename(&temporary, &path)
            }
        }
    }
}

/// Whether a file of a RocksDB folder is one of those that never change.
pub(super) fn is_table(name: &str) -> bool {
    name.ends_with(".sst")
}

fn identity_of(path: &Path, name: &str) -> Result<Identity> {
    let metadata = std::fs::metadata(path).map_err(explained("look at", path))?;
    Ok(Identity {
        name: name.to_string(),
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

fn hash_local(path: &Path) -> Result<String> {
    let failed = explained("read", path);
    let mut file = File::open(path).map_err(&failed)?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer).map_err(&failed)? {
            0 => return Ok(hex(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        };
    }
}

fn hex(hash: blake3::Hash) -> String {
    hash.to_hex().to_string()
}
