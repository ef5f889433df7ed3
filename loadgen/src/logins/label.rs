//! The truth about the attacks: what was planted, where it stands, and what should have caught it.

use super::campaign::{self, Kind};
use super::habits;
use super::{Login, Traffic};
use dataflow_core::Micros;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Event time.
    pub timestamp: Micros,
    /// Partition.
    pub partition: u32,
    /// Offset.
    pub offset: u64,
}

/// An attack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its number.
    pub campaign: u64,
    /// What it is.
    pub kind: Kind,
    /// The detector that is to catch it.
    pub detector: String,
    /// The severity that tells it.
    pub severity: String,
    /// Whose accounts.
    pub users: Vec<String>,
    /// From where its last event comes.
    pub ip: String,
    /// Events in the stream.
    pub events: u64,
    /// Whether that is all of them. If not, nothing needs to be caught.
    pub complete: bool,
    /// The first of them by event time.
    pub first: Place,
    /// The last of them by event time.
    pub last: Place,
}

/// Gathers labels from the records as they are written.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    seen: BTreeMap<u64, (u64, Place, Place)>,
}

impl Labels {
    /// A record was written at this place.
    pub fn observe(&mut self, partition: u32, offset: u64, login: &Login) {
        let Some(id) = login.campaign else { return };
        let place = Place { timestamp: login.time, partition, offset };
        let (events, first, last) = self.seen.entry(id).or_insert_with(|| (0, place.clone(), place.clone()));
        *events += 1;
        if place.timestamp < first.timestamp {
            *first = place.clone();
        }
        if place.timestamp >= last.timestamp {
            *last = place;
        }
    }

    /// The labels, in order of campaigns.
    pub fn finish(self, traffic: &Traffic) -> Vec<Label> {
        let label = |(id, (events, first, last))| {
            let campaign = campaign::campaign(traffic, id)?;
            let mut users: Vec<String> = campaign.attempts.iter().map(|a| habits::name(a.user)).collect();
            users.sort();
            users.dedup();
            let (detector, severity) = campaign.kind.detector();
            Some(Label {
                campaign: id,
                kind: campaign.kind,
                detector: detector.into(),
                severity: severity.into(),
                users,
                ip: campaign.attempts.last()?.ip.clone(),
                events,
                complete: events == campaign.attempts.len() as u64,
                first,
                last,
            })
        };
        self.seen.into_iter().filter_map(label).collect()
    }
}
