//! The binding log in files of a [`Storage`]: the writer.
//!
//! Opening rewrites the last segment before anything is appended. Rows that a scan could read may lie in the page cache
//! only: their life ended before the sync, or in a sync that failed, after which the kernel takes the pages for clean and a
//! second sync proves nothing. A synced copy under the same name does. Older segments were synced before theirs began.

use super::frame::{self, Kind};
use super::segment::{follows, list, name_of};
use super::{BindingLog, LogHeader, LogSettings, Scan, Tail};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{AppendFile, Binding, BindingState, ChainHash, Epoch, Error, Micros, Result, Storage};
use std::collections::VecDeque;
use std::sync::Arc;

/// How much of a segment is copied at a time: large enough for sequential disk speed.
const COPY_BYTES: usize = 1 << 20;
const TEMPORARY: &str = "rewrite.tmp";

/// The one writer of a log.
pub struct LocalBindingLog {
    storage: Arc<dyn Storage>,
    dir: String,
    header: LogHeader,
    settings: LogSettings,
    state: BindingState,
    chain: ChainHash,
    segments: VecDeque<Segment>,
    /// The last segment; `None` before the first append.
    file: Option<Box<dyn AppendFile>>,
    /// A write or a sync failed: what the file holds is unknown until the next start.
    failed: bool,
}

struct Segment {
    first: Epoch,
    bytes: u64,
    /// The clock before its first row: that of the last row of the segment before.
    clock_before: Micros,
}

impl LocalBindingLog {
    /// Opens the log that `scan` has read, for appending, and cuts the torn tail that it found: the caller has made sure
    /// that neither a sink nor a manifest is past the cut (invariant 8).
    ///
    /// # Errors
    /// When the log belongs to another lineage or has other sources, or the storage fails.
    pub fn open(
        storage: Arc<dyn Storage>,
        dir: &str,
        header: LogHeader,
        scan: &Scan,
        settings: LogSettings,
    ) -> Result<LocalBindingLog> {
        if let Some(found) = &scan.header {
            check_header(dir, found, &header)?;
        }
        storage.create_dir(dir)?;
        storage.remove(&format!("{dir}/{TEMPORARY}"))?;
        if let Tail::Torn { segment, offset: 0, .. } = &scan.tail {
            storage.remove(&format!("{dir}/{segment}"))?;
            storage.sync_dir(dir)?;
        }
        let (state, chain) = scan.end();
        let mut log = LocalBindingLog {
            storage,
            dir: dir.to_owned(),
            header,
            settings,
            state,
            chain,
            segments: VecDeque::new(),
            file: None,
            failed: false,
        };
        let segments = list(&*log.storage, dir)?;
        for (index, first) in segments.iter().enumerate() {
            if index + 1 == segments.len() {
                log.rewrite(*first, &scan.tail)?;
            }
            let path = log.path(*first);
            let bytes = log.storage.length(&path)?.unwrap_or(0);
            log.segments.push_back(Segment { first: *first, bytes, clock_before: clock_before(&*log.storage, &path)? });
        }
        if let Some(last) = log.segments.back() {
            log.file = Some(log.storage.append(&log.path(last.first))?);
        }
        Ok(log)
    }

    /// The state at the last row.
    pub fn state(&self) -> &BindingState {
        &self.state
    }

    fn path(&self, first: Epoch) -> String {
        format!("{}/{}", self.dir, name_of(first))
    }

    /// Replaces the last segment by a synced copy of it without the torn tail.
    fn rewrite(&self, first: Epoch, tail: &Tail) -> Result<()> {
        let (path, temporary) = (self.path(first), format!("{}/{TEMPORARY}", self.dir));
        let length = self.storage.length(&path)?.unwrap_or(0);
        let end = match tail {
            Tail::Torn { segment, offset, .. } if *segment == name_of(first) => *offset,
            _ => length,
        };
        let mut copy = self.storage.append(&temporary)?;
        let mut at = 0;
        while at < end {
            let bytes = self.storage.read_range(&path, at, COPY_BYTES.min((end - at) as usize))?;
            if bytes.is_empty() {
                return Err(Error::us(format!("cannot copy '{path}': it became shorter while it was read")));
            }
            copy.write(&bytes)?;
            at += bytes.len() as u64;
        }
        copy.sync()?;
        drop(copy);
        self.storage.rename(&temporary, &path)?;
        self.storage.sync_dir(&self.dir)
    }

    /// The rows as frames, and the state and hashes that they lead to. Changes nothing.
    fn frames(&self, rows: &[Binding], batch: u64, out: &mut Vec<u8>) -> Result<(BindingState, Vec<ChainHash>)> {
        let (mut state, mut chain) = (self.state.clone(), self.chain);
        let mut chains = Vec::with_capacity(rows.len());
        for row in rows {
            if let Err(how) = follows(&state, row) {
                return Err(Error::us(format!("cannot append to the binding log '{}': {how}", self.dir)));
            }
            let payload = frame::encoded(row)?;
            chain = chain.next(&payload);
            frame::write_frame(Kind::Row, batch, &payload, chain, out)?;
            state.apply(row);
            chains.push(chain);
        }
        Ok((state, chains))
    }

    fn write(&mut self, begins: Option<Epoch>, bytes: &[u8]) -> Result<()> {
        if let Some(first) = begins {
            self.file = None; // The segment before it was synced by the append that wrote to it last.
            let path = self.path(first);
            let file = self.storage.append(&path)?;
            if file.length() != 0 {
                return Err(Error::us(format!("cannot begin segment '{path}': it is there already")));
            }
            self.file = Some(file);
            self.segments.push_back(Segment { first, bytes: 0, clock_before: self.state.clock });
        }
        let (Some(file), Some(segment)) = (&mut self.file, self.segments.back_mut()) else {
            return Err(Error::us(format!("cannot append to the binding log '{}': no segment is open", self.dir)));
        };
        file.write(bytes)?;
        segment.bytes += bytes.len() as u64;
        if !is_planted(Bug::NoFsync) {
            file.sync()?;
        }
        if begins.is_some() && !is_planted(Bug::NoFolderFsync) {
            self.storage.sync_dir(&self.dir)?;
        }
        Ok(())
    }
}

impl BindingLog for LocalBindingLog {
    fn append(&mut self, rows: &[Binding]) -> Result<Vec<ChainHash>> {
        if self.failed {
            let dir = &self.dir;
            return Err(Error::us(format!("cannot append to the binding log '{dir}': a write to it failed before")));
        }
        let Some(first) = rows.first().map(|row| row.epoch) else { return Ok(Vec::new()) };
        let begins = self.segments.back().is_none_or(|last| last.bytes >= self.settings.segment_bytes).then_some(first);
        let (mut bytes, mut batch) = (Vec::new(), self.segments.back().map_or(0, |last| last.bytes));
        if begins.is_some() {
            // Head, full row and batch are one write: the batch begins with the file.
            batch = 0;
            frame::write_head(&self.header, &mut bytes)?;
            frame::write_frame(Kind::Full, batch, &frame::encoded(&self.state)?, self.chain, &mut bytes)?;
        }
        let (state, chains) = self.frames(rows, batch, &mut bytes)?;
        self.write(begins, &bytes).inspect_err(|_| self.failed = true)?;
        self.state = state;
        self.chain = chains.last().copied().unwrap_or(self.chain);
        Ok(chains)
    }

    fn trim(&mut self, below: Epoch) -> Result<()> {
        while let (Some(oldest), Some(next)) = (self.segments.front(), self.segments.get(1)) {
            let is_needed = next.first > below;
            let is_young = self.state.clock.since(next.clock_before) <= self.settings.retain_us;
            if is_needed || (is_young && self.bytes() <= self.settings.retain_bytes) {
                break;
            }
            self.storage.remove(&self.path(oldest.first))?;
            // One at a time: without an order between removals a crash could leave a gap.
            self.storage.sync_dir(&self.dir)?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

fn check_header(dir: &str, found: &LogHeader, job: &LogHeader) -> Result<()> {
    if found.lineage != job.lineage {
        let (theirs, ours) = (found.lineage, job.lineage);
        return Err(Error::doubt(format!(
            "cannot open the binding log '{dir}': it is of lineage {theirs}, not {ours}"
        ))
        .hint("choose the data folder that the job ran with"));
    }
    if found.sources != job.sources {
        let (theirs, ours) = (found.sources.join("', '"), job.sources.join("', '"));
        let what = format!("cannot open the binding log '{dir}': its sources are '{theirs}', the job's are '{ours}'");
        return Err(Error::user(what).hint("give the sources of the job file the names and the order of before"));
    }
    Ok(())
}

/// The clock in a segment's full row.
fn clock_before(storage: &dyn Storage, path: &str) -> Result<Micros> {
    let mut length = COPY_BYTES;
    loop {
        let bytes = storage.read_range(path, 0, length)?;
        let corrupt = |how: &str| super::segment::corrupt(path, 0, how);
        if let frame::Head::Whole(_, at) = frame::read_head(&bytes)
            && let Ok(full) = frame::read_frame(&bytes, at)
        {
            let state: Option<BindingState> = frame::decoded(full.payload);
            return state.map(|state| state.clock).ok_or_else(|| corrupt("it does not begin with a full row"));
        }
        if bytes.len() < length {
            return Err(corrupt("its head or its full row is damaged"));
        }
        length *= 4; // A full row may be longer than the first guess, up to the whole file.
    }
}
