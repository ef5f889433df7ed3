//! `gold.top_converting_items`: the ten items whose pageviews led to the most purchases each.
//!
//! ```sql
//! WITH views AS (SELECT user_id, item_id, date(received_at) AS date FROM silver.pageviews_by_items),
//!      bought AS (SELECT id, user_id, item_id FROM silver.purchases_enriched
//!                 WHERE (user_id, item_id, purchase_date) IN (SELECT user_id, item_id, date FROM views))
//! SELECT item_id, item_name, item_category,
//!        (SELECT count(DISTINCT user_id) FROM views v WHERE v.item_id = item_id) AS unique_pageview_users,
//!        (SELECT count(DISTINCT user_id) FROM bought b WHERE b.item_id = item_id) AS unique_purchase_users,
//!        (SELECT count(*) FROM bought b WHERE b.item_id = item_id) AS total_purchases,
//!        (SELECT count(*) FROM views v WHERE v.item_id = item_id) AS total_pageviews,
//!        total_purchases / cast(total_pageviews AS double) AS conversion_rate
//! FROM (SELECT DISTINCT item_id FROM views) LEFT JOIN items ON items.id = item_id
//! ORDER BY conversion_rate DESC, total_purchases DESC, item_id LIMIT 10
//! ```
//!
//! The four counts of an item are one sum each in one arrangement:
//!
//! ```text
//!  views ─────────┬──────────────────────► (item, viewed) ──────┐
//!                 └► (user, item, date) distinct ──┬► (item, user) distinct ► (item, viewer) ──┤
//!                                                  ▼                                           ├─► group ─► top 10
//!  purchases ──────────────────────────────────► join ──┬──► (item, bought) ───────────────────┤
//!                                                       └──► (item, user) distinct ► (item, buyer) ┘
//! ```

use super::pageviews_by_items::ItemView;
use super::{ItemLabels, Purchase, label};
use crate::table_row;
use crate::view::{Date, Double, Sums, Text, View};
use dataflow_core::TotalF64;
use std::cmp::Reverse;

/// Items in the view.
const ITEMS: usize = 10;

table_row! {
    /// A row of `gold.top_converting_items`.
    pub struct TopConvertingItem("gold.top_converting_items", key: item_id) {
        /// The item.
        pub item_id: i64,
        /// Its name, where it is known.
        pub item_name: Option<Text>,
        /// Its category.
        pub item_category: Option<Text>,
        /// Users that viewed it.
        pub unique_pageview_users: i64,
        /// Users that bought it on a day on which they viewed it.
        pub unique_purchase_users: i64,
        /// Purchases on a day on which the buyer viewed it.
        pub total_purchases: i64,
        /// Its pageviews.
        pub total_pageviews: i64,
        /// Purchases for each pageview.
        pub conversion_rate: Double,
    }
}

/// What is counted of an item, in the order of its sums.
#[derive(Clone, Copy)]
enum Counted {
    Viewed,
    Viewer,
    Bought,
    Buyer,
}

impl Counted {
    fn one(self) -> [i128; 4] {
        let mut counts = [0; 4];
        counts[self as usize] = 1;
        counts
    }
}

/// The counts of an item: viewed, viewers, bought, buyers.
type Counts = (i64, [i64; 4]);

pub(super) fn top_converting_items<'s>(
    views: &View<'s, ItemView>,
    live: &View<'s, Purchase>,
    labels: &ItemLabels<'s>,
) -> View<'s, TopConvertingItem> {
    let views = views.clone().named("gold.top_converting_items");
    let viewed_days = views.map(|view| (view.user_id, view.item_id, Date::of(view.received_at))).distinct();
    let viewers = viewed_days.map(|(user, item, _)| (item, user)).distinct();
    let bought = live
        .clone()
        .named("gold.top_converting_items")
        .flat_map(|purchase| Some((purchase.user_id?, purchase.item_id?, Date::of(purchase.created_at?))))
        .join(|day| Some(*day), &viewed_days.index(|day| (day, ())), |(user, item, _), ()| (*item, *user));
    let buyers = bought.distinct();
    let count = |of: &View<'s, (i64, i64)>, counted: Counted| of.map(move |(item, _)| (item, counted));
    views
        .map(|view| (view.item_id, Counted::Viewed))
        .concat(&count(&viewers, Counted::Viewer))
        .concat(&count(&bought, Counted::Bought))
        .concat(&count(&buyers, Counted::Buyer))
        .group(
            |(item, _)| *item,
            |(_, counted)| counted.one(),
            |item, sums: Sums<4>| (*item, sums.of.map(|n| n as i64)),
        )
        .top_k(ITEMS, |counts| (Reverse(rate(counts)), Reverse(of(counts, Counted::Bought)), counts.0), |_, row| *row)
        .left_join(
            |(item, _)| Some(*item),
            labels,
            |counts, item| {
                let (item_name, item_category) = label(item);
                TopConvertingItem {
                    item_id: counts.0,
                    item_name,
                    item_category,
                    unique_pageview_users: of(counts, Counted::Viewer),
                    unique_purchase_users: of(counts, Counted::Buyer),
                    total_purchases: of(counts, Counted::Bought),
                    total_pageviews: of(counts, Counted::Viewed),
                    conversion_rate: rate(counts),
                }
            },
        )
}

fn of(counts: &Counts, counted: Counted) -> i64 {
    counts.1[counted as usize]
}

/// Never of no pageviews: what else is counted follows from one.
fn rate(counts: &Counts) -> Double {
    TotalF64(of(counts, Counted::Bought) as f64 / of(counts, Counted::Viewed) as f64)
}
