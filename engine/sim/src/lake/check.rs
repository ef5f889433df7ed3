//! The check of a run: a snapshot holds what the oracle makes of everything bound up to its marker, and the newest one what it makes of
//! all. Every snapshot that a table ever had is read in some runs, in the others the current and one more: reading is half of a run's time.
//!
//! Along the ancestry markers rise, their hashes are the log's, and no epoch is told twice. A file that a snapshot names and that is
//! missing can not be read; a row that an index had wrong stands where it should not.

use super::graph::{SINK, tables};
use super::meddler::is_theirs;
use super::oracle::{Contents, contents_at};
use super::traffic::LakeTraffic;
use crate::check::whole_log;
use crate::dice::Dice;
use crate::report::Report;
use crate::storage::Graveyard;
use crate::trace::Trace;
use dataflow_core::{Binding, Epoch, Row, stable_hash};
use dataflow_iceberg::{Loaded, Table, TableLayout, TableName, TableSpec, Warehouse};
use dataflow_runtime::plan::BINDINGS;
use dataflow_state::binding_log;
use dataflow_state::storage::MemoryStorage;
use iceberg::spec::Snapshot;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A snapshot of ours.
struct Commit {
    id: i64,
    epoch: Epoch,
    generation: u64,
    deletes: bool,
    /// Some of its deletes are vectors.
    vectors: bool,
    /// A vector has taken the place of position deletes.
    upgrades: bool,
    /// The last row of a data file has died.
    dead_files: bool,
    /// It holds what the one before holds, in other files.
    is_rewrite: bool,
}

/// The name of a table of the sink in its catalog.
pub(crate) fn name_of(table: &str) -> TableName {
    let name = table.strip_prefix("lake.").unwrap_or(table).to_owned();
    TableName { namespace: vec![SINK.to_owned()], name }
}

fn number<T: std::str::FromStr>(snapshot: &Snapshot, key: &str) -> Result<T, String> {
    let text = snapshot.summary().additional_properties.get(key);
    let value = text.and_then(|text| text.parse().ok());
    value.ok_or_else(|| format!("snapshot {} has no '{key}'", snapshot.snapshot_id()))
}

/// The snapshots of a table, oldest first; each follows the one before, as far as that has not expired.
fn commits(table: &Loaded) -> Result<Vec<Commit>, String> {
    let metadata = &table.metadata;
    let mut newest_first: Vec<&Snapshot> = metadata.snapshots().map(AsRef::as_ref).collect();
    newest_first.sort_by_key(|snapshot| Reverse(snapshot.sequence_number()));
    if newest_first.first().map(|snapshot| snapshot.snapshot_id()) != metadata.current_snapshot_id() {
        return Err("the current snapshot is not the newest".to_owned());
    }
    let (mut commits, mut bound, mut parent) = (Vec::new(), Epoch::MAX, metadata.current_snapshot_id());
    for snapshot in newest_first {
        let id = snapshot.snapshot_id();
        if parent.is_some_and(|parent| metadata.snapshot_by_id(parent).is_some() && parent != id) {
            return Err(format!("snapshot {id} is not in the history"));
        }
        parent = snapshot.parent_snapshot_id();
        if is_theirs(snapshot) {
            continue;
        }
        let epoch: Epoch = number(snapshot, "dataflow.epoch")?;
        let is = |key: &str| snapshot.summary().additional_properties.contains_key(key);
        if is("dataflow.fence") {
            continue; // it changes nothing, and has the epoch of the one before
        }
        let is_rewrite = is("dataflow.compaction");
        let first: Epoch = if is_rewrite { epoch } else { number(snapshot, "dataflow.first-epoch")? };
        if epoch >= bound || first > epoch {
            return Err(format!(
                "a snapshot of the epochs {first} to {epoch} stands before one that begins at {bound}"
            ));
        }
        // A rewrite stands on top of the rows of its epoch.
        bound = if is_rewrite { epoch + 1 } else { first };
        let dead_files = is("deleted-data-files") && !is_rewrite;
        let deletes = is("added-position-deletes") || dead_files;
        let (vectors, generation) = (is("added-dvs"), number(snapshot, "dataflow.generation")?);
        let upgrades = vectors && is("removed-position-delete-files");
        commits.push(Commit { id, epoch, generation, deletes, vectors, upgrades, dead_files, is_rewrite });
    }
    commits.reverse();
    Ok(commits)
}

/// What a run left, and how to look at it.
pub(crate) struct Left<'a> {
    pub(crate) traffic: &'a LakeTraffic,
    pub(crate) disk: &'a MemoryStorage,
    pub(crate) graveyard: &'a Graveyard,
    pub(crate) tables: &'a BTreeMap<TableName, Loaded>,
    pub(crate) warehouse: &'a Warehouse,
    pub(crate) layouts: &'a BTreeMap<String, TableLayout>,
    /// From which epoch each generation began.
    pub(crate) restored: &'a BTreeMap<u64, Epoch>,
    /// Chooses the snapshots that are read; without it all are.
    pub(crate) dice: Option<Dice>,
}

/// Whether the run is right.
///
/// # Errors
/// With what differs.
pub(crate) fn check(left: &mut Left<'_>, trace: &Trace, report: &mut Report) -> Result<(), String> {
    let told = |e: dataflow_core::Error| e.to_string();
    let log = whole_log(left.disk, left.graveyard).map_err(told)?;
    let bindings: Vec<Binding> =
        binding_log::rows(&log, BINDINGS, 1, Epoch::MAX).and_then(Iterator::collect).map_err(told)?;
    report.epochs = bindings.len() as u64;
    let mut found: BTreeMap<&str, Vec<Commit>> = BTreeMap::new();
    for table in left.tables.values() {
        let made = u64::try_from(table.metadata.last_sequence_number()).unwrap_or(0);
        report.expired += made.saturating_sub(table.metadata.snapshots().len() as u64);
    }
    for table in tables().into_keys() {
        let of_table = left.tables.get(&name_of(table)).map_or_else(|| Ok(Vec::new()), commits);
        found.insert(table, of_table.map_err(|what| format!("table '{table}': {what}"))?);
    }
    let epochs: BTreeSet<Epoch> = found.values().flatten().map(|commit| commit.epoch).collect();
    let (at, last) = contents_at(left.traffic, &bindings, |epoch| epochs.contains(&epoch))?;
    for (table, commits) in &found {
        for commit in commits {
            report.snapshots += 1;
            report.deleting += u64::from(commit.deletes);
            report.vectors += u64::from(commit.vectors);
            report.upgrades += u64::from(commit.upgrades);
            report.dead_files += u64::from(commit.dead_files);
            report.rewrites += u64::from(commit.is_rewrite);
            let began_at = left.restored.get(&commit.generation).copied().unwrap_or(0);
            report.intents_restored += u64::from(commit.epoch <= began_at && !commit.is_rewrite);
            report.rewrites_restored += u64::from(commit.epoch <= began_at && commit.is_rewrite);
            trace.note("snapshot", table, commit.epoch);
        }
        if !left.tables.contains_key(&name_of(table)) {
            same(table, "at the end", &last, &[])?;
            continue;
        }
        let schema = tables().remove(table).expect("it is one of them");
        let TableLayout { partition, sort, files } = left.layouts[*table].clone();
        let spec = TableSpec { table: name_of(table), schema, partition, sort, files };
        let opened = left.warehouse.table(&spec).map_err(told)?;
        // It may be a fence over a commit that has expired, or somebody else's.
        let current = opened.snapshot().map_or(Ok(Vec::new()), |id| rows(&opened, id));
        let current = current.map_err(|what| format!("table '{table}' at the end: {what}"))?;
        same(table, "at the end", &last, &current)?;
        let chosen = left.dice.as_mut().filter(|_| !commits.is_empty()).map(|dice| dice.pick(commits).id);
        for commit in commits {
            if chosen.is_some_and(|chosen| chosen != commit.id) {
                continue;
            }
            let rows = rows(&opened, commit.id);
            let rows = rows.map_err(|what| format!("table '{table}' at epoch {}: {what}", commit.epoch))?;
            rows.iter().for_each(|row| trace.note("row", table, stable_hash(format!("{row:?}").as_bytes())));
            report.rows += rows.len() as u64;
            let contents = at.get(&commit.epoch);
            let contents =
                contents.ok_or_else(|| format!("table '{table}': epoch {} was never bound", commit.epoch))?;
            same(table, &format!("at epoch {}", commit.epoch), contents, &rows)?;
        }
    }
    let days: BTreeSet<_> = last["lake.days"].iter().map(|row| row.get(0).clone()).collect();
    report.days_closed += days.len().saturating_sub(1) as u64;
    Ok(())
}

fn rows(table: &Table, snapshot: i64) -> Result<Vec<Row>, String> {
    let scan = table.scan(snapshot).map_err(|e| e.to_string())?;
    let mut rows =
        scan.map(|found| found.map(|(row, _)| row)).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    rows.sort();
    Ok(rows)
}

fn same(table: &str, when: &str, expected: &Contents, actual: &[Row]) -> Result<(), String> {
    let expected = &expected[table];
    if expected == actual {
        return Ok(());
    }
    let only =
        |of: &[Row], in_: &[Row]| of.iter().filter(|row| !in_.contains(row)).take(3).cloned().collect::<Vec<_>>();
    let (missing, too_many) = (only(expected, actual), only(actual, expected));
    let (had, has) = (expected.len(), actual.len());
    Err(format!("table '{table}' {when} has {has} rows, expected {had}: missing {missing:?}, too many {too_many:?}"))
}
