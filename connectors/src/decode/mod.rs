//! From a record's bytes to what it says: each decoder implements [`dataflow_core::Decode`].

pub mod avro;
pub mod framing;
pub mod json;
pub mod registry;
