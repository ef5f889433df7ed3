//! The warehouse as a sink of a job's tables ([`dataflow_core::TableSink`]): what the engine's writers and committer call.
//!
//! Tables are opened once and shared, by all workers and the committer, so that each knows the files that another has written and not
//! committed. The table is made, or brought to its shape, when it is first written to.

use crate::file::NewFile;
use crate::intent::{Intent, Outcome, Purpose};
use crate::{Table, TableName, TableSpec, Warehouse, WarehouseSettings};
use dataflow_core::{
    Environment, Epoch, Error, Marker, Result, Row, RowLocation, SinkIdentity, TableChanges, TableCommit,
    TableCommitter, TableFiles, TableSchema, TableSink, TableWriter,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use uuid::Uuid;

/// The tables of a job in one warehouse.
pub struct IcebergSink {
    name: String,
    tables: BTreeMap<String, TableName>,
    shared: Arc<Shared>,
}

/// What writers and committer share.
struct Shared {
    settings: WarehouseSettings,
    environment: Environment,
    opened: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    warehouse: Option<Arc<Warehouse>>,
    tables: BTreeMap<String, Arc<Table>>,
}

/// What one worker has written for one commit of a table.
#[derive(Serialize, Deserialize)]
struct WorkerFiles {
    table: Uuid,
    data: Vec<NewFile>,
    deletes: Vec<NewFile>,
}

impl IcebergSink {
    /// The sink `name` of `tables`, each named `NAMESPACE.TABLE`. Nothing is opened yet.
    ///
    /// # Errors
    /// When a name has no namespace.
    pub fn new(
        name: &str,
        tables: Vec<String>,
        settings: WarehouseSettings,
        environment: Environment,
    ) -> Result<IcebergSink> {
        let tables: Result<BTreeMap<String, TableName>> =
            tables.into_iter().map(|table| Ok((table.clone(), parse_name(&table)?))).collect();
        let shared = Shared { settings, environment, opened: Mutex::default() };
        Ok(IcebergSink { name: name.to_owned(), tables: tables?, shared: Arc::new(shared) })
    }

    /// The rows of a table as they are visible now; none when there is no such table yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn rows(&self, table: &str, schema: &TableSchema) -> Result<Box<dyn Iterator<Item = Result<Row>>>> {
        let warehouse = self.shared.warehouse()?;
        let name =
            self.tables.get(table).ok_or_else(|| Error::us(format!("read the table '{table}', which is not here")))?;
        if warehouse.marker(name)?.is_none() {
            return Ok(Box::new(std::iter::empty()));
        }
        let opened = self.handle(&BTreeMap::from([(table.to_owned(), schema.clone())])).table(table)?;
        opened.refresh()?;
        match opened.snapshot() {
            None => Ok(Box::new(std::iter::empty())),
            Some(snapshot) => Ok(Box::new(opened.scan(snapshot)?.map(|found| found.map(|(row, _)| row)))),
        }
    }

    fn handle(&self, schemas: &BTreeMap<String, TableSchema>) -> Handle {
        let specs = schemas.iter().filter_map(|(table, schema)| {
            let spec = TableSpec {
                table: self.tables.get(table)?.clone(),
                schema: schema.clone(),
                partition: Vec::new(),
                sort: Vec::new(),
            };
            Some((table.clone(), spec))
        });
        Handle { specs: specs.collect(), shared: self.shared.clone() }
    }
}

fn parse_name(table: &str) -> Result<TableName> {
    let parts: Vec<&str> = table.split('.').collect();
    match parts.split_last() {
        Some((name, namespace)) if !namespace.is_empty() && parts.iter().all(|part| !part.is_empty()) => {
            Ok(TableName {
                namespace: namespace.iter().map(|part| (*part).to_owned()).collect(),
                name: (*name).to_owned(),
            })
        }
        _ => Err(Error::user(format!("naming the table '{table}'")).hint("write it as NAMESPACE.TABLE")),
    }
}

impl Shared {
    fn warehouse(&self) -> Result<Arc<Warehouse>> {
        let mut opened = self.lock();
        if let Some(warehouse) = &opened.warehouse {
            return Ok(warehouse.clone());
        }
        let warehouse = Arc::new(Warehouse::open(&self.settings, self.environment.clone())?);
        opened.warehouse = Some(warehouse.clone());
        Ok(warehouse)
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().expect("no holder of this lock can panic")
    }
}

impl TableSink for IcebergSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn tables(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    fn open(&self, _: &SinkIdentity) -> Result<BTreeMap<String, Marker>> {
        let warehouse = self.shared.warehouse()?;
        let mut markers = BTreeMap::new();
        for (table, name) in &self.tables {
            markers.extend(warehouse.marker(name)?.map(|marker| (table.clone(), marker)));
        }
        Ok(markers)
    }

    fn writer(&self, _: usize, schemas: &BTreeMap<String, TableSchema>) -> Box<dyn TableWriter> {
        Box::new(self.handle(schemas))
    }

    fn committer(&self, schemas: &BTreeMap<String, TableSchema>) -> Box<dyn TableCommitter> {
        Box::new(Commits { handle: self.handle(schemas), snapshots: BTreeMap::new() })
    }
}

/// The tables with their shapes, as a writer or the committer has them.
struct Handle {
    specs: BTreeMap<String, TableSpec>,
    shared: Arc<Shared>,
}

impl Handle {
    fn table(&self, table: &str) -> Result<Arc<Table>> {
        let warehouse = self.shared.warehouse()?;
        // One of those who ask first makes the table.
        let mut opened = self.shared.lock();
        if let Some(known) = opened.tables.get(table) {
            return Ok(known.clone());
        }
        let spec =
            self.specs.get(table).ok_or_else(|| Error::us(format!("open the table '{table}', which has no shape")))?;
        let found = Arc::new(warehouse.table(spec)?);
        opened.tables.insert(table.to_owned(), found.clone());
        Ok(found)
    }
}

impl TableWriter for Handle {
    fn restored(&mut self, table: &str, intent: &[u8]) -> Result<()> {
        let files = decode(table, intent)?;
        self.table(table)?.note(&files.data)
    }

    fn write(&mut self, table: &str, changes: &TableChanges) -> Result<TableFiles> {
        let opened = self.table(table)?;
        let mut writer = opened.writer()?;
        let places = writer.write(&changes.added)?;
        let data = writer.finish()?;
        let mut dead: BTreeMap<Arc<str>, Vec<u64>> = BTreeMap::new();
        for RowLocation { file, position } in &changes.deleted {
            dead.entry(file.clone()).or_default().push(*position);
        }
        let deletes = opened.write_deletes(&dead)?;
        let files = WorkerFiles { table: opened.uuid(), data, deletes };
        let intent = serde_json::to_vec(&files)
            .map_err(|cause| Error::us(format!("note the files of table '{table}'")).because(cause))?;
        let added = places.into_iter().map(|place| RowLocation { file: place.file, position: place.position });
        Ok(TableFiles { intent, added: added.collect() })
    }

    fn scan(&mut self, table: &str, f: &mut dyn FnMut(Row, RowLocation) -> Result<()>) -> Result<Option<Marker>> {
        let opened = self.table(table)?;
        let marker = opened.marker()?;
        if let Some(snapshot) = opened.snapshot() {
            for found in opened.scan_keys(snapshot)? {
                let (key, place) = found?;
                f(key, RowLocation { file: place.file, position: place.position })?;
            }
        }
        Ok(marker)
    }
}

/// The committer.
struct Commits {
    handle: Handle,
    /// The snapshot of each table's last commit, once the table is claimed for this generation.
    snapshots: BTreeMap<String, Option<i64>>,
}

impl Commits {
    /// The snapshot that the table had after the commit of the epoch `after`; the first time the table is made this generation's.
    fn parent(&mut self, table: &str, opened: &Table, marker: &Marker, after: Epoch) -> Result<Option<i64>> {
        if let Some(known) = self.snapshots.get(table) {
            return Ok(*known);
        }
        opened.claim(marker.lineage, marker.generation)?;
        let parent = opened.snapshot_of(after)?;
        self.snapshots.insert(table.to_owned(), parent);
        Ok(parent)
    }
}

impl TableCommitter for Commits {
    fn commit(&mut self, commit: &TableCommit) -> Result<()> {
        let TableCommit { table, marker, after, intents } = commit;
        let opened = self.handle.table(table)?;
        let parent = self.parent(table, &opened, marker, *after)?;
        let (mut data, mut deletes, uuid) = (Vec::new(), Vec::new(), opened.uuid());
        for intent in intents {
            let mut files = decode(table, intent)?;
            if files.table != uuid {
                let what = format!("commit to the table '{table}': it was dropped and made again");
                return Err(Error::doubt(what).hint("start over: the new table does not have what the old one had"));
            }
            data.append(&mut files.data);
            deletes.append(&mut files.deletes);
        }
        let (marker, first_epoch, purpose) = (*marker, after + 1, Purpose::Rows);
        let intent = Intent { table: uuid, marker, first_epoch, parent, purpose, data, deletes, removed: Vec::new() };
        match opened.commit(&intent)? {
            Outcome::Committed(done) => {
                self.snapshots.insert(table.clone(), done.snapshot);
                Ok(())
            }
            Outcome::Foreign(foreign) => {
                let current = foreign.current.map_or_else(|| "none".to_owned(), |id| id.to_string());
                let what = format!(
                    "commit to the table '{table}': somebody else's snapshot ({current}) is on top of this job's"
                );
                Err(Error::doubt(what)
                    .hint("take it back (roll the table back to this job's snapshot), or start over with a new table"))
            }
        }
    }
}

fn decode(table: &str, intent: &[u8]) -> Result<WorkerFiles> {
    serde_json::from_slice(intent)
        .map_err(|cause| Error::doubt(format!("read an intent of table '{table}' from the checkpoint")).because(cause))
}
