//! The output of a finished job as plain files, in the form of a case's `expected/` folder.
//!
//! A job that writes files writes a [local log](super::local_log): that is what makes it exactly once. When a bounded
//! run has ended, this copies the committed lines of each topic into `<out>/<topic>.ndjson`. The files are an export,
//! not the truth: a repeat writes them again, and a crash in the middle leaves an incomplete one until then.

use super::local_log::committed_lines;
use dataflow_core::{Error, Result, Storage};
use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Writes the committed lines of each topic of the local log `dir` to `<out>/<topic>.ndjson`, in committed order; a topic
/// without rows becomes an empty file. Returns the number of lines by topic.
///
/// # Errors
/// The log is damaged, or `out` cannot be written.
pub fn export_case_files(storage: &Arc<dyn Storage>, dir: &str, topics: &[String], out: &Path) -> Result<Vec<u64>> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Error::outside(format!("write '{path}'")).because(error)
    };
    create_dir_all(out).map_err(failed(out))?;
    let mut counts = Vec::new();
    for topic in topics {
        let path = out.join(format!("{topic}.ndjson"));
        let mut file = BufWriter::new(File::create(&path).map_err(failed(&path))?);
        let mut count = 0;
        for line in committed_lines(storage.clone(), dir, topic, None)? {
            file.write_all(&line?).and_then(|()| file.write_all(b"\n")).map_err(failed(&path))?;
            count += 1;
        }
        file.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all()).map_err(failed(&path))?;
        counts.push(count);
    }
    Ok(counts)
}
