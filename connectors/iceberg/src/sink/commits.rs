//! The committer: rows, then what was rewritten beside them, then the row of the table of epochs; and between commits what keeps the
//! tables small.

use super::{Handle, MaintenanceSettings, decode};
use crate::Table;
use crate::deletes::Deletes;
use crate::epochs::{EpochSnapshots, EpochsTable};
use crate::expiry::Keep;
use crate::intent::{Intent, Outcome, Purpose};
use dataflow_core::{Epoch, Error, Marker, Micros, Restorable, Result, TableCommit, TableCommitter, TableState};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Commits {
    handle: Handle,
    /// The snapshot of each table's last commit, once the table is claimed for this generation.
    snapshots: BTreeMap<String, Option<i64>>,
    /// That of tables which had none since the start.
    before: BTreeMap<String, Option<i64>>,
    epochs: Option<Epochs>,
    tidied: BTreeMap<String, Tidied>,
}

/// The table of epochs, claimed for this generation.
struct Epochs {
    table: EpochsTable,
    /// Its last rows, which expiry leaves alone.
    last: BTreeMap<Epoch, EpochSnapshots>,
}

/// What was done to keep a table small.
#[derive(Clone, Copy, Default)]
struct Tidied {
    at: Option<Duration>,
    /// Whether nothing of earlier generations is left.
    is_swept: bool,
}

impl Commits {
    pub(super) fn new(handle: Handle) -> Commits {
        let (snapshots, before, tidied) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Commits { handle, snapshots, before, epochs: None, tidied }
    }

    fn settings(&self) -> &MaintenanceSettings {
        &self.handle.shared.settings.maintenance
    }

    /// Brings rows, then a rewrite into a table. Returns the snapshot that it has then.
    fn bring_in(&self, commit: &TableCommit) -> Result<Option<i64>> {
        let TableCommit { table, marker, after, intents, rewrite, .. } = commit;
        let opened = self.handle.table(table)?;
        let mut newest = match self.snapshots.get(table) {
            Some(known) => *known,
            // That of the commit before; and the first time the table is made this generation's.
            None => {
                opened.claim(marker.lineage, marker.generation)?;
                opened.snapshot_of(*after)?
            }
        };
        if *after < marker.epoch && !intents.is_empty() {
            newest = self.put(&opened, commit, intents, newest)?;
        }
        if !rewrite.is_empty() {
            newest = self.put(&opened, commit, rewrite, newest)?;
        }
        Ok(newest)
    }

    /// Commits files of all workers, rows or a rewrite, on top of the snapshot `parent`, that of the last commit. Returns theirs.
    fn put(
        &self,
        opened: &Table,
        commit: &TableCommit,
        intents: &[Vec<u8>],
        parent: Option<i64>,
    ) -> Result<Option<i64>> {
        let TableCommit { table, marker, after, has_index, .. } = commit;
        let uuid = opened.uuid();
        let mut intent = Intent {
            table: uuid,
            marker: *marker,
            first_epoch: after + 1,
            parent,
            is_alone: *has_index,
            purpose: Purpose::Rows,
            data: Vec::new(),
            deletes: Deletes::default(),
            removed: Vec::new(),
        };
        for content in intents {
            let mut files = decode(table, content)?;
            if files.table != uuid {
                let what = format!("commit to the table '{table}': it was dropped and made again");
                return Err(Error::doubt(what).hint("start over: the new table does not have what the old one had"));
            }
            intent.data.append(&mut files.data);
            intent.deletes.append(files.deletes);
            intent.removed.append(&mut files.removed);
            if let Some(id) = files.rewrite {
                (intent.purpose, intent.first_epoch) = (Purpose::Compaction { id }, marker.epoch);
            }
        }
        match opened.commit(&intent)? {
            Outcome::Committed(done) => {
                // One that was found may have others of ours above it, a fence; and below the newest it may expire.
                Ok(if done.is_new { done.snapshot } else { opened.snapshot_of(marker.epoch)?.or(done.snapshot) })
            }
            Outcome::Foreign(foreign) => Err(self.handle.foreign(opened, foreign.current, *has_index)),
        }
    }

    /// The table of epochs.
    fn epochs(&mut self, marker: &Marker) -> Result<&mut Epochs> {
        if self.epochs.is_none() {
            let shared = &self.handle.shared;
            let table = EpochsTable::open(&*shared.warehouse()?, &shared.epochs)?;
            table.0.claim(marker.lineage, marker.generation)?;
            let last = table.last(self.settings().keep_epochs)?;
            self.epochs = Some(Epochs { table, last });
        }
        Ok(self.epochs.as_mut().expect("opened just now"))
    }

    /// The snapshot of each table that has one: that of its last commit.
    fn current(&mut self, marker: &Marker) -> Result<EpochSnapshots> {
        let mut current = EpochSnapshots::new();
        let warehouse = self.handle.shared.warehouse()?;
        for (table, spec) in &self.handle.specs {
            let known = self.snapshots.get(table).copied().flatten().or(self.before.get(table).copied().flatten());
            let id = match known {
                None if self.snapshots.contains_key(table) || !self.before.contains_key(table) => {
                    let found = warehouse.newest(&spec.table, marker.lineage)?;
                    self.before.insert(table.clone(), found);
                    found
                }
                known => known,
            };
            current.extend(id.map(|id| (table.clone(), id)));
        }
        Ok(current)
    }

    /// The table whose turn it is, if one is due: the one that was looked after longest ago.
    fn due(&self, now: Duration) -> Option<String> {
        let tables = self.snapshots.keys().cloned().chain([self.handle.shared.epochs.to_string()]);
        let at = |table: &String| self.tidied.get(table).copied().unwrap_or_default().at;
        let is_due = |table: &String| at(table).is_none_or(|at| now.saturating_sub(at) >= self.settings().interval);
        tables.filter(is_due).min_by_key(at)
    }

    /// Writes small files of the table of epochs anew. It has no index, and nobody else writes to it.
    fn compact_epochs(&self, table: &Table) -> Result<()> {
        let Some(how) = self.settings().compaction else { return Ok(()) };
        let Some((files, marker)) = table.rewrite(&how)?.zip(table.marker()?) else { return Ok(()) };
        let intent = Intent {
            table: table.uuid(),
            marker,
            first_epoch: marker.epoch,
            parent: table.snapshot(),
            is_alone: false,
            purpose: Purpose::Compaction { id: table.session().number() },
            data: files.data,
            deletes: files.deletes,
            removed: files.removed,
        };
        match table.commit(&intent)? {
            Outcome::Committed(_) => Ok(()),
            Outcome::Foreign(foreign) => Err(table.foreign(foreign.current)),
        }
    }
}

impl TableCommitter for Commits {
    fn commit(&mut self, commits: &[TableCommit], made: &mut dyn FnMut(usize, Duration)) -> Result<()> {
        let warehouse = self.handle.shared.warehouse()?;
        let outcomes = warehouse.each(commits, |commit| {
            let began = warehouse.monotonic();
            self.bring_in(commit).map(|snapshot| (snapshot, warehouse.monotonic().saturating_sub(began)))
        });
        let mut failed: Option<Error> = None;
        for (number, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok((snapshot, took)) => {
                    self.snapshots.insert(commits[number].table.clone(), snapshot);
                    made(number, took);
                }
                Err(error) if failed.as_ref().is_none_or(|failed| failed.transient && !error.transient) => {
                    failed = Some(error);
                }
                Err(_) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn complete(&mut self, marker: &Marker, clock: Micros) -> Result<()> {
        let current = self.current(marker)?;
        let kept = self.settings().keep_epochs;
        let epochs = self.epochs(marker)?;
        if epochs.table.note(marker, clock, &current)? {
            epochs.last.insert(marker.epoch, current);
        }
        while epochs.last.len() > kept {
            epochs.last.pop_first();
        }
        Ok(())
    }

    fn maintain(&mut self, restorable: &Restorable) -> Result<()> {
        let warehouse = self.handle.shared.warehouse()?;
        let now = warehouse.monotonic();
        // Before an epoch is complete it is not known which snapshots its table names.
        let (Some(epochs), Some(table)) = (&self.epochs, self.due(now)) else { return Ok(()) };
        let is_epochs = table == self.handle.shared.epochs.to_string();
        let opened: Arc<Table> = if is_epochs { epochs.table.0.clone() } else { self.handle.table(&table)? };
        let named = epochs.last.values().filter_map(|snapshots| snapshots.get(&table)).copied().collect();
        let mut tidied = self.tidied.get(&table).copied().unwrap_or_default();
        // Also when it fails: a table that cannot be tidied does not keep the others from their turn.
        tidied.at = Some(now);
        self.tidied.insert(table.clone(), tidied);
        let settings = self.settings();
        let keep = Keep {
            newest: settings.keep_snapshots,
            // Where no age is asked for none is young, whatever a clock that was ahead has stamped.
            since_ms: if settings.keep.is_zero() {
                i64::MAX
            } else {
                opened.session().now_ms() - settings.keep.as_millis() as i64
            },
            from_epoch: restorable.oldest,
            named,
        };
        if is_epochs {
            self.compact_epochs(&opened)?;
        }
        opened.expire(&keep)?;
        if restorable.is_of_this_generation && !tidied.is_swept {
            let swept = opened.session().owner().map(|owner| opened.remove_orphans(owner)).transpose()?.flatten();
            tidied.is_swept = swept.is_some();
            self.tidied.insert(table, tidied);
        }
        Ok(())
    }

    fn state(&mut self, table: &str) -> Option<TableState> {
        self.handle.table(table).ok()?.state()
    }
}
