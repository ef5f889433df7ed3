//! Small files, and files with many dead rows, are written anew as larger ones.
//!
//! ```text
//!  live files of the newest snapshot ─► choose (pure) ─► rows, file by file ─► DataWriter ─► new files, and where each row went
//! ```
//! Of one partition at a time, smallest first, and a file only beside others that are together half as large as it is: so a row is written
//! anew a number of times that grows with the logarithm of the table, not with its commits. One source file, one batch of rows and the
//! row groups of the new file are in memory.

use crate::deletes::speaks_of;
use crate::file::NewFile;
use crate::file_format::target_bytes;
use crate::scan::{LiveFile, Scan, live_files};
use crate::table::Table;
use dataflow_core::{MovedRows, Result, RowLocation};
use std::collections::BTreeMap;
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
    /// So many small files of a partition are written as one.
    pub small_files: usize,
    /// A file of whose rows so many in a hundred are dead is written anew by itself.
    pub dead_percent: u64,
}

impl Default for CompactionSettings {
    fn default() -> CompactionSettings {
        CompactionSettings { small_files: 8, dead_percent: 25 }
    }
}

/// Files that hold what others hold.
pub(crate) struct Rewritten {
    pub(crate) data: Vec<NewFile>,
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
        // Values of columns that rows do not have any more would be lost.
        let schema = &self.spec().schema;
        if now.current_schema().as_struct().fields().iter().any(|field| schema.position(&field.name).is_none()) {
            return Ok(None);
        }
        let files = live_files(self.session(), &now, Some(snapshot))?;
        let chosen = choose(candidates(&files), target_bytes(&self.metadata()), how);
        if chosen.is_empty() {
            return Ok(None);
        }
        let columns: Vec<usize> = (0..schema.columns.len()).collect();
        let mut scan = Scan::start(self.shared_session(), &now, snapshot.snapshot_id(), schema, &columns)?;
        scan.only(&chosen);
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
        Ok(Some(Rewritten { data: writer.finish()?, removed, moved: moved.sorted() }))
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
    let mut dead: BTreeMap<String, u64> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.is_data()).map(LiveFile::file) {
        if let Some(data) = speaks_of(file) {
            *dead.entry(data).or_default() += file.record_count();
        }
    }
    let candidate = |live: &LiveFile| Candidate {
        path: live.file_path().into(),
        partition: format!("{} {:?}", live.spec_id, live.partition()),
        bytes: live.file().file_size_in_bytes(),
        rows: live.file().record_count(),
        dead: dead.get(live.file_path()).copied().unwrap_or(0),
    };
    files.iter().filter(|file| file.is_data()).map(candidate).collect()
}

/// The files to write anew, smallest first; none when it is not worth it.
fn choose(candidates: Vec<Candidate>, target_bytes: u64, how: &CompactionSettings) -> Vec<Arc<str>> {
    let mut partitions: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        partitions.entry(candidate.partition.clone()).or_default().push(candidate);
    }
    let groups = partitions.into_values().map(|files| of_partition(files, target_bytes, how));
    groups.max_by_key(Vec::len).unwrap_or_default()
}

fn of_partition(mut files: Vec<Candidate>, target_bytes: u64, how: &CompactionSettings) -> Vec<Arc<str>> {
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
        };
        let chosen = choose(files.iter().enumerate().map(file).collect(), 128 << 20, &HOW);
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
}
