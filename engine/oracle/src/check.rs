//! Checks of what a job said under eager emission: each id is raised and withdrawn in turn, and after every epoch
//! raised less withdrawn is what the rules give for the logins accepted so far.
//!
//! Unlike a comparison with [`crate::run`] this computes the rules from scratch at each checked epoch.

use crate::bindings::BindingRow;
use crate::case::Case;
use crate::compare::{compare, normal};
use crate::detectors::Anomaly;
use crate::emission::rules;
use crate::intake::intake;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// When a row is said; not part of what it says.
const SAYING: [&str; 2] = ["status", "epoch"];

/// The anomalies that stand: raised and not withdrawn, as they were raised, in the order of their ids.
///
/// # Errors
/// When an id is raised twice, withdrawn without being raised, or withdrawn with another content than raised.
pub fn net<'r>(rows: impl IntoIterator<Item = &'r Value>) -> Result<Vec<Value>, String> {
    let mut standing = BTreeMap::new();
    rows.into_iter().try_for_each(|row| say(&mut standing, row))?;
    Ok(standing.into_values().map(|raised| raised.row.clone()).collect())
}

/// Checks anomalies, in the order in which they were said, against the rules: at every epoch at which something was
/// accepted or said, or at about `most` of them, evenly spread, the last one always.
///
/// # Errors
/// With what differs after the first epoch that is wrong.
pub fn check_eager(case: &Case, bindings: &[BindingRow], actual: &[Value], most: usize) -> Result<(), String> {
    let intake = intake(case, bindings)?;
    net(actual)?;
    let mut said: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    let known: BTreeSet<u64> = bindings.iter().map(|row| row.epoch).collect();
    for row in actual {
        let epoch = row["epoch"].as_u64().filter(|epoch| known.contains(epoch));
        let epoch = epoch.ok_or_else(|| format!("{} says {}, an epoch without a binding", row["id"], row["epoch"]))?;
        said.entry(epoch).or_default().push(row);
    }
    let epochs: BTreeSet<u64> = said.keys().copied().chain(intake.accepted.iter().map(|l| l.accepted)).collect();
    let step = epochs.len().div_ceil(most.max(1)).max(1);
    let mut standing = BTreeMap::new();
    for (n, &epoch) in epochs.iter().enumerate() {
        for row in said.remove(&epoch).unwrap_or_default() {
            say(&mut standing, row).map_err(|e| format!("epoch {epoch}: {e}"))?;
        }
        // Counted from the end, so that the last is among them.
        if (epochs.len() - 1 - n).is_multiple_of(step) {
            let (_, anomalies) = rules(intake.accepted.iter().filter(|l| l.accepted <= epoch));
            same(&anomalies, &standing).map_err(|e| format!("after epoch {epoch}: {e}"))?;
        }
    }
    Ok(())
}

/// An anomaly that stands.
struct Raised<'r> {
    row: &'r Value,
    content: Value,
}

/// Whether exactly these anomalies stand, with this content.
fn same(anomalies: &[Anomaly<'_>], standing: &BTreeMap<String, Raised<'_>>) -> Result<(), String> {
    let expected: Vec<Value> = anomalies.iter().map(|a| Value::Object(a.content())).collect();
    let stands = |row: &Value| row["id"].as_str().and_then(|id| standing.get(id)).is_some_and(|r| r.content == *row);
    // Ids are unique on both sides, so as many rows, all of which stand, are the same rows.
    if expected.len() == standing.len() && expected.iter().all(stands) {
        return Ok(());
    }
    let actual: Vec<Value> = standing.values().map(|raised| raised.content.clone()).collect();
    compare(&expected, &actual, &[]).and(Err("an id stands twice in what the rules give".to_owned()))
}

/// Adds a row to what stands.
fn say<'r>(standing: &mut BTreeMap<String, Raised<'r>>, row: &'r Value) -> Result<(), String> {
    let id = row["id"].as_str().ok_or_else(|| format!("{row} has no id"))?;
    let content = normal(row, &SAYING);
    match row["status"].as_str() {
        Some("raised") => match standing.insert(id.to_owned(), Raised { row, content }) {
            None => Ok(()),
            Some(_) => Err(format!("'{id}' is raised twice")),
        },
        Some("withdrawn") => match standing.remove(id) {
            Some(raised) if raised.content == content => Ok(()),
            Some(_) => Err(format!("'{id}' is withdrawn with another content than it was raised with")),
            None => Err(format!("'{id}' is withdrawn, but was not raised")),
        },
        _ => Err(format!("'{id}' has the unknown status {}", row["status"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn raised_and_withdrawn_in_turn() {
        let row = |status: &str, n: u64| json!({"id": "a", "status": status, "epoch": n, "n": n / 10});
        let check = |rows: &[Value], stands: Option<usize>| {
            assert_eq!(net(rows).map(|rows| rows.len()).ok(), stands, "{rows:?}");
        };
        check(&[row("raised", 1)], Some(1));
        check(&[row("raised", 1), row("withdrawn", 2)], Some(0));
        check(&[row("raised", 1), row("withdrawn", 2), row("raised", 20)], Some(1));
        check(&[row("raised", 1), row("withdrawn", 12)], None);
        check(&[row("raised", 1), row("raised", 2)], None);
        check(&[row("withdrawn", 1)], None);
        check(&[json!({"id": "a"})], None);
    }
}
