//! The Kafka source and sink against a real broker, `KAFKA_BROKERS` (`stack/stack start kafka`). Ignored without it.

// A test may panic; clippy's own exception does not reach the functions beside the tests.
#![allow(clippy::unwrap_used)]

mod broker;
mod sink;
mod source;
