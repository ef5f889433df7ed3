//! Pageviews as objects, one every few seconds of event time: `pageviews-<number>.ndjson[.gz]` in a folder or under `s3://BUCKET/PREFIX`.
//!
//! The number is that of the span of event time, so the names of a story's objects are in its order and the same each time. An object
//! appears whole: a folder's file is renamed into place, an S3 object is one put. A span without a line makes none.

use super::Target;
use dataflow_core::{Error, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, RetryConfig};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long a bucket may be away. The story waits meanwhile, and goes on where it was.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may be away at first: then the address is wrong.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where objects go.
enum Place {
    Folder(PathBuf),
    S3 { store: Box<AmazonS3>, prefix: Key, runtime: Runtime },
}

/// The objects.
pub struct Objects {
    place: Place,
    span_us: u64,
    is_gzip: bool,
    /// The span of the lines at hand.
    span: u64,
    lines: Vec<u8>,
}

impl Objects {
    /// Objects of `seconds` each, in a folder or at `s3://BUCKET/PREFIX`, whose endpoint, region and keys are those of the
    /// environment's `AWS_*` (`S3_ENDPOINT` too).
    ///
    /// # Errors
    /// There is no such place.
    pub fn open(place: &str, seconds: f64, is_gzip: bool) -> Result<Objects> {
        if !(0.01..=3600.0).contains(&seconds) {
            return Err(Error::user(format!("write an object every {seconds} s")).hint("from 0.01 to 3600"));
        }
        let opened = match place.strip_prefix("s3://") {
            Some(rest) => s3(place, rest)?,
            None => {
                std::fs::create_dir_all(place)
                    .map_err(|cause| Error::outside(format!("create '{place}'")).because(cause))?;
                Place::Folder(place.into())
            }
        };
        Ok(Objects { place: opened, span_us: (seconds * 1e6) as u64, is_gzip, span: 0, lines: Vec::new() })
    }

    /// Puts the lines at hand.
    fn put(&mut self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.lines);
        let name = format!("pageviews-{:012}.ndjson{}", self.span, if self.is_gzip { ".gz" } else { "" });
        let failed = || Error::outside(format!("write object '{name}'"));
        let bytes = if self.is_gzip { zipped(&lines).map_err(|cause| failed().because(cause))? } else { lines };
        match &self.place {
            Place::Folder(folder) => {
                let hidden = folder.join(format!(".{name}.part"));
                let put = std::fs::write(&hidden, &bytes).and_then(|()| rename(&hidden, &folder.join(&name)));
                put.map_err(|cause| failed().because(cause))
            }
            Place::S3 { store, prefix, runtime } => {
                let put = runtime.block_on(store.put(&prefix.clone().join(name.as_str()), bytes.into()));
                put.map(drop).map_err(|cause| failed().because(cause))
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an object needs to be whole, not durable: the story can be told again")]
fn rename(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    std::fs::rename(from, to)
}

fn s3(place: &str, rest: &str) -> Result<Place> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let refused = || Error::user(format!("write objects to '{place}'"));
    let prefix = Key::parse(prefix.trim_end_matches('/')).map_err(|cause| refused().because(cause))?;
    let backoff = BackoffConfig { max_backoff: PAUSE_MAX, ..BackoffConfig::default() };
    let retry = |patience| RetryConfig { backoff: backoff.clone(), max_retries: usize::MAX, retry_timeout: patience };
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if let Ok(endpoint) = std::env::var("S3_ENDPOINT") {
        builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
    }
    let store = |patience| {
        builder.clone().with_retry(retry(patience)).build().map_err(|cause| {
            refused().because(cause).hint("export S3_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|cause| Error::us("start what talks to S3").because(cause))?;
    let looked = runtime.block_on(store(FIRST_PATIENCE)?.list_with_delimiter(Some(&prefix)));
    looked.map_err(|cause| Error::outside(format!("find '{place}'")).because(cause))?;
    Ok(Place::S3 { store: Box::new(store(PATIENCE)?), prefix, runtime })
}

fn zipped(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

impl Target for Objects {
    fn pageview(&mut self, line: &[u8], due_us: u64) -> Result<()> {
        let span = due_us / self.span_us;
        if span != self.span {
            self.put()?;
            self.span = span;
        }
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.put()
    }
}
