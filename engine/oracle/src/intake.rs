//! Which records are dead letters, late or accepted, and the watermark that decides it.
//!
//! Goes through the binding rows once. The watermark is computed from the records and must be the recorded one; the
//! idle partitions are taken from the bindings, but not earlier than a source may declare them.

use crate::bindings::{self, BindingRow};
use crate::case::{Case, Event, EventLine, Record};
use crate::geography::{Geography, Place, parse_address};
use crate::time::{END_OF_TIME, SECOND, format_time, parse_time};
use crate::{Row, TOPIC};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How far the watermark stays behind the newest record.
const ALLOWED_LATENESS: i64 = 5 * SECOND;
/// How far a record may be ahead of the clock.
const MOST_AHEAD: i64 = 60 * SECOND;
/// How long a partition must have been silent to be idle.
const IDLE_AFTER: i64 = 30 * SECOND;

/// An accepted login event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Login {
    pub(crate) t: i64,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) event: Event,
    /// `event.success`, true if absent.
    pub(crate) success: bool,
    pub(crate) address: Option<IpAddr>,
    pub(crate) place: Place,
    /// The epoch that accepted it.
    pub(crate) accepted: u64,
    /// The epoch that released it; none if the bindings end before.
    pub(crate) released: Option<u64>,
}

impl Login {
    /// The order in which logins are taken.
    pub(crate) fn order(&self) -> (i64, u32, u64) {
        (self.t, self.partition, self.offset)
    }

    /// Equal in all seven fields, by t.
    pub(crate) fn equals(&self, other: &Login) -> bool {
        let Event { user_id, timestamp: _, ip, device, platform, user_agent, success: _ } = &self.event;
        self.t == other.t
            && self.success == other.success
            && *user_id == other.event.user_id
            && *ip == other.event.ip
            && *device == other.event.device
            && *platform == other.event.platform
            && *user_agent == other.event.user_agent
    }
}

/// What becomes of the records that the bindings read.
pub(crate) struct Intake {
    /// In login order, duplicates too.
    pub(crate) accepted: Vec<Login>,
    pub(crate) late: Vec<Row>,
    pub(crate) dlq: Vec<Row>,
}

/// What a partition has shown up to an epoch.
struct Partition {
    end: u64,
    newest: Option<i64>,
    /// The clock of the newest epoch that brought a record not for the dlq, or first listed the partition.
    active: i64,
}

/// Takes the records in, epoch by epoch.
pub(crate) fn intake(case: &Case, rows: &[BindingRow]) -> Result<Intake, String> {
    case.verify()?;
    bindings::verify(rows)?;
    let geography = Geography::parse(&case.geo)?;
    let records: BTreeMap<(u32, u64), &EventLine> =
        case.events.iter().map(|line| ((line.partition, line.offset), line)).collect();
    let mut partitions: BTreeMap<u32, Partition> = BTreeMap::new();
    let mut watermark = None;
    // W at the end of each row, to find the epoch that releases a login.
    let mut watermarks: Vec<(u64, Option<i64>)> = Vec::new();
    let (mut accepted, mut late, mut dlq) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        for (&p, &end) in &row.ends {
            let partition = partitions.entry(p).or_insert(Partition { end: 0, newest: None, active: row.clock });
            for line in records.range((p, partition.end)..(p, end)).map(|(_, line)| line) {
                let (event, t) = match usable(line, row.clock) {
                    Ok(usable) => usable,
                    Err(reason) => {
                        dlq.push(dead_letter(line, row.epoch, reason));
                        continue;
                    }
                };
                partition.newest = partition.newest.max(Some(t));
                partition.active = row.clock;
                match watermark {
                    // Judged by W(e-1): `watermark` moves only after the epoch's records.
                    Some(before) if t < before => late.push(late_row(line, event, t, row.epoch, before)),
                    _ => accepted.push(accept(line, event, t, row.epoch, &geography)),
                }
            }
            partition.end = end;
        }
        if let Some(p) = row.idle.iter().find(|p| row.clock - partitions[*p].active < IDLE_AFTER) {
            return Err(format!("epoch {}: partition {p} is idle, but was active in the last 30 s", row.epoch));
        }
        watermark = watermark.max(candidate(row, &partitions));
        if watermark != row.watermark {
            let text = |w: Option<i64>| w.map_or("none".to_owned(), format_time);
            return Err(format!(
                "epoch {}: the watermark is {}, but {} is recorded",
                row.epoch,
                text(watermark),
                text(row.watermark)
            ));
        }
        watermarks.push((row.epoch, watermark));
    }
    for login in &mut accepted {
        let r = watermarks.partition_point(|(epoch, w)| *epoch < login.accepted || w.is_none_or(|w| w <= login.t));
        login.released = watermarks.get(r).map(|(epoch, _)| *epoch);
    }
    accepted.sort_by_key(Login::order);
    Ok(Intake { accepted, late, dlq })
}

/// C of the watermark rule: what this epoch alone says.
fn candidate(row: &BindingRow, partitions: &BTreeMap<u32, Partition>) -> Option<i64> {
    if row.is_final {
        return Some(END_OF_TIME);
    }
    let awake: Vec<&Partition> = partitions.iter().filter(|(p, _)| !row.idle.contains(p)).map(|(_, p)| p).collect();
    if awake.is_empty() {
        return partitions.values().filter_map(|p| p.newest).max().map(|newest| newest + 1);
    }
    // `None` is less than every time: one partition without a newest and there is no C.
    awake.iter().map(|p| p.newest).min().flatten().map(|oldest| oldest - ALLOWED_LATENESS)
}

/// The event and its t, or why it is a dead letter.
fn usable(line: &EventLine, clock: i64) -> Result<(&Event, i64), &'static str> {
    let event = match &line.record {
        Record::Raw { .. } => return Err("undecodable"),
        Record::Event { event, .. } => event,
    };
    if event.user_id.is_empty() {
        return Err("empty_user_id");
    }
    let t = parse_time(&event.timestamp).ok_or("bad_timestamp")?;
    if t > clock + MOST_AHEAD { Err("future_timestamp") } else { Ok((event, t)) }
}

fn accept(line: &EventLine, event: &Event, t: i64, epoch: u64, geography: &Geography) -> Login {
    let address = parse_address(&event.ip);
    Login {
        t,
        partition: line.partition,
        offset: line.offset,
        event: event.clone(),
        success: event.success.unwrap_or(true),
        address,
        place: geography.lookup(address),
        accepted: epoch,
        released: None,
    }
}

fn late_row(line: &EventLine, event: &Event, t: i64, epoch: u64, watermark: i64) -> Row {
    let value = json!({
        "user_id": event.user_id,
        "timestamp": format_time(t),
        "ip": event.ip,
        "device": event.device,
        "platform": event.platform,
        "user_agent": event.user_agent,
        "success": event.success.unwrap_or(true),
        "topic": TOPIC,
        "partition": line.partition,
        "offset": line.offset,
        "epoch": epoch,
        "watermark": format_time(watermark),
    });
    Row { epoch, value }
}

fn dead_letter(line: &EventLine, epoch: u64, reason: &str) -> Row {
    let value = json!({
        "topic": TOPIC, "partition": line.partition, "offset": line.offset, "epoch": epoch, "reason": reason,
    });
    Row { epoch, value }
}
