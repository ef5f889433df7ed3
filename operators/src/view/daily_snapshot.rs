//! A snapshot a day: the newest day's rows follow every change, an older day's stand as they were at its last epoch.
//!
//! ```text
//!  rows  ──► by hash ──► today's rows ──┬──► changes of today's partition ──► view
//!  clock ──────────────► day turned? ───┴──► rows of the day that closed ──► gathered ──► closed days
//! ```
//!
//! Rows of past days are history and no function of the current input, so this is no view: when the day turns, the operator does not
//! take the old day's rows back. It holds the rows of the newest day alone, older days live in the sink. After a restart it
//! is given the rows at the restored epoch with that epoch's clock, and so stands as it stood.

use super::changes::by_key;
use super::epochs::{EpochClock, gather, with_clock};
use super::{Date, TableRow, View};
use dataflow_core::{Epoch, Micros, Row};
use differential_dataflow::{AsCollection, ExchangeData, Hashable};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;

/// A day that no later epoch belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClosedDay {
    /// The day.
    pub date: Date,
    /// Its rows as at its last epoch, by their table's key.
    pub rows: Vec<Row>,
}

/// The two outputs of [`View::daily_snapshot`].
pub struct DailySnapshot<'s, T: Clone + 'static> {
    /// All days' rows; those of a day that closed change no more.
    pub rows: View<'s, T>,
    /// Each day that closes, on worker 0, in the first epoch of a later day; a day without rows too.
    pub closed: StreamVec<'s, Epoch, ClosedDay>,
}

impl<'s, R: Clone + 'static> View<'s, R> {
    /// This view's rows as at the end of each day that has an epoch, made by `row` of the day and the view's row.
    pub fn daily_snapshot<T: TableRow + ExchangeData>(
        &self,
        clock: &EpochClock<'s>,
        row: impl Fn(Date, &R) -> T + 'static,
    ) -> DailySnapshot<'s, T>
    where
        R: ExchangeData + Hashable,
    {
        let mut today = Today { date: None, rows: BTreeMap::new() };
        let name = self.operator("DailySnapshot");
        let route = |row: &R| row.hashed().into();
        let events = with_clock(self.rows.clone(), clock.clone(), &name, route, move |epoch, now, changes, out| {
            let mut made = Vec::new();
            today.epoch(now, changes, &mut made);
            out.extend(made.into_iter().map(|event| (epoch, event.map(&row))));
        });
        let rows = events.clone().flat_map(|(epoch, event)| match event {
            Event::Change(row, diff) => Some((row, epoch, diff)),
            Event::Closed(..) => None,
        });
        let closed = events.flat_map(|(epoch, event)| match event {
            Event::Closed(date, row) => Some((epoch, (date, row.map(T::into_row)))),
            Event::Change(..) => None,
        });
        let schema = T::schema();
        let closed = gather(closed, &self.operator("ClosedDays"), move |items| {
            let date = items.first().map(|(date, _)| *date);
            let mut rows: Vec<Row> = items.into_iter().filter_map(|(_, row)| row).collect();
            rows.sort_by(|a, b| by_key(&schema, a, b).then_with(|| a.cmp(b)));
            date.map(|date| ClosedDay { date, rows }).into_iter().collect()
        });
        let rows = View { is_history: true, ..self.with(rows.as_collection()) };
        DailySnapshot { rows, closed }
    }
}

/// What happens to a day's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event<R> {
    /// A row of today comes or goes.
    Change(R, isize),
    /// The day is over: once without a row, so that a day without rows closes too, and once for each of its rows.
    Closed(Date, Option<R>),
}

impl<R> Event<(Date, R)> {
    fn map<T>(self, row: impl Fn(Date, &R) -> T) -> Event<T> {
        match self {
            Event::Change((date, r), diff) => Event::Change(row(date, &r), diff),
            Event::Closed(date, closed) => Event::Closed(date, closed.map(|(date, r)| row(date, &r))),
        }
    }
}

/// The newest day and its rows.
struct Today<R> {
    date: Option<Date>,
    rows: BTreeMap<R, isize>,
}

impl<R: Ord + Clone> Today<R> {
    fn epoch(&mut self, now: Micros, changes: Vec<(R, isize)>, out: &mut Vec<Event<(Date, R)>>) {
        let date = Date::of(now);
        if self.date == Some(date) {
            for (row, diff) in changes {
                out.push(Event::Change((date, row.clone()), diff));
                self.add(row, diff);
            }
            return;
        }
        if let Some(closed) = self.date.replace(date) {
            assert!(closed < date, "the clock never falls");
            out.push(Event::Closed(closed, None));
            for (row, count) in &self.rows {
                out.extend((0..*count).map(|_| Event::Closed(closed, Some((closed, row.clone())))));
            }
        }
        changes.into_iter().for_each(|(row, diff)| self.add(row, diff));
        out.extend(self.rows.iter().map(|(row, count)| Event::Change((date, row.clone()), *count)));
    }

    fn add(&mut self, row: R, diff: isize) {
        let count = self.rows.entry(row.clone()).or_insert(0);
        *count += diff;
        if *count == 0 {
            self.rows.remove(&row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::time::DAY;

    type Made = Vec<Event<(Date, char)>>;

    fn step(today: &mut Today<char>, day: i64, changes: &[(char, isize)]) -> Made {
        let mut out = Vec::new();
        today.epoch(Micros(day * DAY), changes.to_vec(), &mut out);
        out
    }

    #[test]
    fn a_day_that_closed_keeps_its_rows() {
        let (change, closed) =
            (|day, row, diff| Event::Change((Date(day), row), diff), |row| Event::Closed(Date(1), row));
        let mut today = Today { date: None, rows: BTreeMap::new() };
        assert_eq!(step(&mut today, 1, &[('a', 1)]), [change(1, 'a', 1)]);
        assert_eq!(step(&mut today, 1, &[('b', 1)]), [change(1, 'b', 1)]);
        // The first epoch of day 3 takes 'a' away: day 1 keeps it, and day 2 had no epoch.
        let turned = [closed(None), closed(Some((Date(1), 'a'))), closed(Some((Date(1), 'b'))), change(3, 'b', 1)];
        assert_eq!(step(&mut today, 3, &[('a', -1)]), turned);
        assert_eq!(step(&mut today, 3, &[('b', -1)]), [change(3, 'b', -1)]);
        assert_eq!(step(&mut today, 4, &[]), [Event::Closed(Date(3), None)]);
    }
}
