//! A catalog and a storage that belong together: where tables come from.

use crate::catalog::{Catalog, CommitError, DELETE_OLD_METADATA, Loaded, RestCatalog, SqliteCatalog, TableName};
use crate::fence::shut_out_others;
use crate::history::{Ancestry, is_changed_by_others, is_of, standing};
use crate::schema::{TableSpec, changes, files, new_schema, order, partitions};
use crate::session::{Session, Sleep};
use crate::settings::{CatalogSettings, StorageSettings, WarehouseSettings};
use crate::storage::{self, Disk};
use crate::table::Table;
use dataflow_core::{Environment, Error, FoundTable, Generation, Lineage, Marker, Result, SinkIdentity};
use iceberg::spec::{FormatVersion, TableMetadata};
use iceberg::{TableCreation, TableRequirement, TableUpdate};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Attempts to bring a table to its spec. Each conflict is another program's change of the same table.
const ATTEMPTS_MAX: u32 = 10;

/// An open warehouse. Its calls block and are not for threads that must not: those of an async runtime, or of a worker.
pub struct Warehouse {
    session: Arc<Session>,
    catalog: Arc<dyn Catalog>,
}

/// What a warehouse stands on, where that is not what settings name: the simulation brings its own.
pub struct Ground {
    /// The catalog.
    pub catalog: Arc<dyn Catalog>,
    /// The disk that files lie on, under absolute paths.
    pub disk: Arc<dyn Disk>,
    /// Waits before another attempt.
    pub sleep: Sleep,
}

impl Warehouse {
    /// The warehouse over a given catalog and disk.
    ///
    /// # Errors
    /// When its async runtime can not be started.
    pub fn over(ground: Ground, environment: Environment) -> Result<Warehouse> {
        let Ground { catalog, disk, sleep } = ground;
        let session = Session::new(storage::on(disk), environment, Some(sleep))?;
        Ok(Warehouse { session: Arc::new(session), catalog })
    }

    /// Opens the catalog and the storage. An SQLite file is made if it is not there; a REST server is asked for its configuration.
    ///
    /// # Errors
    /// When the settings are wrong, or the catalog cannot be reached.
    pub fn open(settings: &WarehouseSettings, environment: Environment) -> Result<Warehouse> {
        let session = Arc::new(Session::new(storage::open(&settings.storage)?, environment, None)?);
        let catalog: Arc<dyn Catalog> = match &settings.catalog {
            CatalogSettings::Sqlite { file, name } => {
                let place = place(&settings.storage)?;
                Arc::new(SqliteCatalog::open(session.clone(), file, name, place)?)
            }
            CatalogSettings::Rest { uri, warehouse, token } => {
                Arc::new(RestCatalog::open(uri, warehouse.as_deref(), token.as_ref())?)
            }
        };
        Ok(Warehouse { session, catalog })
    }

    /// Makes the table, or opens it and brings it to `spec`: columns are added and widened, those that the spec has no longer become
    /// optional, partitions and order of new files change.
    ///
    /// # Errors
    /// When `spec` does not fit itself, asks for a change that Iceberg has not (naming table, column and both types), or the table is of
    /// another format version.
    pub fn table(&self, spec: &TableSpec) -> Result<Table> {
        if spec.table.namespace.is_empty() {
            let what = format!("open the table '{}': it has no namespace", spec.table);
            return Err(Error::user(what).hint("write its name as NAMESPACE.TABLE"));
        }
        let mut because = String::new();
        for _ in 0..ATTEMPTS_MAX {
            let Some(found) = self.catalog.load(&spec.table)? else {
                if let Some(made) = self.create(spec)? {
                    return Ok(self.opened(spec, made));
                }
                continue;
            };
            let now = &found.metadata;
            if now.format_version() < FormatVersion::V2 {
                let what = format!("open the table '{}': it is of the format {}", spec.table, now.format_version());
                return Err(
                    Error::user(what).hint("name another table, or upgrade this one: v2 and v3 are written here")
                );
            }
            let updates = changes(spec, now)?;
            if updates.is_empty() {
                return Ok(self.opened(spec, found));
            }
            match self.catalog.commit(&spec.table, &unchanged(now), updates) {
                Ok(changed) => return Ok(self.opened(spec, changed)),
                Err(CommitError::Refused(error)) => return Err(error),
                // The next look shows whether it was made.
                Err(CommitError::Conflict(text) | CommitError::Unknown(text)) => because = text,
            }
            self.session.pause(Duration::from_millis(100));
        }
        let what = format!("bring the table '{}' to its columns after {ATTEMPTS_MAX} attempts: {because}", spec.table);
        Err(Error::outside(what).retry())
    }

    /// Whose output a table has, without opening it for writing; `None` when there is no such table, or no job has written to it.
    ///
    /// # Errors
    /// When it cannot be read, or was rolled back.
    pub fn marker(&self, name: &TableName) -> Result<Option<Marker>> {
        self.catalog.load(name)?.map_or(Ok(None), |found| standing(name, &found.metadata))
    }

    /// What a start of the job `lineage` finds of a table, or of none.
    ///
    /// # Errors
    /// When it cannot be read, or was rolled back.
    pub fn found(&self, name: &TableName, lineage: Lineage) -> Result<FoundTable> {
        let Some(Loaded { metadata, .. }) = self.look(name)? else { return Ok(FoundTable::default()) };
        let is_changed_by_others = is_changed_by_others(name, &metadata, lineage)?;
        Ok(FoundTable { marker: standing(name, &metadata)?, is_changed_by_others })
    }

    /// Says in whose name files are written from now on. The first call counts.
    pub fn own(&self, owner: &SinkIdentity) {
        self.session.own(owner.clone());
    }

    /// A table as it is now, without opening it for writing; `None` when there is none.
    pub(crate) fn look(&self, name: &TableName) -> Result<Option<Loaded>> {
        self.catalog.load(name)
    }

    /// The newest snapshot of a table that holds output of `lineage`; `None` when there is none.
    pub(crate) fn newest(&self, name: &TableName, lineage: Lineage) -> Result<Option<i64>> {
        let Some(found) = self.look(name)? else { return Ok(None) };
        for snapshot in Ancestry::of(&found.metadata).snapshots {
            if is_of(name, snapshot, lineage)? {
                return Ok(Some(snapshot.snapshot_id()));
            }
        }
        Ok(None)
    }

    /// Time since the process began.
    pub(crate) fn monotonic(&self) -> Duration {
        self.session.monotonic()
    }

    /// One attempt to change what a table says beside its rows.
    pub(crate) fn change(
        &self,
        name: &TableName,
        requirements: &[TableRequirement],
        updates: Vec<TableUpdate>,
    ) -> Result<(), CommitError> {
        self.catalog.commit(name, requirements, updates).map(|_| ())
    }

    /// What `work` gives of each of `items`, several at once where that is possible.
    pub(crate) fn each<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        self.session.each(items, work)
    }

    /// Waits for a while, up to `most`.
    pub(crate) fn pause(&self, most: Duration) {
        self.session.pause(most);
    }

    /// Shuts out what others have under way on a table, if there is one: from now on it changes by this generation's commits alone.
    ///
    /// # Errors
    /// When another history or a newer generation has it, or the catalog can not be reached.
    pub fn shut_out_others(&self, name: &TableName, lineage: Lineage, generation: Generation) -> Result<()> {
        shut_out_others(&self.session, self.catalog.as_ref(), name, lineage, generation)
    }

    fn create(&self, spec: &TableSpec) -> Result<Option<Loaded>> {
        self.catalog.create_namespace(&spec.table.namespace)?;
        let schema = new_schema(spec)?;
        let (partitions, order) = (partitions(spec, &schema)?, order(spec, &schema)?);
        let properties = [
            ("write.parquet.compression-codec", "zstd"),
            // Metadata files are bounded: the newest hundred stay, for readers that have just been given one.
            (DELETE_OLD_METADATA, "true"),
            ("write.metadata.previous-versions-max", "100"),
        ];
        let mut properties: BTreeMap<String, String> =
            properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        properties.extend(files(spec)?);
        let creation = TableCreation::builder()
            .name(spec.table.name.clone())
            .schema(schema)
            .partition_spec(partitions)
            .sort_order(order)
            .properties(properties)
            .format_version(spec.files.format.into())
            .build();
        self.catalog.create_table(&spec.table, creation)
    }

    fn opened(&self, spec: &TableSpec, now: Loaded) -> Table {
        Table::new(self.session.clone(), self.catalog.clone(), spec.clone(), now)
    }
}

/// Where an SQLite catalog puts new tables.
fn place(storage: &StorageSettings) -> Result<String> {
    match storage {
        StorageSettings::Folder { path } if path.is_absolute() => {
            Ok(format!("file://{}", path.display()).trim_end_matches('/').to_owned())
        }
        StorageSettings::Folder { path } => {
            let what = format!("open the warehouse '{}': the path is not absolute", path.display());
            Err(Error::user(what).hint("name its folder from the root on: readers have to find its files too"))
        }
        StorageSettings::S3 { location, .. } => Ok(location.trim_end_matches('/').to_owned()),
    }
}

/// What must not have changed for a change of columns, partitions and order to be the right one.
fn unchanged(now: &TableMetadata) -> Vec<TableRequirement> {
    vec![
        TableRequirement::UuidMatch { uuid: now.uuid() },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: now.current_schema_id() },
        TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: now.last_column_id() },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: now.default_partition_spec_id() },
        TableRequirement::LastAssignedPartitionIdMatch { last_assigned_partition_id: now.last_partition_id() },
        TableRequirement::DefaultSortOrderIdMatch { default_sort_order_id: now.default_sort_order_id() },
    ]
}
