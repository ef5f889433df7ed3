//! A sink of Iceberg tables: its catalog and where its files lie.
//!
//! ```toml
//! [profiles.local.sinks.lakehouse]
//! connector = "iceberg"
//! tables = ["silver.items"]
//! catalog = { rest = "http://127.0.0.1:8181" }          # or { sqlite = "warehouse/catalog.db" }
//! storage = { s3 = "s3://lakehouse/warehouse", endpoint = "...", access_key = "env:...", secret_key = "env:..." }
//! ```

use super::secrets;
use crate::profile::{Profile, typed};
use dataflow_core::{Environment, Error, Result};
use dataflow_iceberg::{CatalogSettings, IcebergSink, S3Keys, S3Settings, Secret, StorageSettings, WarehouseSettings};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::{Table, Value};

/// What the connector can be told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IcebergSettings {
    catalog: CatalogChoice,
    storage: StorageChoice,
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
struct StorageChoice {
    /// A folder of this machine.
    folder: Option<String>,
    /// A place in a bucket: `s3://BUCKET/FOLDER`.
    s3: Option<String>,
    /// With `s3`: the service's address, where it is not Amazon's. A bucket then stands in the path.
    endpoint: Option<String>,
    /// With `s3`: the region.
    region: Option<String>,
    /// With `s3`: the keys; without them the machine's role is asked for some.
    access_key: Option<String>,
    secret_key: Option<String>,
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
    let of = |section: &'static str| ["sinks", name, section];
    for (section, keys) in [("catalog", &["token"][..]), ("storage", &["access_key", "secret_key"])] {
        if let Some(Value::Table(nested)) = settings.get_mut(section) {
            secrets::resolve(profile, &of(section), keys, nested)?;
        }
    }
    let IcebergSettings { catalog, storage } = typed(settings, place)?;
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
                region: storage.region.unwrap_or_else(|| "us-east-1".to_owned()),
                keys: keys.map(|(access_key, secret)| S3Keys { access_key, secret_key: Secret::new(secret) }),
            };
            StorageSettings::S3 { location, s3 }
        }
        _ => {
            return Err(Error::user(format!("reading 'storage' of {place}: it names no place, or two"))
                .hint("storage = { folder = \"DIR\" } or { s3 = \"s3://BUCKET/FOLDER\" }"));
        }
    };
    let settings = WarehouseSettings { catalog, storage };
    Ok(Arc::new(IcebergSink::new(name, tables, settings, environment.clone())?))
}

/// Readers have to find the files too, from wherever they run.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|cause| {
        Error::user(format!("finding '{}' from where the program runs", path.display())).because(cause)
    })
}
