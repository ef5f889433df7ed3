//! What the net changes of a table on one worker are to its files: rows that come, and places of rows that go.

use super::index::IndexEntry;
use crate::job::Stateful;
use dataflow_core::{Error, Result, Row, RowLocation, TableSchema};
use dataflow_state::table::{KeyedTable, Slot, StateValue};

/// Keys looked up or changed in the index at a time.
pub(super) const INDEX_BATCH: usize = 4_096;

/// The net changes of a key of an index.
pub(super) type KeyChanges = (Vec<u8>, Vec<(Row, isize)>);

/// What changes in a table, in any order.
#[derive(Default)]
pub(super) struct Changed {
    /// Places of the rows that go.
    pub(super) deleted: Vec<RowLocation>,
    /// Rows that come, with their index keys (empty without an index).
    pub(super) added: Vec<(Row, Vec<u8>)>,
}

/// Adds the rows that a table which only grows gets. The index does not know them.
pub(super) fn append(name: &str, changes: Vec<KeyChanges>, into: &mut Changed) -> Result<()> {
    for (row, diff) in changes.into_iter().flat_map(|(_, changes)| changes) {
        let Ok(times) = usize::try_from(diff) else {
            return Err(Error::user(format!("append to table '{name}': the row {row:?} goes"))
                .hint("the view takes rows back; write it with 'write_table'"));
        };
        into.added.extend(std::iter::repeat_n((row, Vec::new()), times));
    }
    Ok(())
}

/// Adds what changes of a table with an index, and has the index forget the rows that go.
pub(super) fn look_up(
    index: &mut Stateful<IndexEntry>,
    (name, schema): &(String, TableSchema),
    changes: Vec<KeyChanges>,
    into: &mut Changed,
) -> Result<()> {
    let doubt = |what: &str, row: &Row| {
        Error::doubt(format!("writing table '{name}': the row of key {:?} {what}", schema.key_of(row)))
            .hint("the view has two rows of one key, or was changed; give it another key, or write a new table")
    };
    visit(index, changes, |table, slot, key, changes| {
        let (gone, come): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, diff)| *diff < 0);
        let mut left = table.get(slot).0.len();
        for (row, diff) in gone {
            let fewer = left.checked_sub(diff.unsigned_abs());
            left = fewer.ok_or_else(|| doubt("goes, and the index does not know it", &row))?;
            into.deleted.extend(table.get_mut(slot).0.drain(left..));
        }
        let coming: usize = come.iter().map(|(_, diff)| diff.unsigned_abs()).sum();
        if let Some((row, _)) = come.last().filter(|_| !schema.key.is_empty() && left + coming > 1) {
            return Err(doubt("comes, and there is one already", row));
        }
        for (row, diff) in come {
            into.added.extend(std::iter::repeat_n((row, key.clone()), diff.unsigned_abs()));
        }
        Ok(())
    })
}

/// Says where rows are that have come, after those of their keys that stay.
pub(super) fn place(index: &mut Stateful<IndexEntry>, rows: Vec<(Vec<u8>, RowLocation)>) -> Result<()> {
    visit(index, rows, |table, slot, _, place| {
        table.get_mut(slot).0.push(place);
        Ok(())
    })
}

/// Takes keys out of the index.
pub(super) fn forget(index: &mut Stateful<IndexEntry>, keys: Vec<Vec<u8>>) -> Result<()> {
    visit(index, keys.into_iter().map(|key| (key, ())), |table, slot, _, ()| {
        table.get_mut(slot).0.clear();
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
