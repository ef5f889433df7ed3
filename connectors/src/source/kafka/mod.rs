//! Reads a Kafka topic: one consumer a worker, partitions assigned by hand, offsets from the bindings alone.
//!
//! ```text
//!  broker --> librdkafka --> queue per partition --(poll)--> records
//!                 |                                   ^
//!                 +-- common queue --> watch (thread) --+ reports: new partitions, bounds, a topic created anew
//! ```
//!
//! Refuses: subscribing, automatic commits, automatic offset resets, and compacted topics unless told so.

pub(crate) mod client;
mod decision;
mod known;
pub(crate) mod queue;
mod reader;
pub(crate) mod topic;
mod watch;

use crate::kafka_settings::KafkaSourceSettings;
use dataflow_core::{Error, Result, Source, SourceReader, Storage, Waker};
use known::KnownTopic;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a source had to leave out, or noticed.
#[derive(Debug, Default)]
pub struct KafkaSourceCounters {
    /// Records, by their offsets, that retention removed before they were read (with `on_lost = "skip"`).
    pub lost: AtomicU64,
    /// Records, by their offsets, of a topic created anew that stood below the bound offsets (with `on_recreated = "skip"`).
    pub skipped: AtomicU64,
    /// Times that the topic was found gone or created anew.
    pub recreated: AtomicU64,
}

/// A Kafka topic as a source. The source's name is the topic's name.
#[derive(Clone)]
pub struct KafkaSource {
    settings: Arc<KafkaSourceSettings>,
    counters: Arc<KafkaSourceCounters>,
    known: KnownTopic,
}

impl KafkaSource {
    /// A source with these settings. Nothing is connected yet. In `storage` it keeps which topic it read.
    ///
    /// # Errors
    /// When a setting is out of its range or would break a guarantee.
    pub fn new(settings: KafkaSourceSettings, storage: Arc<dyn Storage>) -> Result<KafkaSource> {
        if settings.topic.is_empty() || settings.group_id.is_empty() {
            return Err(Error::user(
                "reading the settings of a kafka source: 'topic' and 'group_id' must not be empty",
            ));
        }
        settings.consumer()?;
        let known = KnownTopic::new(storage, &settings.topic);
        Ok(KafkaSource { settings: Arc::new(settings), counters: Arc::default(), known })
    }

    /// What was lost or noticed so far.
    pub fn counters(&self) -> Arc<KafkaSourceCounters> {
        self.counters.clone()
    }
}

impl Source for KafkaSource {
    fn name(&self) -> &str {
        &self.settings.topic
    }

    fn open(&self, worker: usize, peers: usize, wake: Waker) -> Result<Box<dyn SourceReader>> {
        let (settings, counters, known) = (self.settings.clone(), self.counters.clone(), self.known.clone());
        Ok(Box::new(reader::KafkaReader::open(settings, counters, known, worker, peers, wake)?))
    }
}
