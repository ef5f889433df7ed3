//! The local log against a storage that fails at every step: what was committed stays, whole, in order, once.

#![allow(clippy::unwrap_used)] // All of this file is a test.

mod fragile;

use dataflow_connectors::sink::case_files::export_case_files;
use dataflow_connectors::sink::local_log::{LocalLogSettings, LocalLogSink, Tail, committed_lines};
use dataflow_core::{
    ChainHash, EpochOutput, Fault, Generation, Lineage, Micros, OutputRow, Partition, Position, Result, RowOrder, Sink,
    SinkIdentity, SourceId, Storage, TopicId,
};
use fragile::Fragile;
use proptest::prelude::*;
use std::sync::Arc;

const TOPICS: [&str; 2] = ["a", "b"];

fn settings() -> LocalLogSettings {
    let topics = TOPICS.map(String::from).to_vec();
    // Small enough that both kinds of file roll every few commits.
    LocalLogSettings { segment_bytes: 60, commits_bytes: 700, ..LocalLogSettings::new("log", "out/log", topics) }
}

fn identity(number: u64) -> SinkIdentity {
    SinkIdentity { job: "j".into(), lineage: Lineage(1), generation: Generation { number, nonce: number * 10 } }
}

fn sink(storage: &Fragile) -> LocalLogSink {
    LocalLogSink::new(Arc::new(storage.clone()), settings()).unwrap()
}

/// The values of an epoch in a topic: a function of both.
fn values(epoch: u64, topic: usize) -> Vec<String> {
    (0..(epoch * 7 + topic as u64 * 3) % 4 + u64::from(topic == 0))
        .map(|n| format!("{{\"e\":{epoch},\"n\":{n}}}"))
        .collect()
}

fn output(epoch: u64) -> EpochOutput {
    let partition = Partition { source: SourceId(0), index: 0 };
    let order = RowOrder { phase: 1, time: Micros(0), position: Position { partition, offset: 0 }, rank: 0 };
    let rows = (0..TOPICS.len()).flat_map(|topic| {
        let row = move |value: String| OutputRow {
            topic: TopicId(topic as u16),
            order,
            route: 0,
            key: None,
            value: value.into(),
        };
        values(epoch, topic).into_iter().map(row)
    });
    EpochOutput { epoch, chain: ChainHash([epoch as u8; 16]), rows: rows.collect() }
}

fn try_lines(storage: &Fragile, topic: &str) -> Result<Vec<String>> {
    let lines = committed_lines(Arc::new(storage.clone()), "out/log", topic, None)?;
    lines.map(|line| Ok(String::from_utf8(line?).unwrap())).collect()
}

fn lines(storage: &Fragile, topic: &str) -> Vec<String> {
    try_lines(storage, topic).unwrap()
}

/// Epochs have gaps; a commit takes one to three of them.
fn batches(last: u64) -> Vec<Vec<u64>> {
    let epochs: Vec<_> = (1..=last).filter(|e| e % 5 != 0).collect();
    let mut rest = &epochs[..];
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let (batch, after) = rest.split_at((rest[0] as usize % 3 + 1).min(rest.len()));
        batches.push(batch.to_vec());
        rest = after;
    }
    batches
}

/// Commits what the marker does not have; the last epoch that was reported as committed.
fn run(storage: &Fragile, generation: u64, last: u64, known: &mut u64) -> Result<()> {
    let mut sink = sink(storage);
    let marker = sink.open(&identity(generation))?;
    sink.begin()?;
    let have = marker.map_or(0, |m| m.epoch);
    assert!(have >= *known, "epoch {known} was committed, but the marker says {have}");
    assert!(marker.is_none_or(|m| m.chain == ChainHash([m.epoch as u8; 16])), "the marker's hash is not its epoch's");
    check_content(storage, have)?;
    for batch in batches(last) {
        let batch: Vec<_> = batch.into_iter().filter(|e| *e > have).map(output).collect();
        if let Some(newest) = batch.last() {
            sink.commit(&batch)?;
            *known = newest.epoch;
        }
    }
    Ok(())
}

fn check_content(storage: &Fragile, through: u64) -> Result<()> {
    for (topic, name) in TOPICS.iter().enumerate() {
        let epochs = (1..=through).filter(|e| e % 5 != 0);
        assert_eq!(
            try_lines(storage, name)?,
            epochs.flat_map(|e| values(e, topic)).collect::<Vec<_>>(),
            "topic {name}"
        );
    }
    Ok(())
}

#[test]
fn a_crash_at_every_step_loses_and_repeats_nothing() {
    let clean = Fragile::new();
    run(&clean, 1, 23, &mut 0).unwrap();
    check_content(&clean, 23).unwrap();
    let segments = clean.list("out/log/a").unwrap();
    assert!(segments.len() > 3, "segments roll: {segments:?}");
    let commits = clean.list("out/log/commits").unwrap();
    assert!(commits.len() == 1 && !commits[0].ends_with("01.ndjson"), "commits roll: {commits:?}");
    for step in 0..clean.steps() {
        for seed in 0..4 {
            let storage = Fragile::new();
            let mut known = 0;
            storage.fail_after(step, false);
            let _ = run(&storage, 1, 23, &mut known);
            storage.crash(seed * 1000 + step);
            run(&storage, 2, 23, &mut known).unwrap();
            check_content(&storage, 23).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn many_crashes(crashes in prop::collection::vec((0u64..150, any::<u64>(), any::<bool>()), 1..10)) {
        let storage = Fragile::new();
        let mut known = 0;
        for (generation, (steps, seed, once)) in (1..).zip(&crashes) {
            storage.fail_after(*steps, *once);
            let ended = run(&storage, generation, 40, &mut known);
            if ended.is_err() {
                // A process that stops without the machine failing leaves all that it wrote.
                if *once { storage.fail_after(u64::MAX, false) } else { storage.crash(*seed) }
            }
        }
        storage.fail_after(u64::MAX, false);
        run(&storage, 99, 40, &mut known).unwrap();
        check_content(&storage, 40).unwrap();
    }
}

#[test]
fn a_tail_follows_and_shows_nothing_uncommitted() {
    let storage = Fragile::new();
    let mut sink = sink(&storage);
    assert_eq!(sink.open(&identity(1)).unwrap(), None);
    sink.begin().unwrap();
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let mut tail = Tail::new(shared.clone(), "out/log", "a", None);
    let mut got = Vec::new();
    let mut expected = Vec::new();
    for epoch in 1..30 {
        sink.commit(&[output(epoch)]).unwrap();
        let newest = storage.list("out/log/a").unwrap().pop().unwrap();
        storage.append(&format!("out/log/a/{newest}")).unwrap().write(b"").unwrap();
        expected.extend(values(epoch, 0));
        loop {
            let lines = tail.read().unwrap();
            if lines.is_empty() {
                break;
            }
            got.extend(lines.into_iter().map(|line| String::from_utf8(line).unwrap()));
            // A cursor that was kept goes on where this one would have.
            tail = Tail::new(shared.clone(), "out/log", "a", tail.cursor().cloned());
        }
        assert_eq!(got, expected);
    }
    let newest = storage.list("out/log/a").unwrap().pop().unwrap();
    storage.append(&format!("out/log/a/{newest}")).unwrap().write(b"{\"not\":\"committed\"}\n").unwrap();
    assert!(tail.read().unwrap().is_empty());
    let end = Tail::new(shared.clone(), "out/log", "a", None).end().unwrap();
    assert!(Tail::new(shared.clone(), "out/log", "a", end).read().unwrap().is_empty());

    let out = tempfile::tempdir().unwrap();
    let counts = export_case_files(&shared, "out/log", &["a".into(), "b".into(), "none".into()], out.path()).unwrap();
    assert_eq!(counts[2], 0);
    let text = std::fs::read_to_string(out.path().join("a.ndjson")).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

fn refused(storage: &Fragile, identity: &SinkIdentity) -> Fault {
    sink(storage).open(identity).expect_err("it must be refused").fault
}

#[test]
fn who_may_write() {
    let storage = Fragile::new();
    run(&storage, 5, 9, &mut 0).unwrap();
    let mut other = identity(6);
    assert_eq!(refused(&storage, &identity(4)), Fault::Fenced);
    other.generation = Generation { number: 5, nonce: 1 };
    assert_eq!(refused(&storage, &other), Fault::Fenced);
    other = SinkIdentity { lineage: Lineage(2), ..identity(1) };
    assert_eq!(refused(&storage, &other), Fault::Doubt);
    check_content(&storage, 9).unwrap();
    let over = LocalLogSettings { start_over: true, ..settings() };
    let mut sink = LocalLogSink::new(Arc::new(storage.clone()), over).unwrap();
    assert_eq!(sink.open(&other).unwrap(), None);
    sink.begin().unwrap();
    assert_eq!(lines(&storage, "a"), Vec::<String>::new());
    sink.commit(&[output(1)]).unwrap();
    assert_eq!(lines(&storage, "a"), values(1, 0));
    assert_eq!(refused(&storage, &identity(9)), Fault::Doubt);
}

#[test]
fn a_begin_fences_by_its_marker() {
    let storage = Fragile::new();
    let mut older = sink(&storage);
    older.open(&identity(1)).unwrap();
    older.begin().unwrap();
    let mut newer = sink(&storage);
    assert_eq!(newer.open(&identity(2)).unwrap().map(|m| (m.epoch, m.generation.number)), Some((0, 1)));
    newer.begin().unwrap();
    assert_eq!(refused(&storage, &identity(1)), Fault::Fenced);
}

/// The start check may still refuse after an open: then all is as it was, also where the commits were rolled back.
#[test]
fn an_open_changes_nothing() {
    let storage = Fragile::new();
    run(&storage, 1, 4, &mut 0).unwrap();
    let name = storage.list("out/log/commits").unwrap().remove(0);
    let old = storage.read(&format!("out/log/commits/{name}")).unwrap();
    run(&storage, 2, 9, &mut 0).unwrap();
    let newest = storage.list("out/log/commits").unwrap().remove(0);
    let new = storage.read(&format!("out/log/commits/{newest}")).unwrap();
    let put = |bytes: &[u8]| {
        storage.remove(&format!("out/log/commits/{newest}")).unwrap();
        storage.append(&format!("out/log/commits/{newest}")).unwrap().write(bytes).unwrap();
    };
    put(&old);
    let marker = sink(&storage).open(&identity(3)).unwrap();
    assert_eq!(marker.map(|m| m.epoch), Some(4));
    put(&new);
    check_content(&storage, 9).unwrap();
    let mut sink = sink(&storage);
    assert_eq!(sink.open(&identity(4)).unwrap().map(|m| m.epoch), Some(9));
    assert_eq!(sink.commit(&[output(11)]).unwrap_err().fault, Fault::Us, "it has not begun");
}

#[test]
fn damage_is_refused() {
    let storage = Fragile::new();
    run(&storage, 1, 9, &mut 0).unwrap();
    let first = storage.list("out/log/a").unwrap().remove(0);
    storage.truncate(&format!("out/log/a/{first}"), 3).unwrap();
    assert_eq!(refused(&storage, &identity(2)), Fault::Doubt);

    let storage = Fragile::new();
    run(&storage, 1, 9, &mut 0).unwrap();
    storage.remove("out/log/commits").unwrap();
    assert_eq!(refused(&storage, &identity(2)), Fault::Doubt);
}

#[test]
fn a_failed_commit_is_the_last_call() {
    let storage = Fragile::new();
    let mut sink = sink(&storage);
    sink.open(&identity(1)).unwrap();
    sink.begin().unwrap();
    sink.commit(&[output(2)]).unwrap();
    storage.fail_after(1, true);
    assert_eq!(sink.commit(&[output(3)]).unwrap_err().fault, Fault::Outside);
    assert_eq!(sink.commit(&[output(3)]).unwrap_err().fault, Fault::Us);
    check_epochs_must_rise();
}

fn check_epochs_must_rise() {
    let storage = Fragile::new();
    let mut sink = sink(&storage);
    sink.open(&identity(1)).unwrap();
    sink.begin().unwrap();
    sink.commit(&[output(2)]).unwrap();
    assert_eq!(sink.commit(&[output(2)]).unwrap_err().fault, Fault::Us);
}
