//! How many of the generator's labelled attacks the job caught: the end of a run on made-up traffic.
//!
//! The labels come from the generator, the catches from the committed rows; neither knows of the other. An attack is caught by a finding
//! of its detector and severity on one of its users or its address, for a login within the attack's own time, that was not taken back.

use crate::profile::Profile;
use crate::wiring::LOGS;
use dataflow_connectors::sink::local_log::committed_lines;
use dataflow_core::{Micros, Result, Storage};
use dataflow_loadgen::logins::{Label, Traffic};
use dataflow_runtime::plan::BINDINGS;
use dataflow_state::binding_log;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The topic that says what was caught.
const TOPIC: &str = "login-anomalies";

/// A line such as `attacks   9 of 9 caught (brute_force 4 of 4, credential_stuffing 5 of 5)`, when the job wrote to a local log.
pub(super) fn line(traffic: &Traffic, profile: &Profile, storage: &Arc<dyn Storage>) -> Result<Option<String>> {
    let Some(sink) = profile.names("sinks").into_iter().next() else { return Ok(None) };
    if profile.table(&["sinks", &sink])?.get("connector").and_then(toml::Value::as_str) != Some("local-log") {
        return Ok(None);
    }
    // The older part of the log may have been removed.
    let base = binding_log::extent(&**storage, BINDINGS)?.map_or(0, |extent| extent.base);
    let state = binding_log::scan(&**storage, BINDINGS, base)?.end().0;
    let ends = state.partitions.iter().map(|(p, state)| (p.index, state.end)).collect();
    let complete: Vec<Label> = traffic.labels(&ends).into_iter().filter(|label| label.complete).collect();
    if complete.is_empty() {
        return Ok(None); // a short run ends before an attack does
    }
    let mut catches = Catches::of(&complete);
    for line in committed_lines(storage.clone(), &format!("{LOGS}/{sink}"), TOPIC, None)? {
        if let Ok(row) = serde_json::from_slice(&line?) {
            catches.take(&row);
        }
    }
    Ok(Some(said(&complete, &catches.caught())))
}

fn said(labels: &[Label], caught: &BTreeSet<usize>) -> String {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (at, label) in labels.iter().enumerate() {
        let (hits, all) = kinds.entry(&label.detector).or_default();
        (*hits, *all) = (*hits + usize::from(caught.contains(&at)), *all + 1);
    }
    let detail: Vec<String> = kinds.iter().map(|(kind, (hits, all))| format!("{kind} {hits} of {all}")).collect();
    format!("attacks   {} of {} that the generator hid were caught ({})", caught.len(), labels.len(), detail.join(", "))
}

/// Which labels the rows so far have caught.
struct Catches<'l> {
    labels: &'l [Label],
    /// The labels of a detector on a user or an address.
    on: BTreeMap<(&'l str, &'l str), Vec<usize>>,
    /// What findings that stand have caught, by their id.
    standing: BTreeMap<String, Vec<usize>>,
}

impl<'l> Catches<'l> {
    fn of(labels: &'l [Label]) -> Catches<'l> {
        let mut on: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, label) in labels.iter().enumerate() {
            for who in label.users.iter().chain([&label.ip]) {
                on.entry((&*label.detector, &**who)).or_default().push(at);
            }
        }
        Catches { labels, on, standing: BTreeMap::new() }
    }

    fn take(&mut self, row: &Value) {
        let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
        let id = text(&row["id"]);
        if row["status"] == "withdrawn" {
            self.standing.remove(&id);
            return;
        }
        let Some(time) = Micros::parse(&text(&row["timestamp"])) else { return };
        let (detector, user, ip) = (text(&row["detector"]), text(&row["user_id"]), text(&row["detail"]["ip"]));
        let known = [&*user, &*ip].into_iter().filter_map(|who| self.on.get(&(&*detector, who)));
        let caught = known.flatten().copied().filter(|at| {
            let label = &self.labels[*at];
            row["severity"] == *label.severity && (label.first.timestamp..=label.last.timestamp).contains(&time)
        });
        let caught: Vec<usize> = caught.collect();
        if !caught.is_empty() {
            self.standing.insert(id, caught);
        }
    }

    fn caught(&self) -> BTreeSet<usize> {
        self.standing.values().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_catch_is_on_the_attack_s_own_logins_and_was_not_taken_back() {
        let place = |second: u32| json!({"timestamp": format!("2026-03-02T08:00:{second:02}Z"), "partition": 0, "offset": second});
        let label: Label = serde_json::from_value(json!({
            "campaign": 1, "kind": "brute_force", "detector": "brute_force", "severity": "high", "users": ["u1"], "ip": "203.0.113.7",
            "events": 9, "complete": true, "first": place(10), "last": place(20),
        }))
        .unwrap();
        let labels = [label];
        let finding = |second: u32, change: fn(&mut Value)| {
            let mut row = json!({
                "id": "a", "status": "raised", "detector": "brute_force", "severity": "high", "user_id": "u1",
                "timestamp": place(second)["timestamp"], "detail": {},
            });
            change(&mut row);
            row
        };
        let check = |rows: &[Value], expected: usize| {
            let mut catches = Catches::of(&labels);
            rows.iter().for_each(|row| catches.take(row));
            assert_eq!(catches.caught().len(), expected, "{rows:?}");
        };
        check(&[finding(20, |_| ())], 1);
        check(&[finding(10, |row| (row["user_id"], row["detail"]["ip"]) = ("u2".into(), "203.0.113.7".into()))], 1);
        // The user's ordinary findings, an hour before or just after.
        check(&[finding(9, |_| ()), finding(21, |_| ())], 0);
        check(&[finding(15, |row| row["severity"] = "low".into())], 0);
        check(&[finding(15, |row| row["detector"] = "burst".into())], 0);
        check(&[finding(15, |row| row["user_id"] = "u2".into())], 0);
        check(&[finding(15, |_| ()), finding(15, |row| row["status"] = "withdrawn".into())], 0);
        assert!(
            said(&labels, &[0].into()).contains("1 of 1") && said(&labels, &[].into()).contains("brute_force 0 of 1")
        );
    }
}
