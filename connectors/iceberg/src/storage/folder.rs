//! Files of this machine: durable, name and all, before anything can refer to them.
//!
//! A file is synced when it is closed, then its folder is, then every folder that had to be made for it. So a commit, which comes after
//! all its files are closed, never names what a power loss can take away. The file system calls block, as the whole crate does.

use super::failed;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use iceberg::Result;
use iceberg::io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files under `file:///…` or a plain absolute path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FolderStorage;

/// The path in the file system.
fn local(path: &str) -> Result<PathBuf> {
    let rest = path.strip_prefix("file:").unwrap_or(path);
    let rest = rest.strip_prefix("//").filter(|_| rest != path).unwrap_or(rest);
    if rest.starts_with('/') {
        return Ok(PathBuf::from(rest));
    }
    Err(failed("find the file", path, "a folder's warehouse holds absolute paths and file:/// only"))
}

/// Makes the entries of a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder and its parents, each durable in the one above.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(parent) = folder.parent() else { return Ok(()) };
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        // Also when another process made it just now: it may not have synced it yet.
        _ => sync_folder(parent),
    }
}

/// A new file. One that is there is never written over: no two files of a table share a name.
fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    File::options().write(true).create_new(true).open(path)
}

/// Makes a written file durable, and then its name.
fn seal(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    path.parent().map_or(Ok(()), sync_folder)
}

#[async_trait]
#[typetag::serde]
impl Storage for FolderStorage {
    async fn exists(&self, path: &str) -> Result<bool> {
        local(path)?.try_exists().map_err(|e| failed("look for the file", path, e))
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let found = fs::metadata(local(path)?).map_err(|e| failed("measure the file", path, e))?;
        Ok(FileMetadata { size: found.len() })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        fs::read(local(path)?).map(Bytes::from).map_err(|e| failed("read the file", path, e))
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        let file = File::open(local(path)?).map_err(|e| failed("open the file", path, e))?;
        Ok(Box::new(Reader { file, path: path.to_owned() }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let at = local(path)?;
        let written = create(&at).and_then(|mut file| {
            file.write_all(&bytes)?;
            seal(&file, &at)
        });
        written.map_err(|e| failed("write the file", path, e))
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let at = local(path)?;
        let file = create(&at).map_err(|e| failed("create the file", path, e))?;
        Ok(Box::new(Writer { file, at, path: path.to_owned() }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        match fs::remove_file(local(path)?) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove the file", path, error)),
            _ => Ok(()),
        }
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        match fs::remove_dir_all(local(path)?) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove the folder", path, error)),
            _ => Ok(()),
        }
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

struct Reader {
    file: File,
    path: String,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
        self.file.read_exact_at(&mut bytes, range.start).map_err(|e| failed("read the file", &self.path, e))?;
        Ok(bytes.into())
    }
}

struct Writer {
    file: File,
    at: PathBuf,
    path: String,
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.file.write_all(&bytes).map_err(|e| failed("write the file", &self.path, e))
    }

    async fn close(&mut self) -> Result<()> {
        seal(&self.file, &self.at).map_err(|e| failed("sync the file", &self.path, e))
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
