//! `gold.sales_performance_24h`: what the last 24 hours brought, by hour of day.
//!
//! ```sql
//! SELECT purchase_hour, sum(coalesce(total_price, 0)) AS total_revenue
//! FROM silver.purchases_enriched WHERE clock - INTERVAL '24' HOUR < created_at AND created_at <= clock
//! GROUP BY purchase_hour
//! ```

use super::Purchase;
use super::purchases_enriched::total_price;
use super::top_selling_items::revenue;
use crate::table_row;
use crate::view::{Decimal, EpochClock, View, hour_of};
use dataflow_core::time::DAY;

table_row! {
    /// A row of `gold.sales_performance_24h`.
    pub struct SalesByHour("gold.sales_performance_24h", key: purchase_hour) {
        /// Hour of day, 0 to 23.
        pub purchase_hour: i32,
        /// What its purchases came to.
        pub total_revenue: Decimal<24, 2>,
    }
}

pub(super) fn sales_performance_24h<'s>(live: &View<'s, Purchase>, clock: &EpochClock<'s>) -> View<'s, SalesByHour> {
    live.clone()
        .named("gold.sales_performance_24h")
        .within_last(DAY, clock, |purchase| {
            let bought = purchase.created_at?;
            Some((bought, (hour_of(bought), total_price(&purchase).map_or(0, Decimal::unscaled))))
        })
        .group(
            |(hour, _)| *hour,
            |(_, cents)| [*cents],
            |hour, sums| SalesByHour { purchase_hour: *hour, total_revenue: revenue(sums.of[0]) },
        )
}
