//! Login traffic: users with habits, and attacks among them.
//!
//! ```text
//! partition p, block b                                (pure functions of settings, p and b)
//!    schedule -> the span of event time that the block's 256 records fill
//!    campaigns -> attack events of p's users in that span ---+
//!    habits   -> ordinary logins, evenly over the span ------+-> by time: offsets b*256, b*256+1, ...
//! ```
//!
//! Users are hashed to partitions, as a producer keyed by user id does. A record is *due* in order of its offset; its event
//! time is that, or earlier for what is out of order or late. Attack events displace ordinary ones, so the rate stays.

mod block;
mod campaign;
mod event;
mod habits;
mod label;
mod schedule;
mod settings;
mod stream;

pub use campaign::Kind;
pub use event::{Body, Login, LoginEvent, SCHEMA_V1, SCHEMA_V2};
pub use label::{Label, Labels, Place};
pub use settings::{Settings, USERS_MAX};
pub use stream::Stream;

use dataflow_core::{Result, stable_hash};
use schedule::Schedule;
use std::collections::BTreeMap;

/// Records made at once. Small, so that a slow stream does not make hours ahead; large enough that a campaign's events
/// find room.
pub const BLOCK: u64 = 256;

/// The traffic that some settings stand for.
#[derive(Clone, Debug)]
pub struct Traffic {
    settings: Settings,
    /// By partition: its users, most active first.
    members: Vec<Vec<u32>>,
    /// By partition; `None` for one without users.
    schedules: Vec<Option<Schedule>>,
    lengths: Vec<Option<u64>>,
    /// Chance that an ordinary login in the hot user's partition is theirs.
    hot_share: f64,
}

impl Traffic {
    /// Prepares the traffic; `O(users)`.
    ///
    /// # Errors
    /// Settings out of their bounds.
    pub fn new(settings: Settings) -> Result<Traffic> {
        settings.check()?;
        let mut members = vec![Vec::new(); settings.partitions as usize];
        for user in (0..settings.users).map(|number| settings.user(number)) {
            members[partition_of(&habits::name(user), settings.partitions) as usize].push(user);
        }
        let hot = partition_of(&habits::name(settings.user(0)), settings.partitions) as usize;
        let weight = |(index, users): (usize, &Vec<u32>)| {
            let even = users.len() as f64 / settings.users as f64 * (1.0 - settings.skew);
            if index == hot { even + settings.skew } else { even }
        };
        let weights: Vec<f64> = members.iter().enumerate().map(weight).collect();
        let schedule = |weight: &f64| (*weight > 0.0).then(|| Schedule::new(settings.rate * weight, settings.burst));
        let schedules = weights.iter().map(schedule).collect();
        let lengths = lengths(&weights, settings.count);
        let hot_share = if weights[hot] > 0.0 { settings.skew / weights[hot] } else { 0.0 };
        Ok(Traffic { settings, members, schedules, lengths, hot_share })
    }

    /// What it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many records a partition has in all; `None`: without end.
    pub fn length(&self, partition: u32) -> Option<u64> {
        self.lengths.get(partition as usize).copied().unwrap_or(Some(0))
    }

    /// The records at offsets `block * BLOCK` and following: [`BLOCK`] of them, also past the partition's length.
    ///
    /// # Panics
    /// When there is no such partition or it has no records at all.
    pub fn block(&self, partition: u32, block: u64) -> Vec<Login> {
        block::make(self, partition, block)
    }

    /// All records, of all partitions in the order in which they are due.
    pub fn stream(&self) -> Stream<'_> {
        Stream::new(self)
    }

    /// The attacks in the records below `ends` (by partition), as a consumer that has read so far can check them.
    pub fn labels(&self, ends: &BTreeMap<u32, u64>) -> Vec<Label> {
        let mut labels = Labels::default();
        for (partition, end) in ends {
            let end = self.length(*partition).map_or(*end, |length| length.min(*end));
            for block in 0..end.div_ceil(BLOCK) {
                let first = block * BLOCK;
                for (offset, login) in (first..end).zip(self.block(*partition, block)) {
                    labels.observe(*partition, offset, &login);
                }
            }
        }
        labels.finish(self)
    }
}

/// The partition of a user's records among `partitions`.
pub fn partition_of(user_id: &str, partitions: u32) -> u32 {
    (stable_hash(user_id.as_bytes()) % u64::from(partitions)) as u32
}

/// Splits the count by weight; what rounding leaves goes to the first partitions that have a weight.
fn lengths(weights: &[f64], count: Option<u64>) -> Vec<Option<u64>> {
    let Some(count) = count else {
        return weights.iter().map(|w| (*w <= 0.0).then_some(0)).collect();
    };
    let mut lengths: Vec<u64> = weights.iter().map(|w| (count as f64 * w) as u64).collect();
    let left = count.saturating_sub(lengths.iter().sum());
    let busy: Vec<usize> = (0..weights.len()).filter(|at| weights[*at] > 0.0).collect();
    for at in busy.iter().cycle().take(left as usize) {
        lengths[*at] += 1;
    }
    lengths.into_iter().map(Some).collect()
}
