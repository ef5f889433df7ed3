//! What a source connector implements: partitions that are discovered, assigned and read, and the decoding of their records.
//!
//! The runtime's source operator owns epochs, bindings, replay and backpressure; a connector only moves bytes. A reader
//! never blocks: it returns what is there and calls its waker when more has come.

use crate::{Epoch, Result, SchemaBinding, Waker};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A record as the connector read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the partition.
    pub offset: u64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; `None` is a null (in Kafka: a tombstone).
    pub value: Option<Bytes>,
}

/// A partition that appeared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Its number in the source.
    pub index: u32,
    /// Its first offset to read, resolved once; the binding holds it from then on.
    pub start: u64,
}

/// What a poll of one partition came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// The budget is used up or more can be had at once.
    More,
    /// Nothing at hand, but the end of the partition was not seen: a fetch is under way.
    Pending,
    /// The partition was read to its end (the idle rule asks for this), or to `until`.
    AtEnd,
    /// The partition is bounded and over: no record will ever follow.
    Ended,
}

/// A configured source: opened once by every worker, and again by the next generation.
pub trait Source: Send + Sync {
    /// The name its partitions carry in bindings and evidence, such as `login-events`.
    fn name(&self) -> &str;

    /// Opens the share of worker `worker` of `peers`: the partitions with `index % peers == worker`.
    /// `wake` is to be called, from any thread, when a poll that found nothing may now find something.
    fn open(&self, worker: usize, peers: usize, wake: Waker) -> Result<Box<dyn SourceReader>>;
}

/// One worker's share of a source. Partitions are polled one at a time.
pub trait SourceReader {
    /// Partitions of this worker's share that appeared since the last call and were not assigned yet. Never blocks
    /// after the first call, which waits until the partitions that exist are known.
    fn discover(&mut self) -> Result<Vec<Discovered>>;

    /// Told before everything else when an earlier life of the job has bound partitions of this source, of whichever worker:
    /// what it did not bind appeared since, and is read from its beginning.
    fn resume(&mut self) {}

    /// Makes `index` readable from offset `next` on. On a restart it is called with the bound offsets *before* the first
    /// `discover`, which then leaves those out.
    ///
    /// # Errors
    /// When `next` was lost to retention, or the partition is not the one that was bound (a recreated topic).
    fn assign(&mut self, index: u32, next: u64) -> Result<()>;

    /// Appends up to `budget` records of partition `index` with offsets below `until` to `out`, in offset order. With
    /// `until` the answer is [`Poll::AtEnd`] only once every record below it was delivered.
    fn poll(&mut self, index: u32, until: Option<u64>, budget: usize, out: &mut Vec<Record>) -> Result<Poll>;

    /// Records of partition `index` that are there and not delivered by [`SourceReader::poll`] yet, as far as it is known without
    /// asking anybody. For people, never for a decision.
    fn lag(&self, index: u32) -> Option<u64> {
        let _ = index;
        None
    }

    /// Told on start and when a checkpoint is complete: the offsets that the oldest kept one would restore, by partition. What
    /// lies after them must not be lost.
    fn restorable(&mut self, offsets: &BTreeMap<u32, u64>) {
        let _ = offsets;
    }

    /// Told on start and when a checkpoint is complete: the offsets that it would restore, by partition. For lag tools, never
    /// read back.
    fn checkpointed(&mut self, offsets: &BTreeMap<u32, u64>) {
        let _ = offsets;
    }
}

/// What decoding a record came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// It says this.
    Value(T),
    /// It says nothing that can be read, for the reason named; to the dead letters.
    Dead(&'static str),
    /// Its schema is not known yet: try again when woken. The record belongs to no epoch until then.
    Unresolved,
}

/// Turns records into `T`. One per worker and source.
pub trait Decode<T> {
    /// Decodes a record. Never panics, whatever the bytes.
    fn decode(&mut self, record: &Record) -> Decoded<T>;

    /// Whether what is [`Decoded::Unresolved`] may still be resolved. Cheap: asked at every look at the source.
    ///
    /// # Errors
    /// When it never will be, and the job has to end.
    fn resolving(&self) -> Result<()> {
        Ok(())
    }

    /// Schema ids resolved since the last call, to be bound in the epoch that first uses them.
    /// The schema's text is durable before this returns it.
    fn resolved(&mut self) -> Vec<SchemaBinding> {
        Vec::new()
    }

    /// Shows a record whose turn has not come because one before it is unresolved, so that what it needs is asked for already.
    fn foresee(&mut self, record: &Record) {
        let _ = record;
    }

    /// Told when an epoch begins, before its records. With `bound` it is replayed and its row binds these ids, of all sources:
    /// then an id that neither this row nor one before it has bound means nothing, whatever it came to mean later.
    ///
    /// # Errors
    /// As [`Decode::bind`].
    fn begin(&mut self, epoch: Epoch, bound: Option<&[SchemaBinding]>) -> Result<()> {
        let _ = (epoch, bound);
        Ok(())
    }

    /// What ids were bound to mean up to the restored checkpoint. Called on start, before everything else.
    ///
    /// # Errors
    /// When the text of a bound schema is missing from the local store or differs from its hash.
    fn bind(&mut self, schemas: &[SchemaBinding]) -> Result<()> {
        let _ = schemas;
        Ok(())
    }
}
