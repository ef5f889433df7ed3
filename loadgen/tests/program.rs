//! The program `loadgen`: its closing summary, its exit codes, and Ctrl-C on traffic without end, against librdkafka's mock broker; a
//! shop in files and in objects.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // All of this file is a test, and waits for a process by the clock.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "login-events";

fn loadgen(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A registry that gives every schema the id 1. It ends with the test's process.
fn registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), vec![0; 64 << 10]);
            let mut read = stream.read(&mut request).unwrap();
            let head = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
            while head(&request[..read]).is_none_or(|head| {
                let lines = text(&request[..head]).to_lowercase();
                let length =
                    lines.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                read < head + length.unwrap()
            }) {
                read += stream.read(&mut request[read..]).unwrap();
            }
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\nConnection: close\r\n\r\n{\"id\":1}";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    format!("http://{address}")
}

/// Records of the topic.
fn written(brokers: &str) -> u64 {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "t").create().unwrap();
    (0..2).map(|p| consumer.fetch_watermarks(TOPIC, p, PATIENCE).unwrap().1 as u64).sum()
}

/// Whether the record at the place of an attack is there.
fn is_there(brokers: &str, place: &Value) -> bool {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "t").create().unwrap();
    let mut list = TopicPartitionList::new();
    let (partition, offset) = (place["partition"].as_i64().unwrap() as i32, place["offset"].as_i64().unwrap());
    list.add_partition_offset(TOPIC, partition, Offset::Offset(offset)).unwrap();
    consumer.assign(&list).unwrap();
    consumer.poll(PATIENCE).unwrap().is_ok()
}

fn end(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

#[test]
fn ctrl_c_flushes_what_was_written_and_keeps_its_labels() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let folder = tempfile::tempdir().unwrap();
    let labels = folder.path().join("labels.ndjson");
    let words = ["logins", "--kafka", &brokers, "--registry", &registry(), "--partitions", "2", "--users", "200"];
    let mut command = loadgen(&words);
    // A linger that no wait of the test outlasts: without a flush nothing would be there.
    command.args(["--rate", "500", "--attacks", "400", "--property", "linger.ms=8000", "--output", "json", "--labels"]);
    let child = command.arg(&labels).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(written(&brokers), 0);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let began = Instant::now();
    let said = end(child);
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
    let summary: Value = serde_json::from_slice(&said.stdout).unwrap();
    let records = summary["records"].as_u64().unwrap();
    assert!(records > 500, "{summary}");
    assert_eq!(records, written(&brokers));
    let labels: Vec<Value> =
        std::fs::read_to_string(labels).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!labels.is_empty());
    assert!(labels.iter().all(|label| is_there(&brokers, &label["last"])), "{labels:?}");
    let attacks: u64 = summary["attacks"].as_object().unwrap().values().map(|a| a["all"].as_u64().unwrap()).sum();
    assert_eq!(attacks, labels.len() as u64);
}

#[test]
fn the_summary_as_json_and_the_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("case");
    let said = loadgen(&["logins", "--count", "500", "--attacks", "60", "--output", "json", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
    let summary: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(summary["records"], 500);
    assert_eq!(summary["of_partitions"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), 500);

    let failed = |words: &[&str], code: i32, part: &str| {
        let said = loadgen(words).output().unwrap();
        assert_eq!(said.status.code(), Some(code), "{words:?}: {}", text(&said.stderr));
        assert!(text(&said.stderr).contains(part), "{words:?}: {}", text(&said.stderr));
    };
    let folder = folder.path().to_str().unwrap();
    failed(&["logins", "--out", folder], 2, "--count or --seconds");
    failed(&["logins", "--count", "5", "--users", "0", "--out", folder], 2, "'users' = 0");
    failed(&["logins"], 2, "--out");
    failed(&["geo", "--out", "/no/such/folder/geo.csv"], 3, "/no/such/folder/geo.csv");
    failed(&["geo", "--out", "/no/such/folder/geo.csv", "--output", "json"], 3, "\"exit_code\":3");
    let help = loadgen(&["--help"]).output().unwrap();
    assert!(text(&help.stdout).contains("Exit codes: 0"), "{}", text(&help.stdout));
}

#[test]
fn pressure_takes_what_it_says_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let words = ["--cpus", "1", "--memory-mb", "64", "--disk", place, "--disk-mb", "8", "--seconds", "30"];
    let child = loadgen(&["pressure", "--output", "json"]).args(words).spawn().unwrap();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).map(str::trim).map(str::to_owned);
        line.and_then(|line| line.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let began = Instant::now();
    while resident() < 64 << 10 || std::fs::read_dir(folder.path()).unwrap().count() == 0 {
        assert!(began.elapsed() < PATIENCE, "{} KiB are held", resident());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let said = end(child);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
    let summary: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert!(summary["bytes_written"].as_u64().unwrap() > 0 && summary["rounds"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let failed = |words: &[&str], code: i32, part: &str| {
        let said = loadgen(words).output().unwrap();
        assert_eq!(
            (said.status.code(), text(&said.stderr).contains(part)),
            (Some(code), true),
            "{}",
            text(&said.stderr)
        );
    };
    failed(&["pressure"], 2, "--cpus, --memory-mb or --disk");
    failed(&["pressure", "--cpus", "1", "--disk", "/no/such/folder", "--seconds", "600"], 3, "/no/such/folder");
}

#[test]
fn a_shop_s_objects_hold_its_pageviews_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let shop = |words: &[&str]| {
        let said = loadgen(&["shop", "--bulk", "--rate", "50", "--users", "80", "--items", "20", "--output", "json"])
            .args(words)
            .output()
            .unwrap();
        assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
        serde_json::from_slice::<Value>(&said.stdout).unwrap()
    };
    let (files, objects) = (at("files"), at("objects"));
    let said = shop(&["--events", "5000", "--out", &files]);
    let gzipped = shop(&["--seconds", "100", "--objects", &objects, "--objects-every", "10", "--gzip"]);
    assert_eq!(said["of_feeds"], gzipped["of_feeds"]);
    let lines = std::fs::read(folder.path().join("files/pageviews.ndjson")).unwrap();
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count() as u64, said["of_feeds"]["pageviews"]);
    let changes = std::fs::read_to_string(folder.path().join("files/oneshop.ndjson")).unwrap();
    let of_tables = ["users", "items", "purchases"].map(|table| said["of_feeds"][table].as_u64().unwrap());
    assert_eq!(changes.lines().count() as u64, of_tables.iter().sum::<u64>());
    let mut names: Vec<_> = std::fs::read_dir(&objects).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names.len(), 10, "{names:?}");
    let mut together = Vec::new();
    for name in names {
        let file = std::fs::File::open(name).unwrap();
        flate2::read::GzDecoder::new(file).read_to_end(&mut together).unwrap();
    }
    assert!(together == lines, "objects and files differ");
    for (words, part) in [(&["shop"][..], "--out"), (&["shop", "--bulk", "--out", &files], "--events")] {
        let said = loadgen(words).output().unwrap();
        assert_eq!(said.status.code(), Some(2), "{}", text(&said.stderr));
        assert!(text(&said.stderr).contains(part), "{}", text(&said.stderr));
    }
}
