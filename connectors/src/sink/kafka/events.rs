//! What a producer's client reports, taken by the thread that waits for it: records that failed, log lines, errors. Records that
//! were acknowledged are not reported (`delivery.report.only.error`): the client counts them itself.
//!
//! Why not rdkafka's `ThreadedProducer`: it polls on a thread of its own, which turns for the last millisecond of every
//! wait (1 % of a core for each producer of an idle job).
//!
//! Invariants: pointers from librdkafka do not leave this file; the queue is destroyed before its client. A producer that
//! rests has its log lines taken with the next commit.

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::ptr::NonNull;

/// The event queue of a producer's client.
pub(super) struct Events {
    queue: NonNull<c::rd_kafka_queue_t>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Events {}
// SAFETY: as above, and nothing here does anything through a shared reference.
unsafe impl Sync for Events {}

impl Events {
    /// The queue of `client`. To be dropped before the client is.
    pub(super) fn of<C: ClientContext>(client: &Client<C>) -> Events {
        // SAFETY: the client lives; its main queue lives as long as this reference to it.
        let queue = unsafe { c::rd_kafka_queue_get_main(client.native_ptr()) };
        Events { queue: NonNull::new(queue).expect("every client has a main queue") }
    }

    /// Takes an event. `None`: there is none; else the first record that it reports as failed.
    pub(super) fn take<C: ClientContext>(&mut self, context: &C) -> Option<Option<KafkaError>> {
        // SAFETY: the queue is ours. The event is destroyed after its last use below; what is read of it is copied.
        unsafe {
            let event = NonNull::new(c::rd_kafka_queue_poll(self.queue.as_ptr(), 0))?.as_ptr();
            let mut failure = None;
            match c::rd_kafka_event_type(event) {
                c::RD_KAFKA_EVENT_DR => failure = failed(event),
                c::RD_KAFKA_EVENT_LOG => log(event, context),
                c::RD_KAFKA_EVENT_ERROR => {
                    let error = KafkaError::Global(RDKafkaErrorCode::from(c::rd_kafka_event_error(event)));
                    context.error(error, text(c::rd_kafka_event_error_string(event)).trim());
                }
                other => tracing::debug!(event = other, "an event of the kafka producer is left out"),
            }
            c::rd_kafka_event_destroy(event);
            Some(failure)
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // SAFETY: the queue is ours and this is its end.
        unsafe { c::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// The first failure of a delivery report.
///
/// # Safety
/// `event` is a living delivery report.
unsafe fn failed(event: *mut c::rd_kafka_event_t) -> Option<KafkaError> {
    let mut failure = None;
    // SAFETY: as promised by the caller; the messages live as long as the event.
    unsafe {
        while let Some(message) = c::rd_kafka_event_message_next(event).as_ref() {
            if message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                failure.get_or_insert(KafkaError::MessageProduction(message.err.into()));
            }
        }
    }
    failure
}

/// # Safety
/// `event` is a living log event.
unsafe fn log<C: ClientContext>(event: *mut c::rd_kafka_event_t, context: &C) {
    let (mut fac, mut line, mut level) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: as promised by the caller; the texts live as long as the event.
    unsafe {
        if c::rd_kafka_event_log(event, &mut fac, &mut line, &mut level) == 0 {
            let level = match level {
                ..=4 => RDKafkaLogLevel::Warning,
                5 | 6 => RDKafkaLogLevel::Info,
                _ => RDKafkaLogLevel::Debug,
            };
            context.log(level, text(fac).trim(), text(line).trim());
        }
    }
}

/// # Safety
/// `text` is null or a C string that lives as long as the result is used.
unsafe fn text<'a>(text: *const c_char) -> Cow<'a, str> {
    // SAFETY: as promised by the caller.
    if text.is_null() { Cow::Borrowed("") } else { unsafe { CStr::from_ptr(text) }.to_string_lossy() }
}
