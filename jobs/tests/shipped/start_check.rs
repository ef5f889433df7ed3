//! Invariant 8 on the program: log, checkpoint and sinks belong together, and a start proves it before it writes anything.
//!
//! A base folder is made by three lives: two end cleanly, the third is killed with output after its checkpoint. Each test
//! breaks a copy of it in one way.

use crate::data::{copy, cut_log_after, files, flip, marker, replace, rows, sorted};
use crate::process::{Said, job_file, status};
use crate::traffic::Embedded;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SINK: &str = "alerts";
/// Segments of a few dozen epochs, so that the log has several.
const SET: [&str; 2] = ["runtime.checkpoint_interval_ms=200", "runtime.bindings_segment_bytes=2048"];

/// The folders after each of the three lives.
struct Base {
    folder: TempDir,
    /// The checkpoint of the third: that of the end of the second.
    checkpoint: u64,
    /// The epoch of the first life's last binding.
    early: u64,
    /// The sink's marker at the end.
    marker: u64,
}

impl Base {
    fn new() -> Base {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("live");
        let count = |status: &Value, name: &str| status[name].as_u64().unwrap();
        for name in ["early", "middle"] {
            let mut life = embedded(&live, &SET).start(&[]);
            let began = life.wait("a start", |s| count(s, "epoch_committed") > 0)["epoch_opened"].as_u64().unwrap();
            life.wait("output", |s| count(s, "checkpoints") > 1 && count(s, "epoch_committed") > began + 20);
            life.stop().ok();
            copy(&live, &folder.path().join(name));
        }
        let never = [SET[1], "runtime.checkpoint_interval_ms=600000"];
        let mut life = embedded(&live, &never).start(&[]);
        let status =
            life.wait("output after the checkpoint", |s| count(s, "epoch_committed") > count(s, "restored_epoch") + 30);
        assert!(life.kill_after(std::time::Duration::ZERO));
        copy(&live, &folder.path().join("late"));
        let last = |name: &str| embedded(&folder.path().join(name), &[]).bindings().last().unwrap().epoch;
        let base = Base {
            checkpoint: count(&status, "restored_epoch"),
            early: last("early"),
            marker: marker(&live, SINK),
            folder,
        };
        assert!(base.early < base.checkpoint && base.checkpoint < base.marker);
        assert_eq!(base.checkpoint, last_of(&base, "middle"));
        base
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of the end of the third life.
    fn late(&self) -> TempDir {
        let copied = tempfile::tempdir().unwrap();
        copy(&self.path("late"), copied.path());
        copied
    }
}

fn last_of(base: &Base, name: &str) -> u64 {
    embedded(&base.path(name), &[]).bindings().last().unwrap().epoch
}

fn embedded(data: &Path, set: &[&str]) -> Embedded {
    Embedded::new(data, 400, None, set)
}

/// Breaks a copy and starts it: refused with a code and a message that has all parts, and nothing that counts is changed, so
/// that bringing back what was broken makes the folder whole again.
fn refused(base: &Base, what: &str, code: i32, parts: &[&str], spoil: impl FnOnce(&Path)) {
    let data = base.late();
    spoil(data.path());
    let kept = || ["output", "bindings", "checkpoints"].map(|name| files(&data.path().join(name)));
    let before = kept();
    let said = embedded(data.path(), &SET).say(&["run"], &["--seconds", "1"]);
    println!("{what}: {}", said.err);
    said.failed(code, parts);
    for (before, after) in before.iter().zip(&kept()) {
        let names = |files: &std::collections::BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(before), names(after), "{what}: files came or went");
        assert!(before == after, "{what}: a file was changed");
    }
}

/// Starts a copy that may go on, and checks all that it and the lives before it have said.
fn goes_on(data: &Path, set: &[&str]) -> Said {
    let job = embedded(data, &[&SET, set].concat());
    let said = job.say(&["run"], &["--seconds", "1"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    job.check(false);
    said
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let base = Base::new();
    let (c, m) = (format!("epoch {}", base.checkpoint), format!("epoch {}", base.marker));
    let early = format!("epoch {}", base.early);
    let sink = format!("sink '{SINK}'");

    refused(&base, "log removed", 4, &["binding log ends at epoch 0", &c], |data| {
        fs::remove_dir_all(data.join("bindings")).unwrap();
    });
    refused(&base, "log rolled back behind the checkpoint", 4, &["binding log ends at", &early, &c], |data| {
        replace(&base.path("early"), data, "bindings");
    });
    refused(&base, "log rolled back to the checkpoint", 4, &[&sink, &m, "binding log ends at", &c], |data| {
        replace(&base.path("middle"), data, "bindings");
    });
    refused(&base, "last row rotten after use", 4, &[&sink, &m, "is broken from byte"], |data| {
        cut_log_after(data, base.marker);
        let place = rows(data).remove(&base.marker).unwrap();
        flip(&place.segment, place.to - 20);
    });
    refused(&base, "a row in the middle is rotten", 4, &["bindings/", "byte"], |data| {
        let place = rows(data).remove(&(base.checkpoint + 2)).unwrap();
        flip(&place.segment, place.to - 20);
    });
    let between = (base.early + base.checkpoint) / 2;
    let cut = format!("binding log ends at epoch {between}");
    refused(&base, "checkpoint older than the sink, log cut", 4, &[&sink, &m, &cut], |data| {
        replace(&base.path("early"), data, "checkpoints");
        cut_log_after(data, between);
    });
    refused(&base, "a segment in the middle is missing", 4, &["bindings"], |data| {
        let after = rows(data).remove(&(base.checkpoint + 1)).unwrap().segment;
        let segments = sorted(&data.join("bindings"));
        let middle = segments.iter().find(|s| **s > after).filter(|s| *s != segments.last().unwrap());
        fs::remove_file(middle.expect("the log after the checkpoint has three segments")).unwrap();
    });
    refused(
        &base,
        "the log's beginning is gone, and every checkpoint",
        4,
        &["begins at epoch", "no intact checkpoint"],
        |data| {
            fs::remove_dir_all(data.join("checkpoints")).unwrap();
            fs::remove_file(&sorted(&data.join("bindings"))[0]).unwrap();
        },
    );
    refused(&base, "output removed", 4, &[&sink, "no output of this job", &c], |data| {
        fs::remove_dir_all(data.join("output").join(SINK)).unwrap();
    });
    refused(&base, "output rolled back", 4, &[&sink, "output up to epoch", &c], |data| {
        replace(&base.path("early"), data, "output");
    });
    refused(&base, "marker rolled back", 4, &[&sink, "output up to epoch", &c], |data| {
        replace(&base.path("early"), data, "output/alerts/commits");
    });
    refused(&base, "committed rows lost", 4, &["login-events-enriched", "were committed"], |data| {
        let segment = sorted(&data.join("output/alerts/login-events-enriched")).pop().unwrap();
        let bytes = fs::read(&segment).unwrap();
        fs::write(&segment, &bytes[..bytes.len() / 2]).unwrap();
    });
}

#[test]
fn what_is_of_another_job_is_refused() {
    let (base, other) = (Base::new(), Base::new());
    let lineage = |base: &Base| {
        let text = fs::read_to_string(base.path("late").join("identity")).unwrap();
        let identity: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        format!("{:016x}", identity["lineage"].as_u64().unwrap())
    };
    let (ours, theirs) = (lineage(&base), lineage(&other));
    let both = [&*ours, &*theirs];
    refused(&base, "foreign output", 4, &both, |data| replace(&other.path("late"), data, "output"));
    refused(&base, "foreign checkpoints", 4, &both, |data| replace(&other.path("late"), data, "checkpoints"));
    refused(&base, "foreign log", 4, &["binding log", "the checkpoint"], |data| {
        replace(&other.path("late"), data, "bindings")
    });
    refused(&base, "foreign identity", 4, &both, |data| {
        fs::copy(other.path("late").join("identity"), data.join("identity")).unwrap();
    });
    refused(&base, "identity lost", 4, &["'identity'"], |data| fs::remove_file(data.join("identity")).unwrap());
}

#[test]
fn what_nothing_relies_on_may_be_lost() {
    let base = Base::new();
    // An append that was interrupted, after what the sink has.
    let data = base.late();
    cut_log_after(data.path(), base.marker);
    let segment = sorted(&data.path().join("bindings")).pop().unwrap();
    let torn = [fs::read(&segment).unwrap(), vec![9, 0, 0, 0, 7, 7, 7]].concat();
    fs::write(&segment, torn).unwrap();
    goes_on(data.path(), &[]);

    // Rows that no commits line counts.
    let data = base.late();
    let segment = sorted(&data.path().join("output/alerts/login-events-enriched")).pop().unwrap();
    fs::write(&segment, [fs::read(&segment).unwrap(), b"{\"never\":\"said\"}\n".to_vec()].concat()).unwrap();
    goes_on(data.path(), &[]);

    // All checkpoints, with the log whole: everything is replayed, and the sink drops what it has.
    let data = base.late();
    fs::remove_dir_all(data.path().join("checkpoints")).unwrap();
    goes_on(data.path(), &[]);
    let counters = status(data.path()).unwrap();
    assert_eq!(counters["restored_epoch"], 0);
    assert!(counters["epochs_dropped_by_marker"].as_u64().unwrap() > 0);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_loudly() {
    let base = Base::new();
    for damage in ["manifest", "file"] {
        let data = base.late();
        let manifest = sorted(&data.path().join("checkpoints/manifests")).pop().unwrap();
        let listed = || embedded(data.path(), &[]).say(&["checkpoints", "list"], &["--output", "json"]).ok();
        let list: Vec<Value> = serde_json::from_str(&listed()).unwrap();
        assert_eq!(list[0]["epoch"], base.checkpoint);
        if damage == "manifest" {
            flip(&manifest, 40);
        } else {
            // A file that the newest one has and the ones before it have not.
            let text = |path: &Path| fs::read_to_string(path).unwrap();
            let older: String =
                sorted(&data.path().join("checkpoints/manifests")).iter().rev().skip(1).map(|p| text(p)).collect();
            let is_new = |path: &PathBuf| {
                let name = path.file_stem().unwrap().to_str().unwrap();
                let hash = name.split('-').next().unwrap();
                text(&manifest).contains(hash) && !older.contains(hash)
            };
            let file = sorted(&data.path().join("checkpoints/files")).into_iter().find(is_new).unwrap();
            flip(&file, 3);
        }
        let verified = embedded(data.path(), &[]).say(&["checkpoints", "verify"], &["--output", "json"]);
        verified.failed(3, &["1 of 3 are damaged"]);
        let rows: Vec<Value> = serde_json::from_str(&verified.out).unwrap();
        assert_eq!(rows.iter().map(|row| row["intact"].as_bool().unwrap()).collect::<Vec<_>>(), [false, true, true]);

        let said = goes_on(data.path(), &[]);
        let name = manifest.file_name().unwrap().to_str().unwrap();
        assert!(said.err.contains("passed over") && said.err.contains(name), "{damage}: {}", said.err);
        let counters = status(data.path()).unwrap();
        assert_eq!(counters["damaged_checkpoints"], 1);
        assert_eq!(counters["restored_epoch"], list[1]["epoch"]);
    }
}

/// What was said with the old parameters stands, and the epochs that it was said in would be computed again with the new ones.
#[test]
fn changed_parameters_are_refused_though_there_is_no_checkpoint_yet() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let never = "runtime.checkpoint_interval_ms=600000";
    let job = embedded(&data, &[never]);
    let mut life = job.start(&[]);
    life.wait("output", |s| s["epoch_committed"].as_u64().unwrap() > 20 && s["raised"].as_u64().unwrap() > 0);
    assert!(life.kill_after(std::time::Duration::ZERO));
    assert!(!data.join("checkpoints/manifests").is_dir() || sorted(&data.join("checkpoints/manifests")).is_empty());

    let changed = embedded(&data, &[never, "emit=final"]);
    let parts =
        ["code or parameters changed while epochs up to", "are bound after epoch 0", "stop the old program cleanly"];
    for verb in ["check", "run"] {
        changed.say(&[verb], &[]).failed(2, &parts);
    }
    embedded(&data, &[never, "emit=final", "runtime.replay_with_new_code=true"]).say(&["check"], &[]).ok();
    job.start(&["--seconds", "1"]).end().ok();
    job.check(false);
    // From a clean stop a changed program may go on, but not with the other emission while events are pending.
    embedded(&data, &[never, "dead_letters_with_raw=false"]).say(&["check"], &[]).ok();
    changed.say(&["check"], &[]).failed(2, &["have pending events under the other one"]);
}

/// A sink that the checkpoint does not know begins with what comes after it.
#[test]
fn a_sink_is_added() {
    let base = Base::new();
    let (data, wiring) = (base.late(), tempfile::tempdir().unwrap());
    let text = fs::read_to_string(job_file().with_extension("toml")).unwrap();
    let all = r#"topics = ["login-events-enriched", "login-anomalies", "login-events-late", "login-events-dlq"]"#;
    let two = "topics = [\"login-anomalies\", \"login-events-late\", \"login-events-dlq\"]\n\n[profiles.embedded.sinks.copies]\nconnector = \"local-log\"\ntopics = [\"login-events-enriched\"]";
    assert!(text.contains(all), "the settings name the topics in another way now");
    fs::write(wiring.path().join("login_anomalies.toml"), text.replacen(all, two, 1)).unwrap();
    fs::copy(job_file(), wiring.path().join("login_anomalies.rs")).unwrap();
    let mut job = embedded(data.path(), &SET);
    job.job = wiring.path().join("login_anomalies.rs");
    job.say(&["run"], &["--seconds", "1"]).ok();
    let outputs = job.expected();
    let after: Vec<Value> =
        outputs.enriched.iter().filter(|row| row.epoch > base.checkpoint).map(|row| row.value.clone()).collect();
    dataflow_oracle::compare(&after, &job.tail("login-events-enriched"), &[]).unwrap();
    let anomalies: Vec<Value> = outputs.anomalies.iter().map(|row| row.value.clone()).collect();
    dataflow_oracle::compare(&anomalies, &job.tail("login-anomalies"), &[]).unwrap();
    // From now on it is one that the checkpoint knows.
    fs::remove_dir_all(data.path().join("output/copies")).unwrap();
    job.say(&["run"], &["--seconds", "1"]).failed(4, &["sink 'copies'", "no output of this job"]);
}
