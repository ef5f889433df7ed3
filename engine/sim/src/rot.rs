//! Bits that flip between two lives, in one of the files of the data folder: the next start has to notice, or not to need them.
//!
//! A start that refuses names the file; then somebody brings back the copy that the error asks for, and the job goes on. One that goes on
//! is held to the oracle like any other. Afterwards the bit is turned back all the same, where the file still is the one that was
//! damaged: the check at the end reads every row, also those that no start needs.

use crate::dice::Dice;
use crate::storage::Graveyard;
use dataflow_core::{Error, Fault, Storage};
use dataflow_runtime::plan::CHECKPOINTS;
use dataflow_state::storage::MemoryStorage;
use std::sync::PoisonError;

/// A flipped bit.
pub(crate) struct Rot {
    path: String,
    at: usize,
    mask: u8,
    /// The file up to it, with it.
    damaged: Vec<u8>,
}

impl Rot {
    /// Flips a bit of some file in one of `folders`, if there is one.
    pub(crate) fn set_in(disk: &MemoryStorage, folders: &[&'static str], dice: &mut Dice) -> Option<Rot> {
        let mut files = Vec::new();
        let folder = *dice.pick(folders);
        gather(disk, folder, &mut files);
        files.retain(|path| disk.length(path).is_ok_and(|length| length > Some(0)));
        if files.is_empty() {
            return None;
        }
        let path = dice.pick(&files).clone();
        let length = disk.length(&path).ok().flatten()?;
        let (at, mask) = (dice.below(length), 1 << dice.below(8));
        disk.flip(&path, at, mask).ok()?;
        let mut damaged = disk.read(&path).ok()?;
        damaged.truncate(at as usize + 1);
        Some(Rot { path, at: at as usize, mask, damaged })
    }

    /// Whether an error that ended the start is the right answer to it; `passed_over` checkpoints were found damaged.
    pub(crate) fn explains(&self, error: &Error, passed_over: u64) -> bool {
        let (name, said) = (self.path.rsplit('/').next().unwrap_or(&self.path), error.to_string());
        // Which checkpoints are damaged is in the log of a start that has none left.
        let has_none_left = self.path.starts_with(CHECKPOINTS) && said.contains("no intact checkpoint");
        let names_it = said.contains(name) || has_none_left;
        matches!(error.fault, Fault::Doubt | Fault::Outside) && (names_it || passed_over > 0)
    }

    /// Turns the bit back.
    pub(crate) fn turn_back(self, disk: &MemoryStorage, graveyard: &Graveyard) {
        if disk.read(&self.path).is_ok_and(|now| self.is_in(&now)) {
            drop(disk.flip(&self.path, self.at as u64, self.mask));
        }
        let mut graveyard = graveyard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(removed) = graveyard.get_mut(&self.path).filter(|removed| self.is_in(removed)) {
            removed[self.at] ^= self.mask;
        }
    }

    /// Whether a file is still the one that was damaged, and not cut before the damage and written anew.
    fn is_in(&self, now: &[u8]) -> bool {
        now.starts_with(&self.damaged)
    }
}

impl std::fmt::Display for Rot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bit {:#04x} of byte {} of '{}' was flipped", self.mask, self.at, self.path)
    }
}

/// All files below a folder.
fn gather(disk: &MemoryStorage, folder: &str, out: &mut Vec<String>) {
    for name in disk.list(folder).unwrap_or_default() {
        let path = format!("{folder}/{name}");
        if disk.has_dir(&path) { gather(disk, &path, out) } else { out.push(path) }
    }
}
