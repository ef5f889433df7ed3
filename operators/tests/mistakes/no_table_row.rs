//! Rows that no table has, on their way to one.
//! says: `String` is not a row of a table
//! says: not a table row
//! says: declare the struct with `table_row!`, and map the view to it before it goes to a table

use dataflow_operators::view::View;

/// How words go to a table.
pub fn to_table(words: View<'_, String>) {
    words.changes();
}
