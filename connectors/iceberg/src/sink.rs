//! The warehouse as a sink of a job's tables ([`dataflow_core::TableSink`]): what the engine's writers and committer call.
//!
//! Tables are opened once and shared, by all workers and the committer, so that each knows the files that another has written and not
//! committed. The table is made, or brought to its shape, when it is first written to.

mod commits;
mod rewrites;

use crate::compaction::CompactionSettings;
use crate::deletes::Deletes;
use crate::epochs::EpochsTable;
use crate::file::NewFile;
use crate::history::{admit, is_changed_by_others};
use crate::layout::TableLayout;
use crate::{Table, TableName, TableSpec, Warehouse, WarehouseSettings};
use commits::Commits;
use dataflow_core::{
    Environment, Epoch, Error, Fault, FoundTable, Marker, OnForeignCommit, Result, Row, RowLocation, ScanColumns,
    SinkIdentity, TableChanges, TableCommitter, TableCompactor, TableFiles, TableSchema, TableSink, TableWriter,
};
use rewrites::Rewrites;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use uuid::Uuid;

/// The tables of a job in one warehouse.
pub struct IcebergSink {
    name: String,
    tables: BTreeMap<String, TableName>,
    shared: Arc<Shared>,
    /// Where the warehouse is, when settings name it.
    place: Option<WarehouseSettings>,
}

/// What the sink does beside writing rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSettings {
    /// The table that says which snapshots belong to an epoch, as `NAMESPACE.TABLE`.
    pub epochs: String,
    /// What keeps the tables small.
    pub maintenance: MaintenanceSettings,
    /// How tables are laid out that are not as they come.
    pub layouts: BTreeMap<String, TableLayout>,
    /// What is done about a table kept with an index when others have changed rows of it.
    pub on_foreign_commit: OnForeignCommit,
}

impl Default for SinkSettings {
    fn default() -> SinkSettings {
        let (epochs, maintenance) = ("dataflow.epochs".to_owned(), MaintenanceSettings::default());
        SinkSettings { epochs, maintenance, layouts: BTreeMap::new(), on_foreign_commit: OnForeignCommit::default() }
    }
}

/// What keeps tables small: which snapshots stay, and when files are written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintenanceSettings {
    /// How often a table is looked after.
    pub interval: Duration,
    /// The newest snapshots that stay.
    pub keep_snapshots: usize,
    /// For how long a snapshot stays, beside those: longer than a query takes.
    pub keep: Duration,
    /// The last epochs of the table of epochs whose snapshots stay.
    pub keep_epochs: usize,
    /// When files are written anew; never without it.
    pub compaction: Option<CompactionSettings>,
}

impl Default for MaintenanceSettings {
    fn default() -> MaintenanceSettings {
        MaintenanceSettings {
            interval: Duration::from_secs(60),
            keep_snapshots: 20,
            keep: Duration::from_secs(900),
            keep_epochs: 20,
            compaction: Some(CompactionSettings::default()),
        }
    }
}

/// What writers and committer share.
struct Shared {
    open: Box<dyn Fn() -> Result<Warehouse> + Send + Sync>,
    settings: SinkSettings,
    epochs: TableName,
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
    #[serde(flatten)]
    deletes: Deletes,
    /// Files whose place they take.
    #[serde(default)]
    removed: Vec<String>,
    /// By what number the rewrite is found that they belong to, of the worker that notes its files.
    #[serde(default)]
    rewrite: Option<u64>,
}

impl IcebergSink {
    /// The sink `name` of `tables`, each named `NAMESPACE.TABLE`. Nothing is opened yet.
    ///
    /// # Errors
    /// When a name has no namespace.
    pub fn new(
        name: &str,
        tables: Vec<String>,
        warehouse: WarehouseSettings,
        settings: SinkSettings,
        environment: Environment,
    ) -> Result<IcebergSink> {
        let place = warehouse.clone();
        let sink = IcebergSink::over(name, tables, settings, move || Warehouse::open(&warehouse, environment.clone()))?;
        Ok(IcebergSink { place: Some(place), ..sink })
    }

    /// The sink `name` of `tables` in the warehouse that `open` opens when it is first needed.
    ///
    /// # Errors
    /// When a name has no namespace.
    pub fn over(
        name: &str,
        tables: Vec<String>,
        settings: SinkSettings,
        open: impl Fn() -> Result<Warehouse> + Send + Sync + 'static,
    ) -> Result<IcebergSink> {
        let tables: Result<BTreeMap<String, TableName>> =
            tables.into_iter().map(|table| Ok((table.clone(), parse_name(&table)?))).collect();
        let epochs = parse_name(&settings.epochs)?;
        if tables.as_ref().is_ok_and(|tables| tables.values().any(|table| *table == epochs)) {
            let what = format!("naming the table of epochs '{epochs}': the job writes a table of that name");
            return Err(Error::user(what).hint("give it another name: epochs = \"NAMESPACE.TABLE\""));
        }
        let shared = Shared { open: Box::new(open), settings, epochs, opened: Mutex::default() };
        Ok(IcebergSink { name: name.to_owned(), tables: tables?, shared: Arc::new(shared), place: None })
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

    /// Names the snapshots of all tables at one epoch, the newest that they all have if none is given. Returns the epoch, and the snapshot of
    /// each table. Said twice it is done once.
    ///
    /// # Errors
    /// When the table of epochs does not have the epoch, a snapshot has expired, or the name stands elsewhere; no table is tagged then.
    pub fn tag(&self, tag: &str, epoch: Option<Epoch>) -> Result<(Epoch, BTreeMap<String, i64>)> {
        if tag.is_empty() || tag == iceberg::spec::MAIN_BRANCH {
            return Err(Error::user(format!("tagging the tables as '{tag}'")).hint("take another name"));
        }
        let warehouse = self.shared.warehouse()?;
        let epochs = &self.shared.epochs;
        let none = |what: String| {
            Error::user(format!("tagging the tables as '{tag}': {what}"))
                .hint(format!("see which epochs there are: SELECT DISTINCT epoch FROM {epochs}"))
        };
        if warehouse.look(epochs)?.is_none() {
            return Err(none(format!("there is no table '{epochs}' yet")));
        }
        let table = EpochsTable::open(&warehouse, epochs)?;
        let found = match epoch {
            Some(epoch) => table.at(epoch)?.map(|found| (epoch, found)),
            None => table.last(1)?.pop_last(),
        };
        let asked = || epoch.map_or_else(|| "any".to_owned(), |epoch| epoch.to_string());
        let (epoch, snapshots) =
            found.ok_or_else(|| none(format!("the table '{epochs}' does not have epoch {}", asked())))?;
        let tables: Result<Vec<(TableName, i64)>> =
            snapshots.iter().map(|(table, snapshot)| Ok((parse_name(table)?, *snapshot))).collect();
        let tables = tables?;
        for (table, snapshot) in &tables {
            warehouse.check_tag(table, tag, *snapshot)?;
        }
        for (table, snapshot) in &tables {
            warehouse.tag(table, tag, *snapshot)?;
        }
        Ok((epoch, snapshots))
    }

    /// A table, opened.
    #[cfg(test)]
    pub(crate) fn handle_of(&self, table: &str, schema: &TableSchema) -> Arc<Table> {
        let opened = self.handle(&BTreeMap::from([(table.to_owned(), schema.clone())])).table(table).unwrap();
        opened.refresh().unwrap();
        opened
    }

    /// A command line by which PyIceberg prints `table`; none for a warehouse that asks for keys.
    pub fn reading_line(&self, table: &str) -> Option<String> {
        self.place.as_ref()?.reading_line(table)
    }

    fn handle(&self, schemas: &BTreeMap<String, TableSchema>) -> Handle {
        let specs = schemas.iter().filter_map(|(table, schema)| {
            let TableLayout { partition, sort, files } =
                self.shared.settings.layouts.get(table).cloned().unwrap_or_default();
            let name = self.tables.get(table)?.clone();
            Some((table.clone(), TableSpec { table: name, schema: schema.clone(), partition, sort, files }))
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
        let warehouse = Arc::new((self.open)()?);
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

    fn open(&self, identity: &SinkIdentity) -> Result<BTreeMap<String, FoundTable>> {
        let warehouse = self.shared.warehouse()?;
        warehouse.own(identity);
        let epochs = &self.shared.epochs;
        admit(epochs, warehouse.marker(epochs)?.as_ref(), identity.lineage, identity.generation)?;
        self.tables.iter().map(|(table, name)| Ok((table.clone(), warehouse.found(name, identity.lineage)?))).collect()
    }

    fn shut_out_others(&self, identity: &SinkIdentity) -> Result<()> {
        let warehouse = self.shared.warehouse()?;
        let mut tables = self.tables.values();
        tables.try_for_each(|name| warehouse.shut_out_others(name, identity.lineage, identity.generation))
    }

    fn on_foreign_commit(&self) -> OnForeignCommit {
        self.shared.settings.on_foreign_commit
    }

    fn writer(&self, _: usize, schemas: &BTreeMap<String, TableSchema>) -> Box<dyn TableWriter> {
        Box::new(self.handle(schemas))
    }

    fn committer(&self, schemas: &BTreeMap<String, TableSchema>) -> Box<dyn TableCommitter> {
        Box::new(Commits::new(self.handle(schemas)))
    }

    fn compactor(&self, schemas: &BTreeMap<String, TableSchema>) -> Option<Box<dyn TableCompactor>> {
        let how = self.shared.settings.maintenance.compaction?;
        Some(Box::new(Rewrites::new(self.handle(schemas), how)))
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

    /// What is said when others have changed a table below this job's work. A start reads its rows anew where the job is to make it what its
    /// view is; one without an index needs no more than that nobody follows a rewrite of theirs.
    fn foreign(&self, opened: &Table, current: Option<i64>, has_index: bool) -> Error {
        let error = opened.foreign(current);
        if self.shared.settings.on_foreign_commit == OnForeignCommit::Rebuild || !has_index {
            error.restart()
        } else {
            error.hint("roll the table back to this job's snapshot, or let the job make it what its view is: on_foreign_commit = \"rebuild\"")
        }
    }

    /// An error of a writer that found no file where its index has one: others have taken it away, and no commit has met theirs yet.
    fn seen_by_a_writer(&self, opened: &Table, error: Error) -> Error {
        let now = opened.metadata();
        let lineage = opened.session().owner().map(|owner| owner.lineage);
        let is_theirs = lineage.map(|lineage| is_changed_by_others(opened.name(), &now, lineage));
        match is_theirs {
            Some(Ok(true)) if error.fault == Fault::Doubt => self.foreign(opened, now.current_snapshot_id(), true),
            _ => error,
        }
    }

    /// Writes the changes of one table.
    fn write_table(&self, table: &str, changes: &TableChanges) -> Result<TableFiles> {
        let opened = self.table(table)?;
        let mut writer = opened.writer()?;
        let places = writer.write(&changes.added)?;
        let data = writer.finish()?;
        let mut dead: BTreeMap<Arc<str>, Vec<u64>> = BTreeMap::new();
        for RowLocation { file, position } in &changes.deleted {
            dead.entry(file.clone()).or_default().push(*position);
        }
        let deletes = opened.delete_rows(&dead).map_err(|error| self.seen_by_a_writer(&opened, error))?;
        let files = WorkerFiles { table: opened.uuid(), data, deletes, removed: Vec::new(), rewrite: None };
        let intent = serde_json::to_vec(&files)
            .map_err(|cause| Error::us(format!("note the files of table '{table}'")).because(cause))?;
        Ok(TableFiles { intent, added: places.into_iter().map(RowLocation::from).collect() })
    }
}

impl TableWriter for Handle {
    fn restored(&mut self, table: &str, intent: &[u8]) -> Result<()> {
        let files = decode(table, intent)?;
        self.table(table)?.note(&files.data)
    }

    fn write(&mut self, changes: &[(&str, &TableChanges)]) -> Result<Vec<TableFiles>> {
        let warehouse = self.shared.warehouse()?;
        warehouse.each(changes, |(table, changes)| self.write_table(table, changes)).into_iter().collect()
    }

    fn scan(
        &mut self,
        table: &str,
        columns: ScanColumns,
        f: &mut dyn FnMut(Row, RowLocation) -> Result<()>,
    ) -> Result<Option<Marker>> {
        let opened = self.table(table)?;
        let marker = opened.marker()?;
        if let Some(snapshot) = opened.snapshot() {
            let rows = match columns {
                ScanColumns::Key => opened.start_keys(snapshot)?,
                ScanColumns::All => opened.start(snapshot)?,
            };
            for found in rows {
                let (row, place) = found?;
                f(row, place.into())?;
            }
        }
        Ok(marker)
    }

    fn keys(&mut self, table: &str, file: &str) -> Result<Box<dyn Iterator<Item = Result<Row>> + Send>> {
        Ok(Box::new(self.table(table)?.keys_of_file(file)?))
    }
}

fn decode(table: &str, intent: &[u8]) -> Result<WorkerFiles> {
    serde_json::from_slice(intent)
        .map_err(|cause| Error::doubt(format!("read an intent of table '{table}' from the checkpoint")).because(cause))
        .map_err(|error| error.hint("let the version of this program that wrote it commit what waits, or start over"))
}
