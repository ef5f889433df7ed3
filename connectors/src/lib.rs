//! Where data comes from and goes to: sources, decoding, sinks.

pub mod decode;
pub mod envelope;
pub mod kafka_settings;
pub mod s3;
pub mod sink;
pub mod source;
