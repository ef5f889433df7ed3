//! Hands records to a producer's client, those of a partition in one call, through librdkafka's C interface.
//!
//! Why not rdkafka's `send`: for each record it looks the topic up by name, builds variadic arguments, and asks whether the
//! partition is part of the transaction; in a commit of thousands of rows that was a third of the sink's CPU time.
//!
//! A client that may have only one request of a partition under way (an idempotent one: librdkafka 2.12 counts its records where it
//! means requests) turns without a pause while further records of the partition wait. So no more is handed over at once than one request
//! of each partition holds, and the next only after a flush.
//!
//! Invariants: pointers to rows do not outlive the rows ([`Batches`] borrows them; the client copies what it takes); topic handles are
//! destroyed before their client. Records of a partition keep their order, those of different partitions have none.

use dataflow_core::{Error, Result};
use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A record to send.
pub(super) struct Outgoing<'a> {
    /// The rank of the topic among those the producer was connected for.
    pub(super) topic: usize,
    /// The partition.
    pub(super) partition: i32,
    /// The key; `None` is null.
    pub(super) key: Option<&'a [u8]>,
    /// The value.
    pub(super) value: &'a [u8],
}

/// The topics of a client, by rank.
pub(super) struct Topics(Vec<NonNull<c::rd_kafka_topic_t>>);

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl Send for Topics {}
// SAFETY: as above; what is done through a shared reference is what librdkafka locks itself.
unsafe impl Sync for Topics {}

impl Topics {
    /// Handles of the topics `names` of `client`. To be dropped before the client is.
    ///
    /// # Errors
    /// When a name is none that a topic may have.
    pub(super) fn of<C: ClientContext>(client: &Client<C>, names: &[&str]) -> Result<Topics> {
        let mut topics = Topics(Vec::with_capacity(names.len()));
        for name in names {
            let refuse = || Error::user(format!("writing to topic '{name}': the kafka client refuses the name"));
            let name = CString::new(*name).map_err(|_| refuse())?;
            // SAFETY: the client lives, the name is a C string for the duration of the call, and null stands for the defaults.
            let topic = unsafe { c::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), std::ptr::null_mut()) };
            topics.0.push(NonNull::new(topic).ok_or_else(refuse)?);
        }
        Ok(topics)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        for topic in &self.0 {
            // SAFETY: the handle is ours, and this is its end.
            unsafe { c::rd_kafka_topic_destroy(topic.as_ptr()) }
        }
    }
}

/// Records by partition, not handed over yet.
#[derive(Default)]
pub(super) struct Batches<'a> {
    by_partition: BTreeMap<(usize, i32), Batch>,
    is_full: bool,
    rows: PhantomData<&'a [u8]>,
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
        let batch = self.by_partition.entry((record.topic, record.partition)).or_default();
        batch.messages.push(message);
        batch.bytes += len + key_len + RECORD_OVERHEAD;
        self.is_full |= batch.bytes > REQUEST_BYTES || batch.messages.len() >= REQUEST_RECORDS;
    }

    /// Whether the records of some partition fill a request.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Gives the client what it takes. After [`HandedOver::QueueIsFull`] a further call goes on where this one ended.
    pub(super) fn hand_over(&mut self, topics: &Topics) -> HandedOver {
        for ((topic, partition), batch) in &mut self.by_partition {
            let rest = &mut batch.messages[batch.taken..];
            if rest.is_empty() {
                continue;
            }
            let count = i32::try_from(rest.len()).expect("a commit's batches are far below 2^31 records");
            // SAFETY: the handle lives; the array holds `count` messages whose bytes the rows behind `'a` keep alive, and with
            // `F_COPY` the client copies them before it returns. It writes to `err` only.
            let good = unsafe {
                let topic = topics.0[*topic].as_ptr();
                c::rd_kafka_produce_batch(topic, *partition, c::RD_KAFKA_MSG_F_COPY, rest.as_mut_ptr(), count)
            };
            if good != count {
                let of = |m: &c::rd_kafka_message_t| m.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
                let at = rest.iter().position(of).expect("what was not taken has its error");
                let (code, size) = (RDKafkaErrorCode::from(rest[at].err), rest[at].len);
                if code != RDKafkaErrorCode::QueueFull {
                    return HandedOver::Refused(code, size);
                }
                // Once the queue is full nothing that follows in the batch is taken.
                batch.taken += at;
                return HandedOver::QueueIsFull;
            }
            batch.messages.clear();
            (batch.taken, batch.bytes) = (0, 0);
        }
        self.is_full = false;
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
