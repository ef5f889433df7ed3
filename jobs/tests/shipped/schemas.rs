//! What a registry's answers do to the shipped program: a schema that the data folder cannot keep ends the job, which says so, and
//! nothing is read by it; one that makes the Avro library panic is a dead letter; ids that nobody knows are asked for side by side.

// The registry of the test is a thread.
#![allow(clippy::disallowed_methods)]

use crate::process::{Said, job_file, program, say, status};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Records of schema ids 1 to 4; what follows the id is never looked at.
const RECORDS: [&str; 4] = ["AAAAAAEA", "AAAAAAIA", "AAAAAAMA", "AAAAAAQA"];
/// The job ends long before; a job that does not is ended by this and then fails the test.
const SECONDS_MAX: &str = "60";

/// A registry that gives every id this schema, or knows none; its address, and the paths that it was asked for.
fn registry(schema: Option<&'static str>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let paths = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            let mut lines = BufReader::new(&stream).lines();
            let first = lines.next().unwrap().unwrap();
            asked.lock().unwrap().push(first.split(' ').nth(1).unwrap().to_owned());
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let (status, body) = match schema {
                Some(schema) => (200, serde_json::json!({ "schema": schema }).to_string()),
                None => (404, String::new()),
            };
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            (&stream).write_all((head + &body).as_bytes()).unwrap();
        }
    });
    (address, paths)
}

/// Runs the job on `records` of one partition.
fn run(folder: &Path, records: &[&str], registry: &str) -> Said {
    let lines = records
        .iter()
        .enumerate()
        .map(|(offset, raw)| format!("{{\"partition\":0,\"offset\":{offset},\"raw\":\"{raw}\"}}\n"));
    fs::write(folder.join("login_events.ndjson"), lines.collect::<String>()).unwrap();
    fs::write(folder.join("ip_geo.csv"), "ip_prefix,country,city,lat,lon\n").unwrap();
    let mut command = program(&["run"]);
    command.arg(job_file()).args(["--profile", "files", "--until-end", "--seconds", SECONDS_MAX]);
    for setting in [
        format!("input={}", folder.display()),
        format!("output={}", folder.join("out").display()),
        "sources.login-events.format=avro".to_owned(),
        format!("sources.login-events.registry={{ url = \"{registry}\", grace_ms = 2000 }}"),
    ] {
        command.args(["--set", &setting]);
    }
    say(command)
}

#[test]
fn a_schema_that_can_not_be_kept_ends_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("out/.data");
    fs::create_dir_all(&data).unwrap();
    // A file where the folder of schemas would be.
    fs::write(data.join("schemas"), "").unwrap();
    let (registry, _) = registry(Some(r#"{"type":"record","name":"LoginEvent","fields":[]}"#));
    let said = run(folder.path(), &RECORDS[..1], &registry);
    said.failed(3, &["keeping the schema of id '1' of source 'login-events'", "schemas", "repair the data folder"]);
    assert!(!said.err.contains("panicked"), "{}", said.err);
    assert_eq!(status(&data).unwrap()["records"], 0);
}

#[test]
fn a_schema_that_makes_the_library_panic_is_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, _) = registry(Some(r#"{"type":"record","name":"","fields":[]}"#));
    let said = run(folder.path(), &RECORDS[..1], &registry);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(status(&folder.path().join("out/.data")).unwrap()["labelled"]["dead_letters.undecodable"], 1);
}

#[test]
fn ids_that_nobody_knows_are_asked_for_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, asked) = registry(None);
    let said = run(folder.path(), &RECORDS, &registry);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(status(&folder.path().join("out/.data")).unwrap()["labelled"]["dead_letters.undecodable"], 4);
    let asked = asked.lock().unwrap();
    let mut first = asked[..RECORDS.len()].to_vec();
    first.sort();
    assert_eq!(first, ["/schemas/ids/1", "/schemas/ids/2", "/schemas/ids/3", "/schemas/ids/4"], "{asked:?}");
}
