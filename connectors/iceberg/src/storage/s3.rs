//! Objects of an S3 service. An object is there, whole and durable, when its upload has been answered, so there is nothing to sync.

use super::{ListFiles, NOT_SERIALISED, failed};
use crate::settings::S3Settings;
use async_trait::async_trait;
use bytes::Bytes;
use dataflow_core::Error;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use iceberg::Result;
use iceberg::io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::AsyncWrite;

/// Objects below this many bytes go up in one request; larger ones in parts of this size.
const PART_BYTES: usize = 8 << 20;

/// One bucket. Paths are `s3://BUCKET/KEY`.
#[derive(Clone)]
pub(crate) struct S3Storage {
    store: Arc<AmazonS3>,
    bucket: String,
}

/// Without the store, which knows the credentials.
impl fmt::Debug for S3Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Storage").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// Bucket and key of a path.
fn split(path: &str) -> Option<(&str, &str)> {
    let rest = ["s3://", "s3a://", "s3n://"].iter().find_map(|scheme| path.strip_prefix(scheme))?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    (!bucket.is_empty()).then_some((bucket, key))
}

impl S3Storage {
    /// The bucket of `location`.
    pub(crate) fn open(location: &str, settings: &S3Settings) -> dataflow_core::Result<S3Storage> {
        let Some((bucket, _)) = split(location) else {
            let what = format!("open the warehouse '{location}': it is no path of a bucket");
            return Err(Error::user(what).hint("write it as s3://BUCKET/FOLDER"));
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&settings.region)
            .with_virtual_hosted_style_request(!settings.path_style);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(keys) = &settings.keys {
            builder = builder.with_access_key_id(&keys.access_key).with_secret_access_key(keys.secret_key.expose());
        }
        let store = builder.build().map_err(|e| Error::user(format!("open the bucket '{bucket}'")).because(e))?;
        Ok(S3Storage { store: Arc::new(store), bucket: bucket.to_owned() })
    }

    fn key(&self, path: &str) -> Result<Path> {
        match split(path) {
            Some((bucket, key)) if bucket == self.bucket => {
                Path::parse(key).map_err(|e| failed("find the object", path, object_store::Error::from(e)))
            }
            _ => Err(failed("find the object", path, "it is not in the bucket of the warehouse")),
        }
    }
}

#[async_trait]
#[typetag::serde]
impl Storage for S3Storage {
    async fn exists(&self, path: &str) -> Result<bool> {
        match self.store.head(&self.key(path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed("look for the object", path, error)),
        }
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let found = self.store.head(&self.key(path)?).await.map_err(|e| failed("measure the object", path, e))?;
        Ok(FileMetadata { size: found.size })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let told = |e| failed("read the object", path, e);
        self.store.get(&self.key(path)?).await.map_err(told)?.bytes().await.map_err(told)
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        Ok(Box::new(Reader { storage: self.clone(), key: self.key(path)?, path: path.to_owned() }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&self.key(path)?, bytes.into()).await;
        put.map(|_| ()).map_err(|e| failed("write the object", path, e))
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let store: Arc<dyn ObjectStore> = self.store.clone();
        let upload = BufWriter::with_capacity(store, self.key(path)?, PART_BYTES);
        Ok(Box::new(Writer { upload, path: path.to_owned() }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        match self.store.delete(&self.key(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove the object", path, error)),
        }
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        let told = |e| failed("remove the objects under", path, e);
        let below: Vec<_> = self.store.list(Some(&self.key(path)?)).try_collect().await.map_err(told)?;
        for object in below {
            self.store.delete(&object.location).await.map_err(told)?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

#[async_trait]
impl ListFiles for S3Storage {
    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let found = self.store.list_with_delimiter(Some(&self.key(folder)?)).await;
        let found = found.map_err(|e| failed("list the objects under", folder, e))?;
        let name = |object: object_store::ObjectMeta| Some(format!("{folder}/{}", object.location.filename()?));
        Ok(found.objects.into_iter().filter_map(name).collect())
    }
}

impl Serialize for S3Storage {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(NOT_SERIALISED))
    }
}

impl<'de> Deserialize<'de> for S3Storage {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(serde::de::Error::custom(NOT_SERIALISED))
    }
}

struct Reader {
    storage: S3Storage,
    key: Path,
    path: String,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let part = self.storage.store.get_range(&self.key, range).await;
        part.map_err(|e| failed("read the object", &self.path, e))
    }
}

struct Writer {
    upload: BufWriter,
    path: String,
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.upload.put(bytes).await.map_err(|e| failed("write the object", &self.path, e))
    }

    async fn close(&mut self) -> Result<()> {
        let closed = poll_fn(|context| Pin::new(&mut self.upload).poll_shutdown(context)).await;
        closed.map_err(|e| failed("finish the object", &self.path, e))
    }
}
