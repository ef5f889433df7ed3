//! `gold.user_engagement_segments`: how engaged each user with a valid address is, one partition a day.
//!
//! ```sql
//! SELECT u.id AS user_id, u.email, u.full_name, count(v.user_id) AS total_pageviews,
//!        count(DISTINCT date(v.received_at)) AS active_days, max(date(v.received_at)) AS last_active_date,
//!        segment_date - last_active_date AS days_since_last_active,
//!        CASE WHEN total_pageviews >= 50 AND days_since_last_active <= 3 THEN 'high_engagement'
//!             WHEN total_pageviews BETWEEN 10 AND 49 AND days_since_last_active <= 7 THEN 'medium_engagement'
//!             ELSE 'low_engagement' END AS engagement_segment,
//!        date(clock) AS segment_date
//! FROM silver.users u LEFT JOIN silver.pageviews_by_items v ON v.user_id = u.id WHERE u.valid_email GROUP BY u.id
//! ```
//!
//! The newest date follows every change, an older one stands as at its last epoch.

use super::User;
use super::pageviews_by_items::ItemView;
use super::users::{full_name, is_email};
use crate::table_row;
use crate::view::{DailySnapshot, Date, EpochClock, Text, View};
use serde::{Deserialize, Serialize};

table_row! {
    /// A row of `gold.user_engagement_segments`.
    pub struct UserEngagement("gold.user_engagement_segments", key: segment_date, user_id) {
        /// The user.
        pub user_id: i32,
        /// Address.
        pub email: Text,
        /// Name.
        pub full_name: Text,
        /// Pageviews of items, ever.
        pub total_pageviews: i64,
        /// Days with one.
        pub active_days: i64,
        /// The newest such day.
        pub last_active_date: Option<Date>,
        /// Days from it to the segment's date; below 0 for a pageview of the future.
        pub days_since_last_active: Option<i32>,
        /// One of [`ENGAGEMENT_SEGMENTS`].
        pub engagement_segment: Text,
        /// The day for which all this was said.
        pub segment_date: Date,
    }
}

/// The values of `engagement_segment`.
pub const ENGAGEMENT_SEGMENTS: [&str; 3] = [HIGH, MEDIUM, LOW];
const HIGH: &str = "high_engagement";
const MEDIUM: &str = "medium_engagement";
const LOW: &str = "low_engagement";

/// A user with a valid address, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Active {
    id: i32,
    email: Text,
    full_name: Text,
    activity: Activity,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Activity {
    pageviews: i64,
    days: i64,
    last: Option<Date>,
}

pub(super) fn user_engagement_segments<'s>(
    users: &View<'s, User>,
    views: &View<'s, ItemView>,
    clock: &EpochClock<'s>,
) -> DailySnapshot<'s, UserEngagement> {
    // Days first, so that the fold of a user reads its days and not its pageviews.
    let activities = views
        .clone()
        .named("gold.user_engagement_segments")
        .group(
            |view| (view.user_id, Date::of(view.received_at)),
            |_| [],
            |(user, date), sums| (*user, (*date, sums.rows)),
        )
        .fold(
            |entry| entry,
            |user, days| {
                let pageviews = days.iter().map(|((_, views), _)| views).sum();
                (*user, Activity { pageviews, days: days.len() as i64, last: days.last().map(|((date, _), _)| *date) })
            },
        )
        .index(|entry| entry);
    users
        .clone()
        .named("gold.user_engagement_segments")
        .flat_map(|user| {
            let email = user.email.clone().filter(|email| is_email(email))?;
            Some((user.id, email, full_name(&user)))
        })
        .left_join(
            |(id, ..)| Some(i64::from(*id)),
            &activities,
            |(id, email, full_name), activity| Active {
                id: *id,
                email: email.clone(),
                full_name: full_name.clone(),
                activity: activity.cloned().unwrap_or_default(),
            },
        )
        .daily_snapshot(clock, engagement)
}

fn engagement(date: Date, user: &Active) -> UserEngagement {
    let Activity { pageviews, days, last } = user.activity;
    let days_since = last.map(|last| date.since(last));
    UserEngagement {
        user_id: user.id,
        email: user.email.clone(),
        full_name: user.full_name.clone(),
        total_pageviews: pageviews,
        active_days: days,
        last_active_date: last,
        days_since_last_active: days_since,
        engagement_segment: segment(pageviews, days_since).into(),
        segment_date: date,
    }
}

fn segment(pageviews: i64, days_since: Option<i32>) -> &'static str {
    match (pageviews, days_since) {
        (50.., Some(..=3)) => HIGH,
        (10..=49, Some(..=7)) => MEDIUM,
        _ => LOW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments() {
        for (pageviews, days_since, expected) in [
            (50, Some(3), "high_engagement"),
            (50, Some(4), "low_engagement"),
            (50, Some(-1), "high_engagement"),
            (49, Some(0), "medium_engagement"),
            (10, Some(7), "medium_engagement"),
            (10, Some(8), "low_engagement"),
            (9, Some(0), "low_engagement"),
            (0, None, "low_engagement"),
        ] {
            assert_eq!(segment(pageviews, days_since), expected, "{pageviews} {days_since:?}");
        }
    }
}
