//! The crate against real files and a real SQLite catalog. What other programs do to a table is done with the crate's own inner parts, past
//! the rules of `commit`.

mod commits;
mod dead_files;
mod evolve;
mod model;
mod race;
mod tables;
mod upkeep;
mod vectors;

use crate::catalog::Loaded;
use crate::commit::requirements;
use crate::marker::Properties;
use crate::snapshot::{Change, prepare};
use crate::{
    CatalogSettings, Deletes, FileSettings, Intent, NewFile, Outcome, Place, Purpose, StorageSettings, Table,
    TableFormat, TableName, TableSpec, Warehouse, WarehouseSettings,
};
use dataflow_core::{
    ChainHash, Clock, Column, ColumnType, Datum, Environment, Generation, Lineage, Marker, Micros, Random, Row,
    Spawner, TableSchema, Task, Waker,
};
use iceberg::TableUpdate;
use iceberg::spec::{DataFile, MAIN_BRANCH, Operation, SnapshotReference, SnapshotRetention};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A clock that stands, and numbers from a seed (SplitMix64).
struct World(AtomicU64);

impl Clock for World {
    fn wall(&self) -> Micros {
        Micros(1_790_000_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

impl Random for World {
    fn next_u64(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

struct NoTasks;

impl Spawner for NoTasks {
    fn spawn(&self, name: &str, _: Box<dyn Task>) -> Waker {
        panic!("a warehouse starts no task, and now '{name}'");
    }
}

fn environment(seed: u64) -> Environment {
    let world = Arc::new(World(AtomicU64::new(seed)));
    Environment { clock: world.clone(), random: world, spawner: Arc::new(NoTasks) }
}

/// A warehouse in a folder. Handles with other seeds are other processes.
fn warehouse(folder: &Path, seed: u64) -> Warehouse {
    let catalog = CatalogSettings::Sqlite { file: folder.join("catalog.db"), name: "default".to_owned() };
    let storage = StorageSettings::Folder { path: folder.join("warehouse") };
    Warehouse::open(&WarehouseSettings { catalog, storage }, environment(seed)).unwrap()
}

fn column(name: &str, kind: ColumnType, is_nullable: bool) -> Column {
    Column { name: name.to_owned(), kind, is_nullable }
}

fn named(name: &str) -> TableName {
    TableName { namespace: vec!["shop".to_owned(), "silver".to_owned()], name: name.to_owned() }
}

/// `users(id long key, name text null)`.
fn users() -> TableSpec {
    let columns = vec![column("id", ColumnType::Long, false), column("name", ColumnType::Text, true)];
    let schema = TableSchema { columns, key: vec![0] };
    TableSpec { table: named("users"), schema, partition: vec![], sort: vec![], files: FileSettings::default() }
}

/// The same as a table of format 3.
fn users_of_format_3() -> TableSpec {
    TableSpec { files: FileSettings { format: TableFormat::V3, ..FileSettings::default() }, ..users() }
}

fn user(id: i64, name: &str) -> Row {
    [Datum::Long(id), name.into()].into_iter().collect()
}

fn key(id: i64) -> Row {
    [Datum::Long(id)].into_iter().collect()
}

fn marker(epoch: u64) -> Marker {
    let mut chain = [7; 16];
    chain[..8].copy_from_slice(&epoch.to_be_bytes());
    Marker { lineage: Lineage(0xabc), generation: Generation { number: 1, nonce: 11 }, epoch, chain: ChainHash(chain) }
}

/// Writes rows as data files.
fn written(table: &Table, rows: &[Row]) -> (Vec<NewFile>, Vec<Place>) {
    let mut writer = table.writer().unwrap();
    let places = writer.write(rows).unwrap();
    (writer.finish().unwrap(), places)
}

/// An intent of one epoch on top of what the table handle knows.
fn intent(table: &Table, epoch: u64, data: Vec<NewFile>, deletes: impl Into<Option<Deletes>>) -> Intent {
    Intent {
        table: table.uuid(),
        marker: marker(epoch),
        first_epoch: epoch,
        parent: table.snapshot(),
        is_alone: false,
        purpose: Purpose::Rows,
        data,
        deletes: deletes.into().unwrap_or_default(),
        removed: vec![],
    }
}

fn append(table: &Table, epoch: u64, rows: &[Row]) -> Outcome {
    let (data, _) = written(table, rows);
    table.commit(&intent(table, epoch, data, None)).unwrap()
}

/// Where rows lie that are to die, by file.
fn dead<'a>(places: impl IntoIterator<Item = &'a Place>) -> BTreeMap<Arc<str>, Vec<u64>> {
    let mut dead: BTreeMap<Arc<str>, Vec<u64>> = BTreeMap::new();
    for place in places {
        dead.entry(place.file.clone()).or_default().push(place.position);
    }
    dead
}

/// The live rows of the current snapshot, sorted.
fn rows(table: &Table) -> Vec<Row> {
    table.refresh().unwrap();
    let Some(snapshot) = table.snapshot() else { return vec![] };
    let mut rows: Vec<Row> = table.scan(snapshot).unwrap().map(|row| row.unwrap().0).collect();
    rows.sort();
    rows
}

/// What another program commits: no marker, no rules.
fn foreign(table: &Table, operation: Operation, data: &[NewFile], removed: &[&str]) {
    let entries = data.iter().map(|file| file.entry(&table.metadata()).unwrap()).collect();
    foreign_files(table, operation, entries, removed);
}

/// The same with files of any kind, each under its partition spec.
fn foreign_files(table: &Table, operation: Operation, added: Vec<(i32, DataFile)>, removed: &[&str]) {
    table.refresh().unwrap();
    let now = table.metadata();
    let removed: BTreeSet<String> = removed.iter().map(|path| (*path).to_owned()).collect();
    let change = Change { added, removed, ..Change::empty(operation, Properties::new()) };
    let (_, updates) = prepare(table.session(), &now, &change).unwrap();
    done(table, updates);
}

/// Sets the current snapshot back.
fn rolled_back(table: &Table, snapshot: i64) {
    table.refresh().unwrap();
    let reference = SnapshotReference::new(snapshot, SnapshotRetention::branch(None, None, None));
    done(table, vec![TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference }]);
}

/// Expires snapshots.
fn expired(table: &Table, snapshots: Vec<i64>) {
    table.refresh().unwrap();
    done(table, vec![TableUpdate::RemoveSnapshots { snapshot_ids: snapshots }]);
}

fn done(table: &Table, updates: Vec<TableUpdate>) -> Loaded {
    table.catalog().commit(table.name(), &requirements(&table.metadata()), updates).unwrap()
}
