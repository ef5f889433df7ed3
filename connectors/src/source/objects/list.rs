//! The list: which objects were read, in which order, and at which rank the lines of each end; and which versions were refused.
//!
//! ```text
//! objects/<source>.list      crc32c of the JSON in hex, a space, the JSON, a line feed
//!   {"read":{"key":"a/1.gz","etag":"\"9b\"","size":812}}       its lines follow those of the objects before it
//!   {"end":{"lines":40}}                                       that was all of it: so many lines up to here
//!   {"read":{"key":"a/2.gz","etag":"\"77\"","size":95}}
//!   {"refused":{"key":"a/1.gz","etag":"\"c4\"","size":812}}
//! ```
//!
//! An entry is durable once [`ObjectList::sync`] has returned, and only then may a line of its object be handed on. What is torn at the
//! end was never synced and is cut; a damaged entry before others is refused. The entries stay on disk; in memory is a hash of each
//! key and of its version.

use super::bucket::Object;
use dataflow_core::{AppendFile, Error, Result, Storage};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

const FOLDER: &str = "objects";
/// Bytes read at once. An entry is shorter: a key has at most 1024 bytes, each six characters in JSON at worst.
const READ_BYTES: usize = 64 << 10;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Entry {
    /// The object is read after those before it.
    Read(Object),
    /// It is read to its end.
    End {
        /// Lines of all objects up to here.
        lines: u64,
    },
    /// This version of an object is not read, because another was.
    Refused(Object),
}

/// Whether an object is in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// No.
    New,
    /// Yes, in this version, or this version was refused already.
    Same,
    /// In another version.
    Changed,
}

/// The list of one source.
pub(super) struct ObjectList {
    storage: Arc<dyn Storage>,
    path: String,
    file: Box<dyn AppendFile>,
    index: Index,
    is_dirty: bool,
}

impl ObjectList {
    /// Opens the list of the source `source`, or begins it.
    ///
    /// # Errors
    /// When an entry that others follow is damaged.
    pub(super) fn open(storage: Arc<dyn Storage>, source: &str) -> Result<ObjectList> {
        storage.create_dir(FOLDER)?;
        let path = format!("{FOLDER}/{source}.list");
        let file = storage.append(&path)?;
        storage.sync_dir(FOLDER)?;
        let mut list = ObjectList { storage, path, file, index: Index::default(), is_dirty: false };
        list.load()?;
        Ok(list)
    }

    /// How many versions were refused.
    pub(super) fn refused(&self) -> u64 {
        self.index.refused
    }

    /// The greatest key.
    pub(super) fn greatest(&self) -> Option<&str> {
        self.index.greatest.as_deref()
    }

    /// Bytes of the list: where the next entry will stand.
    pub(super) fn end(&self) -> u64 {
        self.file.length()
    }

    /// Whether an object is in the list.
    pub(super) fn knows(&self, object: &Object) -> Known {
        let (key, version) = hashes(object);
        match self.index.known.get(&key) {
            None => Known::New,
            Some(versions) if versions.read == version || versions.refused == version => Known::Same,
            Some(_) => Known::Changed,
        }
    }

    /// The entry at `position`, and where the next one stands; `None` at the end.
    ///
    /// # Errors
    /// When it is damaged.
    pub(super) fn entry(&self, position: u64) -> Result<Option<(Entry, u64)>> {
        if position >= self.end() {
            return Ok(None);
        }
        let bytes = self.storage.read_range(&self.path, position, READ_BYTES)?;
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let entry = parse(line).ok_or_else(|| self.damaged(position))?;
        Ok(Some((entry, position + line.len() as u64 + 1)))
    }

    /// Where to begin to come to the line of rank `next`: the place of the entry of its object, or of the one to come, and the rank of
    /// that object's first line.
    ///
    /// # Errors
    /// When the list does not reach it.
    pub(super) fn place_of(&self, next: u64) -> Result<(u64, u64)> {
        let (mut place, mut rank) = ((0, 0), 0);
        self.scan(&mut |position, after, entry| match entry {
            Entry::Read(_) if rank <= next => place = (position, rank),
            Entry::End { lines } => {
                rank = *lines;
                if rank <= next {
                    place = (after, rank);
                }
            }
            Entry::Read(_) | Entry::Refused(_) => {}
        })?;
        if place.0 >= self.end() && place.1 != next {
            let what =
                format!("reading objects from line {next} on: the list '{}' ends at line {}", self.path, place.1);
            return Err(Error::doubt(what)
                .hint("the data folder is not whole; restore it as it was, or start over with a new one"));
        }
        Ok(place)
    }

    /// Appends an entry; it is durable after [`ObjectList::sync`].
    ///
    /// # Errors
    /// When it can not be written.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        let json = serde_json::to_string(entry).expect("texts and numbers are JSON");
        self.is_dirty = true;
        self.file.write(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).as_bytes())?;
        self.index.note(entry);
        Ok(())
    }

    /// Whether all entries are durable.
    pub(super) fn is_synced(&self) -> bool {
        !self.is_dirty
    }

    /// Makes the entries durable.
    ///
    /// # Errors
    /// When they can not be.
    pub(super) fn sync(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_dirty) { self.file.sync() } else { Ok(()) }
    }

    /// Forgets the entry at `position` and all after it: no line of theirs is bound.
    ///
    /// # Errors
    /// When the list can not be cut or read.
    pub(super) fn cut(&mut self, position: u64) -> Result<()> {
        self.storage.truncate(&self.path, position)?;
        self.file = self.storage.append(&self.path)?;
        self.load()
    }

    fn load(&mut self) -> Result<()> {
        let mut index = Index::default();
        let whole = self.scan(&mut |_, _, entry| index.note(entry))?;
        self.index = index;
        if whole < self.end() {
            self.storage.truncate(&self.path, whole)?;
            self.file = self.storage.append(&self.path)?;
        }
        Ok(())
    }

    /// Calls `f` with each entry, where it stands and where the next one does; where the last whole one ends.
    fn scan(&self, f: &mut dyn FnMut(u64, u64, &Entry)) -> Result<u64> {
        let (mut position, end) = (0, self.end());
        while position < end {
            let bytes = self.storage.read_range(&self.path, position, READ_BYTES)?;
            let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else {
                let is_torn = position + bytes.len() as u64 == end && bytes.len() < READ_BYTES;
                return if is_torn { Ok(position) } else { Err(self.damaged(position)) };
            };
            for line in bytes[..=last].split_inclusive(|byte| *byte == b'\n') {
                let next = position + line.len() as u64;
                match parse(&line[..line.len() - 1]) {
                    Some(entry) => f(position, next, &entry),
                    // The last one may be torn: then nothing of it was synced.
                    None if next == end => return Ok(position),
                    None => return Err(self.damaged(position)),
                }
                position = next;
            }
        }
        Ok(position)
    }

    fn damaged(&self, position: u64) -> Error {
        Error::doubt(format!("reading the list of objects '{}': the entry at byte {position} is damaged", self.path))
            .hint("restore the job's data folder from where it was whole, or start over with a new one")
    }
}

fn parse(line: &[u8]) -> Option<Entry> {
    let (sum, json) = (std::str::from_utf8(line.get(..8)?).ok()?, line.get(9..)?);
    let is_whole = u32::from_str_radix(sum, 16).ok()? == crc32c::crc32c(json);
    if is_whole { serde_json::from_slice(json).ok() } else { None }
}

/// What is known of all entries in memory.
#[derive(Default)]
struct Index {
    known: HashMap<u64, Versions, BuildHasherDefault<Hashed>>,
    greatest: Option<String>,
    refused: u64,
}

/// The versions of an object: the one that is read, and the last one that was refused.
#[derive(Clone, Copy)]
struct Versions {
    read: u64,
    refused: u64,
}

impl Index {
    fn note(&mut self, entry: &Entry) {
        match entry {
            Entry::Read(object) => {
                let (key, read) = hashes(object);
                self.known.insert(key, Versions { read, refused: read });
                if self.greatest.as_ref().is_none_or(|greatest| *greatest < object.key) {
                    self.greatest = Some(object.key.clone());
                }
            }
            Entry::End { .. } => {}
            Entry::Refused(object) => {
                let (key, refused) = hashes(object);
                self.known.entry(key).or_insert(Versions { read: refused, refused }).refused = refused;
                self.refused += 1;
            }
        }
    }
}

/// The keys of the index are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Hashes of an object's key and of its version: 64 bits of BLAKE3. Of a million keys, two are alike in one of 37 million lists, and the
/// second of them is then refused as a change of the first, not lost in silence.
fn hashes(object: &Object) -> (u64, u64) {
    let hash = |parts: &[&[u8]]| {
        let mut hasher = blake3::Hasher::new();
        parts.iter().for_each(|part| _ = hasher.update(part));
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    };
    (hash(&[object.key.as_bytes()]), hash(&[&object.size.to_le_bytes(), object.etag.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_state::storage::LocalStorage;

    fn object(key: &str, etag: &str) -> Object {
        Object { key: key.to_owned(), etag: etag.to_owned(), size: 7 }
    }

    fn opened(folder: &std::path::Path) -> Result<ObjectList> {
        ObjectList::open(Arc::new(LocalStorage::new(folder.to_owned())), "s")
    }

    fn append(list: &mut ObjectList, entries: &[Entry]) {
        entries.iter().for_each(|entry| list.append(entry).unwrap());
        list.sync().unwrap();
    }

    /// b has 4 lines, then one without any, then a, of which no end is known; and a second b.
    fn of_three(folder: &std::path::Path) -> ObjectList {
        let mut list = opened(folder).unwrap();
        let read = |key| Entry::Read(object(key, "1"));
        let end = || Entry::End { lines: 4 };
        append(&mut list, &[read("b"), end(), read("empty"), end(), read("a"), Entry::Refused(object("b", "2"))]);
        list
    }

    /// The key of the object that the line of this rank belongs to, and the rank of its first line.
    fn at(list: &ObjectList, next: u64) -> (Entry, u64) {
        let (position, first) = list.place_of(next).unwrap();
        (list.entry(position).unwrap().unwrap().0, first)
    }

    #[test]
    fn offsets_mean_the_same_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        drop(of_three(folder.path()));
        let list = opened(folder.path()).unwrap();
        let (b, a) = (Entry::Read(object("b", "1")), Entry::Read(object("a", "1")));
        assert_eq!([at(&list, 0), at(&list, 3)], [(b.clone(), 0), (b, 0)]);
        assert_eq!([at(&list, 4), at(&list, 99)], [(a.clone(), 4), (a, 4)]);
        let known = ["1", "2", "3"].map(|etag| list.knows(&object("b", etag)));
        assert_eq!(known, [Known::Same, Known::Same, Known::Changed]);
        assert_eq!((list.knows(&object("c", "1")), list.greatest(), list.refused()), (Known::New, Some("empty"), 1));
    }

    #[test]
    fn what_is_torn_is_cut_and_what_is_damaged_refused() {
        let folder = tempfile::tempdir().unwrap();
        let whole = of_three(folder.path()).end();
        let path = folder.path().join("objects/s.list");
        let bytes = std::fs::read(&path).unwrap();
        let torn = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            opened(folder.path()).map(|list| (list.end(), list.refused()))
        };
        let last = whole as usize - 10;
        let fifth = bytes[..last].iter().rposition(|byte| *byte == b'\n').unwrap() as u64 + 1;
        assert_eq!(torn(&bytes).unwrap(), (whole, 1));
        assert_eq!(torn(&bytes[..last]).unwrap(), (fifth, 0));
        assert_eq!(torn(&[&bytes[..last], b"x\n"].concat()).unwrap(), (fifth, 0));
        let mut damaged = bytes.clone();
        damaged[20] ^= 1;
        let said = torn(&damaged).expect_err("an entry is damaged").to_string();
        assert!(said.contains("byte 0") && said.contains("objects/s.list"), "{said}");
    }

    #[test]
    fn an_offset_that_the_list_does_not_reach_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut list = opened(folder.path()).unwrap();
        assert_eq!(list.place_of(0).unwrap(), (0, 0));
        assert!(list.place_of(1).unwrap_err().to_string().contains("objects/s.list"));
        append(&mut list, &[Entry::Read(object("b", "1")), Entry::End { lines: 4 }]);
        assert_eq!(list.place_of(4).unwrap(), (list.end(), 4));
        assert!(list.place_of(5).is_err());
    }

    #[test]
    fn what_is_cut_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut list = of_three(folder.path());
        list.cut(list.place_of(4).unwrap().0).unwrap();
        assert_eq!((list.knows(&object("a", "1")), list.knows(&object("b", "2"))), (Known::New, Known::Changed));
        append(&mut list, &[Entry::Read(object("c", "1"))]);
        assert_eq!(at(&list, 4), (Entry::Read(object("c", "1")), 4));
    }
}
