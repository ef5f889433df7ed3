//! A sink of CSV files: where they go.
//!
//! ```toml
//! [profiles.local.sinks.segments]
//! connector = "csv"
//! files = ["segmented_users"]                            # the job adds the date
//! storage = { folder = "customer-segments" }             # or { s3 = "s3://BUCKET/PREFIX", endpoint = "...", access_key = "env:..." }
//! ```

use super::iceberg::StorageChoice;
use super::secrets;
use crate::profile::{Profile, typed};
use dataflow_connectors::s3::{REGION, S3Place};
use dataflow_connectors::sink::files::{BucketFiles, FolderFiles};
use dataflow_core::{Error, FileSink, Result};
use dataflow_state::storage::LocalStorage;
use serde::Deserialize;
use std::path::absolute;
use std::sync::Arc;
use toml::{Table, Value};

/// What the connector can be told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvSettings {
    storage: StorageChoice,
}

pub(super) fn build(profile: &Profile, name: &str, mut settings: Table, place: &str) -> Result<Arc<dyn FileSink>> {
    if let Some(Value::Table(nested)) = settings.get_mut("storage") {
        secrets::resolve(profile, &["sinks", name, "storage"], &["access_key", "secret_key"], nested)?;
    }
    let CsvSettings { storage } = typed(settings, place)?;
    match (storage.folder, storage.s3) {
        (Some(folder), None) => {
            let folder = profile.path(&["sinks", name, "storage", "folder"], &folder);
            let folder = absolute(&folder)
                .map_err(|cause| Error::user(format!("finding '{}'", folder.display())).because(cause))?;
            // From the root, so that the folders on the way are made and made durable as well.
            let inner = folder.to_string_lossy().trim_start_matches('/').to_owned();
            Ok(Arc::new(FolderFiles::new(name, Arc::new(LocalStorage::new("/".into())), inner)))
        }
        (None, Some(location)) => {
            let bucket = S3Place {
                location,
                endpoint: storage.endpoint,
                region: storage.region.unwrap_or_else(|| REGION.to_owned()),
                keys: storage.access_key.zip(storage.secret_key),
            };
            Ok(Arc::new(BucketFiles::new(name, &bucket)?))
        }
        _ => Err(Error::user(format!("reading 'storage' of {place}: it names no place, or two"))
            .hint("storage = { folder = \"DIR\" } or { s3 = \"s3://BUCKET/PREFIX\" }")),
    }
}
