//! From a record's bytes to what it says: each decoder implements [`dataflow_core::Decode`].

pub mod avro;
pub mod framing;
pub mod json;
pub mod raw;
pub mod registry;
pub(crate) mod writers;

use dataflow_core::Record;

/// The reason of every record that does not decode.
pub const UNDECODABLE: &str = "undecodable";

/// Bytes of key and value beyond which a record is not decoded: far above any event, far below what hurts. A row made of it is
/// written as JSON, where a control character takes six bytes, and its user may stand in the row's key and in its value: twelve times
/// this, 96 MiB, still fits into one message ([`MESSAGE_BYTES_MAX`](crate::kafka_settings::MESSAGE_BYTES_MAX)) and into
/// the largest request that a broker takes by default (100 MiB).
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// Whether a record is small enough to be decoded.
pub(crate) fn is_decodable(record: &Record) -> bool {
    let bytes = [&record.key, &record.value].into_iter().flatten().map(|part| part.len()).sum::<usize>();
    bytes <= RECORD_BYTES_MAX
}
