//! How many of the generator's labelled attacks the job caught: the end of a run on made-up traffic.
//!
//! The labels come from the generator, the catches from the committed rows; neither knows of the other.

use crate::profile::Profile;
use crate::wiring::LOGS;
use dataflow_connectors::sink::local_log::Tail;
use dataflow_core::{Result, Storage};
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
    let state = binding_log::scan(&**storage, BINDINGS, 0)?.end().0;
    let ends = state.partitions.iter().map(|(p, state)| (p.index, state.end)).collect();
    let complete: Vec<Label> = traffic.labels(&ends).into_iter().filter(|label| label.complete).collect();
    if complete.is_empty() {
        return Ok(None); // a short run ends before an attack does
    }
    let mut said: BTreeSet<(String, String, String)> = BTreeSet::new();
    let mut tail = Tail::new(storage.clone(), &format!("{LOGS}/{sink}"), TOPIC, None);
    loop {
        let lines = tail.read()?;
        if lines.is_empty() {
            break;
        }
        for row in lines.iter().filter_map(|line| serde_json::from_slice::<Value>(line).ok()) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (detector, severity) = (text(&row["detector"]), text(&row["severity"]));
            for who in [text(&row["user_id"]), text(&row["detail"]["ip"])] {
                said.insert((detector.clone(), severity.clone(), who));
            }
        }
    }
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for label in &complete {
        let caught = label
            .users
            .iter()
            .chain([&label.ip])
            .any(|who| said.contains(&(label.detector.clone(), label.severity.clone(), who.clone())));
        let (hits, all) = kinds.entry(&label.detector).or_default();
        (*hits, *all) = (*hits + usize::from(caught), *all + 1);
    }
    let caught: usize = kinds.values().map(|(hits, _)| hits).sum();
    let detail: Vec<String> = kinds.iter().map(|(kind, (hits, all))| format!("{kind} {hits} of {all}")).collect();
    Ok(Some(format!(
        "attacks   {caught} of {} that the generator hid were caught ({})",
        complete.len(),
        detail.join(", ")
    )))
}
