//! Reading a topic to its end as fast as it goes: the engine's Kafka source beside bare loops over the same client library.
//!
//! All take each record's key and value in their hands and drop them. The source does more: it proves the end of each partition,
//! copies records out of the client, and keeps to a bound of what is fetched ahead.

use crate::topics;
use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum;
use dataflow_connectors::kafka_settings::KafkaSourceSettings;
use dataflow_connectors::source::kafka::KafkaSource;
use dataflow_core::{Poll, Source, Waker};
use dataflow_state::storage::MemoryStorage;
use rdkafka::bindings as c;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, DefaultConsumerContext, StreamConsumer};
use rdkafka::message::Message;
use rdkafka::util::AsyncRuntime;
use serde::Serialize;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records asked for at once.
const BATCH: usize = 1_024;
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(60);

/// Who reads.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Reader {
    /// The engine's source.
    Source,
    /// rdkafka's `BaseConsumer`, a record at a time.
    BaseConsumer,
    /// rdkafka's `StreamConsumer`, a record at a time, on tokio.
    StreamConsumer,
    /// librdkafka's batches from one queue of all partitions: the least there is.
    BatchQueue,
}

/// What a reader came to.
#[derive(Debug, Serialize)]
pub(crate) struct Ingested {
    records: u64,
    bytes: u64,
    /// From the first record to the last.
    seconds: f64,
}

/// What was counted so far.
#[derive(Default)]
struct Counts {
    records: u64,
    bytes: u64,
    began: Option<Instant>,
}

impl Counts {
    #[allow(clippy::disallowed_methods, reason = "a measuring program, outside of every job")]
    fn now() -> Instant {
        Instant::now()
    }

    fn add(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.began.get_or_insert_with(Counts::now);
        self.records += 1;
        self.bytes += [key, value].into_iter().flatten().map(|field| field.len() as u64).sum::<u64>();
    }

    fn ingested(self) -> Result<Ingested> {
        let began = self.began.ok_or_else(|| anyhow!("read a topic without records"))?;
        Ok(Ingested { records: self.records, bytes: self.bytes, seconds: began.elapsed().as_secs_f64() })
    }
}

/// Reads all of `topic`.
pub(crate) fn ingest(brokers: &str, topic: &str, reader: Reader) -> Result<Ingested> {
    match reader {
        Reader::Source => source(brokers, topic),
        Reader::BaseConsumer => base_consumer(brokers, topic),
        Reader::StreamConsumer => stream_consumer(brokers, topic),
        Reader::BatchQueue => batch_queue(brokers, topic),
    }
}

fn source(brokers: &str, topic: &str) -> Result<Ingested> {
    let settings = serde_json::json!({ "brokers": brokers, "topic": topic, "group_id": "dataflow-probe" });
    let settings: KafkaSourceSettings = serde_json::from_value(settings)?;
    let this = std::thread::current();
    let wake = Waker::new(move || this.unpark());
    let mut reader = KafkaSource::new(settings, Arc::new(MemoryStorage::default()))?.open(0, 1, wake)?;
    let mut open: Vec<u32> = Vec::new();
    for found in reader.discover()? {
        reader.assign(found.index, found.start)?;
        open.push(found.index);
    }
    let (mut counts, mut batch, mut last_came) = (Counts::default(), Vec::new(), Counts::now());
    while !open.is_empty() {
        let mut is_waiting = true;
        let mut ended = Vec::new();
        for index in &open {
            let poll = reader.poll(*index, None, BATCH, &mut batch)?;
            is_waiting &= batch.is_empty();
            batch.drain(..).for_each(|record| counts.add(record.key.as_deref(), record.value.as_deref()));
            if matches!(poll, Poll::AtEnd | Poll::Ended) {
                ended.push(*index);
            }
        }
        open.retain(|index| !ended.contains(index));
        if !is_waiting {
            last_came = Counts::now();
        } else if !open.is_empty() {
            ensure!(last_came.elapsed() < SILENCE, "read topic '{topic}': nothing came for {SILENCE:?}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
    counts.ingested()
}

/// A consumer at the beginning of the topic, and how many records are there; a topic of this kind has no transactions.
fn assigned<C: Consumer<X> + FromClientConfig, X: ConsumerContext>(brokers: &str, topic: &str) -> Result<(C, u64)> {
    let consumer: C = topics::consumer(brokers, "read_committed", &[("enable.partition.eof", "false")])?;
    let ends = topics::assign(&consumer, topic, Some(&[]))?;
    Ok((consumer, ends.iter().map(|end| u64::try_from(*end).unwrap_or(0)).sum()))
}

fn base_consumer(brokers: &str, topic: &str) -> Result<Ingested> {
    let (consumer, all) = assigned::<BaseConsumer, _>(brokers, topic)?;
    let mut counts = Counts::default();
    while counts.records < all {
        let message = consumer.poll(SILENCE).ok_or_else(|| anyhow!("read topic '{topic}': nothing came"))??;
        counts.add(message.key(), message.payload());
    }
    counts.ingested()
}

/// What rdkafka's stream spawns and waits with. Its own feature for tokio would have rdkafka compiled anew for this program alone.
struct OnTokio;

impl AsyncRuntime for OnTokio {
    type Delay = tokio::time::Sleep;

    fn spawn<T: Future<Output = ()> + Send + 'static>(task: T) {
        tokio::spawn(task);
    }

    fn delay_for(duration: Duration) -> Self::Delay {
        tokio::time::sleep(duration)
    }
}

fn stream_consumer(brokers: &str, topic: &str) -> Result<Ingested> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
        let (consumer, all) = assigned::<StreamConsumer<DefaultConsumerContext, OnTokio>, _>(brokers, topic)?;
        let mut counts = Counts::default();
        while counts.records < all {
            let message = consumer.recv().await?;
            counts.add(message.key(), message.payload());
        }
        counts.ingested()
    })
}

fn batch_queue(brokers: &str, topic: &str) -> Result<Ingested> {
    let (consumer, all) = assigned::<BaseConsumer, _>(brokers, topic)?;
    // SAFETY: the client lives; the queue is destroyed below, before it.
    let queue = NonNull::new(unsafe { c::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) })
        .ok_or_else(|| anyhow!("the consumer has no queue"))?;
    let mut counts = Counts::default();
    let mut messages: Vec<*mut c::rd_kafka_message_t> = Vec::with_capacity(BATCH);
    while counts.records < all {
        // SAFETY: the array has room for `BATCH` pointers, and librdkafka fills as many as it returns.
        let count = unsafe { c::rd_kafka_consume_batch_queue(queue.as_ptr(), 1_000, messages.as_mut_ptr(), BATCH) };
        ensure!(count > 0, "read topic '{topic}': nothing came");
        // SAFETY: as above; each message is looked at and destroyed once.
        unsafe {
            messages.set_len(usize::try_from(count)?);
            for message in messages.drain(..) {
                let field = |at: *mut std::ffi::c_void, length: usize| {
                    (!at.is_null()).then(|| std::slice::from_raw_parts(at.cast::<u8>(), length))
                };
                let m = &*message;
                if m.err == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    counts.add(field(m.key, m.key_len), field(m.payload, m.len));
                }
                c::rd_kafka_message_destroy(message);
            }
        }
    }
    // SAFETY: the queue is ours and used for the last time.
    unsafe { c::rd_kafka_queue_destroy(queue.as_ptr()) };
    counts.ingested()
}
