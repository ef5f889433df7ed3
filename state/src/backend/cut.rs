//! What a store was at one epoch: files, and the work that is left until they are there.
//!
//! Invariant: whoever asks first does the work, everybody else waits for it and sees the same outcome. So a worker never waits for
//! the thread that stores checkpoints to get round to a cut: at worst it does the cut itself.

use dataflow_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// How the files of a cut are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutFormat {
    /// Chunks of [`HeapBackend`].
    Heap,
    /// A RocksDB folder.
    Rocks,
}

/// The contents of a store at one epoch.
#[derive(Clone, Debug)]
pub struct Cut {
    /// How to read the files.
    pub format: CutFormat,
    /// The files, sorted by name.
    pub files: Vec<PartFile>,
    /// Bytes of each shard; RocksDB estimates. For people, never for a decision.
    pub shard_bytes: Vec<u64>,
}

/// A file of a cut.
#[derive(Clone, Debug)]
pub struct PartFile {
    /// Its name within the cut.
    pub name: String,
    /// Its content.
    pub content: PartContent,
}

/// Where the content of a file of a cut is.
#[derive(Clone, Debug)]
pub enum PartContent {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a local file that stays as it is until the cut is released.
    File(PathBuf),
}

/// A cut whose files may still have to be written. Clones are the same cut.
#[derive(Clone)]
pub struct PendingCut(Arc<Mutex<Progress>>);

enum Progress {
    Left(Box<dyn FnOnce() -> Result<Cut> + Send>),
    Finished(Cut),
    /// The work failed; the first to ask was told the cause.
    Failed(String),
}

impl PendingCut {
    /// A cut that `work` brings about.
    pub fn new(work: impl FnOnce() -> Result<Cut> + Send + 'static) -> PendingCut {
        PendingCut(Arc::new(Mutex::new(Progress::Left(Box::new(work)))))
    }

    /// Does what is left, or waits for whoever is doing it.
    ///
    /// # Errors
    /// When the files could not be written.
    pub fn finish(&self) -> Result<Cut> {
        let mut progress = self.lock();
        if let Progress::Left(_) = &*progress {
            let taken = std::mem::replace(&mut *progress, Progress::Failed("the work was given up".to_owned()));
            let Progress::Left(work) = taken else { unreachable!("matched above, under the same lock") };
            match work() {
                Ok(cut) => *progress = Progress::Finished(cut),
                Err(error) => {
                    *progress = Progress::Failed(error.to_string());
                    return Err(error);
                }
            }
        }
        match &*progress {
            Progress::Finished(cut) => Ok(cut.clone()),
            Progress::Failed(cause) => Err(Error::outside("use a cut of state that failed").because(cause.clone())),
            Progress::Left(_) => unreachable!("replaced above, under the same lock"),
        }
    }

    /// Whether nothing is left to do. `false` while somebody is at it.
    pub fn is_finished(&self) -> bool {
        self.0.try_lock().is_ok_and(|progress| !matches!(*progress, Progress::Left(_)))
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().expect("cutting does not panic while it holds the lock")
    }
}

impl From<Cut> for PendingCut {
    fn from(cut: Cut) -> PendingCut {
        PendingCut(Arc::new(Mutex::new(Progress::Finished(cut))))
    }
}

impl fmt::Debug for PendingCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingCut(finished: {})", self.is_finished())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_once_and_failed_for_all() {
        let cut = Cut { format: CutFormat::Heap, files: Vec::new(), shard_bytes: Vec::new() };
        let (mut times, made) = (0, cut.clone());
        let pending = PendingCut::new(move || {
            times += 1;
            assert_eq!(times, 1);
            Ok(made)
        });
        let again = pending.clone();
        assert!(!again.is_finished());
        assert_eq!((pending.finish().unwrap().format, again.finish().unwrap().format), (cut.format, cut.format));
        assert!(again.is_finished());
        let failing = PendingCut::new(|| Err(Error::outside("flush state")));
        assert_eq!(failing.finish().unwrap_err().to_string(), Error::outside("flush state").to_string());
        assert!(failing.finish().unwrap_err().to_string().contains("flush state"));
    }
}
