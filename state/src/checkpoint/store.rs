//! The store of manifests: completing, listing, reading and verifying them.

use super::files::FileIndex;
use super::manifest::Manifest;
use dataflow_core::replace_file;
use dataflow_core::{Epoch, Error, Result, Storage};
use std::sync::{Arc, Mutex, MutexGuard};

pub(super) const MANIFESTS: &str = "manifests";
pub(super) const FILES: &str = "files";

/// A manifest in the store, by its name alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestRef {
    /// The epoch.
    pub epoch: Epoch,
    /// The number of the generation that wrote it.
    pub generation: u64,
    /// Its path in the storage.
    pub path: String,
}

/// Something in the store that is not what it was when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The path of the manifest that is unusable for it.
    pub manifest: String,
    /// The path of the damaged file; the manifest's own when that is damaged.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "checkpoint '{}' is unusable: file '{}': {}", self.manifest, self.file, self.reason)
    }
}

/// Checkpoints in a folder of a storage. Parts may be stored from several threads; manifests are completed and collected
/// by one.
pub struct CheckpointStore {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) dir: String,
    pub(super) keep: usize,
    pub(super) index: Mutex<FileIndex>,
}

impl CheckpointStore {
    /// The store in the folder `dir`, which is created when absent. `keep` manifests are kept.
    ///
    /// # Errors
    /// When the folder cannot be created or listed, or `keep` is 0.
    pub fn open(storage: Arc<dyn Storage>, dir: &str, keep: usize) -> Result<CheckpointStore> {
        if keep == 0 {
            return Err(Error::user(format!("keep 0 checkpoints in '{dir}'")).hint("keep at least 1"));
        }
        for folder in [FILES, MANIFESTS] {
            storage.create_dir(&format!("{dir}/{folder}"))?;
        }
        Ok(CheckpointStore { keep, ..CheckpointStore::existing(storage, dir)? })
    }

    /// What is in the folder `dir`, for a reader: nothing is created, an absent folder is an empty store.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn existing(storage: Arc<dyn Storage>, dir: &str) -> Result<CheckpointStore> {
        let index = FileIndex::of(&storage.list(&format!("{dir}/{FILES}"))?);
        Ok(CheckpointStore { storage, dir: dir.to_string(), keep: 1, index: Mutex::new(index) })
    }

    /// The manifests, newest first: by epoch, then by generation.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<ManifestRef>> {
        let dir = self.path(MANIFESTS);
        let parse = |name: String| {
            let (epoch, generation) = name.strip_suffix(".json")?.split_once('-')?;
            let (epoch, generation) = (epoch.parse().ok()?, generation.parse().ok()?);
            Some(ManifestRef { epoch, generation, path: format!("{dir}/{name}") })
        };
        let mut found: Vec<ManifestRef> = self.storage.list(&dir)?.into_iter().filter_map(parse).collect();
        found.sort_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or was written by a newer engine.
    pub fn read(&self, manifest: &ManifestRef) -> Result<Manifest> {
        self.parse(manifest)?.map_err(|reason| {
            Error::outside(format!("read manifest '{}': {reason}", manifest.path))
                .hint("an older checkpoint can be restored if the binding log still reaches from it")
        })
    }

    /// Checks every file of a manifest, size and hash. Reads them all.
    ///
    /// # Errors
    /// Each file that is missing, unreadable or not what was stored.
    pub fn verify(&self, manifest: &Manifest) -> std::result::Result<(), Vec<Damage>> {
        let path = self.manifest_path(manifest.epoch, manifest.generation.number);
        let mut files: Vec<_> = manifest.files().collect();
        files.sort_by(|a, b| (&a.hash, a.generation).cmp(&(&b.hash, b.generation)));
        files.dedup_by(|a, b| (&a.hash, a.generation) == (&b.hash, b.generation));
        let damage = |file| {
            let reason = self.check_file(file).err()?;
            Some(Damage { manifest: path.clone(), file: self.file_path(file), reason })
        };
        let damages: Vec<Damage> = files.into_iter().filter_map(damage).collect();
        if !damages.is_empty() {
            return Err(damages);
        }
        self.index().trusted.insert((manifest.epoch, manifest.generation.number));
        Ok(())
    }

    /// The newest manifest that is whole with all its files, and what is wrong with the newer ones.
    ///
    /// # Errors
    /// When the storage fails, or a manifest was written by a newer engine: falling back behind it would be a doubt of ours.
    pub fn newest_intact(&self) -> Result<(Option<Manifest>, Vec<Damage>)> {
        let mut damages = Vec::new();
        for found in self.list()? {
            match self.parse(&found)? {
                Ok(manifest) => match self.verify(&manifest) {
                    Ok(()) => return Ok((Some(manifest), damages)),
                    Err(more) => damages.extend(more),
                },
                Err(reason) => damages.push(Damage { manifest: found.path.clone(), file: found.path, reason }),
            }
        }
        Ok((None, damages))
    }

    /// Writes the manifest: from here on the checkpoint exists. All its parts are stored, all its sinks committed.
    ///
    /// # Errors
    /// When there is one of this epoch and generation already, a file of it is not in the store, or the storage fails. A
    /// failed call is not repeated: what is there is read first.
    pub fn complete(&self, manifest: &Manifest) -> Result<()> {
        let path = self.manifest_path(manifest.epoch, manifest.generation.number);
        if self.storage.length(&path)?.is_some() {
            return Err(Error::doubt(format!("write manifest '{path}': it is there already"))
                .hint("two processes may be running on one data folder"));
        }
        for file in manifest.files() {
            if self.storage.length(&self.file_path(file))? != Some(file.bytes) {
                let stored = self.file_path(file);
                return Err(Error::us(format!("write manifest '{path}': file '{stored}' is not in the store")));
            }
        }
        let text = manifest.encode();
        let again = Manifest::decode(&path, &text)?;
        assert_eq!(again.as_ref(), Ok(manifest), "a manifest reads back as it was written");
        let name = manifest_name(manifest.epoch, manifest.generation.number);
        replace_file(self.storage.as_ref(), &self.path(MANIFESTS), &name, &text)?;
        let mut index = self.index();
        index.trusted.insert((manifest.epoch, manifest.generation.number));
        manifest.files().for_each(|file| index.release(&file.hash));
        Ok(())
    }

    pub(super) fn parse(&self, manifest: &ManifestRef) -> Result<std::result::Result<Manifest, String>> {
        let text = self.storage.read(&manifest.path)?;
        let parsed = Manifest::decode(&manifest.path, &text)?;
        Ok(parsed.and_then(|m| {
            if (m.epoch, m.generation.number) == (manifest.epoch, manifest.generation) {
                return Ok(m);
            }
            Err(format!("it is the manifest of epoch {} and generation {}", m.epoch, m.generation))
        }))
    }

    pub(super) fn path(&self, folder: &str) -> String {
        format!("{}/{folder}", self.dir)
    }

    pub(super) fn index(&self) -> MutexGuard<'_, FileIndex> {
        self.index.lock().expect("no holder of this lock can panic")
    }

    fn manifest_path(&self, epoch: Epoch, generation: u64) -> String {
        format!("{}/{}", self.path(MANIFESTS), manifest_name(epoch, generation))
    }
}

fn manifest_name(epoch: Epoch, generation: u64) -> String {
    format!("{epoch:020}-{generation}.json")
}
