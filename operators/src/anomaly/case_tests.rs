//! The worked cases, end to end but for the engine: accepted logins in order, through the table, the detectors and the rows.
//!
//! Runs the hand-made cases in `cases/`; with `DATAFLOW_CASES` set to a folder of cases, those too. Which records are
//! late or dead is taken from the expected files: the watermark is not this folder's part.

use super::rows::{anomaly_row, dead_letter_row, enriched_row, late_row};
use super::{
    BruteForce, Burst, CredentialStuffing, Detectors, ImpossibleTravel, Login, LoginEvent, NewCountry, NewDevice,
    Status, UnresolvedAddress,
};
use crate::enrich::IpTable;
use dataflow_core::{DeadLetter, EventTime, Micros, Stamped};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const SOURCE: &str = "login-events";

fn rows(path: PathBuf) -> Option<Vec<Value>> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn at(row: &Value) -> (u32, u64) {
    (row["partition"].as_u64().unwrap() as u32, row["offset"].as_u64().unwrap())
}

fn time(row: &Value, field: &str) -> Micros {
    Micros::parse(row[field].as_str().unwrap()).unwrap()
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

/// The rows as a sorted multiset, without the fields named.
fn multiset(rows: impl IntoIterator<Item = Value>, without: &[&str]) -> Vec<String> {
    let mut texts: Vec<String> = rows
        .into_iter()
        .map(|row| {
            let fields: BTreeMap<_, _> = row.as_object().unwrap().iter().collect();
            let kept = fields.into_iter().filter(|(name, _)| !without.contains(&name.as_str()));
            kept.map(|(name, value)| format!("{name}={}", canonical(value))).collect::<Vec<_>>().join(" ")
        })
        .collect();
    texts.sort();
    texts
}

fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().map(|(name, value)| (name, canonical(value))).collect();
            format!("{fields:?}")
        }
        Value::Array(values) => format!("{:?}", values.iter().map(canonical).collect::<Vec<_>>()),
        plain => plain.to_string(),
    }
}

/// Feeds each key's logins to `detectors`, and appends the rows.
fn detect<K: Ord, D: Detectors>(
    logins: &[Stamped<Login>],
    key: impl Fn(&Login) -> Option<K>,
    detectors: D,
    out: &mut Vec<Value>,
) {
    let mut histories: BTreeMap<K, D::History> = BTreeMap::new();
    for login in logins {
        let Some(key) = key(&login.data) else { continue };
        let history = histories.entry(key).or_default();
        // What may be dropped is dropped.
        if login.time > detectors.expires(history) {
            *history = D::History::default();
        }
        let mut findings = Vec::new();
        detectors.step(history, login, &mut findings);
        out.extend(findings.iter().map(|f| written(|out| anomaly_row(f, Status::Raised, 0, SOURCE, out))));
    }
}

fn check(case: &Path) {
    let expected = |name: &str| rows(case.join("expected").join(name));
    let late = expected("login-events-late.ndjson").unwrap_or_default();
    let dead = expected("login-events-dlq.ndjson").unwrap_or_default();
    let table = IpTable::parse(&fs::read(case.join("ip_geo.csv")).unwrap()).unwrap();
    let (late_at, dead_at): (BTreeSet<_>, BTreeSet<_>) = (late.iter().map(at).collect(), dead.iter().map(at).collect());
    let (mut logins, mut late_logins) = (Vec::new(), BTreeMap::new());
    for row in rows(case.join("login_events.ndjson")).unwrap() {
        let (partition, offset) = at(&row);
        let Ok(event) = serde_json::from_value::<LoginEvent>(row["event"].clone()) else { continue };
        match event.event_time() {
            Ok(time) if !dead_at.contains(&at(&row)) => {
                let login = Login::from_event(&event, &table).at(time, partition, offset);
                if late_at.contains(&at(&row)) {
                    late_logins.insert(at(&row), login);
                } else {
                    logins.push(login);
                }
            }
            Ok(_) => {}
            Err(reason) => {
                let row = dead.iter().find(|dead| at(dead) == at(&row)).expect("a defect is a dead letter");
                assert_eq!(row["reason"], reason);
            }
        }
    }
    logins.sort_by_key(|login| login.order());
    let mut distinct: Vec<Stamped<Login>> = Vec::new();
    for login in logins {
        if !distinct.iter().rev().take_while(|x| x.time == login.time).any(|x| x.data.same_event(&login.data)) {
            distinct.push(login);
        }
    }

    let mut anomalies = Vec::new();
    let by_user = (
        NewCountry::default(),
        UnresolvedAddress::default(),
        ImpossibleTravel::default(),
        BruteForce::default(),
        NewDevice::default(),
        Burst::default(),
    );
    detect(&distinct, |login| Some(login.user_id().to_owned()), by_user, &mut anomalies);
    detect(&distinct, |login| login.address, (CredentialStuffing::default(),), &mut anomalies);
    let name = case.display();
    if let Some(rows) = expected("login-anomalies.ndjson") {
        let without = ["epoch", "status"];
        assert_eq!(multiset(anomalies, &without), multiset(rows, &without), "anomalies of {name}");
    }
    if let Some(rows) = expected("login-events-enriched.ndjson") {
        let enriched = distinct.iter().map(|login| written(|out| enriched_row(login, out)));
        assert_eq!(multiset(enriched, &[]), multiset(rows, &[]), "enriched of {name}");
    }
    for row in late {
        let epoch = row["epoch"].as_u64().unwrap();
        let again = written(|out| late_row(&late_logins[&at(&row)], SOURCE, epoch, time(&row, "watermark"), out));
        assert_eq!(canonical(&again), canonical(&row), "late of {name}");
    }
    for row in dead {
        let position = Login::new("a", "").at(Micros(0), at(&row).0, at(&row).1).position;
        let (epoch, reason) = (row["epoch"].as_u64().unwrap(), row["reason"].as_str().unwrap().to_owned());
        let letter = DeadLetter { position, epoch, reason, key: None, raw: None };
        assert_eq!(
            canonical(&written(|out| dead_letter_row(&letter, SOURCE, false, out))),
            canonical(&row),
            "dead of {name}"
        );
    }
}

/// Checks every case with logins under `folder` and counts them.
fn check_all(folder: &Path) -> usize {
    if folder.join("login_events.ndjson").exists() {
        check(folder);
        return 1;
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.iter().filter(|path| path.is_dir()).map(|path| check_all(path)).sum()
}

#[test]
fn every_case_comes_out_as_expected() {
    let own = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("src/anomaly/cases");
    assert_eq!(check_all(&own), 9);
    if let Ok(folder) = std::env::var("DATAFLOW_CASES") {
        assert!(check_all(Path::new(&folder)) > 0, "no cases in '{folder}'");
    }
}
