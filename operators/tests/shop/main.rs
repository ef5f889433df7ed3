//! The shop's views against the worked cases and against a naive recomputation after every epoch.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod case;
mod feed;
mod flow;
mod naive;

use case::{epochs, folder, rows};
use dataflow_core::{Datum, Epoch, Row};
use dataflow_operators::view::shop::UserEngagement;
use dataflow_operators::view::shop::pageview::{Line, parse};
use dataflow_operators::view::{ClosedDay, TableRow};
use feed::{Feed, feeds};
use flow::{Said, json_of, run, schemas};
use naive::{Contents, canonical, contents_by_epoch};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// What the views hold after each epoch, by what they said; each batch is checked on the way.
fn contents(feeds: &[Feed], said: &Said) -> Vec<Contents> {
    let mut after = vec![Contents::new(); feeds.len()];
    for (name, schema) in schemas() {
        let mut held: BTreeMap<Row, isize> = BTreeMap::new();
        let mut batches = said.changes.get(name).into_iter().flatten().peekable();
        for (feed, contents) in feeds.iter().zip(&mut after) {
            while let Some((_, batch)) = batches.next_if(|(epoch, _)| *epoch == feed.epoch) {
                let place = |(row, diff): &(Row, isize)| (schema.key_of(row), *diff > 0, row.clone());
                assert!(batch.is_sorted_by(|a, b| place(a) < place(b)), "{name} in epoch {}: {batch:?}", feed.epoch);
                for (row, diff) in batch {
                    assert_ne!(*diff, 0);
                    *held.entry(row.clone()).or_default() += diff;
                }
                assert!(batches.peek().is_none_or(|(epoch, _)| *epoch > feed.epoch), "{name}: one batch an epoch");
            }
            held.retain(|_, count| *count != 0);
            let keys: BTreeSet<Row> = held.keys().map(|row| schema.key_of(row)).collect();
            assert_eq!(keys.len(), held.len(), "{name}: one row a key in epoch {}", feed.epoch);
            let text = |(row, count): (&Row, &isize)| {
                assert!(*count > 0 && (*count == 1 || schema.key.is_empty()), "{name}: {row:?} {count} times");
                std::iter::repeat_n(canonical(&json_of(&schema, row)), *count as usize)
            };
            let mut texts: Vec<String> = held.iter().flat_map(text).collect();
            texts.sort();
            contents.insert(name.to_owned(), texts);
        }
        assert_eq!(batches.next(), None, "{name}: a batch of an epoch that was not fed");
    }
    after
}

/// The expected contents that a case comes with.
fn expected(case: &str) -> Contents {
    let mut expected = Contents::new();
    for name in schemas().keys() {
        let path = folder(case).join(format!("expected/{name}.ndjson"));
        if path.exists() {
            // As text: a JSON parser may round a double.
            let mut texts: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
            texts.sort();
            expected.insert((*name).to_owned(), texts);
        }
    }
    expected
}

fn assert_same(case: &str, epoch: Epoch, expected: &Contents, actual: &Contents) {
    for (name, expected) in expected {
        let actual: &Vec<String> = &actual[name];
        let missing: Vec<_> = expected.iter().filter(|row| !actual.contains(row)).collect();
        let more: Vec<_> = actual.iter().filter(|row| !expected.contains(row)).collect();
        assert!(expected == actual, "{case}, {name} after epoch {epoch}:\nmissing {missing:#?}\nmore {more:#?}");
    }
}

/// A closed day as a CSV file.
fn csv_of(day: &ClosedDay) -> Vec<u8> {
    let schema = UserEngagement::schema();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(schema.columns.iter().map(|column| column.name.as_str())).unwrap();
    for row in &day.rows {
        let json = json_of(&schema, row);
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text.clone(),
            number => number.to_string(),
        };
        writer.write_record(json.as_object().unwrap().values().map(text)).unwrap();
    }
    writer.into_inner().unwrap()
}

fn check_closed_days(case: &str, said: &Said) {
    let exports = folder(case).join("expected/customer-segments/segment_users");
    let Ok(entries) = fs::read_dir(&exports) else { return };
    let expected: BTreeMap<String, Vec<u8>> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    let actual = said.closed.iter().map(|(_, day)| (format!("segmented_users_{}.csv", day.date), csv_of(day)));
    let actual: BTreeMap<String, Vec<u8>> = actual.collect();
    for (name, expected) in &expected {
        let actual = actual.get(name).unwrap_or_else(|| panic!("{case}: {name} was not closed"));
        assert_eq!(String::from_utf8_lossy(actual), String::from_utf8_lossy(expected), "{case}: {name}");
    }
    assert_eq!(actual.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{case}: closed days");
}

fn check(case: &str) {
    let epochs = epochs(case);
    let feeds = feeds(&epochs);
    let said = run(&feeds, 1);
    let actual = contents(&feeds, &said);
    for ((epoch, naive), actual) in epochs.iter().zip(contents_by_epoch(&epochs)).zip(&actual) {
        assert_same(case, epoch.epoch, &naive, actual);
    }
    let (last, actual) = (epochs.last().unwrap().epoch, actual.last().unwrap());
    let expected = expected(case);
    assert!(!expected.is_empty());
    assert_same(case, last, &expected, actual);
    check_closed_days(case, &said);
    for workers in [2, 3] {
        assert_eq!(run(&feeds, workers), said, "{case}: {workers} workers say something else");
    }
}

#[test]
fn case_1() {
    check("case-1");
}

#[test]
fn case_2() {
    check("case-2");
}

#[test]
fn case_3() {
    check("case-3");
}

#[test]
fn hand_cases() {
    check("hand/10-lakehouse");
    check("hand/11-top-ten");
}

/// Of the hand case: purchase 6 comes to 10^12.
#[test]
fn a_total_that_does_not_fit_is_counted() {
    assert_eq!(run(&feeds(&epochs("hand/10-lakehouse")), 2).misfits, 1);
}

/// A restart: all that was there comes at once, at the epoch that was restored, and the rest follows. Views say the same from then on.
#[test]
fn a_restart_changes_nothing() {
    let feeds = feeds(&epochs("case-2"));
    let whole = run(&feeds, 1);
    for restored in [3, 10, 20, feeds.len() - 2] {
        let mut net: [BTreeMap<Row, isize>; 4] = Default::default();
        for feed in &feeds[..=restored] {
            for (net, changes) in net.iter_mut().zip(&feed.changes) {
                changes.iter().for_each(|(row, diff)| *net.entry(row.clone()).or_default() += diff);
            }
        }
        let present = net.map(|rows| rows.into_iter().filter(|(_, count)| *count != 0).collect());
        let first = Feed { changes: present, ..feeds[restored].clone() };
        let epoch = first.epoch;
        let resumed: Vec<Feed> = std::iter::once(first).chain(feeds[restored + 1..].iter().cloned()).collect();
        let resumed = run(&resumed, 3);
        let after = |said: &Said| {
            let mut said = said.clone();
            said.changes.values_mut().for_each(|batches| batches.retain(|(at, _)| *at > epoch));
            said.changes.retain(|_, batches| !batches.is_empty());
            said.closed.retain(|(at, _)| *at > epoch);
            said
        };
        assert_eq!(after(&resumed), after(&whole), "restored at epoch {epoch}");
    }
}

#[test]
fn dead_letters_of_pageviews() {
    for case in ["case-1", "case-2", "case-3", "hand/10-lakehouse"] {
        let lines = epochs(case).pop().unwrap().tables.pageviews;
        let dead = lines.iter().filter_map(|line| match parse(line) {
            Line::Defective(line) => Some(canonical(&json!({
                "raw_record": line.raw_record, "reason": line.reason.name(), "url": line.url, "user_id": line.user_id,
            }))),
            Line::Blank | Line::Pageview(_) => None,
        });
        let mut dead: Vec<String> = dead.collect();
        dead.sort();
        let path = folder(case).join("expected/bronze.pageviews_dlq.ndjson");
        let mut expected: Vec<String> = rows(&path).iter().map(canonical).collect();
        expected.sort();
        assert_eq!(dead, expected, "{case}");
    }
}

/// Rows that differ only in what no view shows change no view.
#[test]
fn what_no_view_shows_changes_none() {
    let mut feeds = feeds(&epochs("case-1"));
    let quiet = run(&feeds, 1);
    let last = feeds.last().unwrap().clone();
    let bought = feeds.iter().flat_map(|feed| &feed.changes[2]).fold(BTreeMap::new(), |mut net, (row, diff)| {
        *net.entry(row.clone()).or_insert(0) += diff;
        net
    });
    let (old, _) = bought.into_iter().find(|(_, count)| *count == 1).unwrap();
    let campaign = feed::schema("purchases").position("campaign_id").unwrap();
    let other = |at| if at == campaign { Datum::from("another") } else { old.get(at).clone() };
    let new: Row = (0..old.0.len()).map(other).collect();
    let mut feed = Feed { epoch: last.epoch + 1, clock: last.clock, changes: Default::default() };
    feed.changes[2] = vec![(old.clone(), -1), (new, 1)];
    feeds.push(feed);
    assert_eq!(run(&feeds, 1), quiet);
}
