//! The rows of a log in order, across its segments: what every reader of the log is built on.
//!
//! Holds one segment in memory at a time.

use super::Tail;
use super::segment::{self, Cursor, Step};
use dataflow_core::{Binding, BindingState, ChainHash, Epoch, Error, Result, Storage};
use std::collections::VecDeque;

/// A reader that stands before some row.
pub(super) struct Walk<'s> {
    storage: &'s dyn Storage,
    dir: String,
    /// Segments not opened yet, by first epoch.
    ahead: VecDeque<Epoch>,
    /// The segment it stands in; `None` when the log has no row.
    pub(super) cursor: Option<Cursor>,
    /// The epoch of the log's first row; 0 when it has none.
    pub(super) first: Epoch,
    /// How the log ends, once that is reached.
    pub(super) tail: Tail,
}

impl<'s> Walk<'s> {
    /// Stands before the first row of the segment that knows the state at `from`, or of the oldest one if none does.
    pub(super) fn start(storage: &'s dyn Storage, dir: &str, from: Epoch) -> Result<Walk<'s>> {
        let segments = segment::list(storage, dir)?;
        let at = segments.partition_point(|first| *first <= from).saturating_sub(1);
        let ahead = segments[at..].iter().copied().collect();
        let first = segments.first().copied().unwrap_or(0);
        let mut walk = Walk { storage, dir: dir.to_owned(), ahead, cursor: None, first, tail: Tail::Clean };
        walk.next_segment()?;
        if walk.cursor.is_none() {
            match segments.len() {
                0 => {}
                1 => walk.first = 0,
                // The last segment is torn as a whole: the one before it is the log's end.
                _ => {
                    let tail = std::mem::replace(&mut walk.tail, Tail::Clean);
                    walk.ahead = [segments[segments.len() - 2]].into();
                    walk.next_segment_of(false)?;
                    walk.tail = tail;
                }
            }
        }
        Ok(walk)
    }

    /// The next row and its chain hash.
    pub(super) fn next_row(&mut self) -> Result<Option<(Binding, ChainHash)>> {
        while let Some(cursor) = &mut self.cursor {
            match cursor.next_row()? {
                Step::Next(row) => return Ok(Some(row)),
                Step::Torn(tail) => {
                    self.tail = tail;
                    return Ok(None);
                }
                Step::End if !self.next_segment()? => return Ok(None),
                Step::End => {}
            }
        }
        Ok(None)
    }

    /// The state at the last row it gave, and that row's hash.
    pub(super) fn position(&self) -> (BindingState, ChainHash) {
        self.cursor.as_ref().map(|c| (c.state.clone(), c.chain)).unwrap_or_default()
    }

    /// The epoch from which on the rows are there: that of the full row it began with.
    pub(super) fn epoch(&self) -> Epoch {
        self.cursor.as_ref().map_or(0, |c| c.state.epoch)
    }

    /// Refuses a log whose rows right after `from` are gone.
    pub(super) fn reaches(&self, from: Epoch) -> Result<()> {
        if from >= self.epoch() {
            return Ok(());
        }
        let (dir, first) = (&self.dir, self.first);
        Err(Error::doubt(format!(
            "cannot read the binding log '{dir}' from epoch {from} on: it begins at epoch {first}"
        ))
        .hint("older rows were trimmed (bindings.retain); restore from a later checkpoint"))
    }

    fn next_segment(&mut self) -> Result<bool> {
        self.next_segment_of(self.ahead.len() == 1)
    }

    fn next_segment_of(&mut self, is_last: bool) -> Result<bool> {
        let Some(first) = self.ahead.pop_front() else { return Ok(false) };
        match Cursor::open(self.storage, &self.dir, first, is_last)? {
            Step::Next(next) => {
                if let Some(cursor) = &self.cursor {
                    cursor.check_next(&next)?;
                }
                self.cursor = Some(next);
                Ok(true)
            }
            Step::Torn(tail) => {
                self.tail = tail;
                Ok(false)
            }
            Step::End => Ok(false),
        }
    }
}
