//! Where records come from: each connector implements [`dataflow_core::Source`] and reads bytes, nothing more.

pub mod generator;
pub mod kafka;
pub mod ndjson;
pub mod objects;
mod pulse;
