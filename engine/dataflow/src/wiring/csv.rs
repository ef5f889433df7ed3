//! A sink of CSV files: where they go, and who is told by mail.
//!
//! ```toml
//! [profiles.local.sinks.segments]
//! connector = "csv"
//! files = ["segmented_users"]                            # the job adds the date
//! storage = { folder = "customer-segments" }             # or { s3 = "s3://BUCKET/PREFIX", endpoint = "...", access_key = "env:..." }
//! mail = { smtp = "smtp://HOST:587?tls=required", from = "jobs@shop.example", to = ["team@shop.example"] }   # user and password, if need be
//! ```

use super::iceberg::StorageChoice;
use super::secrets;
use crate::profile::{Profile, typed};
use dataflow_connectors::s3::{REGION, S3Place};
use dataflow_connectors::sink::files::{BucketFiles, FolderFiles};
use dataflow_connectors::sink::smtp::{SmtpMailer, SmtpSettings};
use dataflow_core::{Environment, Error, FileSink, Mailer, Result};
use dataflow_runtime::FileOutput;
use dataflow_state::storage::LocalStorage;
use serde::Deserialize;
use std::path::absolute;
use std::sync::Arc;
use toml::Table;

/// What the connector can be told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvSettings {
    storage: StorageChoice,
    mail: Option<SmtpSettings>,
}

pub(super) fn build(
    profile: &Profile,
    name: &str,
    mut settings: Table,
    environment: &Environment,
    place: &str,
) -> Result<FileOutput> {
    let sections: [(&str, &[&str]); 2] = [("storage", &["access_key", "secret_key"]), ("mail", &["user", "password"])];
    secrets::resolve_sections(profile, ["sinks", name], &sections, &mut settings)?;
    let CsvSettings { storage, mail } = typed(settings, place)?;
    let sink = sink(profile, name, storage, place)?;
    let mailer = mail.map(|mail| SmtpMailer::new(&mail, place, environment.clock.clone())).transpose()?;
    Ok(FileOutput { sink, mailer: mailer.map(|mailer| Arc::new(mailer) as Arc<dyn Mailer>) })
}

fn sink(profile: &Profile, name: &str, storage: StorageChoice, place: &str) -> Result<Arc<dyn FileSink>> {
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
