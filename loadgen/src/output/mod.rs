//! Where the traffic goes: a folder in the form of a case, a Kafka topic, a database, objects.

pub mod case_folder;
pub mod kafka;
pub mod shop;

use crate::logins::Label;
use dataflow_core::{Error, Result};
use std::fmt::Write;
use std::path::Path;

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Records, by partition.
    pub records: Vec<u64>,
    /// The attacks among them.
    pub labels: Vec<Label>,
}

/// Writes labels as NDJSON.
///
/// # Errors
/// The file cannot be written.
pub fn write_labels(labels: &[Label], path: &Path) -> Result<()> {
    let mut text = String::new();
    for label in labels {
        let json = serde_json::to_string(label).map_err(|e| Error::us("encode a label").because(e))?;
        writeln!(text, "{json}").expect("a string takes text");
    }
    write_file(path, text.as_bytes())
}

/// Writes a whole small file.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|e| Error::outside(format!("write '{}'", path.display())).because(e))
}
