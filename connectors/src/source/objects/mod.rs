//! Objects of lines in a folder or under an S3 prefix: each is read once, in the order in which it was found.
//!
//! ```text
//!  listing ─► new keys, in order ─► open (If-Match) ─► list: (key, etag, size) ─► fsync ─┐
//!                                     └─► ranges ─► gzip, zstd or plain ─► lines ─────────┴─► queue ─► records
//! ```
//!
//! There is one partition. A line's offset is its rank over all objects in the order in which they were bound; blank lines count. What
//! an offset means stands in the *list*, an append-only file of the data folder: an object's entry is durable before a line of
//! it is handed on, and so before a binding counts one, and another one says at which rank its lines ended. A replay finds the entry that covers
//! the restored offset, reads the objects from there on again under their etags, passes over the lines before the offset, and meets the
//! ranks in the list and the hashes in the bindings, or stops. The key of each record is its object's key, so the hash covers that too.
//!
//! What can happen, and why each line is still read exactly once:
//!
//! - *An older checkpoint is restored*: the list only grows, so it covers every offset that was ever bound.
//! - *The list is longer than the bindings* (killed after an entry, before its epoch was bound): the entries stand, and are read next.
//! - *The list is lost, cut or another one*: an offset that it does not reach, and a rank that is not met, are refused.
//! - *An object goes or changes before it was read*: nothing is bound of it. It is passed over, or read as it is by then. Has it an entry,
//!   the list is cut there first.
//! - *An object goes or changes while bound lines of it are needed*, or in the midst of being read: the job stops and names it.
//! - *An object changes after it was read*: refused, counted, logged and noted in the list with its new etag, so that it is told once.
//!
//! New objects are found by listing from the greatest key so far, and all of them now and then, because a key may sort before it.
//! Objects must appear whole, as in S3; into a folder they are moved, not written. Names that begin with `.` or `_` are passed over, as
//! is the habit for what is not finished. Lines and windows are bounded, so a small object that unpacks to much takes time and no room.
//! An object that can not be unpacked to its end ends in a record without value, a dead letter.
//!
//! Memory: a hash of each object's key and version, 24 bytes in a table that is at most half empty: about 50 MB for a million objects,
//! whose list is some 150 MB on disk and read once on a start. Keys themselves are held for [`PENDING_MAX`] objects at most.

mod bucket;
mod fetch;
mod lines;
mod list;
mod queue;
mod reader;

pub use bucket::Location;
pub use fetch::PENDING_MAX;
pub use lines::LINE_BYTES_MAX;

use bucket::Bucket;
use dataflow_core::{Environment, Result, Source, SourceReader, Storage, Waker};
use list::ObjectList;
use reader::{ElsewhereReader, ObjectsReader};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// What a source of objects is told.
#[derive(Clone)]
pub struct ObjectsSettings {
    /// The source's name in bindings and messages.
    pub name: String,
    /// Where the objects lie.
    pub location: Location,
    /// How often new objects are looked for.
    pub poll: Duration,
    /// How often all objects are listed, and not only those after the greatest key.
    pub full_listing: Duration,
}

/// What a source met.
#[derive(Debug, Default)]
pub struct ObjectsCounters {
    /// Objects that were read to their end by this process.
    pub read: AtomicU64,
    /// Versions of objects that were refused because the object was read in another.
    pub changed: AtomicU64,
    /// Objects that were gone before they were read.
    pub gone: AtomicU64,
    /// Objects that could not be unpacked to their end.
    pub damaged: AtomicU64,
}

/// The source.
#[derive(Clone)]
pub struct ObjectsSource {
    settings: ObjectsSettings,
    storage: Arc<dyn Storage>,
    environment: Environment,
    counters: Arc<ObjectsCounters>,
}

impl ObjectsSource {
    /// A source with these settings, whose list lies in `storage`. Nothing is connected yet.
    pub fn new(settings: ObjectsSettings, storage: Arc<dyn Storage>, environment: Environment) -> ObjectsSource {
        ObjectsSource { settings, storage, environment, counters: Arc::default() }
    }

    /// What was met so far.
    pub fn counters(&self) -> Arc<ObjectsCounters> {
        self.counters.clone()
    }
}

impl Source for ObjectsSource {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn open(&self, worker: usize, _: usize, wake: Waker) -> Result<Box<dyn SourceReader>> {
        // The one partition is the first worker's.
        if worker != 0 {
            return Ok(Box::new(ElsewhereReader));
        }
        let bucket = Bucket::open(&self.settings.location)?;
        let list = ObjectList::open(self.storage.clone(), &self.settings.name)?;
        Ok(Box::new(ObjectsReader::new(self.clone(), bucket, list, wake)))
    }
}
