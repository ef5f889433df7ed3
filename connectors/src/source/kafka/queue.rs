//! One partition's queue of fetched messages, through librdkafka's C interface.
//!
//! Why not rdkafka's own: it drops the offset of the end-of-partition event, which is the proof that everything below
//! it was delivered (transaction markers and aborted records occupy offsets, so counting does not prove it), and it
//! allocates for each message. Here a batch is copied into shared chunks.
//!
//! Invariants: the queue is taken before the partition is assigned, so no message takes the consumer's common queue;
//! pointers from librdkafka do not leave this file; the queue is destroyed before its client.

use super::client::Consumer;
use bytes::Bytes;
use dataflow_core::{Error, Record, Result, Waker};
use rdkafka::bindings as c;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use std::ffi::{CStr, CString, c_void};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// Messages taken from librdkafka at once: enough to share the cost of its lock, few enough to be held back.
pub(crate) const BATCH: usize = 512;

/// Records share chunks of about this many bytes. A chunk lives as long as any record in it (a dead letter keeps its
/// bytes), so it is small.
const CHUNK_BYTES: usize = 64 * 1024;

/// What stands in a partition's queue.
#[derive(Debug)]
pub(crate) enum Item {
    /// A record.
    Record(Record),
    /// The partition was read up to this offset, and there was nothing more at the time.
    End(u64),
    /// The fetcher reports an error at its position.
    Failed(RDKafkaErrorCode, String),
}

/// A partition's queue.
pub(crate) struct PartitionQueue {
    queue: NonNull<c::rd_kafka_queue_t>,
    /// Boxed for its address, which librdkafka keeps.
    _wake: Box<Waker>,
    /// The client outlives its queue.
    consumer: Arc<Consumer>,
    topic: CString,
    partition: i32,
    messages: Vec<*mut c::rd_kafka_message_t>,
}

unsafe extern "C" fn not_empty(_: *mut c::rd_kafka_t, wake: *mut c_void) {
    // SAFETY: `wake` is the boxed waker of a living `PartitionQueue`: its drop takes the callback away first, under the
    // lock under which librdkafka calls it.
    unsafe { (*wake.cast::<Waker>()).wake() }
}

impl PartitionQueue {
    /// Takes the queue of a partition that is not assigned yet.
    pub(crate) fn take(consumer: &Arc<Consumer>, topic: &str, partition: i32, wake: &Waker) -> Result<PartitionQueue> {
        let wake = Box::new(wake.clone());
        let name =
            CString::new(topic).map_err(|_| Error::user(format!("reading topic '{topic}': its name holds a nul")))?;
        // SAFETY: the client lives, and the name is a C string for the duration of the call.
        let queue =
            unsafe { c::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition) };
        let queue = NonNull::new(queue).ok_or_else(|| {
            Error::outside(format!("taking the queue of '{topic}/{partition}' from the kafka client"))
        })?;
        // SAFETY: the queue is ours; forwarding to null ends the forwarding to the common queue and marks it as the
        // application's choice, which a later assign respects. The callback's argument lives until the drop.
        unsafe {
            c::rd_kafka_queue_forward(queue.as_ptr(), std::ptr::null_mut());
            let argument = (&raw const *wake).cast_mut().cast::<c_void>();
            c::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(not_empty), argument);
        }
        let messages = Vec::with_capacity(BATCH);
        Ok(PartitionQueue { queue, _wake: wake, consumer: consumer.clone(), topic: name, partition, messages })
    }

    /// The high watermark that the last fetch brought; asks nobody. `None` before the first.
    pub(crate) fn high_watermark(&self) -> Option<u64> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client lives, the name is a C string, and both offsets are ours for the duration of the call.
        let code = unsafe {
            let client = self.consumer.client().native_ptr();
            c::rd_kafka_get_watermark_offsets(client, self.topic.as_ptr(), self.partition, &raw mut low, &raw mut high)
        };
        let is_known = code == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        u64::try_from(high).ok().filter(|_| is_known)
    }

    /// Takes up to `limit` (at most [`BATCH`]) messages, waiting at most `timeout_ms` for the batch to fill, and hands
    /// them on in order. Returns how many there were.
    pub(crate) fn drain(&mut self, limit: usize, timeout_ms: i32, mut each: impl FnMut(Item)) -> usize {
        let limit = limit.min(BATCH);
        self.messages.clear();
        self.messages.reserve(limit);
        // SAFETY: the array has room for `limit` pointers, and librdkafka fills as many as it returns.
        let count = unsafe {
            let array = self.messages.as_mut_ptr();
            let count = c::rd_kafka_consume_batch_queue(self.queue.as_ptr(), timeout_ms, array, limit);
            let count = usize::try_from(count).unwrap_or(0);
            self.messages.set_len(count);
            count
        };
        let mut chunk = Chunk::default();
        for message in self.messages.drain(..) {
            // SAFETY: librdkafka gave us a message; its key and payload are valid until it is destroyed, once, here.
            unsafe {
                let m = &*message;
                if m.err == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    chunk.push(offset(m.offset), bytes(m.key, m.key_len), bytes(m.payload, m.len), &mut each);
                } else {
                    chunk.seal(&mut each);
                    each(if m.err == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF {
                        Item::End(offset(m.offset))
                    } else {
                        let text = c::rd_kafka_message_errstr(message);
                        let text =
                            if text.is_null() { Default::default() } else { CStr::from_ptr(text).to_string_lossy() };
                        Item::Failed(m.err.into(), text.into_owned())
                    });
                }
                c::rd_kafka_message_destroy(message);
            }
        }
        chunk.seal(&mut each);
        count
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is ours and used for the last time; without the callback nothing refers to the waker.
        unsafe {
            c::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, std::ptr::null_mut());
            c::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

fn offset(raw: i64) -> u64 {
    u64::try_from(raw).expect("librdkafka gives messages and ends absolute offsets")
}

/// A field of a message; null is no field, and a pointer with length 0 an empty one.
unsafe fn bytes<'a>(at: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller holds a message whose field this is.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at.cast::<u8>(), length) })
}

/// A field that is null or a range of a chunk.
type Field = Option<Range<usize>>;

/// Records whose bytes will share one allocation.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Offset, and where key and value stand in `bytes`.
    records: Vec<(u64, Field, Field)>,
}

impl Chunk {
    fn push(&mut self, offset: u64, key: Option<&[u8]>, value: Option<&[u8]>, each: &mut impl FnMut(Item)) {
        let mut append = |field: &[u8]| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(field);
            start..self.bytes.len()
        };
        let record = (offset, key.map(&mut append), value.map(&mut append));
        self.records.push(record);
        if self.bytes.len() >= CHUNK_BYTES {
            self.seal(each);
        }
    }

    fn seal(&mut self, each: &mut impl FnMut(Item)) {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        for (offset, key, value) in self.records.drain(..) {
            let of = |range: Field| range.map(|r| bytes.slice(r));
            each(Item::Record(Record { offset, key: of(key), value: of(value) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_keeps_nulls_and_empty_fields_apart() {
        let (mut chunk, mut seen) = (Chunk::default(), Vec::new());
        let big = vec![7u8; CHUNK_BYTES];
        {
            let mut each = |item| match item {
                Item::Record(record) => seen.push(record),
                other => panic!("{other:?}"),
            };
            chunk.push(3, None, Some(b"v"), &mut each);
            chunk.push(5, Some(b""), None, &mut each);
            chunk.push(6, Some(b"k"), Some(&big), &mut each);
            chunk.push(7, Some(b"l"), Some(b"w"), &mut each);
            chunk.seal(&mut each);
        }
        let record = |offset, key: Option<&'static [u8]>, value: Option<&[u8]>| Record {
            offset,
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::copy_from_slice),
        };
        let expected = vec![
            record(3, None, Some(b"v")),
            record(5, Some(b""), None),
            record(6, Some(b"k"), Some(&big)),
            record(7, Some(b"l"), Some(b"w")),
        ];
        assert_eq!(seen, expected);
    }
}
