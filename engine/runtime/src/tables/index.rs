//! What a table writer keeps in its state: where each row of its tables is, and which intents are not known to be committed.

use dataflow_core::{Epoch, Micros, Result, RowLocation};
use dataflow_state::table::{StateValue, decode_postcard, encode_postcard};
use serde::{Deserialize, Serialize};

/// Where the rows of a table's key are: one, or as many as a row occurs in a table without a key.
#[derive(Default)]
pub(super) struct IndexEntry(pub(super) Vec<RowLocation>);

/// The key under which the index holds the rows of a key: after the table's name, so that tables may come and go.
pub(super) fn index_key(table: &str, row_key: &dataflow_core::Row) -> Vec<u8> {
    postcard::to_extend(row_key, index_prefix(table)).expect("a row is encodable, and memory grows")
}

/// What all keys of a table begin with.
pub(super) fn index_prefix(table: &str) -> Vec<u8> {
    [table.as_bytes(), &[0]].concat()
}

impl StateValue for IndexEntry {
    const VERSION: u16 = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        encode_postcard(&self.0, out);
    }

    fn decode(bytes: &[u8]) -> Result<IndexEntry> {
        decode_postcard(bytes, "where rows are").map(IndexEntry)
    }

    fn expires(&self) -> Micros {
        Micros(i64::MAX)
    }

    fn weight(&self) -> usize {
        size_of::<IndexEntry>() + self.0.iter().map(|at| size_of::<RowLocation>() + at.file.len()).sum::<usize>()
    }

    fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}

/// Files of one worker that are durable and not known to be visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(super) table: String,
    pub(super) epoch: Epoch,
    /// The epoch's clock.
    pub(super) clock: Micros,
    /// Whether it takes the place of other files, after the rows of the epoch.
    pub(super) is_rewrite: bool,
    pub(super) content: Vec<u8>,
}

/// The intents of an epoch on one worker.
#[derive(Default)]
pub(super) struct Intents(pub(super) Vec<Intent>);

impl StateValue for Intents {
    const VERSION: u16 = 2;

    fn encode(&self, out: &mut Vec<u8>) {
        encode_postcard(&self.0, out);
    }

    fn decode(bytes: &[u8]) -> Result<Intents> {
        decode_postcard(bytes, "intents").map(Intents)
    }

    fn expires(&self) -> Micros {
        Micros(i64::MAX)
    }

    fn weight(&self) -> usize {
        self.0.iter().map(|intent| size_of::<Intent>() + intent.content.len()).sum()
    }

    fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}
