//! What leaves a view: the net changes of each epoch, as one sorted batch.

use super::epochs::gather;
use super::{TableRow, View};
use dataflow_core::{Epoch, Row, TableSchema};
use differential_dataflow::consolidation::consolidate;
use std::cmp::Ordering;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;

impl<'s, R: Clone + 'static> View<'s, R> {
    /// Each epoch's net changes on worker 0, one batch for an epoch that has any, once it is closed. They stand by key, and a key's row
    /// that goes stands before the one that comes. The same for any number of workers.
    pub fn changes(&self) -> StreamVec<'s, Epoch, (Row, isize)>
    where
        R: TableRow,
    {
        let rows = self.rows.clone().inner.map(|(row, epoch, diff)| (epoch, (row.into_row(), diff)));
        let schema = R::schema();
        gather(rows, &self.operator("Changes"), move |mut changes| {
            consolidate(&mut changes);
            changes.sort_by(|(a, a_diff), (b, b_diff)| {
                by_key(&schema, a, b)
                    .then_with(|| a_diff.is_positive().cmp(&b_diff.is_positive()))
                    .then_with(|| a.cmp(b))
            });
            changes
        })
    }
}

/// The order of two rows by their table's key; a table without one has the whole row.
pub(super) fn by_key(schema: &TableSchema, a: &Row, b: &Row) -> Ordering {
    match &*schema.key {
        [] => a.cmp(b),
        key => key.iter().map(|at| a.get(*at).cmp(b.get(*at))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal),
    }
}
