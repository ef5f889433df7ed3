//! Data files of which no row is left. In a small table they go with the commit that takes their last row; in a large one, where each commit would
//! have to look at all of its files, with the next rewrite ([`crate::compaction`]).
//!
//! A row that is kept by key dies when it changes. So a table of few rows that change often is soon made of dead files, which readers open for
//! nothing.

use crate::deletion_vector::DeletionVector;
use crate::scan::{LiveFile, deletes_by_data_file};
use crate::session::Session;
use crate::tally;
use crate::vectors::Vectors;
use dataflow_core::Result;
use iceberg::spec::TableMetadata;
use std::collections::{BTreeMap, BTreeSet};

/// Data files of a small table.
const FILES_MAX: u64 = 100;

/// Whether the current snapshot says that the table is small.
pub(crate) fn is_small(table: &TableMetadata) -> bool {
    let files = table.current_snapshot().and_then(|snapshot| tally::said(snapshot, "total-data-files"));
    files.is_some_and(|files| files <= FILES_MAX)
}

/// Moves from `dead`, what dies now, to `removed` the data files among the live files of a table of which no row is left then; and those
/// of which none was left before.
///
/// # Errors
/// When a delete file cannot be read.
pub(crate) fn take_away(
    session: &Session,
    vectors: &Vectors,
    live: &[LiveFile],
    dead: &mut BTreeMap<String, DeletionVector>,
    removed: &mut BTreeSet<String>,
) -> Result<()> {
    // One that speaks of several data files has to be read to tell, and is of others.
    let deletes = deletes_by_data_file(live);
    for data in live.iter().filter(|live| live.is_data()).map(LiveFile::file) {
        let (path, rows) = (data.file_path(), data.record_count());
        let (dies, died) = (dead.get(path), deletes.get(path).map_or(&[][..], Vec::as_slice));
        let at_most = dies.map_or(0, DeletionVector::len) + died.iter().map(|file| file.record_count()).sum::<u64>();
        if at_most < rows {
            continue;
        }
        // Two delete files may name one row.
        let mut all = dies.cloned().unwrap_or_default();
        for file in died {
            all.union(&vectors.of(session, path, file)?);
        }
        if (0..rows).all(|position| all.contains(position)) {
            dead.remove(path);
            removed.insert(path.to_owned());
        }
    }
    Ok(())
}
