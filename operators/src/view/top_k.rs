//! The first rows of an order.
//!
//! ```text
//!  rows ──► first k of each of 4096 parts ──► of each of 64 ──► of all ──► rank 1, 2, 3, ...
//! ```
//!
//! `reduce` reads a group again whenever it changes. Rows fall into parts by hash first, and only what is among a part's first k goes
//! on: a change reads n / 4096 rows and twice 64 k, not all n. Which part a row falls into is seen by nobody.

use super::View;
use dataflow_core::Epoch;
use differential_dataflow::{ExchangeData, Hashable, VecCollection};

/// Parts of the first level and of the second: each part of the second gathers 64 of the first, the end gathers 64 of those.
const PARTS: [u64; 2] = [4096, 64];

impl<'s, R: Clone + 'static> View<'s, R> {
    /// The `k` rows that come first by `order` (ascending: `Reverse` turns a part of it), ties by the row itself. `finish` makes the
    /// row of its rank, which counts from 1.
    ///
    /// ```
    /// use dataflow_operators::view::View;
    /// use std::cmp::Reverse;
    ///
    /// /// The three highest scores, of equal ones the lower player first.
    /// fn podium<'s>(scores: &View<'s, (u32, i64)>) -> View<'s, (i32, u32)> {
    ///     scores.top_k(3, |(player, score)| (Reverse(*score), *player), |rank, (player, _)| (rank, *player))
    /// }
    /// ```
    pub fn top_k<O, S>(
        &self,
        k: usize,
        order: impl Fn(&R) -> O + 'static,
        finish: impl Fn(i32, &R) -> S + 'static,
    ) -> View<'s, S>
    where
        R: ExchangeData + Hashable,
        O: ExchangeData,
        S: ExchangeData,
    {
        let mut rows = self.rows.clone().map(move |row| (part_of(&row), (order(&row), row)));
        for parts in PARTS {
            rows = self.first(k, rows.map(move |(part, row)| (part % parts, row)));
        }
        let ranked = rows.map(|(_, row)| ((), row)).reduce_named(&self.operator("TopK"), move |_, rows, output| {
            // A row that stands there more than once takes as many ranks.
            let each = rows.iter().flat_map(|((_, row), count)| std::iter::repeat_n(row, *count as usize));
            output.extend((1..).zip(each.take(k)).map(|(rank, row)| (finish(rank, row), 1_isize)));
        });
        self.with(ranked.map(|((), row)| row))
    }

    /// The first `k` rows of each part.
    fn first<O>(
        &self,
        k: usize,
        rows: VecCollection<'s, Epoch, (u64, (O, R))>,
    ) -> VecCollection<'s, Epoch, (u64, (O, R))>
    where
        R: ExchangeData,
        O: ExchangeData,
    {
        rows.reduce_named(&self.operator("TopKPart"), move |_, rows, output| {
            let mut left = k as isize;
            for (row, count) in rows {
                if left <= 0 {
                    break;
                }
                output.push(((*row).clone(), left.min(*count)));
                left -= count;
            }
        })
    }
}

fn part_of<R: Hashable>(row: &R) -> u64 {
    row.hashed().into()
}
