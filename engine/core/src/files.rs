//! The trait of a place for files that are written whole.

use crate::{Letter, Result};

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Its name, without folders.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// What a mail says of it, where mails are sent.
    pub letter: Letter,
}

/// A place for files. Called from a task of its own and may block.
pub trait FileSink: Send + Sync {
    /// The sink's name in messages.
    fn name(&self) -> &str;

    /// Where a file of that name is, as a reader finds it.
    fn location(&self, file: &str) -> String;

    /// Writes a file, over one of that name: afterwards the old or the new one is there, whole, and after success durable.
    ///
    /// # Errors
    /// When the place can not be written; transient when a later attempt may succeed.
    fn put(&self, file: &str, bytes: &[u8]) -> Result<()>;
}
