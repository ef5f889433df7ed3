//! One segment: its name, and a cursor that checks each row against the one before it.

use super::frame::{self, Frame, Head, Kind};
use super::{LogHeader, Tail};
use dataflow_core::{Binding, BindingState, ChainHash, Epoch, Error, Result, Storage};

/// The file name of the segment whose first row is `first`.
pub(super) fn name_of(first: Epoch) -> String {
    format!("{first:020}.log")
}

/// The epochs by which the segments of `dir` are named, rising. Other files are not ours to judge.
pub(super) fn list(storage: &dyn Storage, dir: &str) -> Result<Vec<Epoch>> {
    let epoch = |name: &String| {
        let first = name.strip_suffix(".log")?.parse().ok()?;
        (*name == name_of(first)).then_some(first)
    };
    // 20 digits hold every epoch, so the order of names is the order of epochs.
    Ok(storage.list(dir)?.iter().filter_map(epoch).collect())
}

/// A segment that is read row by row.
pub(super) struct Cursor {
    path: String,
    name: String,
    bytes: Vec<u8>,
    at: usize,
    is_last: bool,
    /// What the head says.
    pub(super) header: LogHeader,
    /// The sum of the rows so far: at first that of the full row.
    pub(super) state: BindingState,
    /// The chain hash of the last row so far.
    pub(super) chain: ChainHash,
}

/// What comes next.
pub(super) enum Step<T> {
    /// This.
    Next(T),
    /// Nothing: the segment ends here.
    End,
    /// Nothing that can be read: the last append was interrupted here.
    Torn(Tail),
}

impl Cursor {
    /// Reads the segment of `dir` whose first row is `first`. A last segment without one whole row is torn at 0: it says
    /// nothing, and goes as a whole.
    pub(super) fn open(storage: &dyn Storage, dir: &str, first: Epoch, is_last: bool) -> Result<Step<Cursor>> {
        let name = name_of(first);
        let path = format!("{dir}/{name}");
        let bytes = storage.read(&path)?;
        let (header, at) = match frame::read_head(&bytes) {
            Head::Whole(header, at) => (header, at),
            Head::Torn(how) => return torn_or_damaged(&path, &name, &bytes, 0, 0, is_last, how),
            Head::Foreign(how) => return Err(corrupt(&path, 0, &how)),
        };
        let full = match frame::read_frame(&bytes, at) {
            Ok(full) => full,
            Err(how) => return torn_or_damaged(&path, &name, &bytes, 0, at, is_last, how),
        };
        let row_at = at + full.bytes;
        let row = match frame::read_frame(&bytes, row_at) {
            Ok(row) => row,
            Err(how) => return torn_or_damaged(&path, &name, &bytes, 0, row_at, is_last, how),
        };
        let state = match (full.kind, frame::decoded::<BindingState>(full.payload)) {
            (Kind::Full, Some(state)) => state,
            _ => return Err(corrupt(&path, at, "it does not begin with a full row")),
        };
        if decoded_row(&row).is_none_or(|row| row.epoch != first) {
            return Err(corrupt(&path, row_at, &format!("its first row is not that of epoch {first}")));
        }
        let chain = full.chain;
        Ok(Step::Next(Cursor { path, name, at: row_at, is_last, header, state, chain, bytes }))
    }

    /// The next row, checked: it is as it was written, its hash follows, and so does what it says.
    pub(super) fn next_row(&mut self) -> Result<Step<(Binding, ChainHash)>> {
        if self.at == self.bytes.len() {
            return Ok(Step::End);
        }
        let row = match frame::read_frame(&self.bytes, self.at) {
            Ok(row) => row,
            Err(how) => {
                let at = self.at;
                return torn_or_damaged(&self.path, &self.name, &self.bytes, at, at, self.is_last, how);
            }
        };
        let bad = |how: &str| Err(corrupt(&self.path, self.at, how));
        if self.chain.next(row.payload) != row.chain {
            return bad("its chain hash does not follow from the row before it");
        }
        let Some(binding) = decoded_row(&row) else { return bad("it does not decode") };
        if let Err(how) = follows(&self.state, &binding) {
            return bad(&how);
        }
        (self.chain, self.at) = (row.chain, self.at + row.bytes);
        self.state.apply(&binding);
        Ok(Step::Next((binding, self.chain)))
    }

    /// Where the next segment's full row contradicts the rows of this one, which has ended.
    pub(super) fn check_next(&self, next: &Cursor) -> Result<()> {
        let how = if next.header != self.header {
            format!("its lineage or sources are not those of segment '{}'", self.name)
        } else if next.chain != self.chain || next.state != self.state {
            let (here, there) = (self.state.epoch, next.state.epoch);
            format!("its full row (epoch {there}) is not what the rows up to epoch {here} of '{}' add up to", self.name)
        } else {
            return Ok(());
        };
        Err(corrupt(&next.path, 0, &how))
    }
}

/// Why `row` does not follow `state`, if it does not.
pub(super) fn follows(state: &BindingState, row: &Binding) -> Result<(), String> {
    if row.epoch <= state.epoch {
        return Err(format!("epoch {} does not follow epoch {}", row.epoch, state.epoch));
    }
    if row.clock < state.clock {
        return Err(format!("the clock of epoch {} falls from {} to {}", row.epoch, state.clock, row.clock));
    }
    for (partition, advance) in &row.advances {
        let before = state.partitions.get(partition).map_or(0, |state| state.end);
        if advance.end < before {
            let (source, index, end) = (partition.source.0, partition.index, advance.end);
            return Err(format!("the end of partition {index} of source {source} falls from {before} to {end}"));
        }
    }
    Ok(())
}

/// Damage of the segment, with what to do.
pub(super) fn corrupt(path: &str, offset: usize, how: &str) -> Error {
    Error::doubt(format!("cannot read segment '{path}' of the binding log at byte {offset}: {how}"))
        .hint("restore the file from a copy; without it the epochs from there on can not be computed again")
}

fn decoded_row(frame: &Frame<'_>) -> Option<Binding> {
    if frame.kind == Kind::Row { frame::decoded(frame.payload) } else { None }
}

/// A frame at `offset` that does not read: torn from `cut` on when an interrupted last append explains it, else an error.
fn torn_or_damaged<T>(
    path: &str,
    name: &str,
    bytes: &[u8],
    cut: usize,
    offset: usize,
    is_last: bool,
    how: &str,
) -> Result<Step<T>> {
    if !is_last {
        return Err(corrupt(path, offset, &format!("{how}, and a segment follows")));
    }
    if let Some(later) = frame::later_batch(bytes, offset) {
        return Err(corrupt(path, offset, &format!("{how}, and rows that were written later follow at byte {later}")));
    }
    Ok(Step::Torn(Tail::Torn { segment: name.to_owned(), offset: cut as u64, bytes: (bytes.len() - cut) as u64 }))
}
