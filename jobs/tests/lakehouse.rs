//! The shipped lakehouse program on the cases: every table's final contents with the recorded epochs, and, killed at random moments while
//! its input grows, those that do not depend on the clock.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
#![allow(
    clippy::disallowed_methods,
    reason = "the program under test has a clock of its own, and is killed by that of this one"
)]

use dataflow_oracle::compare;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// With the fields that a case does not say.
const TABLES: [(&str, &[&str]); 10] = [
    ("bronze.pageviews_dlq", &["ingestion_time", "source_file"]),
    ("silver.users", &[]),
    ("silver.items", &[]),
    ("silver.purchases_enriched", &[]),
    ("silver.pageviews_by_items", &[]),
    ("gold.top_selling_items", &[]),
    ("gold.top_converting_items", &[]),
    ("gold.pageviews_by_channel", &[]),
    // Functions of the clock.
    ("gold.sales_performance_24h", &[]),
    ("gold.user_engagement_segments", &[]),
];
const OF_THE_CLOCK: usize = 2;
const CASES: [&str; 5] = ["hand/10-lakehouse", "hand/11-top-ten", "case-1", "case-2", "case-3"];

fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
}

fn command(input: &Path, output: &Path, workers: usize, set: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakehouse"));
    command.arg("run").arg(folder().join("lakehouse.rs"));
    command.args(["--profile", "files", "--workers", &workers.to_string()]);
    let (input, output) = (format!("input={}", input.display()), format!("output={}", output.display()));
    for assignment in [&*input, &*output].iter().chain(set) {
        command.args(["--set", assignment]);
    }
    command
}

fn to_the_end(mut command: Command, what: &str) {
    let done = command.arg("--until-end").output().unwrap();
    assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
}

fn rows(folder: &Path, table: &str) -> Option<Vec<Value>> {
    let text = fs::read_to_string(folder.join(format!("{table}.ndjson"))).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn check(case: &str, out: &Path, tables: &[(&str, &[&str])]) {
    let mut compared = 0;
    for (table, ignored) in tables {
        let Some(expected) = rows(&folder().join("cases").join(case).join("expected"), table) else { continue };
        let actual = rows(out, table).unwrap_or_else(|| panic!("{case}: no {table}"));
        compare(&expected, &actual, ignored).unwrap_or_else(|difference| panic!("{case} {table}: {difference}"));
        compared += 1;
    }
    assert!(compared > 0, "{case} has nothing to compare with");
}

#[test]
fn every_case_with_recorded_epochs_and_one_to_three_workers() {
    for case in CASES {
        for workers in 1..=3 {
            let out = tempfile::tempdir().unwrap();
            let command = command(&folder().join("cases").join(case), out.path(), workers, &["bindings=recorded"]);
            to_the_end(command, &format!("{case}, {workers} workers"));
            check(case, out.path(), &TABLES);
        }
    }
}

/// A process that ends with this value, killed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The checkpoint that a life began with, and the newest of it.
fn epochs(output: &Path) -> Option<(u64, u64)> {
    let status: Value = serde_json::from_slice(&fs::read(output.join(".data/status.json")).ok()?).ok()?;
    Some((status["restored_epoch"].as_u64()?, status["epoch_checkpointed"].as_u64()?))
}

#[test]
fn killed_while_the_input_grows() {
    const PIECES: usize = 5;
    let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lines = |file: &str| -> Vec<Vec<u8>> {
        let bytes = fs::read(folder().join("cases/case-3").join(file)).unwrap();
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let files = ["oneshop.ndjson", "pageviews.ndjson"].map(|file| (input.path().join(file), lines(file)));
    let set = ["runtime.checkpoint_interval_ms=50", "state.dirty_mb=0"];
    let (mut restored, mut lives) = (0, 0);
    for piece in 0..PIECES {
        for (path, lines) in &files {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            let share = lines.len() / PIECES;
            let end = if piece + 1 == PIECES { lines.len() } else { (piece + 1) * share };
            lines[piece * share..end].iter().for_each(|line| file.write_all(line).unwrap());
        }
        let log = fs::File::create(out.path().join("log")).unwrap();
        let mut command = command(input.path(), out.path(), 1 + piece % 2, &set);
        let before = epochs(out.path()).map_or(0, |(_, newest)| newest);
        let mut running = Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        // Some lives end before they have made a checkpoint of their own, some in the midst of commits.
        let began = Instant::now();
        let least = before + if piece % 3 == 2 { 0 } else { 3 * piece as u64 };
        let of_this_life = |piece: usize| Duration::from_millis(300 + 170 * (piece as u64 * 7 % 5));
        while began.elapsed() < of_this_life(piece) || epochs(out.path()).is_none_or(|(_, newest)| newest <= least) {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(out.path().join("log")).unwrap());
            assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint: {:?}", epochs(out.path()));
            std::thread::sleep(Duration::from_millis(5));
        }
        restored += u64::from(epochs(out.path()).is_some_and(|(restored, _)| restored > 0));
        lives += 1;
    }
    to_the_end(command(input.path(), out.path(), 2, &set), "the last life");
    assert!(restored * 2 > lives, "{restored} of {lives} lives began with a checkpoint");
    check("case-3", out.path(), &TABLES[..TABLES.len() - OF_THE_CLOCK]);
}
