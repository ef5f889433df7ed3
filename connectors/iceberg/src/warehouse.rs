//! A catalog and a storage that belong together: where tables come from.

use crate::catalog::{Catalog, CommitError, Loaded, RestCatalog, SqliteCatalog, TableName};
use crate::history::standing;
use crate::schema::{TableSpec, changes, new_schema, order, partitions};
use crate::session::Session;
use crate::settings::{CatalogSettings, StorageSettings, WarehouseSettings};
use crate::storage;
use crate::table::Table;
use dataflow_core::{Environment, Error, Marker, Result};
use iceberg::spec::{FormatVersion, TableMetadata};
use iceberg::{TableCreation, TableRequirement};
use std::sync::Arc;
use std::time::Duration;

/// Attempts to bring a table to its spec. Each conflict is another program's change of the same table.
const ATTEMPTS_MAX: u32 = 10;

/// An open warehouse. Its calls block and are not for threads that must not: those of an async runtime, or of a worker.
pub struct Warehouse {
    session: Arc<Session>,
    catalog: Arc<dyn Catalog>,
}

impl Warehouse {
    /// Opens the catalog and the storage. An SQLite file is made if it is not there; a REST server is asked for its configuration.
    ///
    /// # Errors
    /// When the settings are wrong, or the catalog cannot be reached.
    pub fn open(settings: &WarehouseSettings, environment: Environment) -> Result<Warehouse> {
        let session = Arc::new(Session::new(storage::open(&settings.storage)?, environment)?);
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
            if now.format_version() != FormatVersion::V2 {
                let what = format!("open the table '{}': it is of the format {}", spec.table, now.format_version());
                return Err(Error::user(what)
                    .hint("name another table: this one is not of the format v2, the only one written here"));
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

    fn create(&self, spec: &TableSpec) -> Result<Option<Loaded>> {
        self.catalog.create_namespace(&spec.table.namespace)?;
        let schema = new_schema(spec)?;
        let (partitions, order) = (partitions(spec, &schema)?, order(spec, &schema)?);
        let properties = [("write.parquet.compression-codec", "zstd")];
        let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let creation = TableCreation::builder()
            .name(spec.table.name.clone())
            .schema(schema)
            .partition_spec(partitions)
            .sort_order(order)
            .properties(properties)
            .format_version(FormatVersion::V2)
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
