//! Watermark alignment: a partition that is far ahead in event time waits for the others (`runtime.max_drift_ms`).

use crate::process::{job_file, program, say};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Logins of each partition.
const LOGINS: i64 = 12_000;
/// Between two logins of partition 0, which sets the watermark, and of partition 1, which could run ahead of it.
const STEPS_MS: [i64; 2] = [10, 100];
const LATENESS_MS: i64 = 5_000;
/// A partition is looked at before a poll, and a poll brings at most an epoch's records.
const EPOCH_RECORDS: i64 = 512;

fn input(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let mut lines = String::new();
    for offset in 0..LOGINS {
        for (partition, step) in STEPS_MS.iter().enumerate() {
            let time = timestamp(offset * step);
            let event = json!({"user_id": format!("u{partition}-{}", offset % 50), "timestamp": time, "ip": "203.0.113.7", "device": "d",
                "platform": "web", "user_agent": "a", "success": true});
            let line = json!({"partition": partition, "offset": offset, "schema_version": 2, "event": event});
            writeln!(lines, "{line}").unwrap();
        }
    }
    fs::write(folder.join("login_events.ndjson"), lines).unwrap();
    fs::write(folder.join("ip_geo.csv"), "ip_prefix,country,city,lat,lon\n203.0,AU,Sydney,-33.8688,151.2093\n")
        .unwrap();
}

/// The time of a login, as text.
fn timestamp(after_ms: i64) -> String {
    let (ms, seconds) = (after_ms % 1_000, after_ms / 1_000);
    format!("2026-03-01T{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// By how many milliseconds partition 1 was ahead of the watermark at most, while partition 0 still had records; and the rows
/// that came out.
fn run(folder: &Path, input: &Path, name: &str, max_drift_ms: i64) -> (i64, usize) {
    let output = folder.join(name);
    let mut command = program(&["run"]);
    command.arg(job_file()).args(["--profile", "files", "--until-end"]);
    for setting in [
        format!("input={}", input.display()),
        format!("output={}", output.display()),
        format!("runtime.max_drift_ms={max_drift_ms}"),
        format!("runtime.lateness_ms={LATENESS_MS}"),
        // Partition 0 ends first, and holds the watermark back until it counts as idle.
        "runtime.idle_timeout_ms=100".to_owned(),
        "runtime.tick_min_ms=1".to_owned(),
        format!("runtime.epoch_max_records={EPOCH_RECORDS}"),
    ] {
        command.args(["--set", &setting]);
    }
    say(command).ok();
    let (mut ahead, mut ends) = (0, [0; 2]);
    for row in fs::read_to_string(output.join("bindings.ndjson")).unwrap().lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        for (partition, end) in ends.iter_mut().enumerate() {
            *end = row["ends"][format!("login-events/{partition}")].as_i64().unwrap_or(*end);
        }
        let [slow, fast] = ends;
        if (1..LOGINS).contains(&slow) && fast > 0 {
            let watermark = (slow - 1) * STEPS_MS[0] - LATENESS_MS;
            ahead = ahead.max((fast - 1) * STEPS_MS[1] - watermark);
        }
    }
    (ahead, fs::read_to_string(output.join("login-events-enriched.ndjson")).unwrap().lines().count())
}

#[test]
fn a_partition_far_ahead_waits_for_the_slower_ones() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    self::input(&input);
    let max_drift_ms = 20_000;
    // One poll beyond the limit, and one before there is a watermark to be ahead of.
    let bound = max_drift_ms + 2 * EPOCH_RECORDS * STEPS_MS[1];
    let (aligned, rows) = run(folder.path(), &input, "aligned", max_drift_ms);
    assert!(aligned <= bound, "{aligned} ms ahead, {bound} allowed");
    let (free, rows_of_free) = run(folder.path(), &input, "free", 1 << 40);
    assert!(free > 2 * bound, "only {free} ms ahead without alignment: the test proves nothing");
    assert_eq!((rows, rows_of_free), (2 * LOGINS as usize, 2 * LOGINS as usize));
}
