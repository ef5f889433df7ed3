//! Records that are not decoded: their bytes as they came.

use super::UNDECODABLE;
use dataflow_core::{Decode, Decoded, RawRecord, Record};

/// Passes a record's value on.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawDecoder;

impl Decode<RawRecord> for RawDecoder {
    fn decode(&mut self, record: &Record) -> Decoded<RawRecord> {
        let value = record.value.clone().filter(|_| super::is_decodable(record));
        value.map_or(Decoded::Dead(UNDECODABLE), |value| Decoded::Value(RawRecord(value)))
    }
}
