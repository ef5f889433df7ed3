//! What can be chosen about the traffic. Plain data; the same settings are the same traffic, for ever.

use super::Kind;
use dataflow_core::{Error, Micros, Result};
use serde::{Deserialize, Serialize};

/// Users are held as a list of 4 bytes each.
pub const USERS_MAX: u64 = 50_000_000;
/// Partitions: more than a topic sensibly has.
const PARTITIONS_MAX: u32 = 4096;
/// Records a second of event time: above it, neighbours would share a microsecond.
const RATE_MAX: f64 = 1_000_000.0;
/// Attacks a minute: a block looks at all that may reach into it.
const ATTACKS_MAX: f64 = 600.0;
/// The factor of a rush.
const BURST_MAX: f64 = 20.0;

/// The settings. Shares are in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Another seed, other traffic.
    pub seed: u64,
    /// How many people log in.
    pub users: u64,
    /// The number of the first of them: with another one, other people, whom nobody has seen before.
    pub first_user: u64,
    /// Partitions of the stream.
    pub partitions: u32,
    /// Records per second of event time, all partitions together.
    pub rate: f64,
    /// Records in all; endless without.
    pub count: Option<u64>,
    /// The event time at which it begins.
    pub start: Micros,
    /// Share of ordinary logins that are out of order.
    pub disorder: f64,
    /// By how much at most, in milliseconds. Up to 5,000 they are not late for the login job.
    pub disorder_ms_max: u64,
    /// Share of ordinary logins that are 15 to 120 s behind.
    pub late: f64,
    /// Share of ordinary logins that are sent twice.
    pub duplicates: f64,
    /// Share of records for the dead letters: two thirds do not decode, the others have no user or a wrong time.
    pub poison: f64,
    /// Share of all records that are of one user.
    pub skew: f64,
    /// The users of a partition take turns, so that as many records as users hold each of them once; else some log in far more
    /// often than others, and only those who are awake.
    pub in_turn: bool,
    /// How many times the usual rate the first three seconds of a minute have; 1 for an even rate.
    pub burst: f64,
    /// Share of successful logins from writers of the first schema version, which has no `success`.
    pub old_writers: f64,
    /// Attacks a minute of event time, at most as many as `rate`; 0 for none.
    pub attacks: f64,
    /// The kinds of attack to choose from.
    pub kinds: Vec<Kind>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            seed: 1,
            users: 10_000,
            first_user: 0,
            partitions: 4,
            rate: 1000.0,
            count: None,
            // 2026-03-02T08:00:00Z, a Monday.
            start: Micros(1_772_438_400_000_000),
            disorder: 0.05,
            disorder_ms_max: 3000,
            late: 0.0005,
            duplicates: 0.002,
            poison: 0.0005,
            skew: 0.0,
            in_turn: false,
            burst: 1.0,
            old_writers: 0.2,
            attacks: 6.0,
            kinds: Kind::ALL.to_vec(),
        }
    }
}

impl Settings {
    /// One of the users, by a number below `users`. The first is the one who has the share `skew`.
    pub(super) fn user(&self, number: u64) -> u32 {
        (self.first_user + number) as u32
    }

    pub(super) fn check(&self) -> Result<()> {
        let within = |name: &str, value: f64, low: f64, high: f64| {
            if value >= low && value <= high {
                return Ok(());
            }
            Err(Error::user(format!("generate logins with '{name}' = {value}")).hint(format!("from {low} to {high}")))
        };
        within("users", self.users as f64, 1.0, USERS_MAX as f64)?;
        within("first_user", self.first_user as f64, 0.0, USERS_MAX as f64)?;
        within("partitions", f64::from(self.partitions), 1.0, f64::from(PARTITIONS_MAX))?;
        within("rate", self.rate, 1e-6, RATE_MAX)?;
        within("burst", self.burst, 1.0, BURST_MAX)?;
        within("attacks", self.attacks, 0.0, ATTACKS_MAX)?;
        within("disorder_ms_max", self.disorder_ms_max as f64, 0.0, 3_600_000.0)?;
        for (name, share) in [
            ("disorder", self.disorder),
            ("late", self.late),
            ("duplicates", self.duplicates),
            ("poison", self.poison),
            ("skew", self.skew),
            ("old_writers", self.old_writers),
        ] {
            within(name, share, 0.0, 1.0)?;
        }
        if self.attacks > 0.0 && self.kinds.is_empty() {
            return Err(Error::user("generate attacks of no kind").hint("name at least one kind, or set attacks to 0"));
        }
        Ok(())
    }
}
