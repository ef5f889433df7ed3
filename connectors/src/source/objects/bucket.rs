//! Where objects lie: a folder or a prefix of an S3 bucket, listed and read in ranges, each read under the version that was listed.
//!
//! Calls block, for as long as the client repeats them by itself. They are for the task that fetches, never for a worker. A service that can not be
//! reached, or does not do its part, is a transient error; one that says why it refuses is not.

use crate::s3::S3Place;
use dataflow_core::{Error, Result};
use futures_util::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How errors of the S3 client name it.
const S3: &str = "S3";
/// How long the client itself tries to reach a bucket; then the error is shown, and tried again by whoever reads.
const RETRY: Duration = Duration::from_secs(20);

/// Where objects lie.
#[derive(Clone)]
pub enum Location {
    /// A folder of this machine, with its folders.
    Folder(PathBuf),
    /// A bucket, or a part of one.
    S3(S3Place),
}

/// A version of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) etag: String,
    pub(super) size: u64,
}

/// Why a version of an object can not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is no such object any more.
    Gone,
    /// It is another version now.
    Changed,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Gone => "it is gone",
            Missing::Changed => "it was changed since it was listed",
        })
    }
}

/// An open folder or bucket.
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// How messages name it.
    shown: String,
    /// Whether a listing comes in the order of keys.
    is_sorted: bool,
    runtime: tokio::runtime::Runtime,
}

impl Bucket {
    pub(super) fn open(location: &Location) -> Result<Bucket> {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = built.map_err(|e| Error::outside("start the runtime of a source of objects").because(e))?;
        let (store, prefix, shown, is_sorted): (Arc<dyn ObjectStore>, _, _, _) = match location {
            Location::Folder(folder) => {
                let shown = folder.display().to_string();
                let failed = |e| {
                    Error::user(format!("open the folder of objects '{shown}'"))
                        .because(e)
                        .hint("make it, or correct its name")
                };
                (Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(failed)?), Path::default(), shown, false)
            }
            Location::S3(place) => {
                let (store, prefix) = place.open(RETRY)?;
                (Arc::new(store), prefix, place.location.clone(), true)
            }
        };
        Ok(Bucket { store, prefix, shown, is_sorted, runtime })
    }

    /// Whether keys come in their order, so that whoever has enough may stop.
    pub(super) fn is_sorted(&self) -> bool {
        self.is_sorted
    }

    /// Calls `each` with the objects, those after `after` if it is given, until that is false. The order of a folder's is not that of keys.
    pub(super) fn list(&self, after: Option<&str>, mut each: impl FnMut(Object) -> bool) -> Result<()> {
        let failed = |e: object_store::Error| told(format!("list the objects of '{}'", self.shown), e);
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let mut found = match after {
            Some(after) => self.store.list_with_offset(prefix, &Path::parse(after).map_err(|e| failed(e.into()))?),
            None => self.store.list(prefix),
        };
        self.runtime.block_on(async {
            while let Some(meta) = found.next().await {
                let meta = meta.map_err(failed)?;
                if !is_unfinished(&meta.location) && !each(self.object(meta)?) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn object(&self, meta: ObjectMeta) -> Result<Object> {
        let key = meta.location.to_string();
        let etag = meta.e_tag.ok_or_else(|| {
            Error::outside(format!("list the objects of '{}': '{key}' has no etag", self.shown))
                .hint("versions of objects are told apart by their etags; use a service that has them")
        })?;
        Ok(Object { key, etag, size: meta.size })
    }

    /// A range of this version of an object.
    pub(super) fn read(
        &self,
        object: &Object,
        range: Range<u64>,
    ) -> Result<std::result::Result<bytes::Bytes, Missing>> {
        let failed = |e: object_store::Error| told(format!("read '{}' of '{}'", object.key, self.shown), e);
        let options = GetOptions {
            if_match: Some(object.etag.clone()),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let path = Path::parse(&object.key).map_err(|e| failed(e.into()))?;
        self.runtime.block_on(async {
            match self.store.get_opts(&path, options).await {
                Ok(got) if got.meta.e_tag.as_ref() != Some(&object.etag) || got.meta.size != object.size => {
                    Ok(Err(Missing::Changed)) // a service that does not know If-Match
                }
                Ok(got) => got.bytes().await.map(Ok).map_err(failed),
                Err(object_store::Error::NotFound { .. }) => Ok(Err(Missing::Gone)),
                Err(object_store::Error::Precondition { .. }) => Ok(Err(Missing::Changed)),
                Err(error) => Err(failed(error)),
            }
        })
    }
}

/// What the service's error means for a call.
fn told(what: String, cause: object_store::Error) -> Error {
    let is_away = matches!(cause, object_store::Error::Generic { store: S3, .. });
    let error = Error::outside(what).because(cause);
    if is_away { error.retry() } else { error }
}

/// A part of the key begins with `.` or `_`.
fn is_unfinished(key: &Path) -> bool {
    key.parts().any(|part| part.as_ref().starts_with(['.', '_']))
}
