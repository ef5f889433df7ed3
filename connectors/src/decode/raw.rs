//! Records that are not decoded: their bytes as they came.

use super::UNDECODABLE;
use dataflow_core::{Decode, Decoded, RawRecord, Record};

/// Passes a record on.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawDecoder;

impl Decode<RawRecord> for RawDecoder {
    fn decode(&mut self, record: &Record) -> Decoded<RawRecord> {
        let value = record.value.clone().filter(|_| super::is_decodable(record));
        let raw = |value| Decoded::Value(RawRecord { key: record.key.clone(), value });
        value.map_or(Decoded::Dead(UNDECODABLE), raw)
    }
}
