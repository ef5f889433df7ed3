//! Whole files: into a folder, or as objects under a prefix of a bucket. A put over a file of the same name and content changes nothing.

use crate::s3::S3Place;
use dataflow_core::{Error, FileSink, Result, Storage, replace_file};
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long the client itself tries to reach a bucket; then the error is shown, and tried again by whoever writes.
const RETRY: Duration = Duration::from_secs(20);

/// Files in a folder.
pub struct FolderFiles {
    name: String,
    storage: Arc<dyn Storage>,
    folder: String,
}

impl FolderFiles {
    /// The sink `name`: files in `folder` of `storage`, which is made with the first.
    pub fn new(name: impl Into<String>, storage: Arc<dyn Storage>, folder: impl Into<String>) -> FolderFiles {
        FolderFiles { name: name.into(), storage, folder: folder.into() }
    }
}

impl FileSink for FolderFiles {
    fn name(&self) -> &str {
        &self.name
    }

    fn location(&self, file: &str) -> String {
        let path = format!("{}/{file}", self.folder);
        self.storage.local_path(&path).map_or(path, |path| path.display().to_string())
    }

    fn put(&self, file: &str, bytes: &[u8]) -> Result<()> {
        self.storage.create_dir(&self.folder)?;
        replace_file(&*self.storage, &self.folder, file, bytes)
    }
}

/// Objects under a prefix of a bucket.
pub struct BucketFiles {
    name: String,
    location: String,
    store: AmazonS3,
    prefix: Path,
    runtime: Mutex<Runtime>,
}

impl BucketFiles {
    /// The sink `name`.
    ///
    /// # Errors
    /// When the location is none, or the client can not be made.
    pub fn new(name: impl Into<String>, place: &S3Place) -> Result<BucketFiles> {
        let (store, prefix) = place.open(RETRY)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|cause| Error::us("start what talks to S3").because(cause))?;
        let location = place.location.trim_end_matches('/').to_owned();
        Ok(BucketFiles { name: name.into(), location, store, prefix, runtime: Mutex::new(runtime) })
    }
}

impl FileSink for BucketFiles {
    fn name(&self) -> &str {
        &self.name
    }

    fn location(&self, file: &str) -> String {
        format!("{}/{file}", self.location)
    }

    fn put(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let key = self.prefix.clone().join(file);
        let runtime = self.runtime.lock().expect("no holder of this lock can panic");
        let put = runtime.block_on(self.store.put(&key, bytes.to_vec().into()));
        put.map(drop).map_err(|cause| Error::outside(format!("write object '{key}'")).because(cause).retry())
    }
}
