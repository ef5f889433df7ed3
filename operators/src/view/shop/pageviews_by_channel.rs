//! `gold.pageviews_by_channel`: how often each channel brought a user to an item.
//!
//! ```sql
//! SELECT channel, count(*) AS total_pageviews FROM silver.pageviews_by_items GROUP BY channel
//! ```
//!
//! Null is a channel like any other.

use super::pageviews_by_items::ItemView;
use crate::table_row;
use crate::view::{Text, View};

table_row! {
    /// A row of `gold.pageviews_by_channel`.
    pub struct PageviewsByChannel("gold.pageviews_by_channel", key: channel) {
        /// What brought the users.
        pub channel: Option<Text>,
        /// How often.
        pub total_pageviews: i64,
    }
}

pub(super) fn pageviews_by_channel<'s>(views: &View<'s, ItemView>) -> View<'s, PageviewsByChannel> {
    views.clone().named("gold.pageviews_by_channel").group(
        |view| view.channel.clone(),
        |_| [],
        |channel, sums| PageviewsByChannel { channel: channel.clone(), total_pageviews: sums.rows },
    )
}
