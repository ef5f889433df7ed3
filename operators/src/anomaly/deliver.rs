//! The login job's items as rows for a sink: key, partitioning, and place within the epoch.
//!
//! Keys are those of SEMANTICS "Login anomalies": `{"user_id":…,"timestamp":…}` for logins and anomalies, partitioned by user so that
//! a user's rows stay in order; late records and dead letters keep the key they came with (a dead letter's of reasonable length).

use super::{Finding, Login, Status, rows};
use crate::window::keyed_history::{Said, route};
use dataflow_core::{DeadLetter, Micros, OutputRow, RowOrder, Stamped, TopicId};
use dataflow_runtime::time::Late;

/// A row of `login-events-enriched`.
pub fn enriched(topic: TopicId, login: &Stamped<Login>) -> OutputRow {
    let order = RowOrder { phase: 1, time: login.time, position: login.position, rank: 0 };
    let mut row = row(topic, order, login.data.user_id().as_bytes());
    rows::user_key(login.data.user_id(), login.time, row.key.get_or_insert_default());
    rows::enriched_row(login, &mut row.value);
    row
}

/// A row of `login-anomalies`; `source` is the name of the source that evidence points into.
pub fn anomaly(topic: TopicId, said: &Said<Finding>, source: &str) -> OutputRow {
    let finding = &said.finding;
    let (phase, status) = if said.withdrawn { (0, Status::Withdrawn) } else { (1, Status::Raised) };
    let order = RowOrder { phase, time: finding.time, position: finding.position, rank: finding.detector };
    let mut row = row(topic, order, finding.user.get(0).as_bytes());
    rows::user_key(finding.user.get(0), finding.time, row.key.get_or_insert_default());
    rows::anomaly_row(finding, status, said.epoch, source, &mut row.value);
    row
}

/// A row of `login-events-late`.
pub fn late(topic: TopicId, late: &Late<Login>, source: &str) -> OutputRow {
    let record = &late.record;
    let order = RowOrder { phase: 1, time: record.time, position: record.position, rank: 0 };
    let mut row = row(topic, order, record.data.user_id().as_bytes());
    row.key = Some(record.data.user_id().as_bytes().to_vec());
    rows::late_row(record, source, late.epoch, late.watermark, &mut row.value);
    row
}

/// A row of `login-events-dlq`, with the record's bytes (base64) if `with_raw`.
pub fn dead_letter(topic: TopicId, letter: &DeadLetter, source: &str, with_raw: bool) -> OutputRow {
    let order = RowOrder { phase: 1, time: Micros(0), position: letter.position, rank: 0 };
    let mut row = row(topic, order, letter.key.as_deref().unwrap_or_default());
    row.key = letter.key.as_deref().filter(|key| key.len() <= rows::DEAD_KEY_BYTES_MAX).map(<[u8]>::to_vec);
    rows::dead_letter_row(letter, source, with_raw, &mut row.value);
    row
}

fn row(topic: TopicId, order: RowOrder, partitioned_by: &[u8]) -> OutputRow {
    OutputRow { topic, order, route: route(partitioned_by), key: None, value: Vec::with_capacity(256) }
}
