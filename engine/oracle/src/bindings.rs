//! The bindings file: the epochs of a run, as `dataflow bindings export` writes them.
//!
//! Refuses rows that cannot follow each other: an epoch that does not rise, a clock or an end that falls, a partition
//! that is gone, an idle partition that was never listed, another topic.

use crate::case::Case;
use crate::time::{format_time, parse_time};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// An epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingRow {
    /// Its number.
    pub epoch: u64,
    /// Its clock, in microseconds since 1970.
    pub clock: i64,
    /// For every partition so far the next offset to read.
    pub ends: BTreeMap<u32, u64>,
    /// The partitions that do not hold the watermark back.
    pub idle: BTreeSet<u32>,
    /// The recorded W(epoch).
    pub watermark: Option<i64>,
    /// The bounded input ends here.
    pub is_final: bool,
}

/// The rows of a bindings file; blank lines are skipped.
///
/// # Errors
/// When a line is not a binding row, or does not follow the row before it.
pub fn parse_bindings(text: &str) -> Result<Vec<BindingRow>, String> {
    let mut rows = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        rows.push(parse_row(line).map_err(|e| format!("cannot parse binding line {}: {e}", n + 1))?);
    }
    verify(&rows)?;
    Ok(rows)
}

/// Whether the bindings read all of the case.
///
/// # Errors
/// With the first records that no epoch has read.
pub fn coverage(case: &Case, bindings: &[BindingRow]) -> Result<(), String> {
    let Some(last) = bindings.last() else {
        return Err("there are no bindings".to_owned());
    };
    let read = |partition: u32| last.ends.get(&partition).copied().unwrap_or(0);
    let mut unread: Vec<(u32, u64)> =
        case.events.iter().map(|e| (e.partition, e.offset)).filter(|(p, offset)| *offset >= read(*p)).collect();
    unread.sort_unstable();
    match unread.first() {
        None => Ok(()),
        Some((partition, offset)) => Err(format!(
            "{} of {} records are read by no epoch, the first is '{}/{partition}/{offset}'",
            unread.len(),
            case.events.len(),
            crate::TOPIC
        )),
    }
}

/// Checks that each row can follow the row before it.
pub(crate) fn verify(rows: &[BindingRow]) -> Result<(), String> {
    for row in rows {
        if let Some(p) = row.idle.iter().find(|p| !row.ends.contains_key(p)) {
            return Err(format!("epoch {}: partition {p} is idle, but not among the ends", row.epoch));
        }
    }
    for pair in rows.windows(2) {
        let (before, row) = (&pair[0], &pair[1]);
        if row.epoch <= before.epoch {
            return Err(format!("epoch {} does not follow epoch {}", row.epoch, before.epoch));
        }
        if row.clock < before.clock {
            return Err(format!("epoch {}: the clock falls to {}", row.epoch, format_time(row.clock)));
        }
        for (p, end) in &before.ends {
            match row.ends.get(p) {
                None => return Err(format!("epoch {}: partition {p} is not listed any more", row.epoch)),
                Some(now) if now < end => {
                    return Err(format!("epoch {}: the end of partition {p} falls from {end} to {now}", row.epoch));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

fn parse_row(line: &str) -> Result<BindingRow, String> {
    let row: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let fields = row.as_object().ok_or("not an object")?;
    for name in fields.keys() {
        if !["epoch", "clock", "ends", "idle", "watermark", "final"].contains(&name.as_str()) {
            return Err(format!("unknown field '{name}'"));
        }
    }
    let time = |value: &Value| -> Result<i64, String> {
        value.as_str().and_then(parse_time).ok_or_else(|| format!("{value} is not a time"))
    };
    let mut ends = BTreeMap::new();
    for (name, end) in row["ends"].as_object().ok_or("'ends' is not an object")? {
        ends.insert(partition(name)?, end.as_u64().ok_or_else(|| format!("the end of '{name}' is not an offset"))?);
    }
    let mut idle = BTreeSet::new();
    for name in fields.get("idle").map_or(Ok(&Vec::new()), |v| v.as_array().ok_or("'idle' is not an array"))? {
        idle.insert(partition(name.as_str().ok_or("'idle' holds no names")?)?);
    }
    Ok(BindingRow {
        epoch: row["epoch"].as_u64().ok_or("'epoch' is not a number")?,
        clock: time(&row["clock"])?,
        ends,
        idle,
        watermark: match fields.get("watermark").ok_or("'watermark' is missing")? {
            Value::Null => None,
            value => Some(time(value)?),
        },
        is_final: fields.get("final").map_or(Ok(false), |v| v.as_bool().ok_or("'final' is not a boolean"))?,
    })
}

fn partition(name: &str) -> Result<u32, String> {
    let number = name.strip_prefix(crate::TOPIC).and_then(|rest| rest.strip_prefix('/'));
    number
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| format!("'{name}' is not a partition of topic '{}'", crate::TOPIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: u64, second: u64, end: u64, idle: &str) -> String {
        format!(
            r#"{{"epoch":{epoch},"clock":"2026-03-01T00:00:0{second}Z","ends":{{"login-events/0":{end}}},"idle":[{idle}],"watermark":null}}"#
        )
    }

    #[test]
    fn rows_that_do_not_follow_are_refused() {
        let first = row(5, 5, 5, "");
        for (next, good) in [
            (row(6, 5, 5, "\"login-events/0\""), true),
            (row(5, 5, 5, ""), false),
            (row(6, 4, 5, ""), false),
            (row(6, 5, 4, ""), false),
            (row(6, 5, 5, "\"login-events/1\""), false),
            (row(6, 5, 5, "\"logins/0\""), false),
            (row(6, 6, 6, "").replace("login-events/0", "login-events/1"), false),
            (row(6, 6, 6, "").replace(",\"watermark\":null", ""), false),
            (row(6, 6, 6, "").replace("\"idle\":[],", ""), true),
        ] {
            assert_eq!(parse_bindings(&format!("{first}\n{next}\n")).is_ok(), good, "{next}");
        }
    }

    #[test]
    fn unread_records_are_told() {
        let lines = "{\"partition\":0,\"offset\":0,\"raw\":null}\n{\"partition\":0,\"offset\":1,\"raw\":null}";
        let case = Case::parse(lines, String::new()).unwrap();
        assert!(coverage(&case, &parse_bindings(&row(1, 1, 2, "")).unwrap()).is_ok());
        let error = coverage(&case, &parse_bindings(&row(1, 1, 1, "")).unwrap()).unwrap_err();
        assert_eq!(error, "1 of 2 records are read by no epoch, the first is 'login-events/0/1'");
        assert!(coverage(&case, &[]).is_err());
    }
}
