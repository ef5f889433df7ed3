//! The traffic: a small database that is written to, its changes as a connector sends them, and pageviews.
//!
//! Few keys, so that all of them come, change, go and come again. Lines come twice, with the rows of an old snapshot, out of order, without
//! a position, without a text that the database did not send; a table is truncated; some lines can not be read. In some runs all rows go
//! in the end, which every entry of the sinks' index is needed for.

use super::graph::SOURCES;
use crate::dice::{Dice, Purpose};
use crate::traffic::{LogPartition, LogRecord};
use dataflow_core::{Micros, time::SECOND};
use serde_json::{Value, json};

/// How the traffic of a run is shaped.
#[derive(Clone, Debug)]
pub(crate) struct LakeShape {
    /// Changes of each table.
    pub(crate) changes: usize,
    /// Pageviews.
    pub(crate) views: usize,
    /// Partitions of each source.
    pub(crate) partitions: [u32; 3],
    /// How long it takes until the last record is there, in microseconds.
    pub(crate) span_us: u64,
    /// Keys of each table.
    pub(crate) keys: u64,
    /// Percent of the lines that come once more, later, as they were.
    pub(crate) twice: u64,
    /// Percent of the lines that can not be read.
    pub(crate) poison: u64,
    /// Percent of the changes that are truncates.
    pub(crate) truncates: u64,
    /// In the end all rows go.
    pub(crate) ends_empty: bool,
}

/// What a record says, as the oracle reads it.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// A row is there: by position, with its values by column. A text that was not sent is [`UNAVAILABLE`].
    Put(Option<u64>, Vec<Value>),
    /// The row of a key is gone.
    Delete(Option<u64>, i64),
    /// All rows are gone.
    Truncate(u64),
    /// A pageview: user, url, channel, seconds.
    View(i64, String, Option<String>, i64),
    /// A line that is no pageview: itself, its first defect, user and url where they are right.
    BadView(String, &'static str, Option<i64>, Option<String>),
    /// It can not be read.
    Dead,
    /// Nothing.
    Nothing,
}

/// What the connector writes for a text that it was not sent.
pub(crate) const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// Everything that will ever be in the logs: by source, by partition, what each record is and says.
pub(crate) struct LakeTraffic {
    pub(crate) logs: [Vec<LogPartition>; 3],
    pub(crate) said: [Vec<Vec<Said>>; 3],
}

impl LakeTraffic {
    /// The traffic of a seed.
    pub(crate) fn new(seed: u64, shape: &LakeShape) -> LakeTraffic {
        let mut dice = Dice::new(seed, Purpose::Traffic);
        let lines = [
            changes(SOURCES[0], shape, &mut dice, item),
            changes(SOURCES[1], shape, &mut dice, sale),
            views(shape, &mut dice),
        ];
        let (mut logs, mut said) = (<[Vec<LogPartition>; 3]>::default(), <[Vec<Vec<Said>>; 3]>::default());
        for (source, lines) in lines.into_iter().enumerate() {
            let partitions = shape.partitions[source] as usize;
            logs[source] = vec![LogPartition::default(); partitions];
            said[source] = vec![Vec::new(); partitions];
            let count = lines.len() as u64;
            for (rank, Line { key, value, says }) in (0_u64..).zip(lines) {
                let at = key as usize % partitions;
                let record = LogRecord { visible_us: shape.span_us * rank / count, key: None, value };
                logs[source][at].records.push(record);
                said[source][at].push(says);
            }
        }
        LakeTraffic { logs, said }
    }
}

/// A record to be.
#[derive(Clone)]
struct Line {
    /// What chooses its partition.
    key: u64,
    value: Option<bytes::Bytes>,
    says: Said,
}

fn text(value: &Value) -> Option<bytes::Bytes> {
    Some(value.to_string().into_bytes().into())
}

/// The columns of a table.
fn columns(table: &str) -> [&'static str; 3] {
    if table == SOURCES[0] { ["id", "name", "price"] } else { ["id", "item", "cents"] }
}

fn item(id: u64, dice: &mut Dice) -> Vec<Value> {
    let name = if dice.percent(10) { Value::Null } else { format!("item {}", dice.below(5)).into() };
    let price = if dice.percent(10) { Value::Null } else { (dice.below(7) as i64 - 2).into() };
    vec![json!(id), name, price]
}

fn sale(id: u64, dice: &mut Dice) -> Vec<Value> {
    let item = if dice.percent(10) { Value::Null } else { json!(dice.below(8)) };
    let cents = if dice.percent(5) { Value::Null } else { (dice.below(2_000) as i64 - 200).into() };
    vec![json!(id), item, cents]
}

/// The changes of a table in the order in which the connector sends them.
fn changes(table: &str, shape: &LakeShape, dice: &mut Dice, row: fn(u64, &mut Dice) -> Vec<Value>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut lsn = 100;
    while lines.len() < shape.changes {
        lsn += dice.range(1, 5);
        let id = 1 + dice.below(shape.keys);
        let line = match dice.below(100) {
            n if n < shape.truncates => truncate(table, lsn),
            n if n < 25 => delete(table, lsn, id),
            _ => put(table, lsn, row(id, dice), dice),
        };
        let again = lines.len().checked_sub(1).filter(|_| dice.percent(shape.twice));
        lines.push(line);
        if let Some(last) = again {
            let old = lines[last - dice.below(last as u64 + 1).min(6) as usize].clone();
            lines.push(old);
        }
        if lines.len() > 1 && dice.percent(5) {
            let last = lines.len() - 1;
            lines.swap(last, last - 1);
        }
        if dice.percent(shape.poison) {
            lines.push(poison(table, lsn, id, dice));
        }
    }
    if shape.ends_empty {
        match dice.percent(50) {
            true => lines.push(truncate(table, lsn + 10)),
            false => lines.extend((1..=shape.keys).map(|id| delete(table, lsn + 10 + id, id))),
        }
    }
    lines
}

fn object(table: &str, values: &[Value]) -> Value {
    columns(table).iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn put(table: &str, lsn: u64, mut row: Vec<Value>, dice: &mut Dice) -> Line {
    let key = row[0].as_u64().unwrap_or_default();
    if table == SOURCES[0] && dice.percent(10) {
        row[1] = UNAVAILABLE.into();
    }
    let op = *dice.pick(&["c", "u", "u", "r"]);
    let position = (!dice.percent(3)).then_some(lsn);
    let line =
        json!({"table": table, "op": op, "before": null, "after": object(table, &row), "lsn": position, "ts_ms": 0});
    Line { key, value: text(&line), says: Said::Put(position, row) }
}

fn delete(table: &str, lsn: u64, id: u64) -> Line {
    // The rest of the row is made up, as connectors do.
    let before = object(table, &[json!(id), Value::Null, json!(0)]);
    let line = json!({"table": table, "op": "d", "before": before, "after": null, "lsn": lsn, "ts_ms": 0});
    Line { key: id, value: text(&line), says: Said::Delete(Some(lsn), id as i64) }
}

fn truncate(table: &str, lsn: u64) -> Line {
    let line = json!({"table": table, "op": "t", "before": null, "after": null, "lsn": lsn, "ts_ms": 0});
    Line { key: 0, value: text(&line), says: Said::Truncate(lsn) }
}

fn poison(table: &str, lsn: u64, id: u64, dice: &mut Dice) -> Line {
    let line = |op: &str, after: Value| json!({"table": table, "op": op, "before": null, "after": after, "lsn": lsn});
    let (value, says) = match dice.below(6) {
        0 => (None, Said::Dead),
        1 => (Some(bytes::Bytes::from_static(b"{\"table\":")), Said::Dead),
        2 => (text(&line("x", json!({"id": id}))), Said::Dead),
        3 => (text(&line("u", Value::Null)), Said::Dead),
        4 => (text(&line("u", json!({"id": "one"}))), Said::Dead),
        _ => (text(&json!({"table": "another", "op": "c", "after": {"id": 1}, "lsn": lsn})), Said::Nothing),
    };
    Line { key: id, value, says }
}

fn views(shape: &LakeShape, dice: &mut Dice) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let first = crate::traffic::BEGINNING.0 / SECOND;
    while lines.len() < shape.views {
        let (user, seconds) = (dice.below(4) as i64, first + dice.below(20) as i64);
        let url = format!("/products/{}", dice.below(6));
        let channel = dice.percent(70).then(|| (*dice.pick(&["social", "email"])).to_owned());
        let key = dice.next();
        let line = match dice.below(100) {
            n if n < shape.poison => bad_view(key, user, &url, dice),
            _ => {
                let line = json!({"user_id": user, "url": url, "channel": channel, "received_at": seconds});
                Line { key, value: text(&line), says: Said::View(user, url, channel, seconds) }
            }
        };
        lines.push(line.clone());
        if dice.percent(shape.twice) {
            lines.push(line);
        }
    }
    lines
}

fn bad_view(key: u64, user: i64, url: &str, dice: &mut Dice) -> Line {
    let line = |text: String, why, user, url| {
        let value = Some(text.clone().into_bytes().into());
        Line { key, value, says: Said::BadView(text, why, user, url) }
    };
    match dice.below(5) {
        0 => line("[1".to_owned(), "not_json", None, None),
        1 => line(json!({"user_id": "7", "url": url}).to_string(), "no_user_id", None, Some(url.to_owned())),
        2 => line(json!({"user_id": user, "url": url}).to_string(), "no_received_at", Some(user), Some(url.to_owned())),
        3 => Line { key, value: Some(bytes::Bytes::from_static(b" ")), says: Said::Nothing },
        _ => Line { key, value: None, says: Said::Dead },
    }
}

/// The wall clock when a run begins: `before_us` before a midnight, so that a day ends while it lasts.
pub(crate) fn clock_off_us(before_us: u64) -> i64 {
    let day = dataflow_core::time::DAY;
    let next = Micros((crate::traffic::BEGINNING.0 / day + 1) * day);
    next.0 - before_us as i64 - crate::traffic::BEGINNING.0
}
