//! The catalog in an SQLite file: tables `iceberg_tables` and `iceberg_namespace_properties`, which PyIceberg's `SqlCatalog` and Java's
//! `JdbcCatalog` V1 read and write as well.
//!
//! A commit is one `UPDATE` whose `WHERE` names the metadata file it was built on; that exactly one row changed is the proof that nobody
//! came between. Each call opens the file anew: no state is held between calls, so any number of processes may share it.

use super::{Catalog, CommitError, DELETE_OLD_METADATA, Loaded, TableName};
use crate::session::{Session, outside};
use crate::storage::FolderStorage;
use dataflow_core::{Error, Result};
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use iceberg::{MetadataLocation, TableCreation, TableRequirement, TableUpdate};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How long a call waits for other processes. Each holds the file for one small write and its sync.
const BUSY_MAX: Duration = Duration::from_secs(20);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS iceberg_tables (
        catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL,
        metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), iceberg_type VARCHAR(5),
        PRIMARY KEY (catalog_name, table_namespace, table_name));
    CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
        catalog_name VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL,
        property_key VARCHAR(255) NOT NULL, property_value VARCHAR(1000),
        PRIMARY KEY (catalog_name, namespace, property_key));";

const NEWEST: &str = "SELECT metadata_location FROM iceberg_tables
    WHERE catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3 AND coalesce(iceberg_type, 'TABLE') = 'TABLE'";

const ADD: &str = "INSERT OR IGNORE INTO iceberg_tables
    (catalog_name, table_namespace, table_name, metadata_location, previous_metadata_location, iceberg_type)
    VALUES (?1, ?2, ?3, ?4, NULL, 'TABLE')";

const SWAP: &str = "UPDATE iceberg_tables SET metadata_location = ?1, previous_metadata_location = ?2
    WHERE catalog_name = ?3 AND table_namespace = ?4 AND table_name = ?5 AND metadata_location = ?2";

/// A catalog in an SQLite file.
pub(crate) struct SqliteCatalog {
    session: Arc<Session>,
    file: PathBuf,
    name: String,
    warehouse: String,
}

impl SqliteCatalog {
    /// Opens the file and makes its tables. New tables lie under `warehouse`.
    pub(crate) fn open(session: Arc<Session>, file: &Path, name: &str, warehouse: String) -> Result<SqliteCatalog> {
        let catalog = SqliteCatalog { session, file: file.to_owned(), name: name.to_owned(), warehouse };
        if let Some(folder) = file.parent() {
            let made = FolderStorage::local().make_folder(folder);
            made.map_err(|e| {
                Error::outside(format!("make the folder of the catalog '{}'", file.display())).because(e)
            })?;
        }
        catalog.database()?.execute_batch(TABLES).map_err(|e| catalog.failed("open", e))?;
        Ok(catalog)
    }

    fn database(&self) -> Result<Connection> {
        let open = || -> rusqlite::Result<Connection> {
            let database = Connection::open(&self.file)?;
            database.busy_timeout(BUSY_MAX)?;
            // A commit that was acknowledged outlives a power loss.
            database.pragma_update(None, "synchronous", "FULL")?;
            Ok(database)
        };
        open().map_err(|e| self.failed("open", e))
    }

    fn failed(&self, what: &str, cause: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        let code = cause.sqlite_error_code();
        let may_pass =
            code.is_some_and(|code| [DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure].contains(&code));
        let error = Error::outside(format!("{what} the catalog '{}'", self.file.display())).because(cause);
        let error = if may_pass { error.retry() } else { error };
        error.hint("check that the file is an SQLite database that this user may write, and that its disk has room")
    }

    fn newest(&self, table: &TableName) -> Result<Option<String>> {
        let key = params![self.name, joined(&table.namespace)?, table.name];
        let found: rusqlite::Result<Option<Option<String>>> =
            self.database()?.query_row(NEWEST, key, |row| row.get(0)).optional();
        Ok(found.map_err(|e| self.failed("read", e))?.flatten())
    }

    /// The metadata after `updates`, in its file. Nothing refers to the file yet.
    fn next(&self, old: &Loaded, updates: Vec<TableUpdate>) -> iceberg::Result<Next> {
        let mut builder = old.metadata.as_ref().clone().into_builder(Some(old.location.clone()));
        for update in updates {
            builder = update.apply(builder)?;
        }
        let built = builder.build()?;
        let metadata = built.metadata;
        let at = MetadataLocation::from_str(&old.location)?.with_next_version().with_new_metadata(&metadata);
        self.session.wait(metadata.write_to(&self.session.io, &at))?;
        let old_files = built.expired_metadata_logs.into_iter().map(|log| log.metadata_file).collect();
        Ok(Next { at: at.to_string(), metadata, old_files })
    }

    /// Removes a metadata file that nothing refers to. If it stays, it costs a few kilobytes until the next generation tidies up.
    fn remove(&self, path: &str) {
        if let Err(error) = self.session.wait(self.session.io.delete(path)) {
            tracing::debug!(file = path, %error, "a metadata file that no table uses stays");
        }
    }
}

/// What a commit would make of a table.
struct Next {
    at: String,
    metadata: TableMetadata,
    /// Metadata files that the table's log no longer names.
    old_files: Vec<String>,
}

/// A namespace as one text. A dot within a level would read as two levels.
fn joined(namespace: &[String]) -> Result<String> {
    match namespace.iter().find(|level| level.is_empty() || level.contains('.')) {
        Some(level) => {
            let what = format!("use the namespace level '{level}' in an SQLite catalog");
            Err(Error::user(what).hint("levels are not empty and hold no dot"))
        }
        None => Ok(namespace.join(".")),
    }
}

impl Catalog for SqliteCatalog {
    fn create_namespace(&self, namespace: &[String]) -> Result<()> {
        let insert = "INSERT OR IGNORE INTO iceberg_namespace_properties VALUES (?1, ?2, 'exists', 'true')";
        let made = self.database()?.execute(insert, params![self.name, joined(namespace)?]);
        made.map(|_| ()).map_err(|e| self.failed("write", e))
    }

    fn create_table(&self, table: &TableName, mut creation: TableCreation) -> Result<Option<Loaded>> {
        let namespace = joined(&table.namespace)?;
        // A table dropped and made again gets a folder of its own: its files never mix with those of the old one.
        let location = format!("{}/{}/{}-{}", self.warehouse, namespace, table.name, self.session.uuid().simple());
        creation.location = Some(location.clone());
        let what = || format!("create the table '{table}'");
        let built = TableMetadataBuilder::from_table_creation(creation).and_then(TableMetadataBuilder::build);
        let metadata = built.map_err(|e| Error::user(what()).because(e))?.metadata;
        let at = MetadataLocation::new_with_metadata(location, &metadata);
        self.session.wait(metadata.write_to(&self.session.io, &at)).map_err(outside(what()))?;
        let row = params![self.name, namespace, table.name, at.to_string()];
        let added = self.database()?.execute(ADD, row).map_err(|e| self.failed("write", e))?;
        Ok((added == 1).then(|| Loaded { location: at.to_string(), metadata: Arc::new(metadata) }))
    }

    fn load(&self, table: &TableName) -> Result<Option<Loaded>> {
        let Some(location) = self.newest(table)? else { return Ok(None) };
        let read = self.session.wait(TableMetadata::read_from(&self.session.io, &location));
        let metadata = read.map_err(outside(format!("read the table '{table}' from '{location}'")))?;
        Ok(Some(Loaded { location, metadata: Arc::new(metadata) }))
    }

    fn commit(
        &self,
        table: &TableName,
        requirements: &[TableRequirement],
        updates: Vec<TableUpdate>,
    ) -> Result<Loaded, CommitError> {
        let what = || format!("commit to the table '{table}'");
        let old = self.load(table).map_err(CommitError::Refused)?.ok_or_else(|| CommitError::Refused(gone(table)))?;
        for requirement in requirements {
            requirement.check(Some(&old.metadata)).map_err(|e| CommitError::Conflict(e.to_string()))?;
        }
        let next = self.next(&old, updates).map_err(|e| CommitError::Refused(outside(what())(e)))?;
        let Next { at, metadata, old_files } = next;
        let namespace = joined(&table.namespace).map_err(CommitError::Refused)?;
        let row = params![at, old.location, self.name, namespace, table.name];
        let swapped = self.database().map_err(CommitError::Refused)?.execute(SWAP, row);
        let because = match swapped {
            Ok(1) => {
                if metadata.properties().get(DELETE_OLD_METADATA).is_some_and(|value| value == "true") {
                    old_files.iter().for_each(|path| self.remove(path));
                }
                return Ok(Loaded { location: at, metadata: Arc::new(metadata) });
            }
            Ok(_) => format!("'{table}' is no longer at '{}'", old.location),
            // The file was never locked for us, so nothing was written.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => error.to_string(),
            Err(error) => return Err(CommitError::Unknown(error.to_string())),
        };
        // Nothing can refer to the metadata, as the swap is known not to have been made.
        self.remove(&at);
        Err(CommitError::Conflict(because))
    }

    /// A swap to version n is made on a version before n, so one that came too late never comes.
    fn is_left_over(&self, now: &Loaded, path: &str) -> bool {
        let (Some(current), Some(found)) = (version(&now.location), version(path)) else { return false };
        let is_logged = now.metadata.metadata_log().iter().any(|log| log.metadata_file == path);
        found <= current && path != now.location && !is_logged
    }
}

/// The version in the name of a metadata file, which counts a table's commits.
fn version(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?.strip_suffix(".metadata.json")?;
    name.split_once('-')?.0.parse().ok()
}

/// What is said when a table that was there is not.
pub(super) fn gone(table: &TableName) -> Error {
    Error::doubt(format!("commit to the table '{table}': it is gone")).hint("start over, or bring the table back")
}
