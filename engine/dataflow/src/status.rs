//! `status.json` in the data folder: what the running (or last) process of the job does, what it counted, and why it ended.
//!
//! For people and programs that watch, not for recovery: a write that fails is only reported. It is whole at every moment, by a rename;
//! when no room is left for a second file it is written over in place, so that a full disk does not hide that the disk is full.

use crate::page;
use dataflow_core::{Error, Result};
use dataflow_runtime::control::StatusSnapshot;
use dataflow_runtime::measures::memory::MemoryMeasure;
use dataflow_runtime::measures::restore::RestoreMeasure;
use dataflow_runtime::measures::tables::Retrying;
use dataflow_runtime::{Control, Plan};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// Its name.
const STATUS: &str = "status.json";

/// What the file holds.
#[derive(Serialize)]
pub(crate) struct JobStatus {
    /// `starting`, `restoring`, `replaying`, `running`, `stopping`, `stopped` or `failed`.
    state: &'static str,
    /// Why it failed.
    failure: Option<Failure>,
    /// Sinks of tables whose catalog or storage does not answer: what is tried again, by sink.
    retrying: BTreeMap<String, BTreeMap<String, Retrying>>,
    /// What the start rebuilds, or has rebuilt; nothing of a fresh start.
    restore: Option<RestoreMeasure>,
    /// What the process has in memory.
    memory: MemoryMeasure,
    #[serde(flatten)]
    counters: StatusSnapshot,
}

/// An error, as data.
#[derive(Serialize)]
struct Failure {
    /// What was attempted, on what, and the cause.
    message: String,
    /// Whose fault it is, as in errors with `--output json`.
    fault: String,
    /// What to do.
    hint: Option<String>,
}

impl Failure {
    fn of(error: &Error) -> Failure {
        let cause = error.source.as_ref().map_or(String::new(), |cause| format!(": {cause}"));
        Failure { message: format!("{}{cause}", error.what), fault: fault(error), hint: error.hint.clone() }
    }
}

/// The word for whose fault an error is.
pub(crate) fn fault(error: &Error) -> String {
    format!("{:?}", error.fault).to_lowercase()
}

impl JobStatus {
    /// Of a job that runs.
    pub(crate) fn of(control: &Control) -> JobStatus {
        JobStatus::with(control, page::state(control), control.failure(Failure::of))
    }

    /// Of one that has ended.
    pub(crate) fn ended(control: &Control, end: &Result<()>) -> JobStatus {
        let failure = end.as_ref().err().map(Failure::of);
        let state = match end {
            Ok(()) => "stopped",
            Err(error) if error.restart => "restarting",
            Err(_) => "failed",
        };
        JobStatus::with(control, state, failure)
    }

    fn with(control: &Control, state: &'static str, failure: Option<Failure>) -> JobStatus {
        let measures = &control.measures;
        JobStatus {
            state,
            failure,
            retrying: retrying(control),
            restore: measures.restore.snapshot(),
            memory: measures.memory.snapshot(),
            counters: control.status.snapshot(),
        }
    }
}

fn retrying(control: &Control) -> BTreeMap<String, BTreeMap<String, Retrying>> {
    let sinks = control.measures.tables.sinks().into_iter().map(|(sink, measure)| (sink, measure.retrying));
    sinks.filter(|(_, retrying)| !retrying.is_empty()).collect()
}

/// The file. Its process owns the data folder.
pub(crate) struct StatusFile {
    path: PathBuf,
    plan: OnceLock<Arc<Plan>>,
    /// Nothing is written any more. The lock keeps writers apart.
    has_ended: Mutex<bool>,
}

impl StatusFile {
    pub(crate) fn new(data: &Path) -> StatusFile {
        StatusFile { path: data.join(STATUS), plan: OnceLock::new(), has_ended: Mutex::new(false) }
    }

    /// The job that it is about, once it is prepared.
    pub(crate) fn name(&self, plan: &Arc<Plan>) {
        let _ = self.plan.set(plan.clone());
    }

    /// Brings it up to date.
    pub(crate) fn update(&self) {
        let has_ended = self.has_ended.lock().expect("no holder panics");
        if let Some(plan) = self.plan.get().filter(|_| !*has_ended) {
            self.write(&JobStatus::of(&plan.control));
        }
    }

    /// Writes how the job has ended; the last word.
    pub(crate) fn end(&self, end: &Result<()>) {
        let mut has_ended = self.has_ended.lock().expect("no holder panics");
        *has_ended = true;
        let unprepared = Control::new();
        self.write(&JobStatus::ended(self.plan.get().map_or(&*unprepared, |plan| &*plan.control), end));
    }

    fn write(&self, status: &JobStatus) {
        let text = serde_json::to_vec_pretty(status).expect("counters are plain data");
        if let Err(error) = write(&self.path, &text) {
            tracing::warn!(%error, path = %self.path.display(), "the status could not be written");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the status needs to be whole, not durable")]
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("json.tmp");
    fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path)).or_else(|_| {
        let _ = fs::remove_file(&temporary); // a part of it would take room and tell nothing
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.write_all(text)?;
        file.set_len(text.len() as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn read(data: &Path) -> Value {
        serde_json::from_slice(&fs::read(data.join(STATUS)).unwrap()).unwrap()
    }

    #[test]
    fn it_says_why_the_job_ended() {
        let data = tempfile::tempdir().unwrap();
        let file = StatusFile::new(data.path());
        file.update();
        assert!(!data.path().join(STATUS).exists(), "there is no job yet");
        file.end(&Err(Error::outside("cannot write to '/x'").because("no space").hint("free some")));
        let status = read(data.path());
        assert_eq!((&status["state"], &status["records"]), (&"failed".into(), &0.into()));
        let failure =
            serde_json::json!({"message": "cannot write to '/x': no space", "fault": "outside", "hint": "free some"});
        assert_eq!(status["failure"], failure);
        StatusFile::new(data.path()).end(&Ok(()));
        let status = read(data.path());
        assert_eq!((&status["state"], &status["failure"]), (&"stopped".into(), &Value::Null));
    }

    #[test]
    fn a_running_job_s_failure_is_there_before_its_end() {
        let control = Control::new();
        assert_eq!(serde_json::to_value(JobStatus::of(&control)).unwrap()["state"], "starting");
        control.fail(Error::us("testing"));
        let status = serde_json::to_value(JobStatus::of(&control)).unwrap();
        assert_eq!((&status["state"], &status["failure"]["fault"]), (&"failed".into(), &"us".into()));
    }

    /// A folder in the temporary file's place keeps it from being written, as a full disk does.
    #[test]
    fn without_a_second_file_it_is_written_over() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(STATUS);
        fs::write(&path, "x".repeat(9_000)).unwrap();
        fs::create_dir(data.path().join("status.json.tmp")).unwrap();
        StatusFile::new(data.path()).end(&Ok(()));
        assert_eq!(read(data.path())["state"], "stopped");
    }
}
