//! Reads a topic of a local log as a consumer may: committed lines only, in order, from any cursor, and further as it grows.
//!
//! Changes nothing, so it may run beside the writer, also in another process. It never shows a line that `open` could
//! cut after the end of a process; the one moment between the write and the sync of a commits line it may show what a
//! failing machine would lose.

use super::commits::newest;
use dataflow_core::{Error, Result, Storage};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bytes read at once: bounds the memory of a reader; a longer line is read in a piece of its own.
const READ_BYTES: u64 = 1 << 20;
/// How often the commits are read again when the writer replaced the file under us.
const REREADS_MAX: usize = 8;

/// Where the next line begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// The segment's file name.
    pub segment: String,
    /// The byte in it.
    pub offset: u64,
}

/// A reader of one topic.
pub struct Tail {
    storage: Arc<dyn Storage>,
    dir: String,
    topic: String,
    cursor: Option<Cursor>,
    /// The commits file as of the last look: name and length.
    seen: Option<(String, u64)>,
    /// Committed bytes by segment, as of the last look.
    lengths: BTreeMap<String, u64>,
}

impl Tail {
    /// Reads `topic` of the log in `dir`, from `from` or from the beginning.
    pub fn new(storage: Arc<dyn Storage>, dir: &str, topic: &str, from: Option<Cursor>) -> Tail {
        let (dir, topic) = (dir.to_owned(), topic.to_owned());
        Tail { storage, dir, topic, cursor: from, seen: None, lengths: BTreeMap::new() }
    }

    /// A cursor behind what is committed now: what a reader that wants only news begins with.
    pub fn end(&mut self) -> Result<Option<Cursor>> {
        self.look()?;
        Ok(self.lengths.last_key_value().map(|(segment, length)| Cursor { segment: segment.clone(), offset: *length }))
    }

    /// Where the next line begins, for a later [`Tail::new`].
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// The next committed lines, without their newlines, of about a megabyte together. Empty when there is none now:
    /// ask again later to follow.
    ///
    /// # Errors
    /// The log is damaged, or the cursor is not one of this log.
    pub fn read(&mut self) -> Result<Vec<Vec<u8>>> {
        let lines = self.read_known()?;
        if !lines.is_empty() || !self.look()? {
            return Ok(lines);
        }
        self.read_known()
    }

    fn read_known(&mut self) -> Result<Vec<Vec<u8>>> {
        let segment = match &self.cursor {
            None => self.lengths.keys().next(),
            Some(at) => self
                .lengths
                .range(at.segment.clone()..)
                .find(|(s, len)| **s != at.segment || at.offset < **len)
                .map(|(s, _)| s),
        };
        let Some(segment) = segment.cloned() else { return Ok(Vec::new()) };
        let from = self.cursor.as_ref().filter(|at| at.segment == segment).map_or(0, |at| at.offset);
        let left = self.lengths[&segment].saturating_sub(from);
        let path = format!("{}/{}/{segment}", self.dir, self.topic);
        let mut length = left.min(READ_BYTES);
        loop {
            let bytes = self.storage.read_range(&path, from, length as usize)?;
            let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            if whole > 0 {
                self.cursor = Some(Cursor { segment, offset: from + whole as u64 });
                return Ok(bytes[..whole - 1].split(|b| *b == b'\n').map(<[u8]>::to_vec).collect());
            }
            if length == left {
                return Err(Error::doubt(format!(
                    "read '{path}': no line ends within the committed bytes after {from}"
                ))
                .hint("the segment is damaged, or the cursor is not one of this log"));
            }
            length = left.min(length * 2);
        }
    }

    /// Reads the commits again when they changed; whether they did.
    fn look(&mut self) -> Result<bool> {
        let mut tries = 0;
        loop {
            match newest(&*self.storage, &self.dir) {
                Ok(None) => return Ok(false),
                Ok(Some((name, parsed))) => {
                    let seen = Some((name, parsed.whole));
                    let changed = seen != self.seen;
                    if changed {
                        self.seen = seen;
                        let mut committed = parsed.committed.map(|c| c.lengths).unwrap_or_default();
                        self.lengths = committed.remove(&self.topic).unwrap_or_default();
                    }
                    return Ok(changed);
                }
                // The writer rolled the file between our list and our read.
                Err(error) if error.fault == dataflow_core::Fault::Outside && tries < REREADS_MAX => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// All lines committed now, one by one, without newlines.
pub struct CommittedLines {
    tail: Tail,
    ready: VecDeque<Vec<u8>>,
}

/// The lines of `topic` that are committed now, from `from` or from the beginning.
///
/// # Errors
/// The log is damaged.
pub fn committed_lines(
    storage: Arc<dyn Storage>,
    dir: &str,
    topic: &str,
    from: Option<Cursor>,
) -> Result<CommittedLines> {
    let mut tail = Tail::new(storage, dir, topic, from);
    tail.look()?;
    Ok(CommittedLines { tail, ready: VecDeque::new() })
}

impl Iterator for CommittedLines {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            match self.tail.read_known() {
                Ok(lines) => self.ready.extend(lines),
                Err(error) => {
                    self.tail.lengths.clear();
                    return Some(Err(error));
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}
