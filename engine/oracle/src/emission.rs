//! What is said in which epoch: `final` once a login is released, `eager` as soon as it is accepted.
//!
//! [`rules`] computes everything from a set of logins at once; `final` and the checks use it. `eager` keeps a
//! [`History`] per user and per address and judges again from the first login that changed, so that a run of many
//! epochs stays feasible; the tests hold it against [`rules`] at every epoch.

use crate::Row;
use crate::detectors::{Anomaly, Judge, by_address, by_user};
use crate::geography::Place;
use crate::intake::Login;
use crate::time::format_time;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The logins among accepted events and the anomalies that the rules give for them, in login order, then detector order.
pub(crate) fn rules<'a>(accepted: impl Iterator<Item = &'a Login>) -> (Vec<&'a Login>, Vec<Anomaly<'a>>) {
    let logins = without_duplicates(accepted);
    let mut by: BTreeMap<Key<'_>, Vec<&Login>> = BTreeMap::new();
    for login in &logins {
        keys(login).for_each(|key| by.entry(key).or_default().push(login));
    }
    let mut anomalies = Vec::new();
    for (key, logins) in &by {
        let mut fired = Vec::new();
        for i in 0..logins.len() {
            fired.push(key.judge()(logins, i, &fired));
        }
        anomalies.extend(fired.into_iter().flatten());
    }
    anomalies.sort_by_key(place_in_order);
    (logins, anomalies)
}

/// The enriched rows and the anomalies of `final` emission, in login order throughout.
pub(crate) fn last(accepted: &[Login]) -> (Vec<Row>, Vec<Row>) {
    let (logins, anomalies) = rules(accepted.iter().filter(|l| l.released.is_some()));
    let released = |l: &Login| l.released.expect("only released logins are taken");
    (
        logins.into_iter().map(|l| Row { epoch: released(l), value: enriched(l) }).collect(),
        anomalies.iter().map(|a| said(a, "raised", released(a.login))).collect(),
    )
}

/// The enriched rows and the anomalies of `eager` emission, epoch by epoch.
pub(crate) fn eager(accepted: &[Login]) -> (Vec<Row>, Vec<Row>) {
    let mut by_epoch: BTreeMap<u64, Vec<&Login>> = BTreeMap::new();
    for login in accepted {
        by_epoch.entry(login.accepted).or_default().push(login);
    }
    let mut histories: BTreeMap<Key<'_>, History<'_>> = BTreeMap::new();
    let (mut enriched_rows, mut anomalies) = (Vec::new(), Vec::new());
    for (epoch, batch) in by_epoch {
        let mut by: BTreeMap<Key<'_>, Vec<&Login>> = BTreeMap::new();
        for login in &batch {
            keys(login).for_each(|key| by.entry(key).or_default().push(login));
        }
        for login in without_duplicates(batch.into_iter()) {
            // Whether an equal one was accepted earlier, wherever it stands in the order.
            if !histories.get(&Key::User(&login.event.user_id)).is_some_and(|h| h.has_equal(login)) {
                enriched_rows.push(Row { epoch, value: enriched(login) });
            }
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (key, batch) in by {
            let (gone, come) = histories.entry(key).or_default().add(batch, key.judge());
            before.extend(gone);
            after.extend(come);
        }
        anomalies.extend(difference(&before, &after, epoch));
    }
    (enriched_rows, anomalies)
}

/// The rows that turn `before` into `after`: in login order, then detector order, withdrawn before raised.
fn difference(before: &[Anomaly<'_>], after: &[Anomaly<'_>], epoch: u64) -> Vec<Row> {
    let mut by_place: BTreeMap<_, (Option<&Anomaly<'_>>, Option<&Anomaly<'_>>)> = BTreeMap::new();
    for anomaly in before {
        by_place.entry(place_in_order(anomaly)).or_default().0 = Some(anomaly);
    }
    for anomaly in after {
        by_place.entry(place_in_order(anomaly)).or_default().1 = Some(anomaly);
    }
    let mut rows = Vec::new();
    for (gone, come) in by_place.into_values().filter(|(gone, come)| gone != come) {
        rows.extend(gone.map(|a| said(a, "withdrawn", epoch)));
        rows.extend(come.map(|a| said(a, "raised", epoch)));
    }
    rows
}

/// What detectors look back over: a user's logins, or an address's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    User(&'a str),
    Address(IpAddr),
}

impl Key<'_> {
    fn judge(self) -> Judge {
        match self {
            Key::User(_) => by_user,
            Key::Address(_) => by_address,
        }
    }
}

fn keys(login: &Login) -> impl Iterator<Item = Key<'_>> {
    [Some(Key::User(&login.event.user_id)), login.address.map(Key::Address)].into_iter().flatten()
}

/// The logins of one key accepted so far, and what fires at each.
#[derive(Default)]
struct History<'a> {
    logins: Vec<&'a Login>,
    fired: Vec<Vec<Anomaly<'a>>>,
}

impl<'a> History<'a> {
    /// Adds logins; the anomalies from the first changed place on, as they were and as they are.
    fn add(&mut self, batch: Vec<&'a Login>, judge: Judge) -> (Vec<Anomaly<'a>>, Vec<Anomaly<'a>>) {
        let first = batch.iter().map(|l| l.order()).min().expect("a batch is not empty");
        let k = self.logins.partition_point(|l| l.order() < first);
        let before = self.fired.split_off(k);
        let mut tail = self.logins.split_off(k);
        tail.extend(batch);
        tail.sort_by_key(|l| l.order());
        for login in tail {
            if !self.has_equal(login) {
                self.logins.push(login);
                self.fired.push(judge(&self.logins, self.logins.len() - 1, &self.fired));
            }
        }
        (before.into_iter().flatten().collect(), self.fired[k..].iter().flatten().cloned().collect())
    }

    /// Whether a login is there that equals this one in all seven fields.
    fn has_equal(&self, login: &Login) -> bool {
        let from = self.logins.partition_point(|l| l.t < login.t);
        self.logins[from..].iter().take_while(|l| l.t == login.t).any(|l| l.equals(login))
    }
}

/// In login order, without those equal to an earlier one in all seven fields.
fn without_duplicates<'a>(events: impl Iterator<Item = &'a Login>) -> Vec<&'a Login> {
    let mut events: Vec<&Login> = events.collect();
    events.sort_by_key(|l| l.order());
    let mut logins: Vec<&Login> = Vec::new();
    for event in events {
        if !logins.iter().rev().take_while(|l| l.t == event.t).any(|l| l.equals(event)) {
            logins.push(event);
        }
    }
    logins
}

fn place_in_order(anomaly: &Anomaly<'_>) -> (i64, u32, u64, crate::detectors::Detector) {
    let (t, partition, offset) = anomaly.login.order();
    (t, partition, offset, anomaly.detector)
}

fn said(anomaly: &Anomaly<'_>, status: &str, epoch: u64) -> Row {
    let mut value = anomaly.content();
    value.insert("status".to_owned(), json!(status));
    value.insert("epoch".to_owned(), json!(epoch));
    Row { epoch, value: Value::Object(value) }
}

fn enriched(login: &Login) -> Value {
    let Place { country, city, .. } = &login.place;
    let device = login.event.device.to_ascii_lowercase();
    let mobile = device.contains("iphone") || device.contains("android");
    json!({
        "user_id": login.event.user_id,
        "timestamp": format_time(login.t),
        "ip": login.event.ip,
        "platform": login.event.platform,
        "device_type": if mobile { "mobile" } else { "desktop" },
        "country": country,
        "city": city,
    })
}
