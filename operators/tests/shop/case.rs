//! A case of the lakehouse job: what each epoch brings, by a naive fold over the change events.
//!
//! Written from SEMANTICS "Sources" and over plain JSON, so that the views are compared with what no product code has touched.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a text column holds when Postgres did not send its value.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// The current rows of a table by key, and the pageview lines so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    pub(crate) users: BTreeMap<i64, Value>,
    pub(crate) items: BTreeMap<i64, Value>,
    pub(crate) purchases: BTreeMap<i64, Value>,
    /// Lines as they came.
    pub(crate) pageviews: Vec<Vec<u8>>,
}

/// An epoch: its clock and the tables at its end.
#[derive(Clone, Debug)]
pub(crate) struct EpochOfCase {
    pub(crate) epoch: u64,
    pub(crate) clock: String,
    pub(crate) tables: Tables,
}

/// The folder of a case.
pub(crate) fn folder(case: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../jobs/cases").join(case)
}

/// The JSON rows of a file.
pub(crate) fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All epochs of a case, in order.
pub(crate) fn epochs(case: &str) -> Vec<EpochOfCase> {
    let folder = folder(case);
    let events = rows(&folder.join("oneshop.ndjson"));
    let bytes = fs::read(folder.join("pageviews.ndjson")).unwrap();
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    // What follows the last line feed is no line.
    lines.pop();
    let of = |table: &str| events.iter().filter(|event| event["table"] == table).collect::<Vec<_>>();
    let mut tables = ["users", "items", "purchases"].map(|name| (name, of(name), Table::default(), 0));
    let mut epochs = Vec::new();
    for binding in rows(&folder.join("bindings_lakehouse.ndjson")) {
        for (name, events, table, at) in &mut tables {
            let end = binding["ends"][format!("dbz.public.{name}/0")].as_u64().unwrap_or(0) as usize;
            events[*at..end].iter().for_each(|event| table.apply(event));
            *at = end;
        }
        let read = binding["ends"]["pageviews/0"].as_u64().unwrap_or(0) as usize;
        let [users, items, purchases] = &tables;
        epochs.push(EpochOfCase {
            epoch: binding["epoch"].as_u64().unwrap(),
            clock: binding["clock"].as_str().unwrap().to_owned(),
            tables: Tables {
                users: users.2.rows.clone(),
                items: items.2.rows.clone(),
                purchases: purchases.2.rows.clone(),
                pageviews: lines[..read].iter().map(|line| line.to_vec()).collect(),
            },
        });
    }
    epochs
}

/// A table as the change events leave it.
#[derive(Default)]
struct Table {
    rows: BTreeMap<i64, Value>,
    positions: BTreeMap<i64, i64>,
    truncated: i64,
}

impl Table {
    fn apply(&mut self, event: &Value) {
        let position = event["lsn"].as_i64().unwrap();
        if event["op"] == "t" {
            if position >= self.truncated {
                self.truncated = position;
                self.rows.clear();
            }
            return;
        }
        let row = if event["op"] == "d" { &event["before"] } else { &event["after"] };
        let key = row["id"].as_i64().unwrap();
        if position <= self.truncated || self.positions.get(&key).is_some_and(|newest| position < *newest) {
            return;
        }
        self.positions.insert(key, position);
        if event["op"] == "d" {
            self.rows.remove(&key);
            return;
        }
        let old = self.rows.get(&key).cloned().unwrap_or(Value::Null);
        let available = |(name, value): (&String, &Value)| {
            let value = if value == UNAVAILABLE { old[name].clone() } else { value.clone() };
            (name.clone(), value)
        };
        let row: Map<String, Value> = row.as_object().unwrap().iter().map(available).collect();
        self.rows.insert(key, row.into());
    }
}
