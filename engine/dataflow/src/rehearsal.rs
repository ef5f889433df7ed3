//! What the settings and the job file can have wrong with each other, found before anything outside is touched: `check` ends with it, and
//! `run` begins with it, so that a typo never shuts out the generation that runs.

use crate::job::{Asked, Job, JobFile};
use crate::profile::unknown;
use crate::wiring::Wired;
use dataflow_core::{Result, Storage};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Builds the job's graph for trial, over the data folder as it is. `live` is a scratch folder.
///
/// # Errors
/// What the graph asks for and the settings do not have, or have wrong; and what they have and nothing asks for.
pub(crate) fn rehearse(job: &'static JobFile, wired: &Wired, data: &Arc<dyn Storage>, live: &Path) -> Result<()> {
    let graph = wired.job.clone();
    dataflow_runtime::rehearse(&wired.setup, data, live, move |scope| (job.build)(&mut Job::new(scope, &graph)))?;
    let asked = wired.job.asked.lock().expect("no holder panics");
    let Asked { params, sources, topics, tables, files } = &*asked;
    let place = format!("job '{}'", job.name);
    refuse_unasked("parameter", wired.job.params.keys().map(String::as_str), params, &place)?;
    refuse_unasked("source", wired.setup.sources.iter().map(|s| s.name()), sources, &place)?;
    refuse_unasked("topic", wired.job.topics.keys().map(String::as_str), topics, &place)?;
    refuse_unasked("file", wired.job.files.keys().map(String::as_str), files, &place)?;
    let tables = tables.keys().cloned().collect();
    refuse_unasked("table", wired.job.tables.keys().map(String::as_str), &tables, &place)
}

/// Refuses the first name that the job never asked for, with the nearest that it did.
fn refuse_unasked<'n>(
    what: &str,
    mut given: impl Iterator<Item = &'n str>,
    asked: &BTreeSet<String>,
    place: &str,
) -> Result<()> {
    match given.find(|name| !asked.contains(*name)) {
        Some(name) => Err(unknown(what, name, asked.iter().map(String::as_str), place)),
        None => Ok(()),
    }
}
