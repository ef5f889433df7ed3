//! The embedded profile on a data folder, and what its outputs must be: the oracle's on the same made-up traffic.

use crate::process::{Life, Said, job_file, program, say};
use dataflow_loadgen::geography;
use dataflow_loadgen::logins::{BLOCK, Settings, Traffic};
use dataflow_oracle::{
    BindingRow, Case, Emission, Outputs, check_eager, compare, compare_per_user, coverage, parse_bindings, run,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Epochs at which the net of all anomalies is computed from scratch; the last is among them.
const EPOCHS_JUDGED: usize = 12;

/// A job on a data folder. Late, broken and repeated records are frequent.
pub(crate) struct Embedded {
    /// The job file; its settings lie beside it.
    pub(crate) job: PathBuf,
    pub(crate) data: PathBuf,
    settings: Value,
    set: Vec<String>,
}

impl Embedded {
    /// Traffic of this rate and length (without end if `None`), and further `--set`s.
    pub(crate) fn new(data: &Path, rate: u64, count: Option<u64>, set: &[&str]) -> Embedded {
        let mut settings = json!({
            "seed": 7, "users": 300, "rate": rate, "attacks": 120, "disorder": 0.2, "late": 0.01, "duplicates": 0.02, "poison": 0.01,
        });
        if let Some(count) = count {
            settings["count"] = json!(count);
        }
        let set = set.iter().map(|s| (*s).to_owned()).collect();
        Embedded { job: job_file(), data: data.to_owned(), settings, set }
    }

    /// A command on the job: `verb`, the job, its settings, then `more`.
    pub(crate) fn command(&self, verb: &[&str], more: &[&str]) -> Command {
        let mut command = program(verb);
        command.arg(&self.job).args(["--profile", "embedded", "--data"]).arg(&self.data);
        for (key, value) in self.settings.as_object().unwrap() {
            command.args(["--set", &format!("sources.login-events.{key}={value}")]);
        }
        for assignment in &self.set {
            command.args(["--set", assignment]);
        }
        command.args(more);
        command
    }

    pub(crate) fn say(&self, verb: &[&str], more: &[&str]) -> Said {
        say(self.command(verb, more))
    }

    pub(crate) fn start(&self, more: &[&str]) -> Life {
        Life::start(self.command(&["run"], more), &self.data)
    }

    pub(crate) fn bindings(&self) -> Vec<BindingRow> {
        parse_bindings(&self.say(&["bindings", "export"], &[]).ok()).unwrap()
    }

    /// The committed rows of a topic, as a consumer sees them.
    pub(crate) fn tail(&self, topic: &str) -> Vec<Value> {
        let text = self.say(&["tail"], &[topic]).ok();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The traffic: all of it if it has an end, else what the epochs have read.
    fn case(&self, bindings: &[BindingRow]) -> Case {
        let mut settings = self.settings.clone();
        settings["start"] = json!(std::fs::read_to_string(self.data.join("generators/login-events")).unwrap().trim());
        let traffic = Traffic::new(serde_json::from_value::<Settings>(settings).unwrap()).unwrap();
        let empty = BTreeMap::new();
        let ends = bindings.last().map_or(&empty, |row| &row.ends);
        let mut lines = Vec::new();
        for partition in 0..traffic.settings().partitions {
            let read = ends.get(&partition).copied().unwrap_or(0);
            let end = traffic.length(partition).unwrap_or(read);
            for block in 0..end.div_ceil(BLOCK) {
                let logins = (block * BLOCK..end).zip(traffic.block(partition, block));
                lines.extend(logins.map(|(offset, login)| line(partition, offset, login.json())));
            }
        }
        Case::parse(&lines.join("\n"), geography::csv()).unwrap()
    }

    /// What the job must have said in the epochs that it bound.
    pub(crate) fn expected(&self) -> Outputs {
        let bindings = self.bindings();
        run(&self.case(&bindings), &bindings, Emission::Eager).unwrap()
    }

    /// All rows are as they must be: nothing lost, nothing twice, each in its epoch, a user's in order. With `is_whole` the
    /// input was read to its end. The number of rows.
    pub(crate) fn check(&self, is_whole: bool) -> usize {
        let bindings = self.bindings();
        let case = self.case(&bindings);
        if is_whole {
            coverage(&case, &bindings).unwrap();
            assert!(bindings.last().unwrap().is_final);
        }
        let outputs = run(&case, &bindings, Emission::Eager).unwrap();
        let mut count = 0;
        for (topic, rows) in outputs.topics() {
            let expected: Vec<Value> = rows.iter().map(|row| row.value.clone()).collect();
            let actual = self.tail(topic);
            compare(&expected, &actual, &["raw"]).unwrap_or_else(|e| panic!("{topic}: {e}"));
            if ["login-anomalies", "login-events-enriched"].contains(&topic) {
                compare_per_user(&expected, &actual, &[]).unwrap_or_else(|e| panic!("{topic} in order: {e}"));
            }
            assert!(!actual.is_empty(), "the traffic has nothing for {topic}");
            count += actual.len();
        }
        check_eager(&case, &bindings, &self.tail("login-anomalies"), EPOCHS_JUDGED).unwrap();
        count
    }
}

/// A record's line of a case: what is an event in JSON is one, everything else a value that does not decode.
fn line(partition: u32, offset: u64, value: Option<Vec<u8>>) -> String {
    let event = value.as_deref().and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    match event.filter(|event| event.get("user_id").is_some()) {
        Some(event) => {
            let version = if event.get("success").is_some() { 2 } else { 1 };
            json!({"partition": partition, "offset": offset, "schema_version": version, "event": event}).to_string()
        }
        // Which bytes does not matter: dead letters are compared without them.
        None => json!({"partition": partition, "offset": offset, "raw": value.map(|_| "AA==")}).to_string(),
    }
}
