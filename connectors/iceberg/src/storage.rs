//! Where a table's files lie: a folder of this machine, or a bucket of an S3 service.
//!
//! Both stand behind the `Storage` trait of the iceberg crate. That trait wants to be serialisable, for engines that ship their storage to
//! other machines; ours refuse it, because one of them holds credentials.

mod folder;
mod s3;

use folder::FolderStorage;
pub(crate) use folder::make_folder;
use s3::S3Storage;

use crate::settings::StorageSettings;
use dataflow_core::Result;
use iceberg::io::{FileIO, FileIOBuilder, Storage, StorageConfig, StorageFactory};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// The files behind `settings`.
pub(crate) fn open(settings: &StorageSettings) -> Result<FileIO> {
    let storage: Arc<dyn Storage> = match settings {
        StorageSettings::Folder { .. } => Arc::new(FolderStorage),
        StorageSettings::S3 { location, s3 } => Arc::new(S3Storage::open(location, s3)?),
    };
    Ok(FileIOBuilder::new(Arc::new(Given(storage))).build())
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
