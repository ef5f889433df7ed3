//! Where output goes: each connector implements [`dataflow_core::Sink`] and keeps its marker with the data.

pub mod case_files;
pub mod csv;
pub mod files;
pub mod kafka;
pub mod local_log;
pub mod smtp;
