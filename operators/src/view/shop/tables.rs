//! The rows that the shop's tables hold (SEMANTICS "Sources").
//!
//! Columns that a view has no use for are left out: a table is matched by column name.

use crate::table_row;
use crate::view::{Decimal, Text};
use dataflow_core::Micros;

table_row! {
    /// A row of `oneshop.users`.
    pub struct User("users", key: id) {
        /// Its number.
        pub id: i32,
        /// First name.
        pub first_name: Option<Text>,
        /// Last name.
        pub last_name: Option<Text>,
        /// E-mail address, as it came.
        pub email: Option<Text>,
        /// When the row was made.
        pub created_at: Option<Micros>,
        /// When it was last changed.
        pub updated_at: Option<Micros>,
    }
}

table_row! {
    /// A row of `oneshop.items`.
    pub struct Item("items", key: id) {
        /// Its number.
        pub id: i32,
        /// Name.
        pub name: Text,
        /// Category, as it came.
        pub category: Option<Text>,
        /// Price, as it came.
        pub price: Option<Decimal<10, 2>>,
        /// Pieces in stock.
        pub inventory: Option<i32>,
        /// When the row was made.
        pub created_at: Option<Micros>,
        /// When it was last changed.
        pub updated_at: Option<Micros>,
    }
}

table_row! {
    /// A row of `oneshop.purchases`, without its campaign and status.
    pub struct Purchase("purchases", key: id) {
        /// Its number.
        pub id: i32,
        /// Who bought.
        pub user_id: Option<i64>,
        /// What was bought.
        pub item_id: Option<i64>,
        /// How many pieces.
        pub quantity: Option<i32>,
        /// Price of one piece.
        pub purchase_price: Option<Decimal<12, 2>>,
        /// Whether it was taken back; null is false.
        pub deleted: Option<bool>,
        /// When it was bought.
        pub created_at: Option<Micros>,
        /// When the row was last changed.
        pub updated_at: Option<Micros>,
    }
}

table_row! {
    /// A valid pageview.
    pub struct Pageview("pageviews") {
        /// Who looked.
        pub user_id: i64,
        /// The path that was looked at, as it came.
        pub url: Text,
        /// What brought the user; any text.
        pub channel: Option<Text>,
        /// When, in whole seconds.
        pub received_at: Micros,
    }
}
