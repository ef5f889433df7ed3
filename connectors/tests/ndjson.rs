//! The NDJSON source against files as cases have them, growing ones, and broken ones.

#![allow(clippy::unwrap_used)] // All of this file is a test.

use dataflow_connectors::decode::json::CaseLineDecoder;
use dataflow_connectors::source::ndjson::NdjsonSource;
use dataflow_core::{Decode, Decoded, Discovered, Poll, Record, Source, SourceReader, Spawner, Task, Waker};
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

struct Idle;
impl Spawner for Idle {
    fn spawn(&self, _: &str, _: Box<dyn Task>) -> Waker {
        Waker::none()
    }
}

fn line(partition: u32, offset: u64) -> String {
    let user = format!("u{}", (partition as u64 * 31 + offset) % 17);
    let pad = "x".repeat((offset as usize * 37) % 300);
    format!(
        r#"{{"partition":{partition},"offset":{offset},"schema_version":1,"event":{{"user_id":"{user}","pad":"{pad}"}}}}"#
    )
}

fn open(source: &NdjsonSource) -> Box<dyn SourceReader> {
    source.open(0, 1, Waker::none()).unwrap()
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn value(record: &Record) -> &str {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap()
}

/// What `text` is refused with, at open.
fn refused(text: &str, expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    append(&dir.path().join("f.ndjson"), text);
    let source = NdjsonSource::new("s", dir.path().join("f.ndjson")).partitions(2);
    let error = source.open(0, 1, Waker::none()).err().expect("it must be refused").to_string();
    assert!(error.contains("f.ndjson") && error.contains(expected), "{error}");
}

#[test]
fn what_is_refused() {
    refused(&format!("{}\n{}\n", line(0, 0), line(0, 2)), "line 2 has offset 2 of partition 0 where 1 follows");
    refused(&format!("{}\n", line(0, 1)), "line 1 has offset 1 of partition 0 where 0 follows");
    refused(&format!("{}\n", line(2, 0)), "partition 2");
    refused(&format!("{}\n\nnonsense\n", line(0, 0)), "line 3 does not say");
    refused("{\"partition\":0,\"offset\":0,\"raw\":\"%\"}\n", "base64");
    refused("{\"partition\":0,\"offset\":0,\"raw\":\"eyJldmVudCI6MX0=\"}\n", "reads as a line with an event");
    let long = "x".repeat(1 << 20);
    refused(&format!("{{\"event\":\"{long}\",\"partition\":0,\"offset\":0}}"), "within the first 1024");
    refused(&format!("{{\"partition\":0,\"offset\":7,\"event\":\"{long}\"}}"), "has offset 7 of partition 0 where 0");
    assert!(NdjsonSource::new("s", "/nowhere/x.ndjson").open(0, 1, Waker::none()).is_err());
}

#[test]
fn raw_lines_are_those_bytes_and_dead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.ndjson");
    append(&path, "{\"partition\":1,\"offset\":0,\"raw\":\"e30=\"}\n{\"partition\":1,\"offset\":1,\"raw\":null}\n");
    append(&path, &line(1, 2));
    let mut reader = open(&NdjsonSource::new("s", &path).partitions(2));
    let found = reader.discover().unwrap();
    assert_eq!(found, [Discovered { index: 0, start: 0 }, Discovered { index: 1, start: 0 }]);
    found.iter().for_each(|d| reader.assign(d.index, d.start).unwrap());
    let mut out = Vec::new();
    assert_eq!(reader.poll(0, None, 10, &mut out).unwrap(), Poll::Ended);
    assert_eq!(reader.poll(1, None, 10, &mut out).unwrap(), Poll::Ended);
    assert_eq!(out[0], Record { offset: 0, key: None, value: Some("{}".into()) });
    assert_eq!(out[1], Record { offset: 1, key: None, value: None });
    assert_eq!((out[2].key.as_deref(), value(&out[2])), (Some(&b"u16"[..]), &*line(1, 2)));
    let mut decoder = CaseLineDecoder::<serde_json::Value>::default();
    let kinds: Vec<_> = out.iter().map(|r| matches!(decoder.decode(r), Decoded::Value(_))).collect();
    assert_eq!(kinds, [false, false, true]);
}

#[test]
fn a_line_too_long_is_a_dead_letter_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.ndjson");
    for (offset, megabytes) in [(1, 2), (3, 9), (4, 4)] {
        if offset == 1 || offset == 3 {
            append(&path, &format!("{}\n", line(0, offset - 1)));
        }
        append(
            &path,
            &format!("{{\"offset\":{offset},\"partition\":0,\"event\":\"{}\"}}\n", "x".repeat(megabytes << 20)),
        );
    }
    append(&path, &format!("{}\n{{\"partition\":0,\"offset\":6,\"event\":\"{}", line(0, 5), "y".repeat(5 << 20)));
    let check = |source: NdjsonSource, end: Poll| {
        let mut reader = open(&source.partitions(1));
        reader.assign(0, 0).unwrap();
        let mut out = Vec::new();
        while reader.poll(0, None, 100, &mut out).unwrap() != end {}
        assert_eq!(out.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        for record in &out {
            let expected = [0, 2, 5].contains(&record.offset).then(|| line(0, record.offset));
            assert_eq!(record.value.as_deref(), expected.as_deref().map(str::as_bytes), "{}", record.offset);
        }
    };
    check(NdjsonSource::new("s", &path), Poll::Ended);
    check(NdjsonSource::new("s", &path).follow(Arc::new(Idle)), Poll::AtEnd);
}

proptest! {
    /// Any interleaving in any files, read in any chunks by any number of workers with restarts, gives each partition's lines.
    #[test]
    fn every_line_once_in_order(
        arrivals in prop::collection::vec((0u32..4, any::<bool>()), 0..200),
        budgets in prop::collection::vec(1usize..40, 1..20),
        peers in 1usize..4,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut ends = [0u64; 4];
        let mut file = 0;
        for (partition, next_file) in arrivals {
            file += u32::from(next_file);
            append(&dir.path().join(format!("{file:05}.ndjson")), &format!("{}\n", line(partition, ends[partition as usize])));
            ends[partition as usize] += 1;
        }
        let source = NdjsonSource::new("s", dir.path()).partitions(4);
        for worker in 0..peers {
            let mine: Vec<_> = (0..4u32).filter(|p| *p as usize % peers == worker).collect();
            let mut nexts = vec![0u64; mine.len()];
            let mut got = vec![Vec::new(); mine.len()];
            for budget in budgets.iter().copied().chain([10_000]) {
                let mut reader = source.open(worker, peers, Waker::none()).unwrap();
                for (at, p) in mine.iter().enumerate() {
                    reader.assign(*p, nexts[at]).unwrap();
                }
                prop_assert_eq!(reader.discover().unwrap(), vec![]);
                for (at, p) in mine.iter().enumerate() {
                    let until = (nexts[at] + budget as u64 / 2).min(ends[*p as usize]);
                    prop_assert_eq!(reader.poll(*p, Some(until), budget, &mut got[at]).unwrap(), Poll::AtEnd);
                    let poll = reader.poll(*p, None, budget, &mut got[at]).unwrap();
                    nexts[at] = got[at].len() as u64;
                    prop_assert!(poll == Poll::More || (poll == Poll::Ended && nexts[at] == ends[*p as usize]));
                }
            }
            for (at, p) in mine.iter().enumerate() {
                let expected: Vec<_> = (0..ends[*p as usize]).map(|o| line(*p, o)).collect();
                prop_assert_eq!(got[at].iter().map(value).collect::<Vec<_>>(), expected);
                prop_assert!(got[at].iter().enumerate().all(|(o, r)| r.offset == o as u64));
            }
        }
    }
}

#[test]
fn a_growing_file_is_followed_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ndjson");
    append(&path, &format!("{}\n{}", line(0, 0), &line(0, 1)[..9]));
    let mut reader = open(&NdjsonSource::new("s", dir.path()).follow(Arc::new(Idle)));
    assert_eq!(reader.discover().unwrap(), [Discovered { index: 0, start: 0 }]);
    reader.assign(0, 0).unwrap();
    let mut out = Vec::new();
    assert_eq!(reader.poll(0, None, 10, &mut out).unwrap(), Poll::AtEnd);
    assert_eq!(out.len(), 1, "a torn line waits");
    append(&path, &format!("{}\n", &line(0, 1)[9..]));
    append(&dir.path().join("b.ndjson"), &format!("{}\n{}\n", line(3, 7), line(0, 2)));
    assert_eq!(reader.poll(0, Some(3), 10, &mut out).unwrap(), Poll::AtEnd);
    assert_eq!(out.iter().map(value).collect::<Vec<_>>(), [line(0, 0), line(0, 1), line(0, 2)]);
    assert_eq!(reader.discover().unwrap(), [Discovered { index: 3, start: 7 }]);
    assert_eq!(reader.poll(0, Some(4), 10, &mut out).unwrap(), Poll::Pending);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(3).unwrap();
    assert!(reader.poll(0, None, 10, &mut out).is_err(), "a file must not shrink");
}

#[test]
fn a_bound_offset_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    append(&dir.path().join("a.ndjson"), &format!("{}\n", line(0, 0)));
    let mut reader = open(&NdjsonSource::new("s", dir.path()));
    assert!(reader.assign(0, 2).is_err());
    reader.assign(0, 0).unwrap();
    let mut out = Vec::new();
    assert!(reader.poll(0, Some(2), 10, &mut out).is_err());
}
