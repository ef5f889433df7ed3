//! The oracle reproduces what another, independent program (and for `hand/`, a person) has worked out for each case.

// clippy spares `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used)]

use dataflow_oracle::{BindingRow, Case, Emission, Outputs, Row};
use dataflow_oracle::{check_eager, compare, coverage, net, parse_bindings, run};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const FULL: [&str; 4] = ["case-1", "case-2", "case-3", "case-4"];
const HAND: [&str; 9] = [
    "hand/01-new-country",
    "hand/02-unresolved-address",
    "hand/03-impossible-travel",
    "hand/04-brute-force",
    "hand/05-credential-stuffing",
    "hand/06-new-device",
    "hand/07-burst",
    "hand/08-lateness",
    "hand/09-geography",
];

fn folder(case: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../jobs/cases").join(case)
}

fn load(case: &str, bindings: &str) -> (Case, Vec<BindingRow>) {
    let folder = folder(case);
    let input = Case::read(&folder).unwrap();
    let rows = parse_bindings(&fs::read_to_string(folder.join(bindings)).unwrap()).unwrap();
    coverage(&input, &rows).unwrap();
    (input, rows)
}

fn rows_of(path: &Path) -> Option<Vec<Value>> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn values(rows: &[Row]) -> Vec<Value> {
    rows.iter().map(|row| row.value.clone()).collect()
}

/// Compares every file of a folder of expected rows; the number of files.
fn check(case: &str, expected: &str, outputs: &Outputs, ignore: &[&str]) -> usize {
    let mut files = 0;
    for (topic, rows) in outputs.topics() {
        if let Some(expected) = rows_of(&folder(case).join(expected).join(format!("{topic}.ndjson"))) {
            compare(&expected, &values(rows), ignore).unwrap_or_else(|e| panic!("{case} {topic}: {e}"));
            files += 1;
        }
    }
    files
}

#[test]
fn final_emission() {
    for case in FULL {
        let (input, bindings) = load(case, "bindings.ndjson");
        let outputs = run(&input, &bindings, Emission::Final).unwrap();
        assert_eq!(check(case, "expected", &outputs, &["status"]), 4);
        assert!(outputs.anomalies.iter().all(|row| row.value["status"] == "raised"));
        assert!(outputs.anomalies.is_sorted_by_key(|row| row.value["timestamp"].to_string()), "in login order");
        assert!(outputs.enriched.is_sorted_by_key(|row| row.epoch), "login order is epoch order");
    }
}

#[test]
fn hand_cases() {
    for case in HAND {
        let (input, bindings) = load(case, "bindings.ndjson");
        let outputs = run(&input, &bindings, Emission::Final).unwrap();
        assert!(check(case, "expected", &outputs, &["status"]) >= 1, "{case}");
    }
}

#[test]
fn eager_emission() {
    for case in FULL {
        let (input, bindings) = load(case, "bindings.ndjson");
        let outputs = run(&input, &bindings, Emission::Eager).unwrap();
        assert_eq!(check(case, "expected_eager", &outputs, &[]), 1);
        assert!(outputs.anomalies.is_sorted_by_key(|row| row.epoch));
        assert!(outputs.anomalies.iter().all(|row| row.value["epoch"] == json!(row.epoch)));
    }
}

#[test]
fn one_epoch() {
    for case in ["case-1", "case-2"] {
        let (input, bindings) = load(case, "bindings_one_epoch.ndjson");
        let once = run(&input, &bindings, Emission::Final).unwrap();
        assert_eq!(check(case, "expected_one_epoch", &once, &["status"]), 4);
        let eager = run(&input, &bindings, Emission::Eager).unwrap();
        assert_eq!(once, eager, "with everything in one epoch, {case} says the same either way");
    }
}

/// Eager, netted, equals the rules at every epoch, and `final` once all is released.
#[test]
fn eager_nets_to_the_rules() {
    for case in FULL.into_iter().chain(HAND) {
        let (input, bindings) = load(case, "bindings.ndjson");
        let eager = run(&input, &bindings, Emission::Eager).unwrap();
        let last = run(&input, &bindings, Emission::Final).unwrap();
        check_eager(&input, &bindings, &values(&eager.anomalies), usize::MAX).unwrap_or_else(|e| panic!("{case}: {e}"));
        check_eager(&input, &bindings, &values(&eager.anomalies), 3).unwrap_or_else(|e| panic!("{case}: {e}"));
        let standing = net(&values(&eager.anomalies)).unwrap();
        compare(&values(&last.anomalies), &standing, &["status", "epoch"]).unwrap_or_else(|e| panic!("{case}: {e}"));
        compare(&values(&last.enriched), &values(&eager.enriched), &[]).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!((eager.late, eager.dlq), (last.late, last.dlq), "{case}");
    }
}

/// The check sees each single row that is missing, said an epoch late, or changed.
#[test]
fn check_eager_sees_every_change() {
    let (input, bindings) = load("case-4", "bindings.ndjson");
    let rows = values(&run(&input, &bindings, Emission::Eager).unwrap().anomalies);
    for n in (0..rows.len()).step_by(23) {
        let mut missing = rows.clone();
        missing.remove(n);
        assert!(check_eager(&input, &bindings, &missing, usize::MAX).is_err(), "row {n} is missing");
        let mut changed = rows.clone();
        changed[n]["severity"] = json!("none");
        assert!(check_eager(&input, &bindings, &changed, usize::MAX).is_err(), "row {n} is changed");
        let mut delayed = rows.clone();
        delayed[n]["epoch"] = json!(rows[n]["epoch"].as_u64().unwrap() + 1);
        assert!(check_eager(&input, &bindings, &delayed, usize::MAX).is_err(), "row {n} is delayed");
    }
}

/// Bindings that a correct job cannot have written.
#[test]
fn wrong_bindings_are_refused() {
    let (input, bindings) = load("hand/08-lateness", "bindings.ndjson");
    let refused = |change: &dyn Fn(&mut Vec<BindingRow>), part: &str| {
        let mut rows = bindings.clone();
        change(&mut rows);
        let error = run(&input, &rows, Emission::Eager).unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    refused(&|rows| rows[2].watermark = rows[2].watermark.map(|w| w + 1), "epoch 3: the watermark is");
    refused(&|rows| rows[0].watermark = None, "but none is recorded");
    refused(&|rows| rows[3].clock -= 1_000_001, "epoch 4: partition 1 is idle");
    refused(&|rows| *rows[7].ends.get_mut(&0).unwrap() = 1, "the end of partition 0 falls");
    refused(&|rows| rows.swap(0, 1), "does not follow");
    refused(&|rows| drop(rows.remove(2)), "epoch 5: partition 0 is idle");
}

/// An epoch in which nothing moves may be left out of the bindings, or be there: the outputs are the same.
#[test]
fn epochs_without_a_change_do_not_matter() {
    let (input, bindings) = load("case-2", "bindings.ndjson");
    let mut more = Vec::new();
    for row in &bindings {
        more.push(row.clone());
        let next = BindingRow { epoch: row.epoch + 1, ..row.clone() };
        if !row.is_final && bindings.iter().all(|r| r.epoch != next.epoch) {
            more.push(next);
        }
    }
    assert!(more.len() > bindings.len());
    for emission in [Emission::Eager, Emission::Final] {
        assert_eq!(run(&input, &more, emission).unwrap(), run(&input, &bindings, emission).unwrap());
    }
}
