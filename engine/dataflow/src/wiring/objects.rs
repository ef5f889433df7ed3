//! A source of objects: a folder, or a place in a bucket of an S3 service.
//!
//! ```toml
//! [profiles.local.sources.pageviews]
//! connector = "objects"
//! format = "lines"
//! path = "s3://pageviews/2026"        # or a folder
//! endpoint = "..."                    # with s3://, where it is not Amazon's
//! access_key = "env:AWS_ACCESS_KEY_ID"
//! secret_key = "env:AWS_SECRET_ACCESS_KEY"
//! ```

use super::secrets;
use crate::profile::{Profile, typed};
use dataflow_connectors::s3::{REGION, S3Place};
use dataflow_connectors::source::objects::{Location, ObjectsSettings, ObjectsSource};
use dataflow_core::{Environment, Error, Result, Storage};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use toml::Table;

/// What the connector can be told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectsTable {
    /// A folder, or `s3://BUCKET/PREFIX`.
    path: String,
    /// Of an S3 service: its address, where it is not Amazon's. The bucket then stands in the path.
    endpoint: Option<String>,
    /// Its region.
    region: Option<String>,
    /// The keys; without them the machine's role is asked for some.
    access_key: Option<String>,
    secret_key: Option<String>,
    /// How often new objects are looked for.
    #[serde(default = "poll_ms")]
    poll_ms: u64,
    /// How often all objects are listed, because a key may sort before those that were read.
    #[serde(default = "full_listing_ms")]
    full_listing_ms: u64,
}

fn poll_ms() -> u64 {
    1_000
}

fn full_listing_ms() -> u64 {
    60_000
}

/// How an S3 place begins.
const S3: &str = "s3://";

pub(super) fn build(
    profile: &Profile,
    name: &str,
    mut table: Table,
    environment: &Environment,
    storage: &Arc<dyn Storage>,
    place: &str,
) -> Result<ObjectsSource> {
    let at = ["sources", name];
    secrets::resolve(profile, &at, &["access_key", "secret_key"], &mut table)?;
    let ObjectsTable { path, endpoint, region, access_key, secret_key, poll_ms, full_listing_ms } =
        typed(table, place)?;
    let location = if path.starts_with(S3) {
        if access_key.is_some() != secret_key.is_some() {
            return Err(Error::user(format!("reading {place}: it has one of 'access_key' and 'secret_key' only"))
                .hint("set both, or none to ask the machine's role for keys"));
        }
        let region = region.unwrap_or_else(|| REGION.to_owned());
        Location::S3(S3Place { location: path, endpoint, region, keys: access_key.zip(secret_key) })
    } else {
        if [&endpoint, &region, &access_key, &secret_key].into_iter().any(Option::is_some) {
            return Err(Error::user(format!("reading {place}: settings of an S3 service, and the folder '{path}'"))
                .hint("write the path as s3://BUCKET/PREFIX, or remove endpoint, region and keys"));
        }
        Location::Folder(profile.path(&["sources", name, "path"], &path))
    };
    if poll_ms == 0 {
        return Err(Error::user(format!("reading 'poll_ms' of {place}: it is 0")).hint("1000 looks once a second"));
    }
    let (poll, full_listing) = (Duration::from_millis(poll_ms), Duration::from_millis(full_listing_ms));
    let settings = ObjectsSettings { name: name.to_owned(), location, poll, full_listing };
    Ok(ObjectsSource::new(settings, storage.clone(), environment.clone()))
}
