//! Small files, and files with many dead rows, are written anew as larger ones; delete files of one data file as one.
//!
//! ```text
//!  live files of the newest snapshot ─┬► choose (pure) ──► rows, file by file ─► DataWriter ─► new files, and where each row went
//!                                     └► crowded (pure) ─► dead positions of each other data file ─► one delete file; no row moves
//! ```
//! Rows of one partition at a time, smallest files first, and a file only beside others that are together half as large as it is: so a row
//! is written anew a number of times that grows with the logarithm of the table, not with its commits. One source file, one batch of rows
//! and the row groups of the new file are in memory; of deletes, the dead positions of one data file.

use crate::deletes::Deletes;
use crate::deletion_vector::DeletionVector;
use crate::file::NewFile;
use crate::file_format::target_bytes;
use crate::scan::{LiveFile, dead_rows, deletes_by_data_file, live_files};
use crate::table::Table;
use dataflow_core::{MovedRows, Result, RowLocation};
use iceberg::spec::DataFileFormat;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rows of one rewrite: where each goes is held in memory until the index has followed, on each worker a part.
const ROWS_MAX: u64 = 2_000_000;
/// Files of one rewrite.
const FILES_MAX: usize = 1_000;
/// Rows that are read and written at once.
const BATCH_ROWS: usize = 8_192;
/// Files below this are taken whatever the others' size.
const TINY_BYTES: u64 = 1 << 20;

/// When files are written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionSettings {
    /// So many small files of a partition are written as one; and where data files have several delete files each, so many of those as one
    /// for each data file.
    pub small_files: usize,
    /// A file of whose rows so many in a hundred are dead is written anew by itself.
    pub dead_percent: u64,
}

impl Default for CompactionSettings {
    fn default() -> CompactionSettings {
        // Java's `min-input-files` of a rewrite.
        CompactionSettings { small_files: 5, dead_percent: 25 }
    }
}

/// Files that hold what others hold.
#[derive(Default)]
pub(crate) struct Rewritten {
    pub(crate) data: Vec<NewFile>,
    pub(crate) deletes: Deletes,
    pub(crate) removed: Vec<String>,
    pub(crate) moved: Vec<MovedRows>,
}

/// A data file, as far as the choice asks.
#[derive(Clone, Debug)]
struct Candidate {
    path: Arc<str>,
    partition: String,
    bytes: u64,
    rows: u64,
    dead: u64,
    /// The delete files that speak of it alone.
    deletes: Vec<String>,
}

impl Table {
    /// Writes some files of the newest snapshot anew, if any is worth it. Nothing of it is in the table yet.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub(crate) fn rewrite(&self, how: &CompactionSettings) -> Result<Option<Rewritten>> {
        self.refresh()?;
        let now = self.metadata();
        let Some(snapshot) = now.current_snapshot() else { return Ok(None) };
        let files = live_files(self.session(), &now, Some(snapshot))?;
        // Values of columns that rows do not have any more would be lost.
        let schema = &self.spec().schema;
        let is_readable =
            now.current_schema().as_struct().fields().iter().all(|of| schema.position(&of.name).is_some());
        let candidates = candidates(&files);
        let chosen = if is_readable { choose(&candidates, target_bytes(&now), how) } else { Vec::new() };
        let crowded = crowded(&candidates, &chosen, how);
        if chosen.is_empty() && crowded.is_empty() {
            return Ok(None);
        }
        let mut rewritten =
            if chosen.is_empty() { Rewritten::default() } else { self.move_rows(snapshot.snapshot_id(), &chosen)? };
        for (data, deletes) in crowded {
            let mut dead = DeletionVector::default();
            for file in &deletes {
                dead.union(&dead_rows(self.session(), file, &data)?);
            }
            rewritten.deletes.append(Deletes { dead: BTreeMap::from([(data.to_string(), dead)]), merged: deletes });
        }
        Ok(Some(rewritten))
    }

    /// The rows of some data files of a snapshot in new ones.
    fn move_rows(&self, snapshot: i64, chosen: &[Arc<str>]) -> Result<Rewritten> {
        let mut scan = self.start(snapshot)?;
        scan.only(chosen);
        let mut writer = self.writer()?;
        let mut moved = Moved::default();
        loop {
            let mut rows = Vec::new();
            let mut from = Vec::new();
            for found in scan.by_ref().take(BATCH_ROWS) {
                let (row, place) = found?;
                rows.push(row);
                from.push(place);
            }
            if rows.is_empty() {
                break;
            }
            for (from, to) in from.into_iter().zip(writer.write(&rows)?) {
                moved.note(from.into(), to.into());
            }
        }
        let removed = chosen.iter().map(|path| path.to_string()).collect();
        Ok(Rewritten { data: writer.finish()?, deletes: Deletes::default(), removed, moved: moved.sorted() })
    }
}

/// Where rows went: rows that stay side by side are one entry.
#[derive(Default)]
struct Moved(Vec<MovedRows>);

impl Moved {
    fn note(&mut self, from: RowLocation, to: RowLocation) {
        let follows = |start: &RowLocation, rows: u64, at: &RowLocation| {
            start.file == at.file && start.position + rows == at.position
        };
        match self.0.last_mut() {
            Some(last) if follows(&last.from, last.rows, &from) && follows(&last.to, last.rows, &to) => last.rows += 1,
            _ => self.0.push(MovedRows { from, to, rows: 1 }),
        }
    }

    fn sorted(mut self) -> Vec<MovedRows> {
        self.0.sort_unstable_by(|a, b| a.to.cmp(&b.to));
        self.0
    }
}

fn candidates(files: &[LiveFile]) -> Vec<Candidate> {
    let deletes = deletes_by_data_file(files);
    let candidate = |live: &LiveFile| {
        let deletes = deletes.get(live.file_path()).map_or(&[][..], Vec::as_slice);
        let read = deletes.iter().filter(|file| file.file_format() == DataFileFormat::Parquet);
        Candidate {
            path: live.file_path().into(),
            partition: format!("{} {:?}", live.spec_id, live.partition()),
            bytes: live.file().file_size_in_bytes(),
            rows: live.file().record_count(),
            dead: deletes.iter().map(|file| file.record_count()).sum(),
            deletes: read.map(|file| file.file_path().to_owned()).collect(),
        }
    };
    files.iter().filter(|file| file.is_data()).map(candidate).collect()
}

/// The data files with several delete files, those with most first, without those whose rows are written anew; none when merging their
/// delete files is not worth it.
fn crowded(candidates: &[Candidate], chosen: &[Arc<str>], how: &CompactionSettings) -> Vec<(Arc<str>, Vec<String>)> {
    let chosen: BTreeSet<&Arc<str>> = chosen.iter().collect();
    let mut crowded: Vec<_> =
        candidates.iter().filter(|file| file.deletes.len() > 1 && !chosen.contains(&file.path)).collect();
    crowded.sort_by_key(|file| (Reverse(file.deletes.len()), file.path.clone()));
    let mut room = FILES_MAX;
    let taken = crowded.into_iter().map(|file| {
        let deletes = file.deletes[..room.min(file.deletes.len())].to_vec();
        room -= deletes.len();
        (file.path.clone(), deletes)
    });
    let crowded: Vec<(Arc<str>, Vec<String>)> = taken.filter(|(_, deletes)| deletes.len() > 1).collect();
    let fewer: usize = crowded.iter().map(|(_, deletes)| deletes.len() - 1).sum();
    if fewer + 1 >= how.small_files.max(2) { crowded } else { Vec::new() }
}

/// The files to write anew, smallest first; none when it is not worth it.
fn choose(candidates: &[Candidate], target_bytes: u64, how: &CompactionSettings) -> Vec<Arc<str>> {
    let mut partitions: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        partitions.entry(&candidate.partition).or_default().push(candidate);
    }
    let groups = partitions.into_values().map(|files| of_partition(files, target_bytes, how));
    groups.max_by_key(Vec::len).unwrap_or_default()
}

fn of_partition(mut files: Vec<&Candidate>, target_bytes: u64, how: &CompactionSettings) -> Vec<Arc<str>> {
    files.sort_by_key(|file| (file.bytes, file.path.clone()));
    let mut bin = Bin::default();
    let is_dying = |file: &Candidate| file.dead > 0 && file.dead * 100 >= file.rows * how.dead_percent;
    for file in files.iter().filter(|file| is_dying(file)) {
        // One that is full already is written anew alone.
        if bin.paths.is_empty() || bin.has_room(file, target_bytes) {
            bin.put(file);
        }
    }
    if !bin.paths.is_empty() {
        return bin.paths;
    }
    let is_enough = |bin: &Bin| bin.paths.len() >= how.small_files.max(2);
    for file in files.iter().filter(|file| file.bytes < target_bytes / 4 * 3) {
        let is_beside_its_like = bin.paths.is_empty() || file.bytes <= TINY_BYTES.max(2 * bin.bytes);
        if is_beside_its_like && bin.has_room(file, target_bytes) {
            bin.put(file);
        } else if is_enough(&bin) {
            break;
        } else {
            bin = Bin::default();
            bin.put(file);
        }
    }
    if is_enough(&bin) { bin.paths } else { Vec::new() }
}

/// Files that are to become one.
#[derive(Default)]
struct Bin {
    paths: Vec<Arc<str>>,
    bytes: u64,
    rows: u64,
}

impl Bin {
    fn has_room(&self, file: &Candidate, target_bytes: u64) -> bool {
        let (bytes, rows) = (self.bytes + file.bytes, self.rows + file.rows);
        bytes <= target_bytes && rows <= ROWS_MAX && self.paths.len() < FILES_MAX
    }

    fn put(&mut self, file: &Candidate) {
        self.paths.push(file.path.clone());
        (self.bytes, self.rows) = (self.bytes + file.bytes, self.rows + file.rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: CompactionSettings = CompactionSettings { small_files: 3, dead_percent: 25 };

    /// Files of (partition, MiB, dead of a hundred rows), named by their rank; those that are chosen of them.
    fn check(files: &[(&str, u64, u64)], expected: &[usize]) {
        let file = |(at, (partition, mib, dead)): (usize, &(&str, u64, u64))| Candidate {
            path: at.to_string().into(),
            partition: (*partition).to_owned(),
            bytes: mib << 20,
            rows: 100,
            dead: *dead,
            deletes: Vec::new(),
        };
        let chosen = choose(&files.iter().enumerate().map(file).collect::<Vec<_>>(), 128 << 20, &HOW);
        let mut chosen: Vec<usize> = chosen.iter().map(|path| path.parse().unwrap()).collect();
        chosen.sort_unstable();
        assert_eq!(chosen, expected);
    }

    #[test]
    fn what_is_written_anew() {
        check(&[], &[]);
        check(&[("a", 1, 0), ("a", 1, 0)], &[]);
        check(&[("a", 1, 0), ("a", 1, 0), ("a", 1, 0)], &[0, 1, 2]);
        check(&[("a", 1, 0), ("b", 1, 0), ("a", 1, 0), ("b", 1, 0)], &[]);
        check(&[("a", 1, 0), ("a", 1, 0), ("a", 1, 0), ("a", 120, 0)], &[0, 1, 2]);
        // A large one waits until the others are half of it together.
        check(&[("a", 1, 0), ("a", 1, 0), ("a", 1, 0), ("a", 90, 0)], &[0, 1, 2]);
        check(&[("a", 1, 0), ("a", 2, 0), ("a", 6, 0), ("a", 10, 0)], &[0, 1, 2, 3]);
        check(&[("a", 100, 24)], &[]);
        check(&[("a", 100, 25)], &[0]);
        check(&[("a", 130, 90), ("a", 1, 0)], &[0]);
        check(&[("a", 1, 0), ("a", 5, 0), ("a", 5, 0), ("a", 5, 0)], &[1, 2, 3]);
    }

    /// The numbers of delete files of data files `a`, `b`, ...; those of them that are merged.
    fn check_merged(deletes: &[usize], expected: &[(&str, usize)]) {
        let file = |(name, n): (char, &usize)| Candidate {
            path: name.to_string().into(),
            partition: String::new(),
            bytes: 1 << 20,
            rows: 100,
            dead: 1,
            deletes: (0..*n).map(|at| format!("{name}{at}")).collect(),
        };
        let files: Vec<Candidate> = ('a'..).zip(deletes).map(file).collect();
        let found = crowded(&files, &[], &HOW);
        let found: Vec<_> = found.iter().map(|(data, files)| (data.as_ref(), files.len())).collect();
        assert_eq!(found, expected);
        // Where their rows are written anew, their delete files go with them.
        let all: Vec<Arc<str>> = files.iter().map(|file| file.path.clone()).collect();
        assert_eq!(crowded(&files, &all, &HOW), []);
    }

    #[test]
    fn which_deletes_are_merged() {
        check_merged(&[1, 1, 1, 1], &[]);
        check_merged(&[2, 1], &[]);
        check_merged(&[3, 1], &[("a", 3)]);
        check_merged(&[2, 1, 2], &[("a", 2), ("c", 2)]);
        check_merged(&[2, 5, 3], &[("b", 5), ("c", 3), ("a", 2)]);
        // Not more than one rewrite takes, those that gain most first.
        check_merged(&[2, 600, 500], &[("b", 600), ("c", 400)]);
        check_merged(&[FILES_MAX + 1], &[("a", FILES_MAX)]);
    }
}
