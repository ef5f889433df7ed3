//! The check of a run: what consumers see is, row for row and in order, what the oracle makes of the exported bindings.
//!
//! Nothing here comes from the job's own accounts but the bindings, and the oracle computes their watermarks again. Along the way a
//! consumer of the local log looks at it at the end of each life: what it saw committed must still be there after the crash.

use crate::broker::SimBroker;
use crate::graph::{SOURCE, TOPICS};
use crate::lives::JOB;
use crate::report::Report;
use crate::scenario::{OUT, Scenario, SinkPlan};
use crate::storage::Graveyard;
use crate::trace::Trace;
use crate::traffic::{GEOGRAPHY, Traffic};
use dataflow_connectors::sink::kafka::cluster::markers_of;
use dataflow_connectors::sink::local_log::committed_lines;
use dataflow_core::{Epoch, Marker, Storage, stable_hash};
use dataflow_operators::window::keyed_history::Emit;
use dataflow_oracle::{BindingRow, Case, Emission, Row, canonical, compare, coverage, parse_bindings};
use dataflow_runtime::plan::BINDINGS;
use dataflow_state::binding_log::{self, export};
use dataflow_state::storage::MemoryStorage;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

/// Committed rows by topic.
pub(crate) type Delivered = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// What a run came to, when it is right.
pub(crate) struct Verdict {
    epochs: u64,
    delivered: Delivered,
}

impl Verdict {
    /// Puts it into trace and report.
    pub(crate) fn note(&self, trace: &Trace, report: &mut Report) {
        report.epochs = self.epochs;
        for (topic, rows) in &self.delivered {
            rows.iter().for_each(|row| trace.note("row", topic, stable_hash(row)));
            report.rows += rows.len() as u64;
        }
        report.anomalies = self.delivered[TOPICS[1]].len() as u64;
    }
}

/// Whether the run is right.
///
/// # Errors
/// With what differs.
pub(crate) fn check(
    scenario: &Scenario,
    traffic: &Traffic,
    disk: &MemoryStorage,
    graveyard: &Graveyard,
    brokers: &BTreeMap<&'static str, Arc<SimBroker>>,
) -> Result<Verdict, String> {
    let bindings = bindings(disk, graveyard)?;
    let case = Case { events: traffic.events.clone(), geo: GEOGRAPHY.to_owned() };
    coverage(&case, &bindings)?;
    let emission = match scenario.emit {
        Emit::Eager => Emission::Eager,
        Emit::Final => Emission::Final,
    };
    let expected = dataflow_oracle::run(&case, &bindings, emission)?;
    let mut delivered = Delivered::new();
    for sink in &scenario.sinks {
        match brokers.get(sink.name) {
            Some(broker) => delivered.extend(of_broker(sink, broker)?),
            None => delivered.extend(of_local_log(sink, disk)?),
        }
    }
    for (topic, rows) in expected.topics() {
        let rows = ordered(topic, rows);
        same(topic, &rows, &delivered[topic])?;
    }
    Ok(Verdict { epochs: bindings.len() as u64, delivered })
}

/// What is committed in a local log.
pub(crate) fn of_local_log(sink: &SinkPlan, disk: &MemoryStorage) -> Result<Delivered, String> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let lines = |topic: &usize| {
        let lines = committed_lines(storage.clone(), OUT, TOPICS[*topic], None).map_err(|e| e.to_string())?;
        let lines: Result<Vec<_>, _> = lines.collect();
        Ok((TOPICS[*topic], lines.map_err(|e| format!("reading '{}' as a consumer: {e}", TOPICS[*topic]))?))
    };
    sink.topics.iter().map(lines).collect()
}

/// What is committed on a broker. Each transaction has its marker, and markers rise.
fn of_broker(sink: &SinkPlan, broker: &SimBroker) -> Result<Delivered, String> {
    let mut delivered: Delivered = sink.topics.iter().map(|topic| (TOPICS[*topic], Vec::new())).collect();
    let (markers, mut marked): (_, Epoch) = (markers_of(JOB), 0);
    let (mut with_rows, mut with_marker) = (BTreeSet::new(), BTreeSet::new());
    for item in broker.committed() {
        if item.topic == markers {
            let marker: Marker = serde_json::from_slice(&item.value).map_err(|e| format!("a marker: {e}"))?;
            if marker.epoch < marked {
                return Err(format!("the marker of sink '{}' falls from {marked} to {}", sink.name, marker.epoch));
            }
            marked = marker.epoch;
            with_marker.insert(item.transaction);
        } else {
            let rows = delivered.get_mut(item.topic.as_str());
            rows.ok_or_else(|| format!("sink '{}' wrote to '{}'", sink.name, item.topic))?.push(item.value);
            with_rows.insert(item.transaction);
        }
    }
    match with_rows.difference(&with_marker).next() {
        None => Ok(delivered),
        Some(transaction) => Err(format!("transaction {transaction} of sink '{}' has rows and no marker", sink.name)),
    }
}

/// The bindings of the run as the oracle reads them.
fn bindings(disk: &MemoryStorage, graveyard: &Graveyard) -> Result<Vec<BindingRow>, String> {
    let text = |e: dataflow_core::Error| format!("exporting the bindings: {e}");
    let whole = whole_log(disk, graveyard).map_err(text)?;
    let rows = binding_log::rows(&whole, BINDINGS, 1, Epoch::MAX).map_err(text)?;
    let mut out = Vec::new();
    let base = rows.base().clone();
    export::write_rows(base, rows, &[SOURCE.to_owned()], &mut out).map_err(text)?;
    parse_bindings(&String::from_utf8(out).map_err(|e| e.to_string())?)
}

/// The whole binding log: what is left of it, and the segments that were trimmed from it.
pub(crate) fn whole_log(disk: &MemoryStorage, graveyard: &Graveyard) -> dataflow_core::Result<MemoryStorage> {
    let whole = MemoryStorage::new();
    whole.create_dir(BINDINGS)?;
    let mut segments = graveyard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for name in disk.list(BINDINGS)? {
        let path = format!("{BINDINGS}/{name}");
        segments.insert(path.clone(), disk.read(&path)?);
    }
    for (path, bytes) in segments {
        whole.append(&path).and_then(|mut file| file.write(&bytes))?;
    }
    Ok(whole)
}

/// The oracle's rows in the order of delivery: late ones stand by their time within an epoch, where the oracle has them by offset.
fn ordered(topic: &str, rows: &[Row]) -> Vec<Value> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    if topic == TOPICS[2] {
        let place = |row: &Row| {
            let (time, at) = (row.value["timestamp"].as_str().map(str::to_owned), &row.value);
            (row.epoch, time, at["partition"].as_u64(), at["offset"].as_u64())
        };
        rows.sort_by_key(|row| place(row));
    }
    rows.into_iter().map(|row| row.value.clone()).collect()
}

fn same(topic: &str, expected: &[Value], delivered: &[Vec<u8>]) -> Result<(), String> {
    let parse = |row: &Vec<u8>| serde_json::from_slice(row).map_err(|e| format!("a row of '{topic}' is no JSON: {e}"));
    let actual: Vec<Value> = delivered.iter().map(parse).collect::<Result<_, _>>()?;
    let differ = |(expected, actual): (&Value, &Value)| canonical(expected, &[]) != canonical(actual, &[]);
    let differs = expected.iter().zip(&actual).position(differ);
    if differs.is_none() && expected.len() == actual.len() {
        return Ok(());
    }
    // Says which rows are missing or too many, whatever their order.
    compare(expected, &actual, &[]).map_err(|e| format!("'{topic}': {e}"))?;
    let at = differs.expect("rows of the same number that are not the same ones in the same order");
    Err(format!("'{topic}': row {at} is out of order: expected {}, got {}", expected[at], actual[at]))
}

/// Whether everything that `before` held is still there, in its place.
///
/// # Errors
/// With the topic that lost something.
pub(crate) fn still_there(before: &Delivered, now: &Delivered) -> Result<(), String> {
    for (topic, rows) in before {
        if !now[topic].starts_with(rows) {
            let (had, has) = (rows.len(), now[topic].len());
            return Err(format!(
                "a consumer of '{topic}' saw {had} committed rows; after the crash there are {has}, or others"
            ));
        }
    }
    Ok(())
}
