//! A place in a bucket of an S3 service, for the source and the sink of objects.

use dataflow_core::{Error, Result};
use object_store::RetryConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use std::time::Duration;

/// The region where none is named.
pub const REGION: &str = "us-east-1";

/// A place in a bucket, and who asks for it. It is never shown: it knows a secret.
#[derive(Clone)]
pub struct S3Place {
    /// `s3://BUCKET/PREFIX`. The prefix is whole parts between slashes.
    pub location: String,
    /// The service's address, where it is not Amazon's. The bucket then stands in the path.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Access key and secret key; without them the machine's role is asked for some.
    pub keys: Option<(String, String)>,
}

impl S3Place {
    /// The bucket, and the prefix in it. Nothing is asked of the service yet; later it is asked again for as long as `retry`.
    ///
    /// # Errors
    /// When the location is none, or the client can not be made.
    pub(crate) fn open(&self, retry: Duration) -> Result<(AmazonS3, Path)> {
        let S3Place { location, endpoint, region, keys } = self;
        let refused = || {
            Error::user(format!("open '{location}': it is no place in a bucket")).hint("write it as s3://BUCKET/PREFIX")
        };
        let rest = location.strip_prefix("s3://").ok_or_else(refused)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(refused());
        }
        let prefix = Path::parse(prefix).map_err(|e| refused().because(e))?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_retry(RetryConfig { retry_timeout: retry, ..RetryConfig::default() })
            .with_virtual_hosted_style_request(endpoint.is_none());
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some((key, secret)) = keys {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret);
        }
        let store = builder.build().map_err(|e| Error::user(format!("open the bucket '{bucket}'")).because(e))?;
        Ok((store, prefix))
    }
}
