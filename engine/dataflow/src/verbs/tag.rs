//! `tag`: a name for all tables of a job at one epoch.

use crate::command::{Output, TagArgs};
use crate::job::JobFile;
use crate::wiring;
use dataflow_core::{Error, Result, Storage};
use dataflow_runtime::threads;
use dataflow_state::storage::MemoryStorage;
use serde_json::json;
use std::sync::Arc;

pub(super) fn tag(job: &JobFile, args: &TagArgs, output: Output) -> Result<()> {
    let (profile, _) = super::open(job, &args.job)?;
    let environment = threads::environment();
    // Sinks that would write to the data folder get a storage that is thrown away; they are built, not opened.
    let scratch: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let sinks = wiring::build_sinks(&profile, &scratch, &environment)?.table_sinks;
    if sinks.is_empty() {
        return Err(Error::user(format!("tagging the tables of profile '{}': it has no sink of tables", profile.name))
            .hint("name a profile that has one: --profile NAME"));
    }
    for sink in sinks {
        let (epoch, tables) = sink.tag(&args.name, args.epoch)?;
        match output {
            Output::Json => println!("{}", json!({"tag": args.name, "epoch": epoch, "snapshots": tables})),
            Output::Text => println!("'{}' names epoch {epoch} of {} tables", args.name, tables.len()),
        }
    }
    Ok(())
}
