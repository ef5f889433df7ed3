//! Where a table's files lie: a folder of this machine, or a bucket of an S3 service.
//!
//! Both stand behind the `Storage` trait of the iceberg crate. That trait wants to be serialisable, for engines that ship their storage to
//! other machines; ours refuse it, because one of them holds credentials.

mod folder;
mod s3;

pub(crate) use folder::FolderStorage;
pub use folder::{Disk, DiskFile};
use s3::S3Storage;

use crate::settings::StorageSettings;
use async_trait::async_trait;
use dataflow_core::Result;
use iceberg::io::{FileIO, FileIOBuilder, Storage, StorageConfig, StorageFactory};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// What the iceberg crate's storage has not: to say which files there are.
#[async_trait]
pub(crate) trait ListFiles: Send + Sync {
    /// The full paths of the files that lie in `folder` itself, as the folder is named; none when it is not there.
    async fn list(&self, folder: &str) -> iceberg::Result<Vec<String>>;
}

/// The files behind `settings`.
pub(crate) fn open(settings: &StorageSettings) -> Result<(FileIO, Arc<dyn ListFiles>)> {
    Ok(match settings {
        StorageSettings::Folder { .. } => given(FolderStorage::local()),
        StorageSettings::S3 { location, s3 } => given(S3Storage::open(location, s3)?),
    })
}

/// The files of a given disk.
pub(crate) fn on(disk: Arc<dyn Disk>) -> (FileIO, Arc<dyn ListFiles>) {
    given(FolderStorage::on(disk))
}

fn given<S: Storage + ListFiles + 'static>(storage: S) -> (FileIO, Arc<dyn ListFiles>) {
    let storage = Arc::new(storage);
    (FileIOBuilder::new(Arc::new(Given(storage.clone()))).build(), storage)
}

/// A factory for the one storage that there is already.
#[derive(Debug)]
struct Given(Arc<dyn Storage>);

#[typetag::serde]
impl StorageFactory for Given {
    fn build(&self, _: &StorageConfig) -> iceberg::Result<Arc<dyn Storage>> {
        Ok(self.0.clone())
    }
}

impl Serialize for Given {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(NOT_SERIALISED))
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(NOT_SERIALISED))
    }
}

/// Why a storage does not leave its process.
const NOT_SERIALISED: &str = "a storage holds credentials and open connections and is not serialised";

/// What the iceberg crate is told of a failed operation.
fn failed(what: &str, path: &str, cause: impl Into<Cause>) -> iceberg::Error {
    iceberg::Error::new(iceberg::ErrorKind::Unexpected, format!("{what} '{path}'")).with_source(cause.into())
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error(transparent)]
    Object(#[from] object_store::Error),
    #[error("{0}")]
    Text(&'static str),
}

impl From<&'static str> for Cause {
    fn from(text: &'static str) -> Cause {
        Cause::Text(text)
    }
}
