//! A file, or a folder of files, of NDJSON lines that carry their own partition and offset: the form of a case's
//! `login_events.ndjson`.
//!
//! ```text
//! {"partition":1,"offset":0,"schema_version":2,"event":{...}}     value: the line; key: event.user_id
//! {"partition":2,"offset":3,"raw":"e30="}                         value: those bytes (null: none); key: none
//! ```
//!
//! Or the lines of one table in a file of change events ([`NdjsonSource::of_table`]), which say their table and no position:
//!
//! ```text
//! {"table":"items","op":"c","before":null,"after":{...}}          one partition; offset: the rank among the table's lines
//! ```
//!
//! Or all lines as they are ([`NdjsonSource::lines`]), blank ones and broken ones too, each at its rank in one partition.
//!
//! Lines stand in their order of arrival, all partitions mixed; the offsets of a partition follow one another. A reader
//! holds the byte position of each record of its own partitions, never the text. With `follow` the files may grow and new ones
//! may come; a last line without its newline then waits for it. Without, the end of the files is the end of the source.
//! A line of more than [`LINE_BYTES_MAX`] is a record without key and value, and so a dead letter: it is passed over piece by piece,
//! whatever its length, and stands where its first [`HEAD_BYTES_MAX`] say.
//! It refuses a line that says no position, an offset that does not follow, a file that shrank, and `raw` bytes that
//! would pass for a line with an event.

use super::pulse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dataflow_core::{Discovered, Error, Poll, Record, Result, Source, SourceReader, Spawner, Waker};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Records that one reader indexes, 16 bytes each: 256 MiB of index. Longer inputs belong into a broker.
pub const RECORDS_MAX: usize = 16 << 20;
/// The longest line that is read: the usual largest message of a broker.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Where a longer line must have said its partition and offset.
pub const HEAD_BYTES_MAX: usize = 1 << 10;
/// Bytes scanned at once, and at most in one poll of a growing file.
const SCAN_BYTES: usize = 4 << 20;
/// Bytes read at once for a partition's records.
const WINDOW_BYTES: usize = 64 << 10;
/// How often a growing file is looked at: a tenth of the shortest heartbeat that a person would notice.
const PULSE: Duration = Duration::from_millis(20);

/// The source.
#[derive(Clone)]
pub struct NdjsonSource {
    name: String,
    path: PathBuf,
    partitions: Option<u32>,
    numbering: Numbering,
    follow: Option<Arc<dyn Spawner>>,
}

/// What gives a line its partition and offset.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Numbering {
    /// The line itself.
    Stated,
    /// Its rank among the lines of this table; others are passed over.
    OfTable(String),
    /// Its rank among all lines.
    Ranked,
}

impl NdjsonSource {
    /// Reads `path`: a file, or the `.ndjson` files of a folder in the order of their names.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> NdjsonSource {
        NdjsonSource {
            name: name.into(),
            path: path.into(),
            partitions: None,
            numbering: Numbering::Stated,
            follow: None,
        }
    }

    /// Reads the lines whose `table` is this one, as one partition, each at its rank.
    #[must_use]
    pub fn of_table(mut self, table: impl Into<String>) -> NdjsonSource {
        (self.numbering, self.partitions) = (Numbering::OfTable(table.into()), Some(1));
        self
    }

    /// Reads every line, whatever it says, as one partition, each at its rank.
    #[must_use]
    pub fn lines(mut self) -> NdjsonSource {
        (self.numbering, self.partitions) = (Numbering::Ranked, Some(1));
        self
    }

    /// There are partitions `0..count`, also those without a record; a line of another is an error.
    #[must_use]
    pub fn partitions(mut self, count: u32) -> NdjsonSource {
        self.partitions = Some(count);
        self
    }

    /// The files grow: the source never ends, and a task of `spawner` looks for more.
    #[must_use]
    pub fn follow(mut self, spawner: Arc<dyn Spawner>) -> NdjsonSource {
        self.follow = Some(spawner);
        self
    }
}

impl Source for NdjsonSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, worker: usize, peers: usize, wake: Waker) -> Result<Box<dyn SourceReader>> {
        let pulse = self.follow.as_ref().map(|spawner| pulse::start(&**spawner, &self.name, wake.clone(), PULSE));
        let mut index =
            Index { source: self.clone(), worker, peers, files: Vec::new(), records: 0, partitions: BTreeMap::new() };
        for partition in (0..self.partitions.unwrap_or(0)).filter(|p| *p as usize % peers == worker) {
            index.partitions.insert(partition, Entries::default());
        }
        while !index.scan()? {}
        Ok(Box::new(NdjsonReader { index, wake, known: BTreeSet::new(), places: BTreeMap::new(), _pulse: pulse }))
    }
}

/// Where the records of this worker's share lie.
struct Index {
    source: NdjsonSource,
    worker: usize,
    peers: usize,
    files: Vec<Scanned>,
    records: usize,
    partitions: BTreeMap<u32, Entries>,
}

struct Scanned {
    path: PathBuf,
    file: File,
    bytes: u64,
    lines: u64,
    /// `bytes` stands within a line that is too long, whose record is known.
    is_within: bool,
}

/// The records of a partition; the first has offset `first`.
#[derive(Default)]
struct Entries {
    first: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    position: u64,
    /// [`TOO_LONG`] for a line that is not read.
    length: u32,
    file: u32,
}

const TOO_LONG: u32 = u32::MAX;

impl Entries {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

/// What a line must say.
#[derive(Deserialize)]
struct Head {
    partition: u32,
    offset: u64,
    /// Present and null is another thing than absent.
    #[serde(default, deserialize_with = "present")]
    raw: Option<Option<String>>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What a line of [`NdjsonSource::of_table`] must say.
#[derive(Deserialize)]
struct OfTable {
    table: String,
}

#[derive(Deserialize)]
struct WithEvent<T> {
    event: T,
}

#[derive(Deserialize)]
struct WithUser {
    user_id: String,
}

/// The head of a line that is not read as a whole.
fn long_head(line: &[u8]) -> Option<Head> {
    /// Keeps what it meets: the text ends in the middle, so that reading it ends in an error.
    struct Fields<'f>(&'f mut (Option<u32>, Option<u64>));
    impl<'de> Visitor<'de> for Fields<'_> {
        type Value = ();

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a line")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<String>()? {
                match &*key {
                    "partition" => self.0.0 = Some(map.next_value()?),
                    "offset" => self.0.1 = Some(map.next_value()?),
                    _ => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(())
        }
    }
    let mut found = (None, None);
    let head = &line[..HEAD_BYTES_MAX.min(line.len())];
    let _ = serde_json::Deserializer::from_slice(head).deserialize_map(Fields(&mut found));
    Some(Head { partition: found.0?, offset: found.1?, raw: None })
}

fn raw_bytes(raw: Option<&str>) -> Result<Option<Bytes>, &'static str> {
    let Some(text) = raw else { return Ok(None) };
    let bytes = STANDARD.decode(text).map_err(|_| "has a 'raw' that is not base64")?;
    match serde_json::from_slice::<WithEvent<IgnoredAny>>(&bytes) {
        Ok(WithEvent { event: IgnoredAny }) => Err("has a 'raw' that reads as a line with an event"),
        Err(_) => Ok(Some(bytes.into())),
    }
}

impl Index {
    /// Reads on where the last scan stopped, at most [`SCAN_BYTES`] of each file; whether it came to the end of all.
    fn scan(&mut self) -> Result<bool> {
        self.list()?;
        let mut done = true;
        for file in 0..self.files.len() {
            done &= self.scan_file(file)?;
        }
        Ok(done)
    }

    fn list(&mut self) -> Result<()> {
        let path = &self.source.path;
        let failed = |e: std::io::Error| {
            Error::user(format!("open the source '{}' at '{}'", self.source.name, path.display())).because(e)
        };
        let mut paths = Vec::new();
        if path.is_dir() {
            for entry in std::fs::read_dir(path).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.extension().is_some_and(|e| e == "ndjson") {
                    paths.push(path);
                }
            }
            paths.sort();
        } else if self.files.is_empty() {
            paths.push(path.clone());
        }
        for path in paths {
            if !self.files.iter().any(|known| known.path == path) {
                let file = File::open(&path).map_err(failed)?;
                self.files.push(Scanned { path, file, bytes: 0, lines: 0, is_within: false });
            }
        }
        Ok(())
    }

    fn scan_file(&mut self, number: usize) -> Result<bool> {
        let scanned = &self.files[number];
        let failed = |e: std::io::Error| Error::outside(format!("read '{}'", scanned.path.display())).because(e);
        let length = scanned.file.metadata().map_err(failed)?.len();
        if length < scanned.bytes {
            return Err(Error::outside(format!("read '{}': it shrank to {length} bytes", scanned.path.display()))
                .hint("a source file may only grow"));
        }
        let start = scanned.bytes;
        let want = (length - start).min(SCAN_BYTES as u64) as usize;
        let mut bytes = vec![0; want];
        scanned.file.read_exact_at(&mut bytes, start).map_err(failed)?;
        let at_end = start + want as u64 == length;
        let mut position = start;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let newline = rest.iter().position(|b| *b == b'\n');
            let (line, step) = match newline {
                Some(end) => (&rest[..end], end + 1),
                None if self.files[number].is_within || rest.len() > LINE_BYTES_MAX => (rest, rest.len()),
                None if at_end && self.source.follow.is_none() => (rest, rest.len()),
                None => break,
            };
            if !std::mem::replace(&mut self.files[number].is_within, newline.is_none()) {
                self.line(number, position, line)?;
            }
            position += step as u64;
            rest = &rest[step..];
            self.files[number].lines += u64::from(newline.is_some());
            self.files[number].bytes = position;
        }
        // Without a newline in the rest, either the end is here or the next scan begins with a longer piece.
        Ok(at_end)
    }

    fn line(&mut self, file: usize, position: u64, line: &[u8]) -> Result<()> {
        let Scanned { path, lines, .. } = &self.files[file];
        let refuse = |why: &str| Error::user(format!("read '{}': line {} {why}", path.display(), lines + 1));
        let is_long = line.len() > LINE_BYTES_MAX;
        let line_length = if is_long { TOO_LONG } else { line.len() as u32 };
        if !is_long && line.iter().all(u8::is_ascii_whitespace) && self.source.numbering != Numbering::Ranked {
            return Ok(());
        }
        if let Numbering::OfTable(table) = &self.source.numbering {
            let hint = "each line is a JSON object with 'table' and no longer than that";
            let found: OfTable = match is_long {
                true => return Err(refuse(&format!("is longer than {LINE_BYTES_MAX} bytes")).hint(hint)),
                false => {
                    serde_json::from_slice(line).map_err(|e| refuse("does not say its table").because(e).hint(hint))?
                }
            };
            if found.table != *table {
                return Ok(());
            }
        }
        if self.source.numbering != Numbering::Stated {
            let offset = self.partitions.get(&0).map_or(0, Entries::end);
            let head = Head { partition: 0, offset, raw: None };
            return if self.worker == 0 { self.entry(file, position, line_length, head) } else { Ok(()) };
        }
        let hint = "each line is a JSON object with 'partition', 'offset', and 'event' or 'raw'";
        let head: Head = match is_long {
            true => long_head(line).ok_or_else(|| {
                let place = format!("is longer than {LINE_BYTES_MAX} bytes and does not say its partition and offset");
                refuse(&format!("{place} within the first {HEAD_BYTES_MAX}")).hint(hint)
            })?,
            false => serde_json::from_slice(line)
                .map_err(|e| refuse("does not say its partition and offset").because(e).hint(hint))?,
        };
        if is_long {
            tracing::warn!(
                file = %path.display(),
                line = lines + 1,
                partition = head.partition,
                offset = head.offset,
                "a line is longer than {LINE_BYTES_MAX} bytes; it is a dead letter without its bytes"
            );
        }
        if self.source.partitions.is_some_and(|count| head.partition >= count) {
            return Err(refuse(&format!("is of partition {}, which the source does not have", head.partition)));
        }
        if head.partition as usize % self.peers != self.worker {
            return Ok(());
        }
        if let Some(raw) = &head.raw {
            raw_bytes(raw.as_deref()).map_err(refuse)?;
        }
        self.entry(file, position, line_length, head)
    }

    /// Notes where a record lies.
    fn entry(&mut self, file: usize, position: u64, length: u32, head: Head) -> Result<()> {
        let Scanned { path, lines, .. } = &self.files[file];
        let refuse = |why: &str| Error::user(format!("read '{}': line {} {why}", path.display(), lines + 1));
        let expected = self.partitions.get(&head.partition).map(Entries::end);
        if expected.is_some_and(|expected| head.offset != expected) {
            let expected = expected.unwrap_or(0);
            return Err(refuse(&format!(
                "has offset {} of partition {} where {expected} follows",
                head.offset, head.partition
            )));
        }
        if self.records >= RECORDS_MAX {
            return Err(refuse("is one record too many for the index").hint("read inputs of this size from a broker"));
        }
        let first = head.offset;
        let entries = self.partitions.entry(head.partition).or_insert(Entries { first, entries: Vec::new() });
        entries.entries.push(Entry { position, length, file: file as u32 });
        self.records += 1;
        Ok(())
    }
}

struct NdjsonReader {
    index: Index,
    wake: Waker,
    /// Partitions that were discovered or assigned.
    known: BTreeSet<u32>,
    places: BTreeMap<u32, Place>,
    _pulse: Option<Arc<()>>,
}

/// Where a partition is read, with a piece of the file that holds its next records.
#[derive(Default)]
struct Place {
    next: u64,
    file: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl Place {
    fn line(&mut self, entry: Entry, files: &[Scanned]) -> Result<&[u8]> {
        let length = entry.length as usize;
        let held = |place: &Place| {
            let at = entry.position.checked_sub(place.start).filter(|_| place.file == entry.file)? as usize;
            (at + length <= place.bytes.len()).then_some(at)
        };
        let at = match held(self) {
            Some(at) => at,
            None => {
                let Scanned { path, file, bytes, .. } = &files[entry.file as usize];
                let want = (bytes - entry.position).min(WINDOW_BYTES.max(length) as u64);
                self.bytes.resize(want as usize, 0);
                (self.file, self.start) = (entry.file, entry.position);
                file.read_exact_at(&mut self.bytes, entry.position)
                    .map_err(|e| Error::outside(format!("read '{}'", path.display())).because(e))?;
                0
            }
        };
        Ok(&self.bytes[at..at + length])
    }
}

fn record(offset: u64, line: &[u8], path: &Path) -> Result<Record> {
    if let Ok(body) = serde_json::from_slice::<WithEvent<WithUser>>(line) {
        let value = Some(Bytes::copy_from_slice(line));
        return Ok(Record { offset, key: Some(Bytes::from(body.event.user_id)), value });
    }
    let changed = || Error::outside(format!("read '{}': a line changed after it was indexed", path.display()));
    let head: Head = serde_json::from_slice(line).map_err(|e| changed().because(e))?;
    let value = match head.raw {
        Some(raw) => raw_bytes(raw.as_deref()).map_err(|_| changed())?,
        None => Some(Bytes::copy_from_slice(line)),
    };
    Ok(Record { offset, key: None, value })
}

impl SourceReader for NdjsonReader {
    fn discover(&mut self) -> Result<Vec<Discovered>> {
        if self.index.source.follow.is_some() {
            self.index.scan()?;
        }
        let known = &mut self.known;
        let found = self.index.partitions.iter().filter(|(index, _)| known.insert(**index));
        Ok(found.map(|(index, entries)| Discovered { index: *index, start: entries.first }).collect())
    }

    fn assign(&mut self, index: u32, next: u64) -> Result<()> {
        let Index { source, partitions, .. } = &mut self.index;
        let entries = partitions.entry(index).or_default();
        if next < entries.first || next > entries.end() {
            return Err(Error::outside(format!(
                "read '{}/{index}' from offset {next}: '{}' holds offsets {} to {}",
                source.name,
                source.path.display(),
                entries.first,
                entries.end()
            ))
            .hint("the file is not the one that was read before: put it back, or start over"));
        }
        self.known.insert(index);
        self.places.insert(index, Place { next, ..Place::default() });
        Ok(())
    }

    fn poll(&mut self, index: u32, until: Option<u64>, budget: usize, out: &mut Vec<Record>) -> Result<Poll> {
        let name = &self.index.source.name;
        let place = self
            .places
            .get_mut(&index)
            .ok_or_else(|| Error::us(format!("poll '{name}/{index}', which was not assigned")))?;
        let follow = self.index.source.follow.is_some();
        let mut looked = !follow;
        let mut scanned_all = true;
        for _ in 0..budget {
            if until.is_some_and(|until| place.next >= until) {
                return Ok(Poll::AtEnd);
            }
            if place.next >= self.index.partitions[&index].end() && !looked {
                scanned_all = self.index.scan()?;
                looked = true;
            }
            let entries = &self.index.partitions[&index];
            let Some(entry) = entries.entries.get((place.next - entries.first) as usize) else {
                return match until {
                    _ if !scanned_all => {
                        self.wake.wake();
                        Ok(Poll::Pending)
                    }
                    None if follow => Ok(Poll::AtEnd),
                    None => Ok(Poll::Ended),
                    Some(_) if follow => Ok(Poll::Pending),
                    Some(until) => Err(Error::outside(format!(
                        "read '{}/{index}' up to offset {until} again: '{}' ends at {}",
                        self.index.source.name,
                        self.index.source.path.display(),
                        entries.end()
                    ))
                    .hint("the file is not the one that was read before: put it back, or start over")),
                };
            };
            let path = &self.index.files[entry.file as usize].path;
            let offset = place.next;
            out.push(match entry.length {
                TOO_LONG => Record { offset, key: None, value: None },
                _ if self.index.source.numbering != Numbering::Stated => {
                    let line = place.line(*entry, &self.index.files)?;
                    Record { offset, key: None, value: Some(Bytes::copy_from_slice(line)) }
                }
                _ => record(offset, place.line(*entry, &self.index.files)?, path)?,
            });
            place.next += 1;
        }
        Ok(Poll::More)
    }

    fn lag(&self, index: u32) -> Option<u64> {
        let place = self.places.get(&index)?;
        Some(self.index.partitions.get(&index)?.end().saturating_sub(place.next))
    }
}
