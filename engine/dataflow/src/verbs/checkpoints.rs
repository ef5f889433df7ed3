//! `checkpoints list` and `checkpoints verify`.

use crate::command::{JobArgs, Output};
use crate::job::JobFile;
use dataflow_core::{Error, Result};
use dataflow_runtime::plan::CHECKPOINTS;
use dataflow_state::checkpoint::{CheckpointStore, Manifest};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn list(job: &JobFile, args: &JobArgs, output: Output) -> Result<()> {
    let store = store(job, args)?;
    let mut rows = Vec::new();
    for found in store.list()? {
        rows.push(match store.read(&found) {
            Ok(manifest) => describe(&manifest),
            Err(error) => json!({"epoch": found.epoch, "generation": found.generation, "damaged": error.to_string()}),
        });
    }
    print(&rows, output);
    Ok(())
}

pub(super) fn verify(job: &JobFile, args: &JobArgs, output: Output) -> Result<()> {
    let store = store(job, args)?;
    let (mut rows, mut damages) = (Vec::new(), 0);
    for found in store.list()? {
        let reasons: Vec<String> = match store.read(&found) {
            Ok(manifest) => store.verify(&manifest).err().unwrap_or_default().iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        };
        damages += usize::from(!reasons.is_empty());
        rows.push(json!({"epoch": found.epoch, "generation": found.generation, "intact": reasons.is_empty(), "damages": reasons}));
    }
    print(&rows, output);
    if damages > 0 {
        return Err(Error::outside(format!("verifying the checkpoints: {damages} of {} are damaged", rows.len()))
            .hint("the next start passes damaged ones over as long as an older one is intact"));
    }
    Ok(())
}

fn store(job: &JobFile, args: &JobArgs) -> Result<CheckpointStore> {
    let (_, storage) = super::existing(job, args)?;
    CheckpointStore::existing(Arc::new(storage), CHECKPOINTS)
}

fn describe(manifest: &Manifest) -> Value {
    let bytes: u64 = manifest.files().map(|f| f.bytes).sum();
    json!({
        "epoch": manifest.epoch,
        "clock": manifest.clock.to_string(),
        "generation": manifest.generation.number,
        "workers": manifest.workers,
        "bytes": bytes,
        "files": manifest.files().count(),
        "clean": manifest.clean,
        "fingerprint": manifest.fingerprint,
    })
}

fn print(rows: &[Value], output: Output) {
    match output {
        Output::Json => println!("{}", Value::Array(rows.to_vec())),
        Output::Text if rows.is_empty() => println!("no checkpoint yet"),
        Output::Text => {
            for row in rows {
                let fields = row.as_object().expect("rows are objects").iter().map(|(k, v)| match v {
                    Value::String(text) => format!("{k} {text}"),
                    other => format!("{k} {other}"),
                });
                println!("{}", fields.collect::<Vec<_>>().join("  "));
            }
        }
    }
}
