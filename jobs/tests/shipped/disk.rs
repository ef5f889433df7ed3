//! A disk that fills, one that is read-only, files that may not be read or are another user's: the job stops with the reason, loses
//! nothing, and goes on once the cause is gone. The disk is a small tmpfs, so these tests need root, and say so where they have it not.

use crate::data::files;
use crate::process::{Said, say, status};
use crate::traffic::Embedded;
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user that owns nothing.
const NOBODY: u32 = 65_534;
/// Bytes of the small disk: more than the job needs here, little enough to fill at once.
const SIZE: &str = "32m";

const SET: [&str; 2] = ["runtime.checkpoint_interval_ms=300", "runtime.bindings_segment_bytes=65536"];

/// Says that a test was left out, past what the test runner keeps of a test that passes.
fn skipped(test: &str) {
    std::io::stderr().write_all(format!("SKIPPED a test {test}\n").as_bytes()).unwrap();
}

/// A file system of its own, unmounted when a test gives it up.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where nothing may be mounted.
    fn mount() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "tmpfs"])
            .arg(folder.path())
            .output();
        match mount {
            Ok(done) if done.status.success() => Some(SmallDisk(folder)),
            refused => {
                let why =
                    refused.map_or_else(|e| e.to_string(), |done| String::from_utf8_lossy(&done.stderr).into_owned());
                skipped(&format!("of full and read-only disks: tmpfs can not be mounted: {why}"));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{how},size={SIZE}")])
            .arg(self.path())
            .status()
            .unwrap();
        assert!(done.success(), "remount {how}");
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut filler = File::create(self.path().join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// The job runs, the disk under `part` of its data folder (`""`: all of it) fills, and has room again.
fn fills_up(part: &str, said_of: &[&str]) {
    let Some(disk) = SmallDisk::mount() else { return };
    let large = tempfile::tempdir().unwrap();
    let data = if part.is_empty() { disk.path().join("data") } else { large.path().join("data") };
    if !part.is_empty() {
        fs::create_dir(&data).unwrap();
        fs::create_dir(disk.path().join(part)).unwrap();
        symlink(disk.path().join(part), data.join(part)).unwrap();
    }
    let job = Embedded::new(&data, 500, Some(4000), &SET);
    let mut life = job.start(&["--workers", "2"]);
    life.wait("checkpoints", |s| s["checkpoints"].as_u64() > Some(1) && s["epoch_committed"].as_u64() > Some(0));
    disk.fill();
    let said = life.end();
    said.failed(3, &[&["the file system is full: free some space, then start again"], said_of].concat());
    let status = status(&data).unwrap();
    assert_eq!(
        (&status["state"], &status["failure"]["fault"]),
        (&Value::from("failed"), &Value::from("outside")),
        "{status:#}"
    );
    assert!(status["failure"]["hint"].as_str().unwrap().contains("is full"), "{status:#}");
    assert!(status["records"].as_u64() > Some(0), "{status:#}");
    assert!(!data.join("status.json.tmp").exists());

    // Still full: refused the same way, as often as it is tried.
    for _ in 0..2 {
        job.start(&["--workers", "2"]).end().failed(3, &["the file system is full"]);
    }
    disk.free();
    job.start(&["--workers", "2"]).end().ok();
    job.check(true);
}

#[test]
fn the_disk_of_the_data_folder_fills() {
    fills_up("", &["/data/"]);
}

#[test]
fn the_disk_of_the_binding_log_fills() {
    fills_up("bindings", &["cannot write to", "/bindings/"]);
}

#[test]
fn the_disk_of_the_checkpoints_fills() {
    fills_up("checkpoints", &["/checkpoints/"]);
}

#[test]
fn the_disk_of_the_live_state_fills() {
    fills_up("live", &["state in", "/live/"]);
}

#[test]
fn the_disk_of_the_local_log_fills() {
    fills_up("output", &["cannot write to", "/output/alerts/"]);
}

/// Every path below a folder.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = entries
        .flat_map(|path| if path.is_dir() { [vec![path.clone()], tree(&path)].concat() } else { vec![path] })
        .collect();
    all.sort();
    all
}

#[test]
fn a_read_only_disk_is_refused_and_can_be_looked_at() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    let job = Embedded::new(&data, 500, Some(2000), &SET);
    let mut life = job.start(&[]);
    life.wait("records", |s| s["checkpoints"].as_u64() > Some(0));
    life.stop().ok();
    disk.remount("ro");
    let before = files(&data);
    job.say(&["run"], &[]).failed(3, &["LOCK'", "the file system is read-only", "mount it writable"]);
    assert!(job.say(&["check"], &[]).ok().contains("is sound"));
    job.say(&["checkpoints", "verify"], &[]).ok();
    assert!(!job.bindings().is_empty());
    assert_eq!(files(&data), before);
    disk.remount("rw");
    job.start(&[]).end().ok();
    job.check(true);
}

/// The program, job and settings where everybody may read them.
struct Public(tempfile::TempDir);

impl Public {
    fn new() -> Public {
        // Not where temporary files of this user lie: that may be closed to others.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_login_anomalies"), folder.path().join("program")).unwrap();
        Public(folder)
    }

    /// The job's command, run by this user.
    fn say(&self, job: &Embedded, user: u32, verb: &[&str], more: &[&str]) -> Said {
        let mut command = Command::new(self.0.path().join("program"));
        command.args(job.command(verb, more).get_args());
        command.current_dir("/").uid(user).gid(user);
        say(command)
    }

    /// A folder of its own for a user.
    fn folder(&self, user: u32) -> PathBuf {
        let folder = self.0.path().join(format!("of-{user}"));
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(user), Some(user)).unwrap();
        folder
    }

    /// The job on the data folder `data`; its file lies here.
    fn job(&self, data: &Path) -> Embedded {
        let mut job = Embedded::new(data, 500, Some(1500), &SET);
        let copy = self.0.path().join("login_anomalies.rs");
        for extension in ["rs", "toml"] {
            fs::copy(job.job.with_extension(extension), copy.with_extension(extension)).unwrap();
        }
        job.job = copy;
        job
    }
}

#[test]
fn another_user_s_files_are_refused_with_both_names() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        skipped("of other users' files: it needs root");
        return;
    }
    let public = Public::new();
    // Root may do all, but what it wrote, nobody could not read.
    let job = public.job(&public.folder(NOBODY).join("data"));
    public.say(&job, NOBODY, &["run"], &["--seconds", "1"]).ok();
    let before = files(&job.data);
    let parts = ["cannot use the data folder", "'LOCK' belongs to", "id 65534", "user 'root' (id 0)", "chown -R"];
    public.say(&job, 0, &["run"], &[]).failed(3, &parts);
    assert_eq!(files(&job.data), before);
    // Permission is missing within.
    let bindings = job.data.join("bindings");
    fs::set_permissions(&bindings, Permissions::from_mode(0o500)).unwrap();
    public.say(&job, NOBODY, &["run"], &[]).failed(3, &["permission is missing", "/bindings"]);
    fs::set_permissions(&bindings, Permissions::from_mode(0o755)).unwrap();
    public.say(&job, NOBODY, &["run"], &[]).ok();
    job.check(true);

    let job = public.job(&public.folder(0).join("data"));
    public.say(&job, NOBODY, &["run"], &[]).failed(3, &["cannot create the data folder", "permission is missing"]);
    public.say(&job, 0, &["run"], &["--seconds", "1"]).ok();
    public.say(&job, NOBODY, &["run"], &[]).failed(3, &["'LOCK' belongs to user 'root' (id 0)", "id 65534"]);
    fs::remove_file(job.data.join("LOCK")).unwrap();
    public.say(&job, NOBODY, &["run"], &[]).failed(3, &["'identity' belongs to user 'root'"]);
}

/// `check` leaves a data folder as it is, whatever there is in it and whatever is not.
#[test]
fn check_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let job = Embedded::new(&data, 500, Some(1000), &["runtime.checkpoint_interval_ms=600000"]);
    let mut life = job.start(&[]);
    life.wait("output", |s| s["epoch_committed"].as_u64() > Some(0));
    assert!(life.kill_after(std::time::Duration::ZERO));
    // The folders as they were left by a start that did not get far.
    fs::remove_dir_all(data.join("checkpoints")).unwrap();
    let before = (tree(&data), files(&data));
    assert!(job.say(&["check"], &[]).ok().contains("is sound"));
    for verb in ["list", "verify"] {
        assert!(job.say(&["checkpoints", verb], &[]).ok().contains("no checkpoint yet"));
    }
    assert_eq!((tree(&data), files(&data)), before);
}
