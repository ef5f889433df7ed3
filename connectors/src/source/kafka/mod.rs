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
pub(crate) mod queue;
mod reader;
pub(crate) mod topic;
mod watch;

use crate::kafka_settings::KafkaSourceSettings;
use dataflow_core::{Error, Result, Source, SourceReader, Waker};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a source had to leave out, or noticed.
#[derive(Debug, Default)]
pub struct KafkaSourceCounters {
    /// Offsets that retention removed before they were read (with `on_lost = "skip"`).
    pub lost_offsets: AtomicU64,
    /// Times that the topic was found gone or created anew.
    pub recreated: AtomicU64,
}

/// A Kafka topic as a source. The source's name is the topic's name.
#[derive(Clone, Debug)]
pub struct KafkaSource {
    settings: Arc<KafkaSourceSettings>,
    counters: Arc<KafkaSourceCounters>,
}

impl KafkaSource {
    /// A source with these settings. Nothing is connected yet.
    ///
    /// # Errors
    /// When a setting is out of its range or would break a guarantee.
    pub fn new(settings: KafkaSourceSettings) -> Result<KafkaSource> {
        if settings.topic.is_empty() || settings.group_id.is_empty() {
            return Err(Error::user(
                "reading the settings of a kafka source: 'topic' and 'group_id' must not be empty",
            ));
        }
        settings.consumer()?;
        Ok(KafkaSource { settings: Arc::new(settings), counters: Arc::default() })
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
        let reader = reader::KafkaReader::open(self.settings.clone(), self.counters.clone(), worker, peers, wake)?;
        Ok(Box::new(reader))
    }
}
