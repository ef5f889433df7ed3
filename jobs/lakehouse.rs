//! The lakehouse: the shop's database and its pageviews as silver and gold tables, always current.
//!
//! ```text
//!  dbz.public.users, items, purchases ─► current rows ─┐
//!  pageviews ─► parse ─► all pageviews ────────────────┼─► silver and gold views ─► Iceberg tables, one snapshot a commit
//!      │          └ no pageview ─► bronze.pageviews_dlq ┘
//!      └ can not be read ─► bronze.dead_letters
//! ```
//!
//! What each view computes is in its own header (`operators/src/view/shop`). All tables are committed at the same epochs.

use dataflow::prelude::*;
use shop::pageview::{Line, dead_pageviews, parse};

static JOB: JobFile = JobFile { name: "lakehouse", source: include_str!("lakehouse.rs"), build };

fn main() -> ExitCode {
    dataflow::main(&JOB)
}

fn build(job: &mut Job) -> Result<()> {
    let users = job.read_table::<shop::User>("dbz.public.users")?;
    let items = job.read_table::<shop::Item>("dbz.public.items")?;
    let purchases = job.read_table::<shop::Purchase>("dbz.public.purchases")?;
    let pageviews = job.read_facts("pageviews", |line| match parse(line) {
        Line::Pageview(pageview) => Ok(Some(pageview)),
        Line::Blank => Ok(None),
        Line::Defective(line) => Err(line),
    })?;

    let clock = job.clock();
    let (dead, no_pageviews) = (job.dead_letters(&clock), dead_pageviews(&pageviews.refused, &clock));
    let views = shop::shop_views(&shop::ShopTables {
        users: job.current(users)?,
        items: job.current(items)?,
        purchases: job.current(purchases)?,
        pageviews: job.all(pageviews)?,
        clock,
    });

    job.write_table(dead)?;
    job.write_table(no_pageviews)?;
    job.write_table(views.users)?;
    job.write_table(views.items)?;
    job.write_table(views.purchases_enriched)?;
    job.write_table(views.pageviews_by_items)?;
    job.write_table(views.top_selling_items)?;
    job.write_table(views.sales_performance_24h)?;
    job.write_table(views.top_converting_items)?;
    job.write_table(views.pageviews_by_channel)?;
    job.write_table(views.user_engagement_segments)
}
