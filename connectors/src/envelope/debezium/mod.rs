//! Debezium's change events, in Avro and in JSON, as envelopes and flattened: a record's own fields tell its shape.
//!
//! A record with `__op` or `__deleted` is flattened (ExtractNewRecordState); one with `op` and a record `source` is an envelope. Beside
//! them a change topic, or one that is read with it, may hold heartbeats, transactions' boundaries and messages, which say nothing of a row.
//! Keys of records are not read: the row holds its key, and so does what is left of a deleted one.
//!
//! Positions are those of Postgres; of other databases there are none unless the source has a `sequence`, so their changes apply in the
//! order in which they come.

mod avro;
mod json;

pub use avro::DebeziumAvroDecoder;
pub use json::DebeziumJsonDecoder;
