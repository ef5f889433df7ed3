//! Copies of data folders, and what tests break in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of a frame of the binding log before its payload: length, checksum, kind, batch.
const FRAME_HEAD: usize = 17;
/// And after it: the chain hash.
const FRAME_TAIL: usize = 16;
/// Bytes of a segment's head before its payload.
const SEGMENT_HEAD: usize = 20;

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Puts the folder `name` of `from` in the place of that of `to`.
pub(crate) fn replace(from: &Path, to: &Path, name: &str) {
    fs::remove_dir_all(to.join(name)).unwrap();
    copy(&from.join(name), &to.join(name));
}

/// Every file below a folder, with its content.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    if !folder.is_dir() {
        return all;
    }
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    all
}

/// The files of a folder by name, ascending.
pub(crate) fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Flips a bit of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// Where rows of the binding log lie: a segment and the offset at which the row ends.
pub(crate) struct RowPlace {
    pub(crate) segment: PathBuf,
    pub(crate) to: usize,
}

/// The rows of the binding log by epoch. A segment is named by the epoch of its first row; epochs have no gaps here.
pub(crate) fn rows(data: &Path) -> BTreeMap<u64, RowPlace> {
    let mut places = BTreeMap::new();
    for segment in sorted(&data.join("bindings")) {
        let bytes = fs::read(&segment).unwrap();
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let mut epoch: u64 = segment.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let mut from = SEGMENT_HEAD + number(12);
        while from + FRAME_HEAD <= bytes.len() {
            let to = from + FRAME_HEAD + number(from) + FRAME_TAIL;
            if to > bytes.len() {
                break;
            }
            let is_row = bytes[from + 8] == 1;
            if is_row {
                places.insert(epoch, RowPlace { segment: segment.clone(), to });
                epoch += 1;
            }
            from = to;
        }
    }
    places
}

/// Cuts the binding log after the row of `epoch`, as if nothing later had ever been written.
pub(crate) fn cut_log_after(data: &Path, epoch: u64) {
    let place = rows(data).remove(&epoch).unwrap();
    for later in sorted(&data.join("bindings")).into_iter().filter(|segment| *segment > place.segment) {
        fs::remove_file(later).unwrap();
    }
    let bytes = fs::read(&place.segment).unwrap();
    fs::write(&place.segment, &bytes[..place.to]).unwrap();
}

/// The epoch of the marker in the local log: the last line of the newest commits file.
pub(crate) fn marker(data: &Path, sink: &str) -> u64 {
    let newest = sorted(&data.join("output").join(sink).join("commits")).pop().unwrap();
    let text = fs::read_to_string(newest).unwrap();
    let line = text.lines().last().unwrap();
    let (_, json) = line.split_once(' ').unwrap();
    serde_json::from_str::<serde_json::Value>(json).unwrap()["marker"]["epoch"].as_u64().unwrap()
}
