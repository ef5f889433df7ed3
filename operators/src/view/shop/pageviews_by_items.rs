//! `silver.pageviews_by_items`: views of pages about an item.
//!
//! ```sql
//! SELECT v.user_id, cast(regexp_extract(v.url, '^/([^/]+)/(\d+)$', 2) AS bigint) AS item_id,
//!        regexp_extract(v.url, '^/([^/]+)/(\d+)$', 1) AS page,
//!        i.name AS item_name, i.category AS item_category, v.channel, v.received_at
//! FROM pageviews v LEFT JOIN items i ON i.id = item_id
//! WHERE regexp_like(v.url, '^/([^/]+)/(\d+)$') AND item_id < 2^63
//! ```
//!
//! A multiset: it has no key, equal rows each count.

use super::{ItemLabels, Pageview, label};
use crate::table_row;
use crate::view::{Text, View};
use dataflow_core::Micros;
use serde::{Deserialize, Serialize};

table_row! {
    /// A row of `silver.pageviews_by_items`.
    pub struct PageviewByItem("silver.pageviews_by_items") {
        /// Who looked.
        pub user_id: i64,
        /// At what item.
        pub item_id: i64,
        /// On which kind of page.
        pub page: Text,
        /// The item's name as it is now.
        pub item_name: Option<Text>,
        /// The item's category as it came last.
        pub item_category: Option<Text>,
        /// What brought the user.
        pub channel: Option<Text>,
        /// When.
        pub received_at: Micros,
    }
}

/// A view of a page about an item, before the item's label is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct ItemView {
    pub(super) user_id: i64,
    pub(super) item_id: i64,
    pub(super) page: Text,
    pub(super) channel: Option<Text>,
    pub(super) received_at: Micros,
}

/// The pageviews of pages about an item. All views of pageviews are made of these.
pub(super) fn item_views<'s>(pageviews: &View<'s, Pageview>) -> View<'s, ItemView> {
    pageviews.flat_map(|view| {
        let (page, item_id) = page_and_item(&view.url)?;
        let page = page.into();
        Some(ItemView { user_id: view.user_id, item_id, page, channel: view.channel, received_at: view.received_at })
    })
}

pub(super) fn pageviews_by_items<'s>(views: &View<'s, ItemView>, labels: &ItemLabels<'s>) -> View<'s, PageviewByItem> {
    views.clone().named("silver.pageviews_by_items").left_join(
        |view| Some(view.item_id),
        labels,
        |view, item| {
            let (item_name, item_category) = label(item);
            PageviewByItem {
                user_id: view.user_id,
                item_id: view.item_id,
                page: view.page.clone(),
                item_name,
                item_category,
                channel: view.channel.clone(),
                received_at: view.received_at,
            }
        },
    )
}

/// Page and item of a url that is `/([^/]+)/(\d+)` as a whole, its number below 2^63.
fn page_and_item(url: &str) -> Option<(&str, i64)> {
    let (page, number) = url.strip_prefix('/')?.split_once('/')?;
    // `parse` alone would take a sign.
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if page.is_empty() || !is_number { None } else { Some((page, number.parse().ok()?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, expected) in [
            ("/products/42", Some(("products", 42))),
            ("/p\n?/007", Some(("p\n?", 7))),
            ("/x/000000000000000000000000000000009223372036854775807", Some(("x", i64::MAX))),
            ("/x/9223372036854775808", None),
            ("/x/+1", None),
            ("/x/-1", None),
            ("/x/1 ", None),
            ("/x/1\n", None),
            ("/x/1/", None),
            ("/x/y/1", None),
            ("//1", None),
            ("/x/", None),
            ("/x", None),
            ("x/1", None),
            ("/x/٣", None),
            ("", None),
        ] {
            assert_eq!(page_and_item(url), expected, "{url:?}");
        }
    }
}
