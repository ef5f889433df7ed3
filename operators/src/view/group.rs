//! Rows by group: sums and counts that cost the same however large the group is, and folds that read it whole.

use super::{Sums, View};
use differential_dataflow::operators::CountTotal;
use differential_dataflow::{ExchangeData, Hashable};

impl<'s, R: Clone + 'static> View<'s, R> {
    /// One row for each group: `amounts` are summed over its rows and counted with them ([`Sums`]), `finish` makes the row. A group is
    /// there while it has rows. A count of distinct values is a `group` after [`View::distinct`].
    ///
    /// A change costs the same whatever the group's size, because its rows are not kept.
    pub fn group<K, S, const N: usize>(
        &self,
        key: impl Fn(&R) -> K + 'static,
        amounts: impl Fn(&R) -> [i128; N] + 'static,
        finish: impl Fn(&K, Sums<N>) -> S + 'static,
    ) -> View<'s, S>
    where
        K: ExchangeData + Hashable,
        S: Clone + 'static,
    {
        let sums = self
            .rows
            .clone()
            .explode(move |row| Some((key(&row), Sums { rows: 1, of: amounts(&row) })))
            .arrange_by_self_named(&self.operator("Sums"))
            .count_total();
        self.with(sums.map(move |(key, sums)| finish(&key, sums)))
    }

    /// One row for each group, made of all its values in ascending order, each with its count. A change reads its whole group, so let
    /// groups be small: what can be summed belongs in [`View::group`].
    pub fn fold<K, V, S>(
        &self,
        entry: impl Fn(R) -> (K, V) + 'static,
        finish: impl Fn(&K, &[(&V, isize)]) -> S + 'static,
    ) -> View<'s, S>
    where
        K: ExchangeData + Hashable,
        V: ExchangeData,
        S: ExchangeData,
    {
        let folded = self.rows.clone().map(entry).reduce_named(&self.operator("Fold"), move |key, values, output| {
            output.push((finish(key, values), 1_isize));
        });
        self.with(folded.map(|(_, row)| row))
    }
}
