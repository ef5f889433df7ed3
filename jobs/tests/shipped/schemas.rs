//! A schema that the registry gave and the data folder cannot keep: the job ends and says so, and nothing is read by it.

// The registry of the test is a thread.
#![allow(clippy::disallowed_methods)]

use crate::process::{Said, job_file, program, say, status};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;

/// A record of schema id 7; what follows the id is never looked at.
const RECORD: &str = r#"{"partition":0,"offset":0,"raw":"AAAAAAcA"}"#;
const ANSWER: &str = r#"{"schema":"{\"type\":\"record\",\"name\":\"LoginEvent\",\"fields\":[]}"}"#;
/// The job ends long before; a job that does not is ended by this and then fails the test.
const SECONDS_MAX: &str = "60";

/// Gives every schema id a schema; its address.
fn registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", ANSWER.len());
            (&stream).write_all((head + ANSWER).as_bytes()).unwrap();
        }
    });
    format!("http://{address}")
}

fn run(folder: &Path) -> Said {
    let mut command = program(&["run"]);
    command.arg(job_file()).args(["--profile", "files", "--seconds", SECONDS_MAX]);
    for setting in [
        format!("input={}", folder.display()),
        format!("output={}", folder.join("out").display()),
        "sources.login-events.format=avro".to_owned(),
        format!("sources.login-events.registry={{ url = \"{}\" }}", registry()),
    ] {
        command.args(["--set", &setting]);
    }
    say(command)
}

#[test]
fn a_schema_that_can_not_be_kept_ends_the_job() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("login_events.ndjson"), format!("{RECORD}\n")).unwrap();
    fs::write(folder.path().join("ip_geo.csv"), "ip_prefix,country,city,lat,lon\n").unwrap();
    let data = folder.path().join("out/.data");
    fs::create_dir_all(&data).unwrap();
    // A file where the folder of schemas would be.
    fs::write(data.join("schemas"), "").unwrap();
    let said = run(folder.path());
    said.failed(3, &["keeping the schema of id '7' of source 'login-events'", "schemas", "repair the data folder"]);
    assert!(!said.err.contains("panicked"), "{}", said.err);
    assert_eq!(status(&data).unwrap()["records"], 0);
}
