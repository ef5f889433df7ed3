//! The words of the engine, each defined once, and the traits behind which the outside world stands.
//!
//! Data flows through the other crates; this one holds what they all speak of: an [`Epoch`], the
//! [`Binding`] that fixes it, the [`Watermark`](watermark) it carries, the [`Shard`] that owns a key,
//! the [`Marker`] a sink keeps. Time, randomness, spawning and storage come in through [`Environment`]
//! and [`Storage`], so that a whole job runs under a seeded scheduler (`engine/sim`). No I/O lives here.

pub mod actor;
pub mod binding;
pub mod caught;
pub mod change;
pub mod environment;
pub mod error;
pub mod event;
pub mod files;
mod generation;
pub mod mail;
pub mod partition;
pub mod planted;
pub mod row;
pub mod shard;
pub mod sink;
pub mod source;
pub mod storage;
pub mod tables;
pub mod time;
pub mod watermark;

pub use actor::{Mailbox, Spawner, Task, TaskState, Waker};
pub use binding::{Advance, Binding, BindingState, ChainHash, SchemaBinding, TableBinding};
pub use caught::{caught, is_caught};
pub use environment::{Clock, Environment, Random};
pub use error::{Error, Fault, Result};
pub use event::{DeadLetter, EventTime, Position, RawRecord, Stamped};
pub use files::{FileSink, OutputFile};
pub use generation::{Generation, Lineage, Marker};
pub use mail::{Letter, Mailer};
pub use partition::{Partition, SourceId};
pub use row::{Column, ColumnType, Datum, Row, TableSchema, TotalF64};
pub use shard::{SHARDS, Shard, stable_hash};
pub use sink::{EpochOutput, OutputRow, RowOrder, Sink, SinkIdentity, TopicId};
pub use source::{Decode, Decoded, Discovered, Poll, Record, Source, SourceReader};
pub use storage::{AppendFile, Storage, replace_file};
pub use tables::{
    FoundTable, MovedRows, OnForeignCommit, Restorable, RowLocation, ScanColumns, TableChanges, TableCommit,
    TableCommitter, TableCompactor, TableFiles, TableRewrite, TableSink, TableState, TableWriter,
};
pub use time::Micros;

/// The version number that every output agrees on: the timely timestamp, one tick of the job's clock.
///
/// A plain `u64` and no newtype: timely's `Timestamp`, `PathSummary` and exchange are implemented for it,
/// and it is the only `u64` that ever stamps a stream.
pub type Epoch = u64;
