//! The rows of small tables as a writer knows them, for whoever watches. What grows beyond a bound is not kept, nor ever again.

use super::writer::Keyed;
use crate::measures::tables::{SHOWN_ROWS_MAX, SmallTable, Tables};
use dataflow_core::Epoch;
use std::collections::BTreeMap;

/// By the tables' ranks.
pub(super) struct Shown {
    tables: Vec<SmallTable>,
}

impl Shown {
    /// Keeps rows of so many tables if someone watches.
    pub(super) fn new(tables: usize, measures: &Tables) -> Shown {
        Shown { tables: vec![measures.is_watched().then(BTreeMap::new); tables] }
    }

    /// A row comes or goes.
    pub(super) fn change(&mut self, (table, row, _, diff): &Keyed) {
        let small = &mut self.tables[usize::from(*table)];
        let Some(rows) = small else { return };
        let count = rows.entry(row.clone()).or_insert(0);
        *count += diff;
        if *count == 0 {
            rows.remove(row);
        }
        // Within an epoch a row may come before another goes.
        if rows.len() > 2 * SHOWN_ROWS_MAX {
            *small = None;
        }
    }

    /// Says the rows as of a checkpoint.
    pub(super) fn cut<'n>(
        &self,
        measures: &Tables,
        names: impl Iterator<Item = &'n String>,
        worker: usize,
        epoch: Epoch,
    ) {
        if measures.is_watched() {
            names.zip(&self.tables).for_each(|(name, rows)| measures.cut(name, worker, epoch, rows.clone()));
        }
    }
}
