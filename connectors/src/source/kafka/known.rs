//! Which topic the bound offsets belong to: its id, kept in the data folder.
//!
//! Offsets alone do not tell a topic from one of the same name that was created later and has grown as long (KIP-516).
//! The id is durable before the first record is handed on, so bindings never stand without it.

use dataflow_core::{Error, Result, Storage, replace_file};
use std::sync::Arc;

const FOLDER: &str = "topics";

/// The id of a topic as an earlier life found it.
#[derive(Clone)]
pub(super) struct KnownTopic {
    storage: Arc<dyn Storage>,
    name: String,
}

impl KnownTopic {
    /// That of the topic `topic`; a topic's name is a file's name.
    pub(super) fn new(storage: Arc<dyn Storage>, topic: &str) -> KnownTopic {
        KnownTopic { storage, name: format!("{topic}.id") }
    }

    /// The id; `None` when no life has kept one.
    pub(super) fn id(&self) -> Result<Option<String>> {
        let path = format!("{FOLDER}/{}", self.name);
        if self.storage.length(&path)?.is_none() {
            return Ok(None);
        }
        let bytes = self.storage.read(&path)?;
        String::from_utf8(bytes).map(Some).map_err(|cause| {
            Error::doubt(format!("reading the topic id in '{path}'"))
                .because(cause)
                .hint("restore the job's data folder from where it was complete")
        })
    }

    /// Keeps an id. Once this returns it is durable.
    pub(super) fn keep(&self, id: &str) -> Result<()> {
        self.storage.create_dir(FOLDER)?;
        replace_file(&*self.storage, FOLDER, &self.name, id.as_bytes())
    }
}
