//! Who knows which metadata file is a table's newest. Two clients of one compare-and-swap: an SQLite file and a REST server.
//!
//! They own how the outcome of a commit is told apart; they never repeat one.

mod rest;
mod sqlite;

pub(crate) use rest::RestCatalog;
pub(crate) use sqlite::SqliteCatalog;

use dataflow_core::{Error, Result};
use iceberg::spec::TableMetadataRef;
use iceberg::{TableCreation, TableRequirement, TableUpdate};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A table's name: its namespace, outermost first, and its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    /// The levels of the namespace; at least one.
    pub namespace: Vec<String>,
    /// The table's own name.
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace.join("."), self.name)
    }
}

/// A table as its catalog has it now.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Where its metadata was read from: what a reader without the catalog is given.
    pub location: String,
    /// The metadata itself.
    pub metadata: TableMetadataRef,
}

/// What a commit that is not known to be in the table came to.
#[derive(Debug)]
pub enum CommitError {
    /// Not in the table: a requirement did not hold, or another commit came first. Load, search for the marker, prepare anew.
    Conflict(String),
    /// In the table or not. Load and search for the marker before anything else; clean nothing up.
    Unknown(String),
    /// Not in the table, and no repetition will bring it there.
    Refused(Error),
}

/// The property that says whether metadata files go that the table's log no longer names.
pub(crate) const DELETE_OLD_METADATA: &str = "write.metadata.delete-after-commit.enabled";

/// A catalog. Calls block.
pub trait Catalog: Send + Sync {
    /// Makes the namespace if it is not there.
    fn create_namespace(&self, namespace: &[String]) -> Result<()>;

    /// Makes a table; `None` when another process has made it meanwhile.
    fn create_table(&self, table: &TableName, creation: TableCreation) -> Result<Option<Loaded>>;

    /// Reads a table; `None` when there is none.
    fn load(&self, table: &TableName) -> Result<Option<Loaded>>;

    /// One attempt. `Ok` only when the commit is in the table.
    fn commit(
        &self,
        table: &TableName,
        requirements: &[TableRequirement],
        updates: Vec<TableUpdate>,
    ) -> Result<Loaded, CommitError>;

    /// Whether nothing refers to the metadata file at `path`, and nothing ever will. A catalog that puts them in place itself looks after
    /// them itself.
    fn is_left_over(&self, _now: &Loaded, _path: &str) -> bool {
        false
    }
}
