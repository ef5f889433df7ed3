//! Where a shop's story goes: into the files of a case, a database, and objects; at its rate, or as fast as it is told.
//!
//! ```text
//! snapshot, steps ─► pace ─► each target takes what is for it
//!                              folder    oneshop.ndjson, pageviews.ndjson
//!                              postgres  the transactions
//!                              objects   the pageviews, one object every few seconds
//! ```
//!
//! What is written is a function of the settings alone, but for where it stops. A target that fails ends the run.

pub mod folder;
pub mod objects;
pub mod postgres;

use crate::shop::{Change, Event, Feed, Shop};
use dataflow_core::{Clock, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The longest wait for the moment at which a step is due, between two looks at the wish to stop.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Rows of the snapshot in one transaction.
const SNAPSHOT_ROWS: usize = 1000;

/// Something that takes a part of the story.
pub trait Target {
    /// Takes rows that are there before anything happens.
    ///
    /// # Errors
    /// The outside does not do its part; likewise below.
    fn snapshot(&mut self, rows: &[Change]) -> Result<()> {
        self.transaction(rows)
    }

    /// Takes a transaction.
    ///
    /// # Errors
    /// As [`Target::snapshot`].
    fn transaction(&mut self, _: &[Change]) -> Result<()> {
        Ok(())
    }

    /// Takes a line of pageviews, which came at `due_us` since the beginning.
    ///
    /// # Errors
    /// As [`Target::snapshot`].
    fn pageview(&mut self, _line: &[u8], _due_us: u64) -> Result<()> {
        Ok(())
    }

    /// Nothing more is due for the moment: what was taken may be shown.
    ///
    /// # Errors
    /// As [`Target::snapshot`].
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// The story has ended, or is told no further.
    ///
    /// # Errors
    /// As [`Target::snapshot`].
    fn finish(&mut self) -> Result<()> {
        self.flush()
    }
}

/// What was told: events by feed, in the order of [`Feed::ALL`], those of the snapshot among them.
pub type Told = [u64; 4];

/// How the story is told.
pub struct Telling<'a> {
    /// The clock to wait for.
    pub clock: &'a dyn Clock,
    /// Whether to wait until steps are due.
    pub is_paced: bool,
    /// Set when no more is wanted.
    pub stop: &'a AtomicBool,
}

/// Tells the story to all targets until it ends or `stop` is set. `progress` hears what was told, now and then.
///
/// # Errors
/// A target fails.
pub fn tell(
    shop: &Shop,
    telling: &Telling<'_>,
    targets: &mut [Box<dyn Target>],
    mut progress: impl FnMut(&Told),
) -> Result<Told> {
    let mut told = Told::default();
    let snapshot: Vec<Change> = shop.snapshot().collect();
    for rows in snapshot.chunk_by(|a, b| a.feed() == b.feed()).flat_map(|of_table| of_table.chunks(SNAPSHOT_ROWS)) {
        targets.iter_mut().try_for_each(|target| target.snapshot(rows))?;
        told[rows[0].feed() as usize] += rows.len() as u64;
    }
    drop(snapshot);
    let begin = telling.clock.monotonic();
    for step in shop.steps() {
        if telling.is_paced {
            wait(telling, begin + Duration::from_micros(step.due_us), targets)?;
        }
        if telling.stop.load(Ordering::Relaxed) {
            break;
        }
        match &step.event {
            Event::Transaction(changes) => targets.iter_mut().try_for_each(|target| target.transaction(changes))?,
            Event::Pageview(line) => targets.iter_mut().try_for_each(|target| target.pageview(line, step.due_us))?,
        }
        for feed in Feed::ALL {
            told[feed as usize] += step.event.count(feed);
        }
        progress(&told);
    }
    targets.iter_mut().try_for_each(|target| target.finish())?;
    Ok(told)
}

/// Waits until the monotonic clock shows `due`, or no more is wanted.
fn wait(telling: &Telling<'_>, due: Duration, targets: &mut [Box<dyn Target>]) -> Result<()> {
    let mut is_flushed = false;
    loop {
        let left = due.saturating_sub(telling.clock.monotonic());
        if left.is_zero() || telling.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !is_flushed {
            targets.iter_mut().try_for_each(|target| target.flush())?;
            is_flushed = true;
        }
        std::thread::park_timeout(left.min(WAIT_MAX));
    }
}
