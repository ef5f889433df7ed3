//! Iceberg tables for a sink: catalogs, files, snapshots, and the marker of whose output a table has.
//!
//! ```text
//!  rows ──► DataWriter ──► NewFile ──┐                      ┌─► Outcome::Committed: in the table, once
//!  dead positions ──► delete_rows ───┴─► Intent ──► commit ─┤
//!                                       (in a checkpoint)   └─► Outcome::Foreign: bring the index up to date, plan anew
//! ```
//! It knows nothing of dataflows. All calls block, on an async runtime of its own: they are for threads that may. Time and random numbers
//! come in through [`dataflow_core::Environment`]; the iceberg crate takes some of its own (the names of metadata files, the uuid of a new
//! table), which nothing computes with.
//!
//! It stands on the types and the manifest, metadata and Parquet writers of Apache's `iceberg` crate. Catalogs, snapshots and storage are
//! ours: its transactions hold no deletes, its SQLite catalog loses commits, its local files are not synced.

mod catalog;
mod columns;
mod commit;
mod compaction;
mod dead_files;
mod deletes;
mod deletion_vector;
mod epochs;
mod expiry;
mod fence;
mod file;
mod file_format;
mod history;
mod intent;
mod layout;
mod marker;
mod names;
mod orphans;
mod parquet_file;
mod puffin;
mod reach;
mod scan;
mod schema;
mod session;
mod settings;
mod sink;
mod snapshot;
mod storage;
mod table;
mod tags;
mod tally;
#[cfg(test)]
mod tests;
mod vectors;
mod warehouse;
mod writer;

pub use catalog::{Catalog, CommitError, Loaded, TableName};
pub use commit::ATTEMPTS_MAX;
pub use compaction::CompactionSettings;
pub use deletes::Deletes;
pub use deletion_vector::DeletionVector;
pub use expiry::Keep;
pub use file::NewFile;
pub use file_format::{Codec, FileSettings, TARGET_FILE_BYTES, TableFormat};
pub use intent::{Committed, Foreign, Intent, Outcome, Purpose};
pub use layout::TableLayout;
pub use scan::{Changes, FileChanges};
pub use schema::{PartitionBy, SortBy, TableSpec, Transform};
pub use session::Sleep;
pub use settings::{CatalogSettings, S3Keys, S3Settings, Secret, StorageSettings, WarehouseSettings};
pub use sink::{IcebergSink, MaintenanceSettings, SinkSettings};
pub use storage::{Disk, DiskFile};
pub use table::Table;
pub use warehouse::{Ground, Warehouse};
pub use writer::{DataWriter, Place};
