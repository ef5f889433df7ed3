//! The shipped program on every case, exact: with the recorded epochs, as one epoch, and with its own ticks, where the naive
//! batch computation of `dataflow-oracle` runs on the epochs that the program exported.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use dataflow_oracle::{
    BindingRow, Case, Emission, check_eager, compare, compare_per_user, coverage, net, parse_bindings,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOPICS: [&str; 4] = ["login-events-enriched", "login-anomalies", "login-events-late", "login-events-dlq"];
const LARGE: [&str; 4] = ["case-1", "case-2", "case-3", "case-4"];

fn cases() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("cases")
}

/// Runs the files profile on a case; the folder that it wrote.
fn run(case: &str, workers: usize, emit: &str, set: &[&str]) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    let (input, output) =
        (format!("input={}", cases().join(case).display()), format!("output={}", out.path().display()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_login_anomalies"));
    command.arg("run").arg(PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("login_anomalies.rs"));
    command.args(["--profile", "files", "--until-end", "--workers", &workers.to_string()]);
    for assignment in [&input, &output, &format!("emit={emit}")].map(String::as_str).iter().chain(set) {
        command.args(["--set", assignment]);
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{case} {workers} {emit} {set:?}: {}", String::from_utf8_lossy(&done.stderr));
    out
}

fn rows(folder: &Path, topic: &str) -> Option<Vec<Value>> {
    let text = std::fs::read_to_string(folder.join(format!("{topic}.ndjson"))).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// The program's rows equal those of the case's folder `expected`, in so far as that folder has them.
fn check(case: &str, out: &Path, expected: &str, emit: &str) {
    let mut compared = 0;
    for topic in TOPICS {
        let Some(expected) = rows(&cases().join(case).join(expected), topic) else { continue };
        let actual = rows(out, topic).unwrap_or_else(|| panic!("{case}: no {topic}"));
        let outcome = match (topic, emit) {
            ("login-anomalies", "eager") => {
                net(&actual).and_then(|netted| compare(&expected, &netted, &["status", "epoch"]))
            }
            ("login-anomalies", _) => compare(&expected, &actual, &["status"]),
            _ => compare(&expected, &actual, &[]),
        };
        outcome.unwrap_or_else(|difference| panic!("{case} {topic} {emit}: {difference}"));
        compared += 1;
    }
    assert!(compared > 0, "{case} has nothing to compare with");
}

fn check_recorded(case: &str, workers: usize, emit: &str, set: &[&str]) {
    let set: Vec<&str> = set.iter().copied().chain(["bindings=recorded"]).collect();
    let out = run(case, workers, emit, &set);
    check(case, out.path(), "expected", emit);
    let said = rows(&cases().join(case).join("expected_eager"), "login-anomalies");
    if let Some(said) = said.filter(|_| emit == "eager") {
        let actual = rows(out.path(), "login-anomalies").unwrap();
        compare(&said, &actual, &[]).unwrap_or_else(|difference| panic!("{case} eager, each epoch: {difference}"));
    }
}

#[test]
fn hand_cases_with_recorded_epochs() {
    let mut folders: Vec<String> = std::fs::read_dir(cases().join("hand"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|folder| cases().join("hand").join(folder).join("login_events.ndjson").exists())
        .collect();
    folders.sort();
    assert!(folders.len() >= 9, "{folders:?}");
    for (rank, folder) in folders.iter().enumerate() {
        for emit in ["eager", "final"] {
            check_recorded(&format!("hand/{folder}"), 1 + rank % 3, emit, &[]);
        }
    }
}

#[test]
fn large_cases_with_recorded_epochs_and_one_to_three_workers() {
    for case in LARGE {
        for workers in [1, 2, 3] {
            for emit in ["eager", "final"] {
                check_recorded(case, workers, emit, &[]);
            }
        }
    }
}

#[test]
fn the_heap_backend_says_the_same() {
    check_recorded("case-4", 2, "eager", &["state.backend=heap"]);
}

#[test]
fn a_cache_that_holds_nothing_says_the_same() {
    check_recorded("case-2", 2, "eager", &["state.cache_mb=0", "state.dirty_mb=0"]);
}

#[test]
fn everything_in_one_epoch() {
    for case in ["case-1", "case-2"] {
        let file = format!("bindings={}", cases().join(case).join("bindings_one_epoch.ndjson").display());
        for (workers, emit) in [(1, "eager"), (3, "eager"), (2, "final")] {
            let out = run(case, workers, emit, &[&file]);
            check(case, out.path(), "expected_one_epoch", emit);
        }
    }
}

/// With ticks of its own the program is right if its exported epochs explain its output.
fn check_own_ticks(case: &str, workers: usize, emission: Emission, tick_min_ms: u64, epoch_max_records: u64) {
    let set = [
        format!("runtime.tick_min_ms={tick_min_ms}"),
        format!("runtime.epoch_max_records={epoch_max_records}"),
        // A partition that has ended would hold back the ones that are ahead until it counts as idle, half a minute later.
        format!("runtime.max_drift_ms={}", 1u64 << 40),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let emit = match emission {
        Emission::Eager => "eager",
        Emission::Final => "final",
    };
    let out = run(case, workers, emit, &set);
    let input = Case::read(&cases().join(case)).unwrap();
    let bindings = parse_bindings(&std::fs::read_to_string(out.path().join("bindings.ndjson")).unwrap()).unwrap();
    coverage(&input, &bindings).unwrap();
    check_sizes(&bindings, epoch_max_records.max(workers as u64));
    let expected = dataflow_oracle::run(&input, &bindings, emission).unwrap();
    for (topic, expected) in expected.topics() {
        let expected: Vec<Value> = expected.iter().map(|row| row.value.clone()).collect();
        let actual = rows(out.path(), topic).unwrap();
        compare(&expected, &actual, &[])
            .unwrap_or_else(|difference| panic!("{case} {topic} {emit} {set:?}: {difference}"));
        if topic == "login-anomalies" {
            compare_per_user(&expected, &actual, &[])
                .unwrap_or_else(|difference| panic!("{case} {emit} order: {difference}"));
        }
    }
    if emit == "eager" {
        check_eager(&input, &bindings, &rows(out.path(), "login-anomalies").unwrap(), usize::MAX).unwrap();
    }
}

/// No epoch holds more records than it may: there are as many epochs as that takes.
fn check_sizes(bindings: &[BindingRow], most: u64) {
    let mut read = 0;
    for row in bindings {
        let ends: u64 = row.ends.values().sum();
        assert!(ends - read <= most, "epoch {} holds {} records, {most} allowed", row.epoch, ends - read);
        read = ends;
    }
    assert!(read > 4 * most, "{read} records: the input is too short to prove anything");
}

#[test]
fn own_ticks_of_a_millisecond() {
    for (case, workers) in LARGE.into_iter().zip([1, 2, 3, 2]) {
        check_own_ticks(case, workers, Emission::Eager, 1, 7);
    }
}

#[test]
fn own_ticks_of_a_tenth_of_a_second() {
    for (case, workers) in LARGE.into_iter().zip([3, 1, 2, 1]) {
        check_own_ticks(case, workers, Emission::Eager, 100, 50);
        check_own_ticks(case, workers, Emission::Final, 100, 50);
    }
}
