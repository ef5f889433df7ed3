//! The compactor: looks at the tables in turn, and writes files of one anew.

use super::{Handle, WorkerFiles};
use crate::compaction::{CompactionSettings, Rewritten};
use dataflow_core::{Error, Result, TableCompactor, TableRewrite};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) struct Rewrites {
    handle: Handle,
    how: CompactionSettings,
    /// When each table was looked at.
    looked_at: BTreeMap<String, Duration>,
}

impl Rewrites {
    pub(super) fn new(handle: Handle, how: CompactionSettings) -> Rewrites {
        Rewrites { handle, how, looked_at: BTreeMap::new() }
    }
}

impl TableCompactor for Rewrites {
    fn rewrite(&mut self) -> Result<Option<TableRewrite>> {
        let now = self.handle.shared.warehouse()?.monotonic();
        let interval = self.handle.shared.settings.maintenance.interval;
        let opened = self.handle.shared.lock().tables.clone();
        let is_due = |at: Option<&Duration>| at.is_none_or(|at| now.saturating_sub(*at) >= interval);
        let mut due: Vec<&String> = opened.keys().filter(|table| is_due(self.looked_at.get(*table))).collect();
        due.sort_by_key(|table| self.looked_at.get(*table).copied());
        for table in due {
            self.looked_at.insert(table.clone(), now);
            let opened = &opened[table];
            let Some(Rewritten { data, removed, moved }) = opened.rewrite(&self.how)? else { continue };
            tracing::info!(table, from = removed.len(), to = data.len(), "small files are written anew");
            let rewrite = Some(opened.session().number());
            let files = WorkerFiles { table: opened.uuid(), data, deletes: Vec::new(), removed, rewrite };
            let intent = serde_json::to_vec(&files)
                .map_err(|cause| Error::us(format!("note the files of table '{table}'")).because(cause))?;
            return Ok(Some(TableRewrite { table: table.clone(), intent, moved }));
        }
        Ok(None)
    }
}
