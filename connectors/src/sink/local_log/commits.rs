//! The `commits` file: what of the segments counts, and the sink's marker.
//!
//! One line a commit: the CRC-32C of the JSON text as eight hex digits, a space, the JSON, a newline. The first line of
//! a file is *full*: it names every segment; the others name what their commit touched. Each process begins a new file with
//! a higher number, and again when it has grown past its bound; the older ones go once the new one is durable.
//!
//! Only the last line can be torn, as every line is synced before the next is written; whatever is left of it may hold newlines too.
//! So a line that does not check out does not count when no whole one follows it, and is an error (invariant 5) when one does.

use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{AppendFile, Error, Marker, Result, Storage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The folder of the commits files, beside the topics' folders.
pub(super) const COMMITS: &str = "commits";

/// Committed lengths: topic, segment, bytes.
pub(super) type Lengths = BTreeMap<String, BTreeMap<String, u64>>;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    marker: Marker,
    full: bool,
    lengths: Lengths,
}

/// The sum of the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) marker: Marker,
    pub(super) lengths: Lengths,
}

/// What a commits file says: the sum of its whole lines (`None` without one), and how many bytes they are.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) committed: Option<Committed>,
    pub(super) whole: u64,
}

fn encode(line: &Line) -> Result<Vec<u8>> {
    let json = serde_json::to_string(line).map_err(|e| Error::us("encode a commits line").because(e))?;
    Ok(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes())
}

fn decode(text: &[u8]) -> Option<Line> {
    let (sum, json) = (text.get(..9)?, text.get(9..)?);
    (sum == format!("{:08x} ", crc32c::crc32c(json)).as_bytes()).then(|| serde_json::from_slice(json).ok())?
}

/// Adds up a commits file.
///
/// # Errors
/// A line in the middle does not check out, or lines contradict each other.
pub(super) fn parse(path: &str, bytes: &[u8]) -> Result<Parsed> {
    let rotten = |at: u64, why: &str| {
        Error::doubt(format!("read the commits of a local log: '{path}' {why} at byte {at}")).hint(
            "the file was damaged after it was written: restore the folder from a copy, or start over with a new one",
        )
    };
    let mut parsed = Parsed { committed: None, whole: 0 };
    let mut rest = bytes;
    while let Some(length) = rest.iter().position(|b| *b == b'\n') {
        let (text, after) = (&rest[..length], &rest[length + 1..]);
        let Some(line) = decode(text) else {
            if after.split(|byte| *byte == b'\n').any(|later| decode(later).is_some()) {
                return Err(rotten(parsed.whole, "has a broken line"));
            }
            break;
        };
        let committed = match parsed.committed.take() {
            None if line.full => Committed { marker: line.marker, lengths: line.lengths },
            None => return Err(rotten(parsed.whole, "does not begin with a full line")),
            Some(before) => {
                merge(before, line).ok_or_else(|| rotten(parsed.whole, "has an epoch or a length that falls"))?
            }
        };
        parsed.committed = Some(committed);
        parsed.whole += length as u64 + 1;
        rest = after;
    }
    Ok(parsed)
}

fn merge(mut committed: Committed, line: Line) -> Option<Committed> {
    if line.full || line.marker.epoch < committed.marker.epoch || line.marker.lineage != committed.marker.lineage {
        return None;
    }
    committed.marker = line.marker;
    for (topic, segments) in line.lengths {
        let known = committed.lengths.entry(topic).or_default();
        for (segment, length) in segments {
            if known.insert(segment, length).is_some_and(|before| before > length) {
                return None;
            }
        }
    }
    Some(committed)
}

/// The newest commits file with a whole line, read without changing anything: its name, length and content.
pub(super) fn newest(storage: &dyn Storage, dir: &str) -> Result<Option<(String, Parsed)>> {
    for name in storage.list(&format!("{dir}/{COMMITS}"))?.into_iter().rev() {
        let path = format!("{dir}/{COMMITS}/{name}");
        let parsed = parse(&path, &storage.read(&path)?)?;
        if parsed.committed.is_some() {
            return Ok(Some((name, parsed)));
        }
    }
    Ok(None)
}

/// The commits as their writer holds them.
pub(super) struct CommitsLog {
    storage: Arc<dyn Storage>,
    dir: String,
    roll_bytes: u64,
    number: u64,
    file: Option<Box<dyn AppendFile>>,
    pub(super) committed: Option<Committed>,
}

impl CommitsLog {
    /// Reads what is there and changes nothing. The first call after it is [`CommitsLog::begin`]: a file that another
    /// process left is never appended to, as what its last sync came to is unknown.
    pub(super) fn open(storage: Arc<dyn Storage>, dir: &str, roll_bytes: u64) -> Result<CommitsLog> {
        let folder = format!("{dir}/{COMMITS}");
        let mut number = 0;
        for name in storage.list(&folder)? {
            let found = name.strip_suffix(".ndjson").and_then(|n| n.parse().ok()).ok_or_else(|| {
                Error::doubt(format!("open the local log '{dir}': '{COMMITS}/{name}' is no commits file"))
                    .hint("remove what does not belong into the folder")
            })?;
            number = number.max(found);
        }
        let committed = newest(&*storage, dir)?.and_then(|(_, parsed)| parsed.committed);
        Ok(CommitsLog { storage, dir: folder, roll_bytes, number, file: None, committed })
    }

    /// Makes a commit durable: `lengths` are those of the touched segments.
    pub(super) fn append(&mut self, marker: Marker, lengths: Lengths) -> Result<()> {
        let (Some(before), Some(file)) = (self.committed.clone(), self.file.as_mut()) else {
            return Err(Error::us(format!("commit to '{}' before a file was begun", self.dir)));
        };
        let line = Line { marker, full: false, lengths };
        let text = encode(&line)?;
        let committed = merge(before, line)
            .ok_or_else(|| Error::us(format!("commit to '{}': an epoch or a length falls", self.dir)))?;
        if file.length() >= self.roll_bytes {
            return self.begin(committed);
        }
        file.write(&text)?;
        file.sync()?;
        self.committed = Some(committed);
        Ok(())
    }

    /// Begins a new file with a full line. What the older files say is void from its sync on.
    pub(super) fn begin(&mut self, committed: Committed) -> Result<()> {
        let path = self.path(self.number + 1);
        let line = Line { marker: committed.marker, full: true, lengths: committed.lengths.clone() };
        let mut file = self.storage.append(&path)?;
        file.write(&encode(&line)?)?;
        file.sync()?;
        if !is_planted(Bug::NoFolderFsync) {
            self.storage.sync_dir(&self.dir)?;
        }
        (self.number, self.file, self.committed) = (self.number + 1, Some(file), Some(committed));
        self.remove_older(&name(self.number))
    }

    fn remove_older(&self, keep: &str) -> Result<()> {
        for name in self.storage.list(&self.dir)?.iter().filter(|name| name.as_str() != keep) {
            self.storage.remove(&format!("{}/{name}", self.dir))?;
        }
        Ok(())
    }

    fn path(&self, number: u64) -> String {
        format!("{}/{}", self.dir, name(number))
    }
}

fn name(number: u64) -> String {
    format!("{number:020}.ndjson")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::{ChainHash, Generation, Lineage};

    fn line(epoch: u64, full: bool, length: u64) -> Vec<u8> {
        let generation = Generation { number: 1, nonce: 7 };
        let marker = Marker { lineage: Lineage(1), generation, epoch, chain: ChainHash::default() };
        let lengths = Lengths::from([("t".into(), [("s".into(), length)].into())]);
        encode(&Line { marker, full, lengths }).unwrap()
    }

    /// (bytes, what remains: epoch and whole bytes, or `None` for an error).
    fn check(bytes: &[u8], expected: Option<(Option<u64>, usize)>) {
        let got = parse("c", bytes).ok().map(|p| (p.committed.map(|c| c.marker.epoch), p.whole as usize));
        assert_eq!(got, expected, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn torn_is_cut_and_rotten_is_refused() {
        let (one, two, three) = (line(1, true, 10), line(2, false, 20), line(3, false, 30));
        let all = [one.clone(), two.clone(), three.clone()].concat();
        check(b"", Some((None, 0)));
        check(&all, Some((Some(3), all.len())));
        for cut in one.len() + two.len()..all.len() {
            check(&all[..cut], Some((Some(2), one.len() + two.len())));
        }
        for at in 0..all.len() {
            let mut bad = all.clone();
            bad[at] ^= 0x20;
            if at < one.len() + two.len() - 1 {
                check(&bad, None);
            } else if at > one.len() + two.len() {
                check(&bad, Some((Some(2), one.len() + two.len())));
            }
        }
        check(&two, None);
        check(&[one.clone(), line(2, false, 5)].concat(), None);
        check(&[one.clone(), two.clone(), one.clone()].concat(), None);
        check(&[&one[..], &[0; 100]].concat(), Some((Some(1), one.len())));
        check(&[&one[..], b"of a sector\nthat was being\nwritten\n"].concat(), Some((Some(1), one.len())));
        check(&[&one[..], b"rotten\n", &three].concat(), None);
    }
}
