//! What a sink wants a table to be told, as it lies in a checkpoint before the first attempt, and what becomes of it.

use crate::deletes::Deletes;
use crate::file::NewFile;
use dataflow_core::{Epoch, Marker};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The entry of a snapshot's summary that says which compaction made it.
pub(crate) const COMPACTION: &str = "dataflow.compaction";
/// The entry that says with which epoch the commit's range began.
pub(crate) const FIRST_EPOCH: &str = "dataflow.first-epoch";

/// One commit to one table. All its files are durable; it names all that a process needs to bring it in, or to find that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The table that the files were written for.
    pub table: Uuid,
    /// What the table will have: our lineage, the last epoch of the range and its chain hash. The generation is that of whoever commits:
    /// a restored intent gets the new one before it is committed.
    pub marker: Marker,
    /// The first epoch of the range.
    pub first_epoch: Epoch,
    /// The snapshot that the positions of deletes speak of: what the sink's index described, before intents of ours that wait. `None`: the
    /// table had none.
    pub parent: Option<i64>,
    /// Whether nothing of others may have come since, not even rows.
    pub is_alone: bool,
    /// What it is for.
    pub purpose: Purpose,
    /// New data files.
    pub data: Vec<NewFile>,
    /// Which rows die.
    #[serde(flatten)]
    pub deletes: Deletes,
    /// Paths of data files that go; `deletes` says which delete files do.
    pub removed: Vec<String>,
}

/// What a commit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The output of its epochs. It is found again by lineage and epoch.
    Rows,
    /// The same rows in other files; its marker is the one that the table has. It commits only on its very parent.
    Compaction {
        /// Random: by this it is found again.
        id: u64,
    },
}

/// What became of an intent that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the table, once.
    Committed(Committed),
    /// It is not, and this intent will never be: the sink brings its index up to date ([`crate::Table::changes_since`], or a scan of keys),
    /// and makes a new intent.
    Foreign(Foreign),
}

/// An intent that is in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The snapshot that brought it; `None` when that has expired, and the table's properties alone say that it was there.
    pub snapshot: Option<i64>,
    /// The last epoch of that snapshot; beyond the intent's own when another division of the epochs brought it in.
    pub epoch: Epoch,
    /// Whether this call brought it in, as far as can be told: it also says so where an attempt of its own had no known outcome and the
    /// table then held the intent. Else it was there before, or another process was first.
    pub is_new: bool,
    /// Attempts that were made, this one included; 0 when it was there.
    pub attempts: u32,
}

/// Snapshots of others lie on top of the one that the intent's positions speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The snapshot that the intent speaks of.
    pub parent: Option<i64>,
    /// The table's current one.
    pub current: Option<i64>,
}
