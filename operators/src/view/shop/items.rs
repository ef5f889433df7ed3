//! `silver.items`: items with their category in upper case and no negative price.
//!
//! ```sql
//! SELECT id, name, upper(category) AS category, greatest(price, 0) AS price, inventory, created_at, updated_at
//! FROM items
//! ```
//!
//! Upper case is Unicode's full mapping, so it may lengthen a text. A null price stays null.

use super::Item;
use crate::table_row;
use crate::view::{Decimal, Text, View};
use dataflow_core::Micros;

table_row! {
    /// A row of `silver.items`.
    pub struct SilverItem("silver.items", key: id) {
        /// Its number.
        pub id: i32,
        /// Name.
        pub name: Text,
        /// Category in upper case.
        pub category: Option<Text>,
        /// Price, not below 0.
        pub price: Option<Decimal<10, 2>>,
        /// Pieces in stock.
        pub inventory: Option<i32>,
        /// When the row was made.
        pub created_at: Option<Micros>,
        /// When it was last changed.
        pub updated_at: Option<Micros>,
    }
}

pub(super) fn items<'s>(items: &View<'s, Item>) -> View<'s, SilverItem> {
    items.map(SilverItem::from).named("silver.items")
}

impl From<Item> for SilverItem {
    fn from(item: Item) -> SilverItem {
        SilverItem {
            id: item.id,
            name: item.name,
            category: item.category.map(|category| category.to_uppercase().into()),
            price: item.price.and_then(|price| Decimal::new(price.unscaled().max(0))),
            inventory: item.inventory,
            created_at: item.created_at,
            updated_at: item.updated_at,
        }
    }
}
