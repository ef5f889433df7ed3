//! A temporal filter: rows of the last so many hours, by the epoch's clock.
//!
//! A row counts while `time <= clock < time + length`. When it comes and when it leaves is known by clock values and not by epochs, so both
//! moves wait in a map ordered by clock under no capability, and the first epoch whose clock has reached them makes them. A row that is
//! retracted early meets its own moves there and cancels them. The state is a function of the rows and of the clock.

use super::View;
use super::epochs::{EpochClock, with_clock};
use dataflow_core::{Epoch, Micros};
use differential_dataflow::{AsCollection, ExchangeData, Hashable};
use std::collections::BTreeMap;

impl<'s, R: Clone + 'static> View<'s, R> {
    /// The rows whose time lies in (clock - `micros`, clock], with what `entry` keeps of a row and its time; `None` is never in. A row
    /// comes and leaves by itself.
    ///
    /// ```
    /// use dataflow_core::{Micros, time::HOUR};
    /// use dataflow_operators::view::{EpochClock, View};
    ///
    /// fn last_hour<'s>(calls: &View<'s, (Micros, u32)>, clock: &EpochClock<'s>) -> View<'s, u32> {
    ///     calls.within_last(HOUR, clock, |(at, caller)| Some((at, caller)))
    /// }
    /// ```
    pub fn within_last<S: ExchangeData + Hashable>(
        &self,
        micros: i64,
        clock: &EpochClock<'s>,
        entry: impl Fn(R) -> Option<(Micros, S)> + 'static,
    ) -> View<'s, S> {
        let mut moves = Moves { length: micros, due: BTreeMap::new() };
        let timed = self.rows.clone().flat_map(entry);
        let name = self.operator("WithinLast");
        let route = |(_, row): &(Micros, S)| row.hashed().into();
        let inside = with_clock(timed, clock.clone(), &name, route, move |epoch, now, changes, out| {
            moves.epoch(epoch, now, changes, out);
        });
        self.with(inside.as_collection())
    }
}

/// Rows that come and leave, by the clock at which they do.
struct Moves<S> {
    length: i64,
    due: BTreeMap<(Micros, S), isize>,
}

impl<S: ExchangeData> Moves<S> {
    fn epoch(
        &mut self,
        epoch: Epoch,
        now: Micros,
        changes: Vec<((Micros, S), isize)>,
        out: &mut Vec<(S, Epoch, isize)>,
    ) {
        for ((time, row), diff) in changes {
            let (from, until) = (time.max(now), time.plus(self.length));
            // One that is over before it comes moves nothing: neither when it arrives nor when it is taken back.
            if from < until {
                self.add(from, row.clone(), diff);
                self.add(until, row, -diff);
            }
        }
        // Merged by row, so that one row moves at most once in an epoch.
        let mut net: BTreeMap<S, isize> = BTreeMap::new();
        while let Some(first) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, row), diff) = first.remove_entry();
            *net.entry(row).or_insert(0) += diff;
        }
        out.extend(net.into_iter().filter(|(_, diff)| *diff != 0).map(|(row, diff)| (row, epoch, diff)));
    }

    fn add(&mut self, at: Micros, row: S, diff: isize) {
        let key = (at, row);
        let sum = self.due.entry(key.clone()).or_insert(0);
        *sum += diff;
        if *sum == 0 {
            self.due.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(epochs: &[(i64, &[(i64, isize)])], expected: &[&[isize]]) {
        let mut moves = Moves { length: 10, due: BTreeMap::new() };
        let mut seen = Vec::new();
        for (epoch, (now, rows)) in epochs.iter().enumerate() {
            let changes = rows.iter().map(|(time, diff)| ((Micros(*time), 'r'), *diff)).collect();
            let mut out = Vec::new();
            moves.epoch(epoch as Epoch, Micros(*now), changes, &mut out);
            seen.push(out.into_iter().map(|(_, _, diff)| diff).collect::<Vec<_>>());
        }
        assert_eq!(seen, expected);
        assert!(moves.due.is_empty(), "nothing waits once all rows have left: {:?}", moves.due);
    }

    #[test]
    fn both_ends_are_as_specified() {
        // In at its own time, still in one short of its length, out at it.
        check(&[(4, &[(5, 1)]), (5, &[]), (14, &[]), (15, &[])], &[&[], &[1], &[], &[-1]]);
    }

    #[test]
    fn a_row_taken_back_leaves_once() {
        check(&[(5, &[(5, 1)]), (7, &[(5, -1)]), (15, &[])], &[&[1], &[-1], &[]]);
        check(&[(1, &[(5, 1)]), (2, &[(5, -1)]), (9, &[])], &[&[], &[], &[]]);
        check(&[(5, &[(5, 1)]), (15, &[(5, -1)]), (16, &[])], &[&[1], &[-1], &[]]);
    }

    #[test]
    fn a_jump_of_the_clock_passes_a_row_over() {
        check(&[(1, &[(5, 1)]), (20, &[])], &[&[], &[]]);
        check(&[(20, &[(5, 1)]), (21, &[(5, -1)])], &[&[], &[]]);
    }
}
