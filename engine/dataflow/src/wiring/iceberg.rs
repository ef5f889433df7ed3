//! A sink of Iceberg tables: its catalog and where its files lie.
//!
//! ```toml
//! [profiles.local.sinks.lakehouse]
//! connector = "iceberg"
//! tables = ["silver.items"]
//! catalog = { rest = "http://127.0.0.1:8181" }          # or { sqlite = "warehouse/catalog.db" }
//! storage = { s3 = "s3://lakehouse/warehouse", endpoint = "...", access_key = "env:...", secret_key = "env:..." }
//! on_foreign_commit = "stop"                            # or "rebuild": a table whose rows others have changed is made what its view is
//! format = 2                                            # or 3, with deletion vectors: tables of format 2 are upgraded, none is put back
//! epochs = "dataflow.epochs"                            # which snapshots belong to an epoch; these are the defaults
//! maintenance = { interval_seconds = 60, keep_snapshots = 20, keep_seconds = 900, keep_epochs = 20, compact = true, small_files = 5, dead_percent = 25 }
//!
//! [profiles.local.sinks.lakehouse.table."silver.items"] # how its files are laid out; by default as rows come
//! partition = ["day(created_at)", "bucket(16, id)"]
//! sort = ["id", "price desc"]
//! target_file_mb = 128                                  # these three are properties of the table: not named, they stay as they are
//! compression = "zstd(3)"                               # or gzip, snappy, lz4, uncompressed
//! bloom_filters = ["id"]
//! ```

use super::secrets;
use crate::profile::{Profile, typed};
use dataflow_connectors::s3::REGION;
use dataflow_core::{Environment, Error, OnForeignCommit, Result};
use dataflow_iceberg::{
    CatalogSettings, CompactionSettings, FileSettings, IcebergSink, MaintenanceSettings, S3Keys, S3Settings, Secret,
    SinkSettings, StorageSettings, TableFormat, TableLayout, WarehouseSettings,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use toml::Table;

/// What the connector can be told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IcebergSettings {
    catalog: CatalogChoice,
    storage: StorageChoice,
    /// The table that says which snapshots belong to an epoch: another one for each job in a catalog.
    epochs: Option<String>,
    /// The format of tables that name none themselves.
    #[serde(default)]
    format: TableFormat,
    #[serde(default)]
    on_foreign_commit: OnForeignCommit,
    #[serde(default)]
    maintenance: MaintenanceChoice,
    /// By name.
    #[serde(default)]
    table: BTreeMap<String, TableChoice>,
}

/// How the files of a table are laid out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TableChoice {
    /// A column, or year, month, day, hour, bucket or truncate of one; outermost first.
    partition: Vec<String>,
    /// Columns, each with or without `desc`.
    sort: Vec<String>,
    /// Of the table; that of the sink where it names none.
    format: Option<TableFormat>,
    /// Size at which a file is ended, in MiB.
    target_file_mb: Option<u64>,
    /// Of pages.
    compression: Option<String>,
    /// Columns by whose values readers leave files out.
    bloom_filters: Vec<String>,
}

impl TableChoice {
    /// The layout of a table in a sink of this format.
    fn layout(&self, format: TableFormat) -> Result<TableLayout> {
        let partition: Result<Vec<_>> = self.partition.iter().map(|text| text.parse()).collect();
        let sort: Result<Vec<_>> = self.sort.iter().map(|text| text.parse()).collect();
        let files = FileSettings {
            format: self.format.unwrap_or(format),
            target_bytes: self.target_file_mb.map(|mb| mb << 20),
            compression: self.compression.as_deref().map(str::parse).transpose()?,
            bloom_filters: self.bloom_filters.clone(),
        };
        Ok(TableLayout { partition: partition?, sort: sort?, files })
    }
}

/// What keeps the tables small. Whatever these say, snapshots stay that a checkpoint, a tag or a branch needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MaintenanceChoice {
    /// How often a table is looked after, at most.
    interval_seconds: u64,
    /// So many of the newest snapshots stay.
    keep_snapshots: usize,
    /// Snapshots stay for so long: longer than a query takes that reads one.
    keep_seconds: u64,
    /// Snapshots stay that the last so many epochs of the table of epochs name.
    keep_epochs: usize,
    /// Whether small files are written anew as larger ones.
    compact: bool,
    /// So many small files of a partition are worth it.
    small_files: usize,
    /// A file is worth it of whose rows so many in a hundred are deleted.
    dead_percent: u64,
}

impl Default for MaintenanceChoice {
    fn default() -> MaintenanceChoice {
        let MaintenanceSettings { interval, keep_snapshots, keep, keep_epochs, compaction } =
            MaintenanceSettings::default();
        let CompactionSettings { small_files, dead_percent } = compaction.unwrap_or_default();
        MaintenanceChoice {
            interval_seconds: interval.as_secs(),
            keep_snapshots,
            keep_seconds: keep.as_secs(),
            keep_epochs,
            compact: compaction.is_some(),
            small_files,
            dead_percent,
        }
    }
}

impl From<MaintenanceChoice> for MaintenanceSettings {
    fn from(choice: MaintenanceChoice) -> MaintenanceSettings {
        let how = CompactionSettings { small_files: choice.small_files, dead_percent: choice.dead_percent };
        MaintenanceSettings {
            interval: Duration::from_secs(choice.interval_seconds),
            keep_snapshots: choice.keep_snapshots,
            keep: Duration::from_secs(choice.keep_seconds),
            keep_epochs: choice.keep_epochs,
            compaction: choice.compact.then_some(how),
        }
    }
}

/// One of `sqlite` and `rest`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CatalogChoice {
    /// The catalog's file.
    sqlite: Option<String>,
    /// With `sqlite`: the catalog's name in the file, which other programs have to use too.
    name: Option<String>,
    /// The address of a REST catalog.
    rest: Option<String>,
    /// With `rest`: the warehouse to ask it for.
    warehouse: Option<String>,
    /// With `rest`: a bearer token.
    token: Option<String>,
}

/// One of `folder` and `s3`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StorageChoice {
    /// A folder of this machine.
    pub(super) folder: Option<String>,
    /// A place in a bucket: `s3://BUCKET/FOLDER`.
    pub(super) s3: Option<String>,
    /// With `s3`: the service's address, where it is not Amazon's. A bucket then stands in the path.
    pub(super) endpoint: Option<String>,
    /// With `s3`: the region.
    pub(super) region: Option<String>,
    /// With `s3`: the keys; without them the machine's role is asked for some.
    pub(super) access_key: Option<String>,
    pub(super) secret_key: Option<String>,
}

/// The catalog's name in an SQLite file, unless the profile names another.
const CATALOG: &str = "dataflow";

pub(super) fn build(
    profile: &Profile,
    name: &str,
    tables: Vec<String>,
    mut settings: Table,
    environment: &Environment,
    place: &str,
) -> Result<Arc<IcebergSink>> {
    let sections: [(&str, &[&str]); 2] = [("catalog", &["token"]), ("storage", &["access_key", "secret_key"])];
    secrets::resolve_sections(profile, ["sinks", name], &sections, &mut settings)?;
    let IcebergSettings { catalog, storage, epochs, format, on_foreign_commit, maintenance, table: choices } =
        typed(settings, place)?;
    let path = |section, key, text: &str| absolute(&profile.path(&["sinks", name, section, key], text));
    let catalog = match (catalog.sqlite, catalog.rest) {
        (Some(file), None) => CatalogSettings::Sqlite {
            file: path("catalog", "sqlite", &file)?,
            name: catalog.name.unwrap_or_else(|| CATALOG.to_owned()),
        },
        (None, Some(uri)) => {
            CatalogSettings::Rest { uri, warehouse: catalog.warehouse, token: catalog.token.map(Secret::new) }
        }
        _ => {
            return Err(Error::user(format!("reading 'catalog' of {place}: it names no catalog, or two"))
                .hint("catalog = { sqlite = \"FILE\" } or { rest = \"http://...\" }"));
        }
    };
    let storage = match (storage.folder, storage.s3) {
        (Some(folder), None) => StorageSettings::Folder { path: path("storage", "folder", &folder)? },
        (None, Some(location)) => {
            let keys = storage.access_key.zip(storage.secret_key);
            let s3 = S3Settings {
                path_style: storage.endpoint.is_some(),
                endpoint: storage.endpoint,
                region: storage.region.unwrap_or_else(|| REGION.to_owned()),
                keys: keys.map(|(access_key, secret)| S3Keys { access_key, secret_key: Secret::new(secret) }),
            };
            StorageSettings::S3 { location, s3 }
        }
        _ => {
            return Err(Error::user(format!("reading 'storage' of {place}: it names no place, or two"))
                .hint("storage = { folder = \"DIR\" } or { s3 = \"s3://BUCKET/FOLDER\" }"));
        }
    };
    let warehouse = WarehouseSettings { catalog, storage };
    let epochs = epochs.unwrap_or_else(|| SinkSettings::default().epochs);
    if let Some(table) = choices.keys().find(|table| !tables.contains(table)) {
        let place = format!("it is not among the 'tables' of {place}: it");
        return Err(crate::profile::unknown("table", table, tables.iter().map(String::as_str), &place));
    }
    let as_they_come = TableChoice::default();
    let mut layouts = BTreeMap::new();
    for table in &tables {
        layouts.insert(table.clone(), choices.get(table).unwrap_or(&as_they_come).layout(format)?);
    }
    let settings = SinkSettings { epochs, maintenance: maintenance.into(), layouts, on_foreign_commit };
    Ok(Arc::new(IcebergSink::new(name, tables, warehouse, settings, environment.clone())?))
}

/// Readers have to find the files too, from wherever they run.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|cause| {
        Error::user(format!("finding '{}' from where the program runs", path.display())).because(cause)
    })
}
