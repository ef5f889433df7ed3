//! A process of the program: started, watched through its `status.json`, ended by a signal.

// These tests wait for another process, by the clock of the machine.
#![allow(clippy::disallowed_methods)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far more than anything here takes, also on a machine that compiles meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The counters of the running (or last) process.
const STATUS: &str = "status.json";

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn of(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The standard output of a command that succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// It ended with this code, and its errors have all of these parts.
    pub(crate) fn failed(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "{:?} is not in {}", part, self.err);
        }
    }
}

/// The job file that is shipped.
pub(crate) fn job_file() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("login_anomalies.rs")
}

/// The program with these words.
pub(crate) fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_login_anomalies"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn say(mut command: Command) -> Said {
    Said::of(command.output().unwrap())
}

/// A running process; it is killed when a test gives it up.
pub(crate) struct Life {
    child: Option<Child>,
    data: PathBuf,
}

impl Life {
    /// Starts a command that works on the data folder `data`, in which only it leaves a status.
    pub(crate) fn start(mut command: Command, data: &Path) -> Life {
        let _ = fs::remove_file(data.join(STATUS));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Life { child: Some(child), data: data.to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Waits until `enough` holds for the status of this process.
    pub(crate) fn wait(&mut self, what: &str, enough: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        let mut seen = Value::Null;
        while began.elapsed() < PATIENCE {
            if let Some(ended) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("waiting for {what}: the process ended with {ended}: {:?}", self.end());
            }
            match status(&self.data) {
                Some(status) if enough(&status) => return status,
                Some(status) => seen = status,
                None => {}
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        panic!("waited {PATIENCE:?} for {what}: {seen:#}")
    }

    /// Sends signals, in one stopped moment of the process, so that none can be handled before the last is there.
    pub(crate) fn signal(&self, names: &[&str]) {
        for name in [&["STOP"], names, &["CONT"]].concat() {
            let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap();
            assert!(sent.success(), "kill -{name}");
        }
    }

    /// Lets it live on for a time, then kills it; whether it was still there.
    pub(crate) fn kill_after(mut self, time: Duration) -> bool {
        std::thread::sleep(time);
        let child = self.child.as_mut().unwrap();
        let was_running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        let said = self.end();
        assert!(said.code.is_none() || said.code == Some(0), "it failed before it was killed: {}", said.err);
        was_running
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> Said {
        Said::of(self.child.take().unwrap().wait_with_output().unwrap())
    }

    /// Ctrl-C, and its end.
    pub(crate) fn stop(&mut self) -> Said {
        self.signal(&["INT"]);
        self.end()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The counters in a data folder.
pub(crate) fn status(data: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(data.join(STATUS)).ok()?).ok()
}
