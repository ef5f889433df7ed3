//! The traffic is the same however it is read, has the shares that were asked for, and its attacks are what they say.

#![allow(clippy::unwrap_used)] // All of this file is a test.

use dataflow_core::Micros;
use dataflow_core::time::{MINUTE, SECOND};
use dataflow_loadgen::logins::{BLOCK, Body, Kind, Label, Login, Settings, Traffic, partition_of};
use dataflow_loadgen::output::case_folder;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn settings(seed: u64) -> Settings {
    Settings { seed, users: 2000, count: Some(20_000), rate: 50.0, attacks: 12.0, ..Settings::default() }
}

fn partitions(traffic: &Traffic) -> BTreeMap<u32, Vec<Login>> {
    let mut partitions: BTreeMap<u32, Vec<Login>> = BTreeMap::new();
    for (partition, offset, login) in traffic.stream() {
        let records = partitions.entry(partition).or_default();
        assert_eq!(records.len() as u64, offset);
        records.push(login);
    }
    partitions
}

#[test]
fn in_turn_each_user_logs_in_once() {
    let settings =
        Settings { attacks: 0.0, duplicates: 0.0, users: 2000, count: Some(2000), in_turn: true, ..settings(3) };
    let traffic = Traffic::new(settings).unwrap();
    for records in partitions(&traffic).values() {
        let users: BTreeSet<&str> = records.iter().map(|login| login.key.as_str()).collect();
        // Where a partition's share is no whole number, one user may be missing or come twice.
        assert!(users.len() + 1 >= records.len(), "{} users in {} records", users.len(), records.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_block_is_a_function_of_its_number(
        seed in any::<u64>(),
        users in 1u64..500,
        count in 1u64..3000,
        rate in prop_oneof![Just(0.01), Just(7.0), Just(5000.0)],
        shape in (1u32..7, 0.0..1.0f64, 1.0..10.0f64, 0.0..200.0f64),
    ) {
        let (partitions_count, skew, burst, attacks) = shape;
        let settings =
            Settings { seed, users, count: Some(count), rate, partitions: partitions_count, skew, burst, attacks, poison: 0.1, ..Settings::default() };
        let traffic = Traffic::new(settings.clone()).unwrap();
        let all = partitions(&traffic);
        prop_assert_eq!(all.values().map(Vec::len).sum::<usize>() as u64, count);
        let again = Traffic::new(settings).unwrap();
        for (partition, records) in all.iter().rev() {
            prop_assert_eq!(again.length(*partition), Some(records.len() as u64));
            // Backwards: no block needs the one before it.
            for block in (0..(records.len() as u64).div_ceil(BLOCK)).rev() {
                let made = again.block(*partition, block);
                prop_assert_eq!(made.len() as u64, BLOCK);
                let first = (block * BLOCK) as usize;
                let there = &records[first..records.len().min(first + BLOCK as usize)];
                prop_assert_eq!(there, &made[..there.len()]);
            }
            prop_assert!(records.is_sorted_by_key(|login| login.due_us));
            prop_assert!(records.iter().all(|login| partition_of(&login.key, partitions_count) == *partition));
        }
    }
}

fn share(all: &BTreeMap<u32, Vec<Login>>, of: impl Fn(&Login) -> bool) -> f64 {
    let total: usize = all.values().map(Vec::len).sum();
    all.values().flatten().filter(|login| of(login)).count() as f64 / total as f64
}

#[test]
fn shares_are_as_asked() {
    let wanted =
        Settings { disorder: 0.2, late: 0.05, duplicates: 0.05, poison: 0.09, skew: 0.3, attacks: 2.0, ..settings(3) };
    let traffic = Traffic::new(wanted.clone()).unwrap();
    let all = partitions(&traffic);
    let near =
        |name: &str, got: f64, expected: f64| assert!((got - expected).abs() < 0.02, "{name}: {got}, not {expected}");
    let behind = |login: &Login| wanted.start.plus(login.due_us as i64).since(login.time);
    near("late", share(&all, |l| behind(l) >= 15 * SECOND), 0.05);
    // Those that are sent twice are behind too.
    near("disorder", share(&all, |l| (1..=3 * SECOND).contains(&behind(l))), 0.19 + 0.035);
    near("undecodable", share(&all, |l| matches!(l.body, Body::Poison(_))), 0.06);
    near(
        "bad time or user",
        share(
            &all,
            |l| matches!(&l.body, Body::Event(e) if e.user_id.is_empty() || Micros::parse(&e.timestamp) != Some(l.time)),
        ),
        0.03,
    );
    near("hot user", share(&all, |l| l.key == "u000000"), 0.3);
    let mut events = BTreeSet::new();
    let event = |l: &Login| match &l.body {
        Body::Event(e) => Some(format!("{e:?}")),
        Body::Poison(_) => None,
    };
    let repeated = all.values().flatten().filter_map(event).filter(|e| !events.insert(e.clone())).count();
    near("duplicates", repeated as f64 / 20_000.0, 0.045);
    near("failed", share(&all, |l| matches!(&l.body, Body::Event(e) if e.success == Some(false))), 0.03);
    let last = all.values().flatten().map(|l| l.due_us).max().unwrap();
    near("duration", last as f64 / 400e6, 1.0);
}

/// The logins of an account or an address, by time.
fn of(all: &[(Micros, Value)], field: &str, value: &str) -> Vec<(Micros, Value)> {
    all.iter().filter(|(_, event)| event[field] == value).cloned().collect()
}

/// Whether the events of a complete attack are what its detector looks for, by the words of SEMANTICS.
fn is_what_it_says(label: &Label, all: &[(Micros, Value)]) -> bool {
    let user = || of(all, "user_id", &label.users[0]);
    let within = |(t, _): &&(Micros, Value)| *t >= label.first.timestamp && *t <= label.last.timestamp;
    let five_failed = |logins: &[(Micros, Value)]| {
        let failed: Vec<_> = logins.iter().filter(|(_, e)| e["success"] == false).collect();
        failed.windows(5).find(|w| w[4].0.since(w[0].0) <= MINUTE).map(|w| w[4].0)
    };
    match label.kind {
        Kind::CredentialStuffing => {
            let logins = of(all, "ip", &label.ip);
            let first = label.first.timestamp.0.div_euclid(10 * SECOND) * 10 * SECOND;
            let window = logins.iter().filter(|(t, _)| t.0 >= first && t.0 < first + MINUTE);
            window.map(|(_, e)| e["user_id"].to_string()).collect::<BTreeSet<_>>().len() >= 10
        }
        Kind::BruteForce => five_failed(&user()).is_some(),
        Kind::AccountTakeover => {
            let logins = user();
            let high = five_failed(&logins).expect("five failed first");
            logins.iter().any(|(t, e)| *t > high && t.since(high) <= 5 * MINUTE && e["success"] != false)
        }
        Kind::ImpossibleTravel => {
            let logins: Vec<_> = user().into_iter().filter(|l| within(&l)).collect();
            logins.first().unwrap().1["ip"] != logins.last().unwrap().1["ip"] && logins.len() >= 2
        }
        Kind::NewDevice => {
            let logins = user();
            let at = label.first.timestamp;
            let before = logins.iter().filter(|(t, e)| *t < at && e["success"] != false);
            let known = before.clone().any(|(t, _)| at.since(*t) >= 1440 * MINUTE);
            let device = &logins.iter().find(|(t, _)| *t == at).unwrap().1["device"];
            known && before.clone().all(|(_, e)| e["device"] != *device)
        }
        Kind::Burst => {
            let logins = user();
            logins.windows(10).any(|w| w.windows(2).all(|p| p[1].0.since(p[0].0) <= 30 * SECOND) && within(&&w[9]))
        }
    }
}

fn check_attacks(settings: Settings, kinds: &[Kind]) {
    let traffic = Traffic::new(settings).unwrap();
    let all = partitions(&traffic);
    let ends: BTreeMap<u32, u64> = all.iter().map(|(p, records)| (*p, records.len() as u64)).collect();
    let labels = traffic.labels(&ends);
    let mut events: Vec<_> = all
        .values()
        .flatten()
        .filter_map(|login| match &login.body {
            Body::Event(event) => Some((login.time, serde_json::to_value(event).unwrap())),
            Body::Poison(_) => None,
        })
        .collect();
    events.sort_by_key(|(time, _)| *time);
    for kind in kinds {
        let complete: Vec<_> = labels.iter().filter(|l| l.kind == *kind && l.complete).collect();
        assert!(complete.len() >= 3, "{kind:?}: {}", complete.len());
        let right = complete.iter().filter(|label| is_what_it_says(label, &events)).count();
        // A victim that is attacked twice, or was never there before, is nobody's fault.
        assert!(right * 10 >= complete.len() * 8, "{kind:?}: {right} of {}", complete.len());
    }
    for label in &labels {
        let (first, last) = (&label.first, &label.last);
        for place in [first, last] {
            let login = &all[&place.partition][place.offset as usize];
            assert_eq!((login.campaign, login.time), (Some(label.campaign), place.timestamp));
        }
    }
    let attacks = all.values().flatten().filter(|l| l.campaign.is_some()).count() as u64;
    assert_eq!(labels.iter().map(|l| l.events).sum::<u64>(), attacks);
}

#[test]
fn attacks_are_what_their_labels_say() {
    let quick =
        [Kind::CredentialStuffing, Kind::BruteForce, Kind::AccountTakeover, Kind::ImpossibleTravel, Kind::Burst];
    check_attacks(Settings { count: Some(90_000), ..settings(11) }, &quick);
    // Two days of few users, for what needs a day of history.
    let kinds = vec![Kind::NewDevice];
    let slow = Settings { users: 60, rate: 0.3, attacks: 0.01, count: Some(52_000), kinds, ..settings(5) };
    check_attacks(slow, &[Kind::NewDevice]);
}

#[test]
fn a_case_folder_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let traffic = Traffic::new(Settings { poison: 0.05, count: Some(3000), ..settings(2) }).unwrap();
    let summary = case_folder::write(&traffic, dir.path()).unwrap();
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let binding: Value = serde_json::from_str(&text("bindings_one_epoch.ndjson")).unwrap();
    let mut ends = BTreeMap::new();
    let mut raws = 0;
    for line in text("login_events.ndjson").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let end = ends.entry(line["partition"].as_u64().unwrap()).or_insert(0);
        assert_eq!(line["offset"].as_u64(), Some(*end));
        *end += 1;
        raws += usize::from(line.get("raw").is_some());
        let version = line.get("schema_version").and_then(Value::as_u64);
        assert_eq!(version == Some(2), line["event"].get("success").is_some());
    }
    assert!((60..140).contains(&raws), "{raws}");
    for (partition, end) in &ends {
        assert_eq!(binding["ends"][format!("login-events/{partition}")].as_u64(), Some(*end));
        assert_eq!(summary.records[*partition as usize], *end);
    }
    assert_eq!(ends.values().sum::<u64>(), 3000);
    assert_eq!(text("labels.ndjson").lines().count(), summary.labels.len());
    assert!(text("ip_geo.csv").starts_with("ip_prefix,country,city,lat,lon\n"));
    let endless = Traffic::new(Settings { count: None, ..settings(2) }).unwrap();
    assert!(case_folder::write(&endless, dir.path()).is_err());
}

#[test]
fn settings_out_of_bounds_are_refused() {
    for bad in [
        Settings { users: 0, ..settings(1) },
        Settings { partitions: 0, ..settings(1) },
        Settings { rate: f64::NAN, ..settings(1) },
        Settings { late: 1.5, ..settings(1) },
        Settings { kinds: vec![], ..settings(1) },
    ] {
        assert!(Traffic::new(bad.clone()).is_err(), "{bad:?}");
    }
}
