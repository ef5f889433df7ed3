//! Facts about a topic, asked of the broker: its partitions, their bounds, its identity, whether it is compacted.
//!
//! Every call blocks for at most [`REQUEST_TIMEOUT`]; readers call them at start-up only, later the watch's thread does.

use super::client::{Consumer, failed};
use super::decision::Bounds;
use crate::kafka_settings::Start;
use dataflow_core::{Error, Result};
use rdkafka::bindings as c;
use rdkafka::client::Client;
use rdkafka::client::ClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use std::ffi::{CStr, CString};
use std::time::Duration;

/// How long one request may take: a broker that restarts is back within this.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Answers in a row that say a topic is gone, or shorter than it was, before they are believed: a broker that restarts, or has not
/// heard of everything, says so for a few seconds.
pub(crate) const LOOKS_MAX: u32 = 10;

/// Asks until the answer is final, at most [`LOOKS_MAX`] times. For readers at start-up, which may block.
pub(crate) fn settled<T>(
    interval: Duration,
    is_final: impl Fn(&T) -> bool,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut looks = 1;
    loop {
        let answer = ask()?;
        if is_final(&answer) || looks == LOOKS_MAX {
            return Ok(answer);
        }
        looks += 1;
        std::thread::park_timeout(interval);
    }
}

/// The number of partitions; `None` when there is no such topic.
pub(crate) fn partitions<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Option<u32>> {
    let what = || format!("asking for the partitions of topic '{topic}'");
    let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(|e| failed(what(), e))?;
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(None) };
    match found.error() {
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
        Some(error) => Err(Error::outside(what()).because(RDKafkaErrorCode::from(error))),
        None => Ok(Some(u32::try_from(found.partitions().len()).expect("partition numbers are 32 bits"))),
    }
}

/// The error for a topic that is not there.
pub(crate) fn missing(topic: &str, brokers: &str) -> Error {
    Error::user(format!("opening topic '{topic}' on '{brokers}': there is no such topic"))
        .hint("create it, or correct its name in the job's settings")
}

/// The bounds of a partition. With `read_committed` the high end is the last stable offset.
pub(crate) fn bounds(consumer: &Consumer, topic: &str, index: u32) -> Result<Bounds> {
    let (low, high) = consumer
        .fetch_watermarks(topic, partition(index), REQUEST_TIMEOUT)
        .map_err(|e| failed(format!("asking for the offsets of '{topic}/{index}'"), e))?;
    let offset = |raw: i64| u64::try_from(raw).expect("the broker's watermarks are absolute offsets");
    Ok(Bounds { low: offset(low), high: offset(high) })
}

/// Where a partition begins for a source that never read it.
pub(crate) fn start(consumer: &Consumer, topic: &str, index: u32, start: Start) -> Result<u64> {
    let bounds = bounds(consumer, topic, index)?;
    let millis = match start {
        Start::Earliest => return Ok(bounds.low),
        Start::Latest => return Ok(bounds.high),
        Start::Timestamp(millis) => millis,
    };
    let what = || format!("looking up time {millis} in '{topic}/{index}'");
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(topic, partition(index), Offset::Offset(millis)).map_err(|e| failed(what(), e))?;
    let found = consumer.offsets_for_times(times, REQUEST_TIMEOUT).map_err(|e| failed(what(), e))?;
    match found.elements().first().map(|e| (e.error(), e.offset())) {
        Some((Err(error), _)) => Err(failed(what(), error)),
        Some((Ok(()), Offset::Offset(offset))) => Ok(u64::try_from(offset).unwrap_or(bounds.high)),
        // No record is that young: begin at the end.
        _ => Ok(bounds.high),
    }
}

/// A setting of a topic, such as `cleanup.policy`; empty when the broker does not tell it.
pub(crate) fn setting(consumer: &Consumer, topic: &str, setting: &CStr) -> Result<String> {
    let what = || format!("asking for the configuration of topic '{topic}'");
    let name = CString::new(topic).map_err(|e| Error::user(what()).because(e))?;
    // SAFETY: as in `ask`; the resource is destroyed after the call that copies it.
    let answer = ask(consumer, |rk, queue| unsafe {
        let kind = c::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let mut resources = [c::rd_kafka_ConfigResource_new(kind, name.as_ptr())];
        c::rd_kafka_DescribeConfigs(rk, resources.as_mut_ptr(), resources.len(), std::ptr::null(), queue);
        c::rd_kafka_ConfigResource_destroy(resources[0]);
    });
    let answer = answer.ok_or_else(|| Error::outside(what()).hint("the broker did not answer in time"))?;
    // SAFETY: the answer lives until the end of this function.
    let value = unsafe { setting_in(answer.0, setting) };
    value.map_err(|code| Error::outside(what()).because(RDKafkaErrorCode::from(code)))
}

/// The topic's id, which a topic of the same name created later does not have. `None` when the broker gives none
/// (before Kafka 2.8) or did not answer.
pub(crate) fn id(consumer: &Consumer, topic: &str) -> Option<String> {
    let name = CString::new(topic).ok()?;
    // SAFETY: as in `ask`; the collection is destroyed after the call that copies it.
    let answer = ask(consumer, |rk, queue| unsafe {
        let mut names = [name.as_ptr()];
        let topics = c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        c::rd_kafka_DescribeTopics(rk, topics, std::ptr::null(), queue);
        c::rd_kafka_TopicCollection_destroy(topics);
    })?;
    // SAFETY: the answer lives until the end of this function.
    unsafe { id_in(answer.0) }
}

/// An answer of librdkafka's admin interface.
struct Answer(*mut c::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the event is ours, and what was read of it has been copied.
        unsafe { c::rd_kafka_event_destroy(self.0) }
    }
}

/// Sends a request on the consumer's own client (one of its own costs 100 ms to begin and end) and waits for the answer.
fn ask(consumer: &Consumer, send: impl FnOnce(*mut c::rd_kafka_t, *mut c::rd_kafka_queue_t)) -> Option<Answer> {
    let timeout_ms = i32::try_from(REQUEST_TIMEOUT.as_millis()).expect("the timeout is seconds");
    let rk = consumer.client().native_ptr();
    // SAFETY: plain calls; the client lives, and the queue is created and destroyed here.
    unsafe {
        let queue = c::rd_kafka_queue_new(rk);
        send(rk, queue);
        let event = c::rd_kafka_queue_poll(queue, timeout_ms);
        c::rd_kafka_queue_destroy(queue);
        (!event.is_null()).then_some(Answer(event))
    }
}

/// A setting in the answer to DescribeConfigs of one topic.
///
/// # Safety
/// `event` is a living event of librdkafka.
unsafe fn setting_in(event: *mut c::rd_kafka_event_t, setting: &CStr) -> Result<String, RDKafkaRespErr> {
    // SAFETY: as promised by the caller; null results are checked before they are read.
    unsafe {
        let error = c::rd_kafka_event_error(event);
        let result = c::rd_kafka_event_DescribeConfigs_result(event);
        if result.is_null() || error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error);
        }
        let mut count = 0;
        let resources = c::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        if resources.is_null() || count == 0 {
            return Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        }
        let error = c::rd_kafka_ConfigResource_error(*resources);
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error);
        }
        let mut count = 0;
        let entries = c::rd_kafka_ConfigResource_configs(*resources, &mut count);
        for entry in (0..count).map(|at| *entries.add(at)) {
            if CStr::from_ptr(c::rd_kafka_ConfigEntry_name(entry)) == setting {
                let value = c::rd_kafka_ConfigEntry_value(entry);
                let text = || CStr::from_ptr(value).to_string_lossy().into_owned();
                return Ok(if value.is_null() { String::new() } else { text() });
            }
        }
        Ok(String::new())
    }
}

/// The id in the answer to DescribeTopics.
///
/// # Safety
/// `event` is a living event of librdkafka.
unsafe fn id_in(event: *mut c::rd_kafka_event_t) -> Option<String> {
    // SAFETY: as promised by the caller; null results are checked before they are read.
    unsafe {
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() || c::rd_kafka_event_error(event) != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let mut count = 0;
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count == 0 {
            return None;
        }
        let description = *topics;
        let error = c::rd_kafka_error_code(c::rd_kafka_TopicDescription_error(description));
        if error != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let uuid = c::rd_kafka_TopicDescription_topic_id(description);
        let text = if uuid.is_null() { std::ptr::null() } else { c::rd_kafka_Uuid_base64str(uuid) };
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// A partition number as librdkafka takes it.
pub(crate) fn partition(index: u32) -> i32 {
    i32::try_from(index).expect("Kafka's partition numbers are positive 32-bit numbers")
}
