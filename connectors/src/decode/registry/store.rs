//! Schema texts, kept by content hash: what a binding names must be there for every replay, whatever a registry says then.

use dataflow_core::{Error, Result, Storage};
use std::sync::Arc;

/// BLAKE3 of a schema's text, cut to 16 bytes.
pub type SchemaHash = [u8; 16];

/// Schema texts of one source in `schemas/<source>/<hash>.avsc`.
#[derive(Clone)]
pub struct SchemaStore {
    storage: Arc<dyn Storage>,
    dir: String,
}

/// The hash under which a text is bound and kept.
pub fn hash_of(text: &str) -> SchemaHash {
    *blake3::hash(text.as_bytes()).as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes")
}

impl SchemaStore {
    /// The store of a source. The source's name is a folder's name.
    pub fn new(storage: Arc<dyn Storage>, source: &str) -> SchemaStore {
        SchemaStore { storage, dir: format!("schemas/{source}") }
    }

    /// Keeps a text. Once this returns it is durable.
    ///
    /// # Errors
    /// When the storage fails; then nothing may be bound to this text.
    pub fn put(&self, text: &str) -> Result<SchemaHash> {
        let hash = hash_of(text);
        self.storage.create_dir(&self.dir)?;
        // Also when it is there: the life that wrote it may have ended before a sync, or in one that failed, after which a second sync
        // of the same pages proves nothing.
        dataflow_core::replace_file(&*self.storage, &self.dir, &name_of(hash), text.as_bytes())?;
        Ok(hash)
    }

    /// The text of a hash.
    ///
    /// # Errors
    /// When it is missing or is not what the hash says.
    pub fn get(&self, hash: SchemaHash) -> Result<String> {
        let path = self.path(hash);
        let hint = "restore the job's data folder from where it was complete";
        if self.storage.length(&path)?.is_none() {
            return Err(Error::doubt(format!("reading the bound schema '{path}': there is no such file")).hint(hint));
        }
        let text = String::from_utf8(self.storage.read(&path)?).ok().filter(|text| hash_of(text) == hash);
        text.ok_or_else(|| {
            Error::doubt(format!("reading the bound schema '{path}': its content differs from its hash")).hint(hint)
        })
    }

    fn path(&self, hash: SchemaHash) -> String {
        format!("{}/{}", self.dir, name_of(hash))
    }
}

fn name_of(hash: SchemaHash) -> String {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.avsc")
}
