//! Reading the log: for a restart ([`scan`]), for one hash ([`chain_at`]), for an export ([`rows`]).
//!
//! Only reads. All of it starts at the newest segment that knows the state at the epoch asked for, so a restart costs
//! what lies after its checkpoint and not the log's whole age; every row that is passed is checked.

use super::LogHeader;
use super::walk::Walk;
use dataflow_core::{Binding, BindingState, ChainHash, Epoch, Result, Storage};

/// How the log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With a whole row.
    Clean,
    /// With an append that was interrupted: `bytes` from `offset` on in `segment` are no rows.
    Torn {
        /// The name of the last segment.
        segment: String,
        /// Where the first bad byte may be; 0 when the segment holds no whole row.
        offset: u64,
        /// How many bytes would be cut.
        bytes: u64,
    },
}

/// What a restart at some epoch needs of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Lineage and sources; `None` when the log has no row.
    pub header: Option<LogHeader>,
    /// The state at the epoch asked for: the sum of the rows up to it. Its epoch is that of the last such row.
    pub base: BindingState,
    /// The chain hash of that row.
    pub base_chain: ChainHash,
    /// The rows after it, with their hashes.
    pub rows: Vec<(Binding, ChainHash)>,
    /// The epoch of the last row; 0 when there is none.
    pub last: Epoch,
    /// The epoch of the first row that the log still holds; 0 when there is none.
    pub first: Epoch,
    /// How it ends.
    pub tail: Tail,
}

impl Scan {
    /// The state at `last`, and that row's hash.
    pub fn end(&self) -> (BindingState, ChainHash) {
        let mut state = self.base.clone();
        self.rows.iter().for_each(|(row, _)| state.apply(row));
        (state, self.rows.last().map_or(self.base_chain, |(_, chain)| *chain))
    }
}

/// Reads the log from epoch `from` on. The rows after `from` are held in memory: a restart replays them all.
///
/// # Errors
/// When rows right after `from` were trimmed, when a row is damaged and an interrupted append does not explain it (the
/// error names segment and byte offset), or when the storage fails.
pub fn scan(storage: &dyn Storage, dir: &str, from: Epoch) -> Result<Scan> {
    let mut walk = Walk::start(storage, dir, from)?;
    walk.reaches(from)?;
    let (mut base, mut base_chain) = walk.position();
    let mut rows = Vec::new();
    let mut last = base.epoch;
    while let Some((row, chain)) = walk.next_row()? {
        last = row.epoch;
        if row.epoch <= from {
            base.apply(&row);
            base_chain = chain;
        } else {
            rows.push((row, chain));
        }
    }
    let header = walk.cursor.map(|cursor| cursor.header);
    Ok(Scan { header, base, base_chain, rows, last, first: walk.first, tail: walk.tail })
}

/// The chain hash of the row of `epoch`; `None` when the log has no such row (any more). All zero for epoch 0 of a log that still begins there.
///
/// # Errors
/// As [`scan`], for the rows up to `epoch`.
pub fn chain_at(storage: &dyn Storage, dir: &str, epoch: Epoch) -> Result<Option<ChainHash>> {
    let mut walk = Walk::start(storage, dir, epoch)?;
    if walk.epoch() == epoch {
        return Ok(Some(walk.position().1)); // A full row stands for the row before its segment.
    }
    while let Some((row, chain)) = walk.next_row()? {
        if row.epoch >= epoch {
            return Ok((row.epoch == epoch).then_some(chain));
        }
    }
    Ok(None)
}

/// Which epochs a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Lineage and sources.
    pub header: LogHeader,
    /// The oldest epoch whose state is known, and so the least `from` of [`scan`]; 0 when nothing was trimmed.
    pub base: Epoch,
    /// The epoch of the first row.
    pub first: Epoch,
}

/// Where the log begins; `None` when it has no row. Reads its oldest segment only.
///
/// # Errors
/// When that segment is damaged.
pub fn extent(storage: &dyn Storage, dir: &str) -> Result<Option<Extent>> {
    let walk = Walk::start(storage, dir, 0)?;
    let (base, first) = (walk.epoch(), walk.first);
    Ok(walk.cursor.map(|cursor| Extent { header: cursor.header, base, first }))
}

/// The rows of the epochs `from..=to`, one segment in memory at a time. A torn tail is their end.
///
/// # Errors
/// When rows from `from` on were trimmed (see [`extent`]), or the log is damaged.
pub fn rows<'s>(storage: &'s dyn Storage, dir: &str, from: Epoch, to: Epoch) -> Result<Rows<'s>> {
    let before = from.saturating_sub(1);
    let mut walk = Walk::start(storage, dir, before)?;
    walk.reaches(before)?;
    let (mut base, _) = walk.position();
    let first = loop {
        match walk.next_row()? {
            Some((row, _)) if row.epoch < from => base.apply(&row),
            first => break first.map(|(row, _)| row),
        }
    };
    Ok(Rows { walk, base, first, to, ended: false })
}

/// An iterator over [`rows`]. It ends after an error.
pub struct Rows<'s> {
    walk: Walk<'s>,
    base: BindingState,
    first: Option<Binding>,
    to: Epoch,
    ended: bool,
}

impl Rows<'_> {
    /// The state before the first of the rows.
    pub fn base(&self) -> &BindingState {
        &self.base
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Binding>;

    fn next(&mut self) -> Option<Result<Binding>> {
        if self.ended {
            return None;
        }
        let next = match self.first.take() {
            Some(row) => Ok(Some(row)),
            None => self.walk.next_row().map(|row| row.map(|(row, _)| row)),
        };
        let next = next.map(|row| row.filter(|row| row.epoch <= self.to)).transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
