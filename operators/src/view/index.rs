//! Views arranged by a unique key, and the joins with them.
//!
//! ```text
//!  left ──┬── by key ──► join with index ──► (left, right) +1 ──┐
//!         │                     └──────────► (left, none)  -1 ──┤ left join only
//!         └────────────────────────────────► (left, none)  +1 ──┴──► out
//! ```
//!
//! A key is unique, so a left row meets one right row or none: its unmatched form is taken back exactly where it meets one. That spares
//! the second arrangement of the left side and the set of keys that an antijoin needs. A null key joins with nothing.

use super::View;
use dataflow_core::Epoch;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::implementations::ValSpine;
use differential_dataflow::{AsCollection, ExchangeData, Hashable, VecCollection};
use timely::dataflow::operators::vec::Map;

type Arrangement<'s, K, V> = Arranged<'s, TraceAgent<ValSpine<K, V, Epoch, isize>>>;

/// A view by a key, at most one row for each. Cheap to clone, and held in memory once however many joins read it.
#[derive(Clone)]
pub struct Index<'s, K, V>
where
    K: ExchangeData + Hashable,
    V: ExchangeData,
{
    arranged: Arrangement<'s, K, V>,
}

impl<'s, R: Clone + 'static> View<'s, R> {
    /// The index of this view by a key that no two of its rows share at once, with what `entry` keeps of a row: (key, columns). Two rows
    /// of one key would make a left join take back an unmatched row twice.
    pub fn index<K, V>(&self, entry: impl Fn(R) -> (K, V) + 'static) -> Index<'s, K, V>
    where
        K: ExchangeData + Hashable,
        V: ExchangeData,
    {
        Index { arranged: self.rows.clone().map(entry).arrange_by_key_named(&self.operator("Index")) }
    }

    /// Each row whose key is in the index, with what the index has for it.
    pub fn join<K, V, S>(
        &self,
        key: impl Fn(&R) -> Option<K> + 'static,
        index: &Index<'s, K, V>,
        both: impl Fn(&R, &V) -> S + 'static,
    ) -> View<'s, S>
    where
        R: ExchangeData,
        K: ExchangeData + Hashable,
        V: ExchangeData,
        S: Clone + 'static,
    {
        self.with(self.pairs(key, index).map(move |(row, value)| both(&row, &value)))
    }

    /// Each row with what the index has for its key, if anything.
    ///
    /// ```
    /// use dataflow_operators::view::View;
    ///
    /// fn named<'s>(scores: &View<'s, (u32, i64)>, players: &View<'s, (u32, String)>) -> View<'s, (String, i64)> {
    ///     let names = players.index(|(id, name)| (id, name));
    ///     scores.left_join(
    ///         |(player, _)| Some(*player),
    ///         &names,
    ///         |(_, score), name| (name.cloned().unwrap_or_default(), *score),
    ///     )
    /// }
    /// ```
    ///
    /// A key of another type than the index's is a mismatch that the compiler names:
    ///
    /// ```compile_fail,E0308
    /// use dataflow_operators::view::{Index, View};
    ///
    /// fn known<'s>(ids: &View<'s, i64>, names: &Index<'s, i32, String>) -> View<'s, bool> {
    ///     ids.left_join(|id| Some(*id), names, |_, name| name.is_some())
    /// }
    /// ```
    pub fn left_join<K, V, S>(
        &self,
        key: impl Fn(&R) -> Option<K> + 'static,
        index: &Index<'s, K, V>,
        both: impl Fn(&R, Option<&V>) -> S + Clone + 'static,
    ) -> View<'s, S>
    where
        R: ExchangeData,
        K: ExchangeData + Hashable,
        V: ExchangeData,
        S: Clone + 'static,
    {
        let alone = both.clone();
        let unmatched = self.rows.clone().map(move |row| alone(&row, None));
        let matched = self
            .pairs(key, index)
            .inner
            .flat_map(move |((row, value), epoch, diff)| {
                [(both(&row, Some(&value)), epoch, diff), (both(&row, None), epoch, -diff)]
            })
            .as_collection();
        self.with(unmatched.concat(matched))
    }

    fn pairs<K, V>(
        &self,
        key: impl Fn(&R) -> Option<K> + 'static,
        index: &Index<'s, K, V>,
    ) -> VecCollection<'s, Epoch, (R, V)>
    where
        R: ExchangeData,
        K: ExchangeData + Hashable,
        V: ExchangeData,
    {
        self.rows
            .clone()
            .flat_map(move |row| key(&row).map(|key| (key, row)))
            .arrange_by_key_named(&self.operator("Arrange"))
            .join_core(index.arranged.clone(), |_, row, value| Some((row.clone(), value.clone())))
    }
}
