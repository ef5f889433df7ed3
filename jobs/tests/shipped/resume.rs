//! Killed at random moments and resumed: nothing lost, nothing twice; stopped cleanly: nothing replayed; rescaled: the same.

use crate::process::status;
use crate::traffic::Embedded;
use serde_json::Value;
use std::time::Duration;

/// Kills in the test of kills.
const KILLS: usize = 8;
/// The seed of their moments.
const SEED: u64 = 20_260_301;

/// Numbers that look random, the same on every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn counter(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap_or_else(|| panic!("{name} is not in {status}"))
}

#[test]
fn killed_at_random_moments_by_any_number_of_workers() {
    let data = tempfile::tempdir().unwrap();
    let set = ["runtime.checkpoint_interval_ms=300", "runtime.bindings_segment_bytes=16384"];
    let job = Embedded::new(data.path(), 300, Some(3600), &set);
    let mut dice = Dice(SEED);
    let (mut killed, mut restored, mut replayed, mut dropped) = (0, 0, 0, 0);
    let mut note = || {
        // A life that was too short has written none.
        let Some(status) = status(data.path()) else { return };
        restored = counter(&status, "restored_epoch").max(restored);
        replayed = counter(&status, "replayed_epochs").max(replayed);
        dropped = counter(&status, "epochs_dropped_by_marker").max(dropped);
    };
    for kill in 0..KILLS {
        let workers = (1 + dice.below(3)).to_string();
        // A fifth of the lives ends during the start, the others after one to five checkpoints.
        let time = Duration::from_millis(if dice.below(5) == 0 { dice.below(150) } else { 300 + dice.below(1200) });
        let was_running = job.start(&["--workers", &workers]).kill_after(time);
        assert!(was_running, "seed {SEED}: the input ended before kill {kill}");
        killed += 1;
        note();
    }
    job.start(&["--workers", "2"]).end().ok();
    note();
    assert_eq!(killed, KILLS);
    assert!(restored > 0 && replayed > 0 && dropped > 0, "{restored} {replayed} {dropped}");
    let rows = job.check(true);
    assert!(rows > 3600, "seed {SEED}: enriched rows alone are nearly as many as records: {rows}");
}

#[test]
fn stopped_at_a_checkpoint_and_gone_on_with_other_workers() {
    let data = tempfile::tempdir().unwrap();
    let job = Embedded::new(data.path(), 400, Some(3600), &["runtime.checkpoint_interval_ms=60000"]);
    let mut last = 0;
    for workers in ["2", "3"] {
        let mut life = job.start(&["--workers", workers]);
        let status = life.wait("records", |s| counter(s, "records") > 400 && counter(s, "epoch_committed") > last);
        assert_eq!((counter(&status, "restored_epoch"), counter(&status, "replayed_epochs")), (last, 0));
        assert_eq!(status["records_by_worker"].as_object().unwrap().len().to_string(), workers);
        let said = life.stop();
        assert!(said.err.contains("stopping at a checkpoint"), "{}", said.err);
        said.ok();
        let check: Value = serde_json::from_str(&job.say(&["check"], &["--output", "json"]).ok()).unwrap();
        assert_eq!(check["replays_epochs"], 0);
        last = check["restores_epoch"].as_u64().unwrap();
        assert_eq!(last, job.bindings().last().unwrap().epoch);
    }
    job.start(&["--workers", "1"]).end().ok();
    assert_eq!(counter(&status(data.path()).unwrap(), "restored_epoch"), last);
    assert_eq!(counter(&status(data.path()).unwrap(), "replayed_epochs"), 0);
    job.check(true);
}

#[test]
fn a_second_ctrl_c_ends_at_once_and_harms_nothing() {
    let data = tempfile::tempdir().unwrap();
    let job = Embedded::new(data.path(), 500, None, &["runtime.checkpoint_interval_ms=200"]);
    let mut life = job.start(&[]);
    life.wait("a checkpoint", |s| counter(s, "checkpoints") > 0);
    life.signal(&["INT", "TERM"]);
    assert_eq!(life.end().code, Some(130));
    job.start(&["--seconds", "1"]).end().ok();
    let status = status(data.path()).unwrap();
    assert!(counter(&status, "restored_epoch") > 0);
    job.check(false);
}
