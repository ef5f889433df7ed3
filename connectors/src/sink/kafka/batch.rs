//! Hands records to a producer's client, those of a partition in one call, through librdkafka's C interface.
//!
//! Why not rdkafka's `send`: for each record it looks the topic up by name, builds variadic arguments, and asks whether the
//! partition is part of the transaction.
//!
//! A client that may have only one request of a partition under way (an idempotent one: librdkafka 2.12 counts its records where it
//! means requests) turns without a pause while further records of the partition wait. So no more is handed over at once than one request
//! of each partition holds, and the next only after a flush.
//!
//! Invariants: pointers to rows do not outlive the rows ([`Batches`] borrows them; the client copies what it takes); topic handles are
//! destroyed before their client. Records of a partition keep their order, those of different partitions have none.

use super::cluster::Outgoing;
use dataflow_core::{Error, Result};
use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::ptr::NonNull;

/// The topics of a client that were written to, by name.
#[derive(Default)]
pub(super) struct Topics(Vec<(String, NonNull<c::rd_kafka_topic_t>)>);

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl Send for Topics {}
// SAFETY: as above; what is done through a shared reference is what librdkafka locks itself.
unsafe impl Sync for Topics {}

impl Topics {
    /// The handle of a topic of `client`, always the same one.
    fn handle<C: ClientContext>(&mut self, client: &Client<C>, name: &str) -> Result<NonNull<c::rd_kafka_topic_t>> {
        if let Some((_, handle)) = self.0.iter().find(|(known, _)| known == name) {
            return Ok(*handle);
        }
        let refuse = || Error::user(format!("writing to topic '{name}': the kafka client refuses the name"));
        let text = CString::new(name).map_err(|_| refuse())?;
        // SAFETY: the client lives, the name is a C string for the duration of the call, and null stands for the defaults.
        let handle = unsafe { c::rd_kafka_topic_new(client.native_ptr(), text.as_ptr(), std::ptr::null_mut()) };
        let handle = NonNull::new(handle).ok_or_else(refuse)?;
        self.0.push((name.to_owned(), handle));
        Ok(handle)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        for (_, handle) in &self.0 {
            // SAFETY: the handle is ours, and this is its end.
            unsafe { c::rd_kafka_topic_destroy(handle.as_ptr()) }
        }
    }
}

/// Records by partition, not handed over yet.
#[derive(Default)]
pub(super) struct Batches<'a> {
    /// In the order in which topics came first; records of a topic mostly follow each other. The names stand for the rows' lifetime.
    by_topic: Vec<(&'a str, BTreeMap<i32, Batch>)>,
    /// The rank of the last record's topic.
    last: usize,
    is_full: bool,
}

/// Records of one partition; those before `taken` are the client's.
#[derive(Default)]
struct Batch {
    messages: Vec<c::rd_kafka_message_t>,
    taken: usize,
    bytes: usize,
}

/// Bytes of a partition's records that surely fit into one request: brokers and client take a megabyte unless told otherwise.
const REQUEST_BYTES: usize = 768 << 10;
/// Records of a partition in one request; the client takes 10,000.
const REQUEST_RECORDS: usize = 8 << 10;
/// What a record costs in a request beside key and value, at most.
const RECORD_OVERHEAD: usize = 48;

/// What handing over came to.
pub(super) enum HandedOver {
    /// The client has all records.
    All,
    /// Its queue is full: the rest waits here.
    QueueIsFull,
    /// It will not take a record of this many bytes.
    Refused(RDKafkaErrorCode, usize),
}

impl<'a> Batches<'a> {
    /// Adds a record after those of its partition.
    pub(super) fn push(&mut self, record: &Outgoing<'a>) {
        let (key, key_len) = field(record.key);
        let (payload, len) = field(Some(record.value));
        let message = c::rd_kafka_message_t {
            err: RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
            rkt: std::ptr::null_mut(),
            partition: record.partition,
            payload,
            len,
            key,
            key_len,
            offset: 0,
            _private: std::ptr::null_mut(),
        };
        if self.by_topic.get(self.last).is_none_or(|(topic, _)| *topic != record.topic) {
            let known = self.by_topic.iter().position(|(topic, _)| *topic == record.topic);
            self.last = known.unwrap_or_else(|| {
                self.by_topic.push((record.topic, BTreeMap::new()));
                self.by_topic.len() - 1
            });
        }
        let batch = self.by_topic[self.last].1.entry(record.partition).or_default();
        batch.messages.push(message);
        batch.bytes += len + key_len + RECORD_OVERHEAD;
        self.is_full |= batch.bytes > REQUEST_BYTES || batch.messages.len() >= REQUEST_RECORDS;
    }

    /// Whether the records of some partition fill a request.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Gives the client what it takes. After [`HandedOver::QueueIsFull`] a further call goes on where this one ended.
    ///
    /// # Errors
    /// When a topic's name is none.
    pub(super) fn hand_over<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        topics: &mut Topics,
    ) -> Result<HandedOver> {
        for (topic, partitions) in &mut self.by_topic {
            let handle = topics.handle(client, topic)?;
            for (partition, batch) in partitions {
                match batch.hand_over(handle, *partition) {
                    HandedOver::All => {}
                    rest => return Ok(rest),
                }
            }
        }
        self.is_full = false;
        Ok(HandedOver::All)
    }
}

impl Batch {
    fn hand_over(&mut self, topic: NonNull<c::rd_kafka_topic_t>, partition: i32) -> HandedOver {
        let rest = &mut self.messages[self.taken..];
        let count = i32::try_from(rest.len()).expect("what fits a request is far below 2^31 records");
        // SAFETY: the handle lives; the array holds `count` messages whose bytes the rows behind `Batches<'a>` keep alive, and with
        // `F_COPY` the client copies them before it returns. It writes to `err` only.
        let good = unsafe {
            c::rd_kafka_produce_batch(topic.as_ptr(), partition, c::RD_KAFKA_MSG_F_COPY, rest.as_mut_ptr(), count)
        };
        if good != count {
            let has_failed = |m: &c::rd_kafka_message_t| m.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
            let at = rest.iter().position(has_failed).expect("what was not taken has its error");
            let (code, size) = (RDKafkaErrorCode::from(rest[at].err), rest[at].len);
            if code != RDKafkaErrorCode::QueueFull {
                return HandedOver::Refused(code, size);
            }
            // Once the queue is full nothing that follows in the batch is taken.
            self.taken += at;
            return HandedOver::QueueIsFull;
        }
        self.messages.clear();
        (self.taken, self.bytes) = (0, 0);
        HandedOver::All
    }
}

/// Pointer and length; an empty field is not null.
fn field(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    match bytes {
        Some(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
        None => (std::ptr::null_mut(), 0),
    }
}
