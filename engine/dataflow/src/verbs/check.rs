//! `check`: whether the settings are sound and the job could go on from its state. Reads only.

use crate::command::{JobArgs, Output};
use crate::job::JobFile;
use crate::wiring::{self, Options};
use dataflow_core::{Error, Result, Storage};
use dataflow_runtime::plan::{BINDINGS, CHECKPOINTS, bound_by};
use dataflow_runtime::start::check_program;
use dataflow_runtime::threads;
use dataflow_state::binding_log::{self, Tail};
use dataflow_state::checkpoint::CheckpointStore;
use dataflow_state::storage::MemoryStorage;
use serde_json::json;
use std::sync::Arc;

pub(super) fn check(job: &JobFile, args: &JobArgs, output: Output) -> Result<()> {
    let (profile, data) = super::open(job, args)?;
    let environment = threads::environment();
    // Everything is built, nothing opened: a connector that would write gets a storage that is thrown away.
    let scratch: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let wired =
        wiring::wire(job, &profile, &environment, &scratch, &data, &Options { workers: None, until_end: false })?;
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
        let storage: Arc<dyn Storage> = Arc::new(dataflow_state::storage::LocalStorage::new(data));
        let store = CheckpointStore::open(storage.clone(), CHECKPOINTS, wired.setup.settings.checkpoints_kept)?;
        let (manifest, damages) = store.newest_intact()?;
        let scan = binding_log::scan(&*storage, BINDINGS, manifest.as_ref().map_or(0, |m| m.epoch))?;
        said["restores_epoch"] = json!(manifest.as_ref().map_or(0, |m| m.epoch));
        said["replays_epochs"] = json!(scan.rows.len());
        said["damaged_checkpoints"] = json!(damages.len());
        said["torn_tail"] = json!(matches!(scan.tail, Tail::Torn { .. }));
        if let Some(manifest) = &manifest {
            let names: Vec<&str> = wired.setup.sources.iter().map(|s| s.name()).collect();
            if manifest.sources != names {
                return Err(Error::user(format!(
                    "checking job '{}': its state was made from sources {:?}, the profile wires {names:?}",
                    job.name, manifest.sources
                ))
                .hint("wire the same sources, or start over with another --data folder"));
            }
        }
        if !wired.setup.settings.replay_with_new_code {
            let bound_by = bound_by(&*storage, manifest.as_ref())?;
            let restored = manifest.as_ref().map_or(0, |m| m.epoch);
            check_program(&wired.setup.fingerprint, &bound_by, restored, scan.last)?;
        }
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
