//! `check`: whether the settings are sound, the job's graph builds, and it could go on from its state. Changes nothing, in the data folder
//! or outside.

use crate::command::{JobArgs, Output};
use crate::job::JobFile;
use crate::rehearsal::rehearse;
use crate::wiring::{self, Options, Wired};
use dataflow_core::{Environment, Error, Result, Storage};
use dataflow_runtime::plan::{BINDINGS, CHECKPOINTS};
use dataflow_runtime::threads;
use dataflow_state::binding_log::{self, Tail};
use dataflow_state::checkpoint::CheckpointStore;
use dataflow_state::storage::{LocalStorage, MemoryStorage};
use serde_json::json;
use std::sync::Arc;

pub(super) fn check(job: &'static JobFile, args: &JobArgs, output: Output) -> Result<()> {
    let (profile, data) = super::open(job, args)?;
    let environment = threads::environment();
    // Everything is built, nothing opened: a connector that would write gets a storage that is thrown away.
    let scratch: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let wired =
        wiring::wire(job, &profile, &environment, &scratch, &data, &Options { workers: None, until_end: false })?;
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(data.clone()));
    rehearse_aside(job, &wired, &environment, &storage)?;
    let mut said = json!({
        "job": job.name,
        "profile": profile.name,
        "fingerprint": wired.setup.fingerprint,
        "sources": wired.setup.sources.iter().map(|s| s.name()).collect::<Vec<_>>(),
        "sinks": wired.setup.sinks.iter().map(|s| s.name()).collect::<Vec<_>>(),
        "data": data.display().to_string(),
    });
    let is_new = !data.join(BINDINGS).is_dir();
    if !is_new {
        let store = CheckpointStore::existing(storage.clone(), CHECKPOINTS)?;
        let (manifest, damages) = store.newest_intact()?;
        let restored = manifest.map_or(0, |m| m.epoch);
        let scan = binding_log::scan(&*storage, BINDINGS, restored)?;
        said["restores_epoch"] = json!(restored);
        said["replays_epochs"] = json!(scan.rows.len());
        said["damaged_checkpoints"] = json!(damages.len());
        said["torn_tail"] = json!(matches!(scan.tail, Tail::Torn { .. }));
    }
    match output {
        Output::Json => println!("{said}"),
        Output::Text if is_new => println!(
            "'{}' is sound; it would start afresh in '{}'",
            job.name,
            said["data"].as_str().unwrap_or_default()
        ),
        Output::Text => println!(
            "'{}' is sound; it would restore epoch {} and replay {} epochs",
            job.name, said["restores_epoch"], said["replays_epochs"]
        ),
    }
    Ok(())
}

/// A rehearsal whose state, if it needs any, lies in a folder for temporary files, and is gone afterwards.
fn rehearse_aside(
    job: &'static JobFile,
    wired: &Wired,
    environment: &Environment,
    storage: &Arc<dyn Storage>,
) -> Result<()> {
    let live = std::env::temp_dir().join(format!("dataflow-check-{:016x}", environment.random.next_u64()));
    let rehearsed = rehearse(job, wired, storage, &live);
    match std::fs::remove_dir_all(&live) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            rehearsed.and(Err(Error::outside(format!("removing '{}'", live.display())).because(cause)))
        }
        _ => rehearsed,
    }
}
