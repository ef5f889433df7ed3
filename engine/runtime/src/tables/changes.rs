//! What the net changes of a table on one worker are to its files: rows that come, and places of rows that go.

use super::index::{IndexEntry, index_key};
use crate::job::Stateful;
use dataflow_core::{Error, Result, Row, RowLocation, TableChanges, TableSchema};
use dataflow_state::table::{KeyedTable, Slot, StateValue};
use std::collections::BTreeMap;

/// Keys looked up or changed in the index at a time.
pub(super) const INDEX_BATCH: usize = 4_096;

/// The rows that a table which only grows gets, in their order. The index does not know them.
pub(super) fn appended(name: &str, net: Vec<(Row, isize)>) -> Result<TableChanges> {
    let mut added = Vec::new();
    for (row, diff) in net {
        let Ok(times) = usize::try_from(diff) else {
            return Err(Error::user(format!("append to table '{name}': the row {row:?} goes"))
                .hint("the view takes rows back; write it with 'write_table'"));
        };
        added.extend(std::iter::repeat_n(row, times));
    }
    Ok(TableChanges { deleted: Vec::new(), added })
}

/// What the net changes of a table, in the order of their rows, are to its files; with the index keys of the added rows.
pub(super) fn upserted(
    index: &mut Stateful<IndexEntry>,
    (name, schema): &(String, TableSchema),
    net: Vec<(Row, isize)>,
    kept: &mut BTreeMap<Vec<u8>, Vec<RowLocation>>,
) -> Result<(TableChanges, Vec<Vec<u8>>)> {
    let doubt = |what: &str, row: &Row| {
        Error::doubt(format!("writing table '{name}': the row of key {:?} {what}", schema.key_of(row)))
            .hint("the view has two rows of one key, or was changed; give it another key, or write a new table")
    };
    let mut by_key: BTreeMap<Vec<u8>, Vec<(Row, isize)>> = BTreeMap::new();
    for (row, diff) in net {
        by_key.entry(index_key(name, &schema.key_of(&row))).or_default().push((row, diff));
    }
    let (mut deleted, mut added) = (Vec::new(), Vec::new());
    visit(index, by_key, |table, slot, key, changes| {
        let mut places = table.get(slot).0.clone();
        let (gone, come): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, diff)| *diff < 0);
        for (row, diff) in gone {
            let left = places.len().checked_sub(diff.unsigned_abs());
            let left = left.ok_or_else(|| doubt("goes, and the index does not know it", &row))?;
            deleted.extend(places.drain(left..));
        }
        let coming: usize = come.iter().map(|(_, diff)| diff.unsigned_abs()).sum();
        if let Some((row, _)) = come.last().filter(|_| !schema.key.is_empty() && places.len() + coming > 1) {
            return Err(doubt("comes, and there is one already", row));
        }
        for (row, diff) in come {
            added.extend(std::iter::repeat_n((row, key.clone()), diff.unsigned_abs()));
        }
        kept.insert(key, places);
        Ok(())
    })?;
    deleted.sort_unstable();
    // In the order of the table's columns, so that files are clustered by what usually comes first: the key.
    added.sort_unstable();
    let (added, keys) = added.into_iter().unzip();
    Ok((TableChanges { deleted, added }, keys))
}

/// Says where the rows of keys are from now on.
pub(super) fn place(index: &mut Stateful<IndexEntry>, places: BTreeMap<Vec<u8>, Vec<RowLocation>>) -> Result<()> {
    visit(index, places, |table, slot, _, places| {
        table.get_mut(slot).0 = places;
        Ok(())
    })
}

/// Looks keys up, some at a time, and calls `each` with the slot of every one and with what comes with it.
pub(super) fn visit<V: StateValue, T>(
    state: &mut Stateful<V>,
    items: impl IntoIterator<Item = (Vec<u8>, T)>,
    mut each: impl FnMut(&mut KeyedTable<V>, Slot, Vec<u8>, T) -> Result<()>,
) -> Result<()> {
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let batch: Vec<_> = items.by_ref().take(INDEX_BATCH).collect();
        let keys: Vec<&[u8]> = batch.iter().map(|(key, _)| key.as_slice()).collect();
        let slots = state.table.load(&keys)?;
        for (slot, (key, item)) in slots.into_iter().zip(batch) {
            each(&mut state.table, slot, key, item)?;
        }
        state.table.end_epoch(None)?;
    }
    Ok(())
}
