//! `gold.top_selling_items`: the ten items that brought the most.
//!
//! ```sql
//! SELECT item_id, item_name, item_category, sum(coalesce(total_price, 0)) AS total_revenue,
//!        row_number() OVER (ORDER BY total_revenue DESC, item_id) AS rank
//! FROM silver.purchases_enriched WHERE item_id IS NOT NULL GROUP BY item_id ORDER BY rank LIMIT 10
//! ```

use super::purchases_enriched::total_price;
use super::{ItemLabels, Purchase, label};
use crate::table_row;
use crate::view::{Decimal, Text, View};
use std::cmp::Reverse;

/// Items in the view.
const ITEMS: usize = 10;

table_row! {
    /// A row of `gold.top_selling_items`.
    pub struct TopSellingItem("gold.top_selling_items", key: rank) {
        /// The item.
        pub item_id: i64,
        /// Its name, where it is known.
        pub item_name: Option<Text>,
        /// Its category.
        pub item_category: Option<Text>,
        /// What its purchases came to.
        pub total_revenue: Decimal<24, 2>,
        /// Its place, from 1.
        pub rank: i32,
    }
}

pub(super) fn top_selling_items<'s>(live: &View<'s, Purchase>, labels: &ItemLabels<'s>) -> View<'s, TopSellingItem> {
    live.clone()
        .named("gold.top_selling_items")
        .flat_map(|purchase| Some((purchase.item_id?, total_price(&purchase).map_or(0, Decimal::unscaled))))
        .group(|(item, _)| *item, |(_, cents)| [*cents], |item, sums| (*item, sums.of[0]))
        .top_k(ITEMS, |(item, cents)| (Reverse(*cents), *item), |rank, (item, cents)| (rank, *item, *cents))
        .left_join(
            |(_, item, _)| Some(*item),
            labels,
            |(rank, item_id, cents), item| {
                let (item_name, item_category) = label(item);
                let total_revenue = revenue(*cents);
                TopSellingItem { item_id: *item_id, item_name, item_category, total_revenue, rank: *rank }
            },
        )
}

/// A sum of total prices.
pub(super) fn revenue(cents: i128) -> Decimal<24, 2> {
    Decimal::new(cents).expect("fewer than 10^10 purchases of less than 10^14 cents each")
}
