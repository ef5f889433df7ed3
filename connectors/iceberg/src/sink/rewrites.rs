//! The compactor: looks at the tables whose turn it is, and writes files of them anew. The one that has grown by most files comes first:
//! readers of that one wait longest.

use super::{Handle, WorkerFiles};
use crate::Table;
use crate::compaction::{CompactionSettings, Rewritten};
use dataflow_core::{Error, Result, TableCompactor, TableRewrite};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// No further table is looked at once so many rows have moved: all indexes follow them at one cut.
const ROWS_OF_ROUND: u64 = 1_000_000;

pub(super) struct Rewrites {
    handle: Handle,
    how: CompactionSettings,
    looks: BTreeMap<String, Look>,
}

/// The last look at a table.
#[derive(Clone, Copy)]
struct Look {
    at: Duration,
    /// The files that it had.
    files: u64,
}

impl Rewrites {
    pub(super) fn new(handle: Handle, how: CompactionSettings) -> Rewrites {
        Rewrites { handle, how, looks: BTreeMap::new() }
    }
}

impl TableCompactor for Rewrites {
    fn rewrite(&mut self) -> Result<Vec<TableRewrite>> {
        let now = self.handle.shared.warehouse()?.monotonic();
        let interval = self.handle.shared.settings.maintenance.interval;
        let opened = self.handle.shared.lock().tables.clone();
        let mut due: Vec<(u64, &String)> = Vec::new();
        for (table, opened) in &opened {
            let look = self.looks.get(table);
            if look.is_none_or(|look| now.saturating_sub(look.at) >= interval) {
                due.push((opened.files().saturating_sub(look.map_or(0, |look| look.files)), table));
            }
        }
        due.sort_by_key(|(grown, _)| Reverse(*grown));
        let (mut rewrites, mut rows) = (Vec::new(), 0);
        for (_, table) in due {
            self.looks.insert(table.clone(), Look { at: now, files: opened[table].files() });
            match self.rewrite_table(table, &opened[table]) {
                Ok(found) => {
                    rows += found.iter().flat_map(|of| &of.moved).map(|run| run.rows).sum::<u64>();
                    rewrites.extend(found);
                }
                // What is written of others already takes its place.
                Err(error) if !rewrites.is_empty() => tracing::warn!(table, "{error}; its small files stay for now"),
                Err(error) => return Err(error),
            }
            if rows >= ROWS_OF_ROUND {
                break;
            }
        }
        Ok(rewrites)
    }
}

impl Rewrites {
    fn rewrite_table(&self, table: &str, opened: &Table) -> Result<Option<TableRewrite>> {
        let Some(Rewritten { data, deletes, removed, moved }) = opened.rewrite(&self.how)? else { return Ok(None) };
        let written = data.len() + deletes.dead.len();
        let from = removed.len() + deletes.merged.len();
        tracing::info!(table, from, to = written, "small files are written anew");
        let rewrite = Some(opened.session().number());
        let files = WorkerFiles { table: opened.uuid(), data, deletes, removed, rewrite };
        let intent = serde_json::to_vec(&files)
            .map_err(|cause| Error::us(format!("note the files of table '{table}'")).because(cause))?;
        Ok(Some(TableRewrite { table: table.to_owned(), intent, moved }))
    }
}
