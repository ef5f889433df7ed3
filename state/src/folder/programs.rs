//! Which program bound which epochs (`programs`): what tells a start with changed code or parameters from one that only goes on.
//!
//! A manifest says what program made its state, but not who bound the epochs after it, and there may be none yet. So each program notes
//! itself here, durably, before it binds its first epoch. The file is written as those of [`identity`](super::identity).

use super::identity::{load, store};
use dataflow_core::{Epoch, Error, Result, Storage};
use serde::{Deserialize, Serialize};

/// The file.
pub const PROGRAMS: &str = "programs";

const VERSION: u32 = 1;

/// A program, and the epoch after which it bound all epochs, up to the next program's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// It bound the epochs after this one.
    pub after: Epoch,
    /// Hash of its source, the engine's version, its parameters.
    pub fingerprint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Programs {
    version: u32,
    programs: Vec<Program>,
}

/// The programs, ascending; `None` in a folder that never had the file.
///
/// # Errors
/// When the file is damaged, or of another version.
pub fn programs(storage: &dyn Storage) -> Result<Option<Vec<Program>>> {
    let Some(found) = load::<Programs>(storage, PROGRAMS)? else { return Ok(None) };
    if found.version != VERSION {
        let version = found.version;
        return Err(Error::user(format!("cannot read '{PROGRAMS}': its version is {version}, not {VERSION}"))
            .hint("run the version of dataflow that wrote the data folder"));
    }
    Ok(Some(found.programs))
}

/// Notes that the program `fingerprint` computes, and binds, the epochs after `restored`. Durable when it returns. `base` is the epoch
/// before the log's first row: of epochs up to it nothing is kept.
///
/// # Errors
/// Those of the storage.
pub fn note_program(
    storage: &dyn Storage,
    before: &[Program],
    restored: Epoch,
    base: Epoch,
    fingerprint: &str,
) -> Result<()> {
    let programs = with_program(before, restored, base, fingerprint);
    if programs == before && storage.length(PROGRAMS)?.is_some() {
        return Ok(());
    }
    store(storage, PROGRAMS, &Programs { version: VERSION, programs })
}

fn with_program(before: &[Program], restored: Epoch, base: Epoch, fingerprint: &str) -> Vec<Program> {
    let mut programs: Vec<Program> = before.iter().filter(|p| p.after < restored).cloned().collect();
    if programs.last().is_none_or(|last| last.fingerprint != fingerprint) {
        programs.push(Program { after: restored, fingerprint: fingerprint.to_owned() });
    }
    let gone = programs.iter().skip(1).take_while(|next| next.after <= base).count();
    programs.drain(..gone);
    programs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn say(programs: &[Program]) -> String {
        programs.iter().map(|p| format!("{}>{} ", p.after, p.fingerprint)).collect()
    }

    #[test]
    fn each_program_with_the_epochs_it_bound() {
        let storage = MemoryStorage::new();
        assert_eq!(programs(&storage).unwrap(), None);
        let check = |restored, base, fingerprint: &str, expected: &str| {
            let before = programs(&storage).unwrap().unwrap_or_default();
            note_program(&storage, &before, restored, base, fingerprint).unwrap();
            storage.crash(&mut |_| 0);
            assert_eq!(say(&programs(&storage).unwrap().unwrap()), expected);
        };
        check(0, 0, "f", "0>f ");
        check(7, 0, "f", "0>f ");
        check(9, 0, "g", "0>f 9>g ");
        check(9, 0, "f", "0>f "); // g had bound nothing, or its epochs are replayed by f
        check(9, 0, "g", "0>f 9>g ");
        check(20, 0, "h", "0>f 9>g 20>h ");
        check(15, 0, "h", "0>f 9>g 15>h ");
        check(30, 8, "h", "0>f 9>g 15>h ");
        check(30, 9, "h", "9>g 15>h ");
        check(30, 15, "h", "15>h ");
        check(30, 15, "h", "15>h ");
    }
}
