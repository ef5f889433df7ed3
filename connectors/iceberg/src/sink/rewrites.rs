//! The compactor: looks at the tables in turn, and writes files of one anew. Of those whose turn it is, the one that has grown by most files
//! comes first: readers of that one wait longest.

use super::{Handle, WorkerFiles};
use crate::compaction::{CompactionSettings, Rewritten};
use dataflow_core::{Error, Result, TableCompactor, TableRewrite};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

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
    fn rewrite(&mut self) -> Result<Option<TableRewrite>> {
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
        for (_, table) in due {
            let opened = &opened[table];
            self.looks.insert(table.clone(), Look { at: now, files: opened.files() });
            let Some(Rewritten { data, deletes, removed, moved }) = opened.rewrite(&self.how)? else { continue };
            let written = data.len() + deletes.len();
            tracing::info!(table, from = removed.len(), to = written, "small files are written anew");
            let rewrite = Some(opened.session().number());
            let files = WorkerFiles { table: opened.uuid(), data, deletes, removed, rewrite };
            let intent = serde_json::to_vec(&files)
                .map_err(|cause| Error::us(format!("note the files of table '{table}'")).because(cause))?;
            return Ok(Some(TableRewrite { table: table.clone(), intent, moved }));
        }
        Ok(None)
    }
}
