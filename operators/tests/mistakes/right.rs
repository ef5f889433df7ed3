//! No mistake: what the other programs are but for one.

use dataflow_operators::table_row;
use dataflow_operators::view::{Index, Text, View};

table_row! {
    /// A product and what it is called.
    pub struct Product("products", key: id) {
        /// Its number.
        pub id: i32,
        /// Its name.
        pub name: Option<Text>,
    }
}

/// Products by the names that are known.
pub fn products<'s>(ids: &View<'s, i32>, names: &Index<'s, i32, Text>) -> View<'s, Product> {
    ids.left_join(|id| Some(*id), names, |id, name| Product { id: *id, name: name.cloned() })
}

/// How they go to a table.
pub fn to_table(products: View<'_, Product>) {
    products.changes();
}
