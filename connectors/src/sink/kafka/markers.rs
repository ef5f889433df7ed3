//! The markers topic: one partition, compacted, one key for each job, sink and shard range.
//!
//! Reading proves that it read everything: the high watermark is taken first, without regard to open transactions, and
//! the reader then waits until it stands there, read_committed. Waiting for the last stable offset instead would miss
//! the marker of a transaction that is being committed right now.

use super::cluster::{MarkerReader, Reach};
use crate::kafka_settings::KafkaSinkSettings;
use crate::source::kafka::client::{Consumer, Logged, failed};
use crate::source::kafka::queue::{BATCH, Item, PartitionQueue};
use crate::source::kafka::topic;
use dataflow_core::{Error, Record, Result, Waker};
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;

/// One wait for records.
const TURN_MS: i32 = 100;

/// Waits without anything to read before the reader gives up: with [`TURN_MS`] two minutes, twice the time after which
/// the broker ends an open transaction by itself.
const IDLE_TURNS_MAX: u32 = 1200;

/// Reads the markers of one sink. It lives for one start or one settlement: its clients are of no use in between.
pub struct Reader {
    topic: String,
    key: String,
    committed: Arc<Consumer>,
    /// Only read_uncommitted is told the high watermark.
    all: Consumer,
}

impl Reader {
    /// A reader of what is under `key`.
    pub(super) fn new(settings: &KafkaSinkSettings, topic: &str, key: &str) -> Result<Reader> {
        let consumer = |isolation, reads: bool| -> Result<Consumer> {
            let context = Logged { name: topic.to_owned() };
            let mut config = settings.consumer(isolation)?;
            if !reads {
                // Without a group there is nothing to take leave of, which costs 100 ms.
                config.remove("group.id");
            }
            config.create_with_context(context).map_err(|e| failed(format!("creating a consumer of '{topic}'"), e))
        };
        let (committed, all) = (Arc::new(consumer("read_committed", true)?), consumer("read_uncommitted", false)?);
        Ok(Reader { topic: topic.to_owned(), key: key.to_owned(), committed, all })
    }

    /// A client to ask for facts about topics: a consumer, because a broker may create a topic that a producer asks for.
    pub(super) fn client(&self) -> &Consumer {
        &self.all
    }

    /// Hands on every committed record below `until`.
    fn read_until(
        &self,
        queue: &mut PartitionQueue,
        until: u64,
        mut each: impl FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        let (mut position, mut idle) = (0, 0);
        while position < until {
            let mut items = Vec::new();
            // One item at a time once there is something, else the wait lasts the whole turn.
            if queue.drain(1, TURN_MS, |item| items.push(item)) > 0 {
                queue.drain(BATCH, 0, |item| items.push(item));
                idle = 0;
            } else {
                idle += 1;
            }
            for item in items {
                match item {
                    Item::Record(record) => {
                        position = record.offset + 1;
                        each(record)?;
                    }
                    Item::End(offset) => position = position.max(offset),
                    Item::Failed(code, text) => {
                        tracing::warn!(topic = self.topic, %code, text, "reading the markers: the client goes on by itself");
                    }
                }
            }
            if idle >= IDLE_TURNS_MAX {
                return Err(Error::outside(format!(
                    "reading the markers in '{}': offset {until} is not reached, a transaction is open at offset {position}",
                    self.topic
                ))
                    .hint(format!(
                        "find its producer with 'kafka-transactions describe-producers --topic {} --partition 0', and abort it, unless \
                         'kafka-transactions describe' says CompleteCommit: then the broker has left the end of a commit away \
                         (KAFKA-20734), and after an abort its rows would be written twice",
                        self.topic
                    ))
                    .retry());
            }
        }
        Ok(())
    }
}

impl MarkerReader for Reader {
    fn last(&self, reach: Reach) -> Result<Option<(u64, Vec<u8>)>> {
        let bounds = match reach {
            Reach::Stable => topic::bounds(&self.committed, &self.topic, 0)?,
            Reach::Everything => topic::bounds(&self.all, &self.topic, 0)?,
        };
        let mut list = TopicPartitionList::new();
        let what = || format!("reading the markers in '{}'", self.topic);
        let offset = Offset::Offset(i64::try_from(bounds.low).map_err(|e| Error::us(what()).because(e))?);
        list.add_partition_offset(&self.topic, 0, offset).map_err(|e| failed(what(), e))?;
        let mut queue = PartitionQueue::take(&self.committed, &self.topic, 0, &Waker::none())?;
        self.committed.incremental_assign(&list).map_err(|e| failed(what(), e))?;
        let mut last = None;
        self.read_until(&mut queue, bounds.high, |record| {
            if record.key.as_deref() == Some(self.key.as_bytes()) {
                last = record.value.map(|value| (record.offset, value.to_vec()));
            }
            Ok(())
        })?;
        self.committed.incremental_unassign(&list).map_err(|e| failed(what(), e))?;
        Ok(last)
    }
}
