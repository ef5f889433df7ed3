//! The local log: a sink that keeps each topic as NDJSON segments of one folder, exactly once, without a service.
//!
//! ```text
//! <dir>/<topic>/<first epoch>.ndjson    rows as they are, a newline after each; append only, rolled by size
//! <dir>/commits/<number>.ndjson         one line a commit: marker, lengths of the touched segments, checksum
//! ```
//!
//! Invariants: rows are synced (and a new segment's folder too) before the commits line that counts them is written, and
//! that line is synced before `commit` returns. What lies beyond the committed lengths was never said: `begin` cuts it.
//! `open` only reads: a commits file that was rolled back must not cost the rows that it does not know.
//! A segment is rolled between commits only, so all but the newest are closed and never change.
//! A topic's keys are not written: the value is the whole row.
//!
//! It refuses a folder of another lineage (unless told to start over), of a newer generation, one whose commits are
//! damaged, and one whose segments are shorter than what was committed. Only one process may write: the lock of the
//! job's data folder sees to that; the marker is checked all the same.

mod commits;
mod tail;

pub use tail::{CommittedLines, Cursor, Tail, committed_lines};

use commits::{COMMITS, CommitsLog, Committed, Lengths};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{AppendFile, ChainHash, Epoch, EpochOutput, Error, Marker, Result, Sink, SinkIdentity, Storage};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A segment is closed once it has this many bytes: large enough that a folder of a terabyte is still listed at once, small
/// enough to be copied or deleted piece by piece.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// A commits file is followed by a new one at this size: it is read as a whole on open and by `tail`.
pub const COMMITS_BYTES: u64 = 256 << 10;
/// Rows are handed to the file in pieces of about this size: bounds the copy in memory of a large commit.
const WRITE_BYTES: usize = 1 << 20;

/// Where the log lies and how it is cut up.
#[derive(Clone, Debug)]
pub struct LocalLogSettings {
    /// The name in messages and manifests.
    pub name: String,
    /// The folder, relative to the storage's root.
    pub dir: String,
    /// Topic names, by [`dataflow_core::TopicId`].
    pub topics: Vec<String>,
    /// See [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// See [`COMMITS_BYTES`].
    pub commits_bytes: u64,
    /// Whether the content of another lineage is to be thrown away.
    pub start_over: bool,
}

impl LocalLogSettings {
    /// The usual sizes.
    pub fn new(name: impl Into<String>, dir: impl Into<String>, topics: Vec<String>) -> LocalLogSettings {
        LocalLogSettings {
            name: name.into(),
            dir: dir.into(),
            topics,
            segment_bytes: SEGMENT_BYTES,
            commits_bytes: COMMITS_BYTES,
            start_over: false,
        }
    }
}

/// The sink.
pub struct LocalLogSink {
    storage: Arc<dyn Storage>,
    settings: LocalLogSettings,
    opened: Option<Opened>,
}

/// What there is between `open` and the first error.
struct Opened {
    identity: SinkIdentity,
    commits: CommitsLog,
    /// What `begin` writes first.
    first: Option<First>,
    /// By topic.
    writers: Vec<Writer>,
}

/// The commits line that a generation begins with.
struct First {
    line: Committed,
    /// Whether rows of another lineage go once it is durable.
    started_over: bool,
}

/// The newest segment of a topic.
#[derive(Default)]
struct Writer {
    segment: Option<(String, Box<dyn AppendFile>)>,
    buffer: Vec<u8>,
    touched: bool,
    created: bool,
}

impl LocalLogSink {
    /// A sink over `storage`; nothing is touched before [`Sink::open`].
    ///
    /// # Errors
    /// A topic's name cannot be a folder's.
    pub fn new(storage: Arc<dyn Storage>, settings: LocalLogSettings) -> Result<LocalLogSink> {
        for topic in &settings.topics {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if topic == COMMITS || topic.is_empty() || topic.starts_with('.') || !topic.chars().all(plain) {
                return Err(Error::user(format!("use '{topic}' as a topic of the local log '{}'", settings.name))
                    .hint("a topic is a folder here: letters, digits, '.', '_', '-', not 'commits'"));
            }
        }
        Ok(LocalLogSink { storage, settings, opened: None })
    }

    /// Whether all that was committed is there.
    fn verify(&self, lengths: &Lengths) -> Result<()> {
        let dir = &self.settings.dir;
        for (topic, segments) in lengths {
            for (segment, committed) in segments {
                let path = format!("{dir}/{topic}/{segment}");
                let found = self.storage.length(&path)?.unwrap_or(0);
                if found < *committed {
                    return Err(Error::doubt(format!(
                        "open the local log '{dir}': '{path}' has {found} bytes, but {committed} were committed"
                    ))
                    .hint("committed rows were lost: restore the folder from a copy, or start over with a new one"));
                }
            }
        }
        Ok(())
    }

    /// Brings the folders to what was committed: longer segments are cut, unknown ones removed.
    fn reconcile(&self, lengths: &Lengths) -> Result<()> {
        let dir = &self.settings.dir;
        for (topic, segments) in lengths {
            for (segment, committed) in segments {
                let path = format!("{dir}/{topic}/{segment}");
                if self.storage.length(&path)?.is_some_and(|found| found > *committed) {
                    self.storage.truncate(&path, *committed)?;
                }
            }
        }
        for topic in self.storage.list(dir)?.iter().filter(|name| name.as_str() != COMMITS) {
            let known = lengths.get(topic);
            let folder = format!("{dir}/{topic}");
            let names = self.storage.list(&folder)?;
            let unknown: Vec<_> = names.iter().filter(|name| !known.is_some_and(|k| k.contains_key(*name))).collect();
            for name in &unknown {
                self.storage.remove(&format!("{folder}/{name}"))?;
            }
            if !unknown.is_empty() {
                self.storage.sync_dir(&folder)?;
            }
        }
        Ok(())
    }

    /// Whether rows lie in the folder, counted or not.
    fn holds_segments(&self) -> Result<bool> {
        for topic in self.storage.list(&self.settings.dir)?.iter().filter(|name| name.as_str() != COMMITS) {
            if !self.storage.list(&format!("{}/{topic}", self.settings.dir))?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn admit(&self, found: Marker, identity: &SinkIdentity) -> Result<()> {
        let (dir, ours, theirs) = (&self.settings.dir, identity.generation, found.generation);
        if found.lineage != identity.lineage {
            return Err(Error::doubt(format!(
                "open the local log '{dir}': it holds the output of lineage {}, and this is {}",
                found.lineage, identity.lineage
            ))
            .hint("name another folder, or say that this output is to be started over"));
        }
        if theirs.number > ours.number || (theirs.number == ours.number && theirs.nonce != ours.nonce) {
            return Err(Error::fenced(format!(
                "open the local log '{dir}': generation {theirs} of the job writes it, and this is {ours}"
            )));
        }
        Ok(())
    }

    fn write(&mut self, epochs: &[EpochOutput]) -> Result<()> {
        let opened = self.opened.as_mut().filter(|opened| opened.first.is_none()).ok_or_else(|| {
            Error::us(format!(
                "commit to the local log '{}': it has not begun, or an earlier call failed",
                self.settings.name
            ))
        })?;
        let last = epochs.last().ok_or_else(|| Error::us("commit no epoch to a local log"))?;
        let mut before = opened.commits.committed.as_ref().map_or(0, |c| c.marker.epoch);
        for epoch in epochs {
            if epoch.epoch <= before {
                return Err(Error::us(format!("commit epoch {} to a local log that has {before}", epoch.epoch)));
            }
            before = epoch.epoch;
            for row in &epoch.rows {
                let index = usize::from(row.topic.0);
                let (Some(topic), Some(writer)) = (self.settings.topics.get(index), opened.writers.get_mut(index))
                else {
                    return Err(Error::us(format!(
                        "write to topic {index} of '{}': there is none",
                        self.settings.name
                    )));
                };
                if row.value.contains(&b'\n') {
                    return Err(Error::us(format!("write a row with a newline to '{topic}'")));
                }
                if !writer.touched {
                    writer.touch(&*self.storage, &self.settings, topic, epoch.epoch, &opened.commits)?;
                }
                writer.push(&row.value)?;
            }
        }
        let marker = opened.identity.marker(last.epoch, last.chain);
        let mut lengths = Lengths::new();
        for (topic, writer) in self.settings.topics.iter().zip(&mut opened.writers).filter(|(_, w)| w.touched) {
            writer.flush()?;
            let (name, file) = writer.segment.as_ref().expect("a touched topic has a segment");
            lengths.insert(topic.clone(), BTreeMap::from([(name.clone(), file.length())]));
        }
        if is_planted(Bug::MarkerOutsideTransaction) {
            opened.commits.append(marker, lengths.clone())?;
        }
        for (topic, writer) in self.settings.topics.iter().zip(&mut opened.writers).filter(|(_, w)| w.touched) {
            let folder = format!("{}/{topic}", self.settings.dir);
            writer.sync(&*self.storage, &folder)?;
        }
        if !is_planted(Bug::MarkerOutsideTransaction) {
            opened.commits.append(marker, lengths)?;
        }
        Ok(())
    }
}

impl Writer {
    /// Makes sure of a segment that takes rows of `epoch`.
    fn touch(
        &mut self,
        storage: &dyn Storage,
        settings: &LocalLogSettings,
        topic: &str,
        epoch: Epoch,
        commits: &CommitsLog,
    ) -> Result<()> {
        if self.segment.as_ref().is_some_and(|(_, file)| file.length() >= settings.segment_bytes) {
            self.segment = None;
        } else if self.segment.is_none() {
            let newest = commits.committed.as_ref().and_then(|c| c.lengths.get(topic)).and_then(|s| s.last_key_value());
            if let Some((name, _)) = newest.filter(|(_, length)| **length < settings.segment_bytes) {
                self.segment = Some((name.clone(), storage.append(&format!("{}/{topic}/{name}", settings.dir))?));
            }
        }
        if self.segment.is_none() {
            let name = format!("{epoch:020}.ndjson");
            self.segment = Some((name.clone(), storage.append(&format!("{}/{topic}/{name}", settings.dir))?));
            self.created = true;
        }
        self.touched = true;
        Ok(())
    }

    fn push(&mut self, row: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(row);
        self.buffer.push(b'\n');
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let (_, file) = self.segment.as_mut().expect("rows are pushed to a touched topic");
        let written = file.write(&self.buffer);
        self.buffer.clear();
        if is_planted(Bug::SwallowedProduceError) { Ok(()) } else { written }
    }

    fn sync(&mut self, storage: &dyn Storage, folder: &str) -> Result<()> {
        let (_, file) = self.segment.as_mut().expect("a touched topic has a segment");
        file.sync()?;
        if self.created && !is_planted(Bug::NoFolderFsync) {
            storage.sync_dir(folder)?;
        }
        (self.touched, self.created) = (false, false);
        Ok(())
    }
}

impl Sink for LocalLogSink {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn open(&mut self, identity: &SinkIdentity) -> Result<Option<Marker>> {
        let dir = self.settings.dir.clone();
        let commits = CommitsLog::open(self.storage.clone(), &dir, self.settings.commits_bytes)?;
        if commits.committed.is_none() && self.holds_segments()? {
            // The first commits line is durable before the first segment exists, so it was there once.
            return Err(Error::doubt(format!("open the local log '{dir}': it has segments and no whole commits line"))
                .hint("the commits file was lost: restore the folder from a copy, or name an empty one"));
        }
        let before = commits.committed.clone();
        let started_over =
            before.as_ref().is_some_and(|c| c.marker.lineage != identity.lineage && self.settings.start_over);
        let found = before.filter(|_| !started_over);
        if let Some(found) = &found {
            self.admit(found.marker, identity)?;
            self.verify(&found.lengths)?;
        }
        let marker = found.as_ref().map(|c| c.marker);
        let fence = identity.marker(marker.map_or(0, |m| m.epoch), marker.map_or_else(ChainHash::default, |m| m.chain));
        let line = Committed { marker: fence, lengths: found.map(|c| c.lengths).unwrap_or_default() };
        let writers = self.settings.topics.iter().map(|_| Writer::default()).collect();
        let first = Some(First { line, started_over });
        self.opened = Some(Opened { identity: identity.clone(), commits, first, writers });
        Ok(marker)
    }

    fn begin(&mut self) -> Result<()> {
        let mut opened = self.opened.take();
        let Some((opened_now, first)) = opened.as_mut().and_then(|o| o.first.take().map(|first| (o, first))) else {
            return Err(Error::us(format!("begin the local log '{}': it is not open", self.settings.name)));
        };
        for folder in self.settings.topics.iter().map(String::as_str).chain([COMMITS]) {
            self.storage.create_dir(&format!("{}/{folder}", self.settings.dir))?;
        }
        // When started over, the old rows count until the first line is durable.
        if !first.started_over {
            self.reconcile(&first.line.lengths)?;
        }
        opened_now.commits.begin(first.line)?;
        if first.started_over {
            self.reconcile(&Lengths::new())?;
        }
        self.opened = opened;
        Ok(())
    }

    fn commit(&mut self, epochs: &[EpochOutput]) -> Result<()> {
        let result = self.write(epochs);
        if result.is_err() {
            // What the files hold now is unknown; only a new `open` finds out (invariant 5).
            self.opened = None;
        }
        result
    }
}
