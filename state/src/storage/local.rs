//! [`Storage`] on a real folder: std files, `fdatasync`, and an fsync of the folder.
//!
//! Every error names the path, and the ones a user can do something about (no space, read-only, no permission, too
//! many open files, a failing disk) say what. Nothing is retried: a failed sync is the caller's end (invariant 5).

use super::{below_root, checked};
use dataflow_core::{AppendFile, Error, Result, Storage};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A folder of the local machine. It does not lock it: [`DataFolder`](crate::folder::DataFolder) does.
#[derive(Clone, Debug)]
pub struct LocalStorage {
    root: PathBuf,
}

impl LocalStorage {
    /// The storage below `root`, which exists.
    pub fn new(root: PathBuf) -> LocalStorage {
        LocalStorage { root }
    }

    fn real(&self, path: &str) -> Result<PathBuf> {
        let path = checked(path)?;
        Ok(if path.is_empty() { self.root.clone() } else { self.root.join(path) })
    }
}

struct LocalFile {
    file: File,
    path: PathBuf,
    length: u64,
}

impl AppendFile for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(explained("write to", &self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(explained("sync", &self.path))
    }

    fn length(&self) -> u64 {
        self.length
    }
}

impl Storage for LocalStorage {
    fn append(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let path = self.real(path)?;
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(explained("open", &path))?;
        let length = file.metadata().map_err(explained("open", &path))?.len();
        Ok(Box::new(LocalFile { file, path, length }))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.real(path)?;
        fs::read(&path).map_err(explained("read", &path))
    }

    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let path = self.real(path)?;
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(length as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(explained("read", &path))
    }

    fn length(&self, path: &str) -> Result<Option<u64>> {
        let path = self.real(path)?;
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(explained("look at", &path)(error)),
        }
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        let dir = self.real(dir)?;
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(explained("list", &dir)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(explained("list", &dir))?.file_name();
            // A name that is no UTF-8 is none of ours: the engine writes ASCII names only.
            names.extend(name.into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &str) -> Result<()> {
        checked(dir)?;
        let mut path = self.root.clone();
        for part in dir.split('/').filter(|part| !part.is_empty()) {
            let parent = path.clone();
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
                Err(error) => return Err(explained("create the folder", &path)(error)),
            }
            // Also when it was there: whoever created it may have died before this sync.
            sync_folder(&parent)?;
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.real(below_root(from)?)?, self.real(below_root(to)?)?);
        rename(&from, &to)
    }

    fn remove(&self, path: &str) -> Result<()> {
        let path = self.real(below_root(path)?)?;
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if !is_absent(&error) => Err(explained("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn truncate(&self, path: &str, length: u64) -> Result<()> {
        let path = self.real(path)?;
        let file = OpenOptions::new().write(true).open(&path).map_err(explained("cut", &path))?;
        let before = file.metadata().map_err(explained("cut", &path))?.len();
        if length > before {
            return Err(Error::us(format!("cannot cut '{}' to {length} bytes: it has {before}", path.display())));
        }
        file.set_len(length).and_then(|()| file.sync_all()).map_err(explained("cut", &path))
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        sync_folder(&self.real(dir)?)
    }

    fn import(&self, local: &Path, path: &str) -> Result<()> {
        let path = self.real(path)?;
        let mut temporary = path.clone().into_os_string();
        temporary.push(".import");
        let temporary = PathBuf::from(temporary);
        remove_if_there(&temporary)?;
        if fs::hard_link(local, &temporary).is_err() {
            // Another file system, or one without links: a copy. A cause that a copy has too is reported by the copy.
            let what = format!("copy '{}' to", local.display());
            fs::copy(local, &temporary).map_err(explained(&what, &temporary))?;
        }
        let file = File::open(&temporary).map_err(explained("open", &temporary))?;
        file.sync_all().map_err(explained("sync", &temporary))?;
        rename(&temporary, &path)?;
        // POSIX: a rename between two links of one file does nothing at all, and leaves the old name.
        remove_if_there(&temporary)
    }

    fn local_path(&self, path: &str) -> Option<PathBuf> {
        self.real(path).ok()
    }
}

#[allow(clippy::disallowed_methods)] // This is the place behind `Storage` that the ban points to.
fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(explained("rename", from))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(explained("remove", path)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(explained("sync the folder", path))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Turns an I/O error of `what` on `path` into ours, with what to do about the usual causes.
pub(crate) fn explained<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |cause| {
        let hint = cause.raw_os_error().map(Errno::from_raw_os_error).and_then(advice);
        let error = Error::outside(format!("cannot {what} '{}'", path.display())).because(cause);
        hint.into_iter().fold(error, Error::hint)
    }
}

/// What to do about the usual causes.
pub(super) fn advice(cause: Errno) -> Option<&'static str> {
    Some(match cause {
        Errno::NOSPC => "the file system is full: free some space, then start again",
        Errno::DQUOT => "the disk quota is used up: free some space or raise it, then start again",
        Errno::ROFS => "the file system is read-only: mount it writable or choose another data folder",
        Errno::ACCESS | Errno::PERM => {
            "permission is missing: let the user of this process read and write there, or choose another data folder"
        }
        Errno::MFILE | Errno::NFILE => "too many files are open: raise the limit (ulimit -n)",
        Errno::IO => "the disk reported a failure: look at the kernel's log (dmesg) before starting again",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_causes_are_explained() {
        for (errno, hint) in [
            (Errno::NOSPC, "is full"),
            (Errno::ROFS, "is read-only"),
            (Errno::ACCESS, "permission is missing"),
            (Errno::IO, "dmesg"),
        ] {
            let error = explained("write to", Path::new("/data/x"))(errno.into());
            let text = error.to_string();
            assert!(text.starts_with("cannot write to '/data/x': ") && text.contains(hint), "{text}");
        }
    }

    /// `/dev/full` gives a real ENOSPC for each write.
    #[test]
    fn a_full_disk_is_named() {
        let storage = LocalStorage::new("/dev".into());
        let error = storage.append("full").unwrap().write(b"x").unwrap_err().to_string();
        assert!(error.contains("'/dev/full'") && error.contains("free some space"), "{error}");
    }
}
