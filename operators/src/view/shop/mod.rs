//! The shop's views: silver and gold (SEMANTICS "Silver", "Gold"), one file each, with what it means in SQL.
//!
//! ```text
//!  users ─────┬─► users
//!             ├── email by id ─────────┐
//!             └── valid ones ──────────┼──────────────────────────────► user_engagement_segments ◄── clock
//!  items ─────┬─► items                │                                    ▲
//!             └── label by id ─────────┼──────┬───────────┬──────────┐      │ stats by user
//!  purchases ──► not deleted, totals ──┴─► purchases_enriched        │      │
//!                       │  ├────────────────► top_selling_items      │      │
//!                       │  ├────────────────► sales_performance_24h ◄──── clock
//!                       │  └────────────────► top_converting_items ◄─┤      │
//!  pageviews ──► with an item's url ──────────────► ▲                │      │
//!                       ├──────────────────► pageviews_by_items ◄────┘      │
//!                       ├──────────────────► pageviews_by_channel           │
//!                       └───────────────────────────────────────────────────┘
//! ```
//!
//! The label index is held once for four views. Views that add up read the narrow columns they need from the filtered tables, and not the
//! enriched views, whose other columns would change them for nothing.

mod items;
pub mod pageview;
mod pageviews_by_channel;
mod pageviews_by_items;
mod purchases_enriched;
mod sales_performance_24h;
mod tables;
mod top_converting_items;
mod top_selling_items;
mod user_engagement_segments;
mod users;

pub use items::SilverItem;
pub use pageviews_by_channel::PageviewsByChannel;
pub use pageviews_by_items::PageviewByItem;
pub use purchases_enriched::PurchaseEnriched;
pub use sales_performance_24h::SalesByHour;
pub use tables::{Item, Pageview, Purchase, User};
pub use top_converting_items::TopConvertingItem;
pub use top_selling_items::TopSellingItem;
pub use user_engagement_segments::{ENGAGEMENT_SEGMENTS, UserEngagement};
pub use users::SilverUser;

use super::{ClosedDay, EpochClock, Index, Text, View};
use dataflow_core::Epoch;
use timely::dataflow::StreamVec;

/// The tables as they are at each epoch: current rows, and all pageviews so far.
pub struct ShopTables<'s> {
    /// `oneshop.users`.
    pub users: View<'s, User>,
    /// `oneshop.items`.
    pub items: View<'s, Item>,
    /// `oneshop.purchases`.
    pub purchases: View<'s, Purchase>,
    /// The valid pageviews, each as often as it came.
    pub pageviews: View<'s, Pageview>,
    /// The clock of each epoch.
    pub clock: EpochClock<'s>,
}

/// All views of the shop.
pub struct ShopViews<'s> {
    /// `silver.users`.
    pub users: View<'s, SilverUser>,
    /// `silver.items`.
    pub items: View<'s, SilverItem>,
    /// `silver.purchases_enriched`.
    pub purchases_enriched: View<'s, PurchaseEnriched>,
    /// `silver.pageviews_by_items`.
    pub pageviews_by_items: View<'s, PageviewByItem>,
    /// `gold.top_selling_items`.
    pub top_selling_items: View<'s, TopSellingItem>,
    /// `gold.sales_performance_24h`.
    pub sales_performance_24h: View<'s, SalesByHour>,
    /// `gold.top_converting_items`.
    pub top_converting_items: View<'s, TopConvertingItem>,
    /// `gold.pageviews_by_channel`.
    pub pageviews_by_channel: View<'s, PageviewsByChannel>,
    /// `gold.user_engagement_segments`, the rows of all its dates.
    pub user_engagement_segments: View<'s, UserEngagement>,
    /// The rows of each date of `gold.user_engagement_segments` as it closes.
    pub closed_days: StreamVec<'s, Epoch, ClosedDay>,
    /// The ids of the purchases whose total price is null because it does not fit its column, for a count of them.
    pub totals_that_do_not_fit: View<'s, i32>,
}

/// What the views show of an item, as it came: (name, category).
type ItemLabel = (Option<Text>, Option<Text>);

/// Item labels by the item's id.
type ItemLabels<'s> = Index<'s, i64, ItemLabel>;

/// Name and category of an item that may be unknown.
fn label(item: Option<&ItemLabel>) -> ItemLabel {
    item.cloned().unwrap_or_default()
}

/// Builds all views over `tables`.
pub fn shop_views<'s>(tables: &ShopTables<'s>) -> ShopViews<'s> {
    let labels: ItemLabels<'s> = tables.items.index(|item| (item.id.into(), (Some(item.name), item.category)));
    let purchases = purchases_enriched::live_purchases(&tables.purchases);
    let views = pageviews_by_items::item_views(&tables.pageviews);
    let segments = user_engagement_segments::user_engagement_segments(&tables.users, &views, &tables.clock);
    ShopViews {
        users: users::users(&tables.users),
        items: items::items(&tables.items),
        purchases_enriched: purchases_enriched::purchases_enriched(&purchases, &tables.users, &labels),
        pageviews_by_items: pageviews_by_items::pageviews_by_items(&views, &labels),
        top_selling_items: top_selling_items::top_selling_items(&purchases, &labels),
        sales_performance_24h: sales_performance_24h::sales_performance_24h(&purchases, &tables.clock),
        top_converting_items: top_converting_items::top_converting_items(&views, &purchases, &labels),
        pageviews_by_channel: pageviews_by_channel::pageviews_by_channel(&views),
        user_engagement_segments: segments.rows,
        closed_days: segments.closed,
        totals_that_do_not_fit: purchases_enriched::totals_that_do_not_fit(&purchases),
    }
}
