//! The data folder of a job: one process at a time owns it, for as long as it lives.
//!
//! The lock is `flock` on the file `LOCK`: the kernel frees it with the process, however that ends, so a stale lock
//! file is harmless. The file holds the owner's process id, for the message that the next one gets. A folder that can not be
//! written, or whose files are another user's, is refused here, with the reason, before anything else is tried. Who the job is lies in
//! [`identity`], which programs bound its epochs in [`programs`].

pub mod identity;
mod owner;
pub mod programs;

use crate::storage::{LocalStorage, explained};
use dataflow_core::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The name of the lock file.
pub const LOCK: &str = "LOCK";

/// A data folder that this process owns. Dropping it frees the lock.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Creates the folder when it is absent, and locks it.
    ///
    /// # Errors
    /// When another process holds it (the error names its id), its files are another user's (the error names both), or it can not be
    /// created or written, with the reason.
    pub fn open(path: impl Into<PathBuf>) -> Result<DataFolder> {
        let path: PathBuf = path.into();
        std::fs::create_dir_all(&path).map_err(explained("create the data folder", &path))?;
        owner::check(&path)?;
        let name = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false) // It holds the id of the process that owns it.
            .open(&name)
            .map_err(explained("open for writing", &name))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(&path, &mut lock)),
            Err(cause) => {
                let error = explained("lock", &name)(cause.into());
                return Err(error.hint("the data folder needs a file system with flock: choose a local one"));
            }
        }
        let mut note = || {
            lock.set_len(0)?;
            lock.write_all(format!("{}\n", std::process::id()).as_bytes())?;
            lock.sync_all()
        };
        note().map_err(explained("write to", &name))?;
        Ok(DataFolder { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files in it.
    pub fn storage(&self) -> LocalStorage {
        LocalStorage::new(self.path.clone())
    }
}

fn held(path: &Path, lock: &mut File) -> Error {
    let mut text = String::new();
    let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let path = path.display();
    match pid {
        Some(pid) => Error::outside(format!("cannot use the data folder '{path}': process {pid} holds it"))
            .hint(format!("stop process {pid}, or choose another data folder")),
        // Between its lock and its note, or the file was emptied by hand.
        None => Error::outside(format!("cannot use the data folder '{path}': another process holds it"))
            .hint("stop it, or choose another data folder"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("jobs/a");
        let folder = DataFolder::open(&path).unwrap();
        let error = DataFolder::open(&path).unwrap_err().to_string();
        let pid = format!("process {} holds it", std::process::id());
        assert!(error.contains(&pid) && error.contains(&path.display().to_string()), "{error}");
        drop(folder);
        let folder = DataFolder::open(&path).unwrap();
        assert_eq!(std::fs::read_to_string(path.join(LOCK)).unwrap(), format!("{}\n", std::process::id()));
        drop(folder);
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let error = DataFolder::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot create the data folder '{}'", path.display())), "{error}");
    }

    /// The lock belongs to the process and ends with it, even by `kill -9`.
    #[test]
    fn a_dead_owner_holds_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let lock = parent.path().join(LOCK);
        std::fs::write(&lock, "").unwrap();
        let script = "exec 9<>\"$0\"; flock -n 9 && echo $$ > \"$0\" && echo held && exec sleep 600";
        let mut owner = std::process::Command::new("bash")
            .args(["-c", script])
            .arg(&lock)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        owner.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let error = DataFolder::open(parent.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} holds it", owner.id())), "{error}");
        owner.kill().unwrap();
        owner.wait().unwrap();
        DataFolder::open(parent.path()).unwrap();
    }
}
