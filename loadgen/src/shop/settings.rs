//! What can be chosen about the shop. Plain data; the same settings are the same story, for ever.

use dataflow_core::{Error, Micros, Result};
use serde::{Deserialize, Serialize};

/// How often each comes or is looked at is held, at 8 bytes each.
const USERS_MAX: u64 = 10_000_000;
const ITEMS_MAX: u64 = 1_000_000;
/// Events a second of event time: above it, neighbours would share a microsecond.
const RATE_MAX: f64 = 500_000.0;

/// The settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Another seed, another story.
    pub seed: u64,
    /// How many people have been customers for long; some more have just signed up.
    pub users: u64,
    /// How many items there are at first.
    pub items: u64,
    /// Events a second of event time: pageviews and changes together.
    pub rate: f64,
    /// Events in all, beside the snapshot that comes first; endless without. The last transaction is whole.
    pub events: Option<u64>,
    /// The event time at which it begins.
    pub start: Micros,
    /// Share of pageviews that are minutes to a day and a half behind.
    pub late: f64,
    /// Share of lines that are no pageview.
    pub malformed: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            seed: 1,
            users: 2000,
            items: 200,
            rate: 200.0,
            events: None,
            // 2026-03-02T08:00:00Z, a Monday.
            start: Micros(1_772_438_400_000_000),
            late: 0.02,
            malformed: 0.004,
        }
    }
}

impl Settings {
    pub(super) fn check(&self) -> Result<()> {
        let within = |name: &str, value: f64, low: f64, high: f64| {
            if value >= low && value <= high {
                return Ok(());
            }
            Err(Error::user(format!("generate a shop with '{name}' = {value}")).hint(format!("from {low} to {high}")))
        };
        within("users", self.users as f64, 1.0, USERS_MAX as f64)?;
        within("items", self.items as f64, 1.0, ITEMS_MAX as f64)?;
        within("rate", self.rate, 1e-4, RATE_MAX)?;
        within("late", self.late, 0.0, 1.0)?;
        within("malformed", self.malformed, 0.0, 1.0)
    }
}
