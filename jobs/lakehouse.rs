//! The lakehouse: the shop's database and its pageviews as silver and gold tables, always current.
//!
//! ```text
//!  dbz.public.users, items, purchases ─► whole transactions ─► current rows ─┐
//!  pageviews ─► parse ─► all pageviews ──────────────────────────────────────┼─► silver and gold views ─► Iceberg tables,
//!      │          └ no pageview ─► bronze.pageviews_dlq                        │                            one snapshot a commit
//!      │                                                                       └ as a day closes ─► segmented_users_<date>.csv, mail
//!      └ can not be read ─► bronze.dead_letters; all that can, as it came ─► bronze.users, items, purchases, pageviews
//! ```
//!
//! What each view computes is in its own header (`operators/src/view/shop`). All tables are committed at the same epochs.

use dataflow::prelude::*;
use shop::pageview::{Line, dead_pageviews, parse};

static JOB: JobFile = JobFile { name: "lakehouse", source: include_str!("lakehouse.rs"), build };

fn main() {
    dataflow::main(&JOB)
}

fn build(job: &mut Job) -> Result<()> {
    let mut users = job.read_table::<shop::User>("dbz.public.users")?;
    let mut items = job.read_table::<shop::Item>("dbz.public.items")?;
    let mut purchases = job.read_table::<shop::Purchase>("dbz.public.purchases")?;
    let pageviews = job.read_facts("pageviews", |line| match parse(line) {
        Line::Pageview(pageview) => Ok(Some(pageview)),
        Line::Blank => Ok(None),
        Line::Defective(line) => Err(line),
    })?;

    let transactions = TransactionSettings {
        max_records: job.param("transaction_max_records")?,
        on_large: job.param("transaction_on_large")?,
    };
    job.whole_transactions("dbz.transaction", transactions, &mut [&mut users, &mut items, &mut purchases])?;

    let clock = job.clock();
    job.append_changes("bronze.users", &users, &clock)?;
    job.append_changes("bronze.items", &items, &clock)?;
    job.append_changes("bronze.purchases", &purchases, &clock)?;
    job.append_facts("bronze.pageviews", &pageviews, &clock)?;
    let (dead, no_pageviews) = (job.dead_letters(&clock), dead_pageviews(&pageviews.refused, &clock));
    let views = shop::shop_views(&shop::ShopTables {
        users: job.current(users)?,
        items: job.current(items)?,
        purchases: job.current(purchases)?,
        pageviews: job.all(pageviews)?,
        clock,
    });

    job.count_rows("totals_that_do_not_fit", views.totals_that_do_not_fit);
    job.append_table(dead)?;
    job.append_table(no_pageviews)?;
    job.write_table(views.users)?;
    job.write_table(views.items)?;
    job.write_table(views.purchases_enriched)?;
    job.write_table(views.pageviews_by_items)?;
    job.write_table(views.top_selling_items)?;
    job.write_table(views.sales_performance_24h)?;
    job.write_table(views.top_converting_items)?;
    job.write_table(views.pageviews_by_channel)?;
    job.write_table(views.user_engagement_segments)?;
    let by_segment = CountedBy { column: "engagement_segment", values: &shop::ENGAGEMENT_SEGMENTS };
    job.write_daily_csv::<shop::UserEngagement>("segmented_users", views.closed_days, by_segment)
}
