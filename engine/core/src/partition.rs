//! Names of the pieces that a source is read in.

use serde::{Deserialize, Serialize};

/// The rank of a source among the job's sources, in the order of their names in the binding log's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceId(pub u16);

/// One partition of one source. Partition `p` is read by worker `p.index % peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The source.
    pub source: SourceId,
    /// The partition's number within the source, from 0.
    pub index: u32,
}
