//! Files of this machine: durable, name and all, before anything can refer to them.
//!
//! A file is synced when it is closed, then its folder is, then every folder that had to be made for it. So a commit, which comes after
//! all its files are closed, never names what a power loss can take away. The file system calls block, as the whole crate does; they
//! stand behind [`Disk`], so that the simulation can lose what was not synced.

use super::{ListFiles, NOT_SERIALISED, failed};
use async_trait::async_trait;
use bytes::Bytes;
use dataflow_core::planted::{Bug, is_planted};
use futures_util::{StreamExt, stream::BoxStream};
use iceberg::Result;
use iceberg::io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file system under a warehouse. It promises what POSIX does: bytes are durable after [`DiskFile::sync`], a new name after
/// [`Disk::sync_folder`] of its folder. Paths are absolute.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Whether the folder is there.
    fn has_folder(&self, folder: &Path) -> bool;
    /// Makes a folder in one that is there; an error of the kind `AlreadyExists` when it is there.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes the folder's entries durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes a file that is not there yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// All of a range of a file.
    fn read_range(&self, path: &Path, range: Range<u64>) -> io::Result<Vec<u8>>;
    /// The length of a file; an error of the kind `NotFound` when there is none.
    fn length(&self, path: &Path) -> io::Result<u64>;
    /// Removes a file; an error of the kind `NotFound` when there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names of the files that lie in a folder itself; an error of the kind `NotFound` when there is none.
    fn files(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// A new file of a [`Disk`].
pub trait DiskFile: Send {
    /// Appends.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug)]
struct LocalDisk;

impl Disk for LocalDisk {
    fn has_folder(&self, folder: &Path) -> bool {
        folder.is_dir()
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::options().write(true).create_new(true).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_range(&self, path: &Path, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
        File::open(path)?.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn files(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // No file of ours has a name that is no text.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                files.push(name);
            }
        }
        Ok(files)
    }
}

impl DiskFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Files under `file:///…` or a plain absolute path.
#[derive(Clone, Debug)]
pub(crate) struct FolderStorage(Arc<dyn Disk>);

impl FolderStorage {
    /// Files of this machine.
    pub(crate) fn local() -> FolderStorage {
        FolderStorage(Arc::new(LocalDisk))
    }

    /// Files of a given disk.
    pub(crate) fn on(disk: Arc<dyn Disk>) -> FolderStorage {
        FolderStorage(disk)
    }

    /// Makes a folder and its parents, each durable in the one above.
    pub(crate) fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if self.0.has_folder(folder) {
            return Ok(());
        }
        let Some(parent) = folder.parent() else { return Ok(()) };
        self.make_folder(parent)?;
        match self.0.make_folder(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            // Also when another process made it just now: it may not have synced it yet.
            _ => self.0.sync_folder(parent),
        }
    }

    /// A new file. One that is there is never written over: no two files of a table share a name.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if let Some(folder) = path.parent() {
            self.make_folder(folder)?;
        }
        self.0.create(path)
    }

    /// Makes a written file durable, and then its name.
    fn seal(&self, file: &mut dyn DiskFile, path: &Path) -> io::Result<()> {
        if is_planted(Bug::TableFilesNotSynced) {
            return Ok(());
        }
        file.sync()?;
        path.parent().map_or(Ok(()), |folder| self.0.sync_folder(folder))
    }
}

/// The path in the file system.
fn local(path: &str) -> Result<PathBuf> {
    let rest = path.strip_prefix("file:").unwrap_or(path);
    let rest = rest.strip_prefix("//").filter(|_| rest != path).unwrap_or(rest);
    if rest.starts_with('/') {
        return Ok(PathBuf::from(rest));
    }
    Err(failed("find the file", path, "a folder's warehouse holds absolute paths and file:/// only"))
}

#[async_trait]
#[typetag::serde]
impl Storage for FolderStorage {
    async fn exists(&self, path: &str) -> Result<bool> {
        match self.0.length(&local(path)?) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            found => found.map(|_| true).map_err(|e| failed("look for the file", path, e)),
        }
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let size = self.0.length(&local(path)?).map_err(|e| failed("measure the file", path, e))?;
        Ok(FileMetadata { size })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        self.0.read(&local(path)?).map(Bytes::from).map_err(|e| failed("read the file", path, e))
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        Ok(Box::new(Reader { disk: self.0.clone(), at: local(path)?, path: path.to_owned() }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let at = local(path)?;
        let written = self.create(&at).and_then(|mut file| {
            file.write(&bytes)?;
            self.seal(&mut *file, &at)
        });
        written.map_err(|e| failed("write the file", path, e))
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let at = local(path)?;
        let file = self.create(&at).map_err(|e| failed("create the file", path, e))?;
        Ok(Box::new(Writer { storage: self.clone(), file, at, path: path.to_owned() }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        match self.0.remove(&local(path)?) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove the file", path, error)),
            _ => Ok(()),
        }
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        Err(failed("remove the folder", path, "files are removed one by one here"))
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

#[async_trait]
impl ListFiles for FolderStorage {
    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        match self.0.files(&local(folder)?) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed("list the folder", folder, error)),
            Ok(names) => Ok(names.into_iter().map(|name| format!("{folder}/{name}")).collect()),
        }
    }
}

impl Serialize for FolderStorage {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(NOT_SERIALISED))
    }
}

impl<'de> Deserialize<'de> for FolderStorage {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(serde::de::Error::custom(NOT_SERIALISED))
    }
}

struct Reader {
    disk: Arc<dyn Disk>,
    at: PathBuf,
    path: String,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let read = self.disk.read_range(&self.at, range);
        read.map(Bytes::from).map_err(|e| failed("read the file", &self.path, e))
    }
}

struct Writer {
    storage: FolderStorage,
    file: Box<dyn DiskFile>,
    at: PathBuf,
    path: String,
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.file.write(&bytes).map_err(|e| failed("write the file", &self.path, e))
    }

    async fn close(&mut self) -> Result<()> {
        let Writer { storage, file, at, path } = self;
        storage.seal(&mut **file, at).map_err(|e| failed("sync the file", path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<&str>) {
        assert_eq!(local(path).ok(), expected.map(PathBuf::from), "{path}");
    }

    #[test]
    fn paths_are_absolute() {
        check("file:///a/b", Some("/a/b"));
        check("file:/a/b", Some("/a/b"));
        check("/a/b", Some("/a/b"));
        check("a/b", None);
        check("file://host/a", None);
        check("s3://bucket/a", None);
    }
}
