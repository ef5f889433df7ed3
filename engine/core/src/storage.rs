//! Files as the engine uses them: append, sync, rename, list. Behind a trait, so that the simulation can lose what was not synced.
//!
//! The durability contract is POSIX's: written bytes are durable after [`AppendFile::sync`] of the file *and*, when the
//! file was created or renamed, after [`Storage::sync_dir`] of its folder. An error of a sync ends the process and is
//! never repeated (invariant 5).

use crate::Result;
use std::path::{Path, PathBuf};

/// A folder tree. Paths are relative to its root and use `/`.
pub trait Storage: Send + Sync {
    /// Opens a file for appending, creating it (not its folder) when absent.
    fn append(&self, path: &str) -> Result<Box<dyn AppendFile>>;
    /// The whole content.
    fn read(&self, path: &str) -> Result<Vec<u8>>;
    /// Up to `length` bytes from `offset`; fewer at the end of the file.
    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>>;
    /// The length in bytes, `None` when there is no such file.
    fn length(&self, path: &str) -> Result<Option<u64>>;
    /// The names in a folder, sorted; empty when there is no such folder.
    fn list(&self, dir: &str) -> Result<Vec<String>>;
    /// Creates a folder and its parents, and makes them durable.
    fn create_dir(&self, dir: &str) -> Result<()>;
    /// Renames a file, replacing what is there. Durable after [`Storage::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Removes a file or a whole folder; nothing when it is absent.
    fn remove(&self, path: &str) -> Result<()>;
    /// Cuts a file to `length` bytes and syncs it.
    fn truncate(&self, path: &str, length: u64) -> Result<()>;
    /// Makes the folder's entries durable.
    fn sync_dir(&self, dir: &str) -> Result<()>;
    /// Brings a file of the local machine in under `path` (a hard link where possible, else a copy), synced.
    fn import(&self, local: &Path, path: &str) -> Result<()>;
    /// Where `path` lies on the local machine, when it does.
    fn local_path(&self, path: &str) -> Option<PathBuf>;
}

/// A file open for appending.
pub trait AppendFile: Send {
    /// Appends; not durable yet.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes all that was written durable (`fdatasync`).
    fn sync(&mut self) -> Result<()>;
    /// Bytes in the file, with what was written but not synced.
    fn length(&self) -> u64;
}

/// Writes a small file so that after a crash either the old or the whole new content is there: temporary file, sync,
/// rename, sync of the folder. `path` lies in `dir`, `""` for the root.
///
/// # Errors
/// Those of the storage. After an error the content is the old or the new one.
pub fn replace_file(storage: &dyn Storage, dir: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    let temporary = format!("{path}.tmp");
    storage.remove(&temporary)?; // A life that ended half-way may have left one, and `append` would add to it.
    let mut file = storage.append(&temporary)?;
    file.write(bytes)?;
    file.sync()?;
    drop(file);
    storage.rename(&temporary, &path)?;
    storage.sync_dir(dir)
}
