//! State that survives: keyed tables on RocksDB or the heap, the binding log, checkpoints.
pub mod backend;
pub mod binding_log;
pub mod checkpoint;
pub mod folder;
pub mod storage;
pub mod table;
