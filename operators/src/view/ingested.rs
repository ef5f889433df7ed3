//! Rows as they came in: each with the clock of the epoch that brought it, which a later epoch does not change.

use super::View;
use super::epochs::{EpochClock, with_clock};
use dataflow_core::Micros;
use differential_dataflow::{AsCollection, ExchangeData, Hashable};

impl<'s, R: ExchangeData + Hashable> View<'s, R> {
    /// This view's rows with the clock of their epoch, as `row` puts them together. For rows that come and never go: one that is taken back
    /// later would be taken back with another clock.
    pub fn ingested<T: ExchangeData>(
        &self,
        clock: &EpochClock<'s>,
        row: impl Fn(Micros, R) -> T + 'static,
    ) -> View<'s, T> {
        let name = self.operator("Ingested");
        let route = |row: &R| row.hashed().into();
        let rows = with_clock(self.rows.clone(), clock.clone(), &name, route, move |epoch, now, changes, out| {
            for (came, diff) in changes {
                assert!(diff > 0, "facts do not go");
                out.push((row(now, came), epoch, diff));
            }
        });
        self.with(rows.as_collection())
    }
}
