//! What a snapshot says of itself in numbers. Counted here and not by the iceberg crate, whose collector drops entries that it is given and
//! refuses the operation `replace`.

use crate::marker::Properties;
use iceberg::spec::{DataContentType, DataFile, DataFileFormat, Snapshot};
use std::collections::BTreeMap;

/// A total and the two counts that change it. Equality deletes are never ours.
const TOTALS: [(&str, &str, &str); 6] = [
    ("total-data-files", "added-data-files", "deleted-data-files"),
    ("total-delete-files", "added-delete-files", "removed-delete-files"),
    ("total-records", "added-records", "deleted-records"),
    ("total-files-size", "added-files-size", "removed-files-size"),
    ("total-position-deletes", "added-position-deletes", "removed-position-deletes"),
    ("total-equality-deletes", "added-equality-deletes", "removed-equality-deletes"),
];

/// A count that a snapshot says of itself.
pub(crate) fn said(snapshot: &Snapshot, key: &str) -> Option<u64> {
    snapshot.summary().additional_properties.get(key)?.parse().ok()
}

/// Counts of one snapshot.
#[derive(Default)]
pub(crate) struct Tally {
    counts: BTreeMap<&'static str, u64>,
    partitions: Vec<(i32, iceberg::spec::Struct)>,
}

impl Tally {
    /// Counts a file that the snapshot adds (or else removes).
    pub(crate) fn count(&mut self, file: &DataFile, spec_id: i32, added: bool) {
        let partition = (spec_id, file.partition().clone());
        if !self.partitions.contains(&partition) {
            self.partitions.push(partition);
        }
        let mut add =
            |if_added, if_removed, n| *self.counts.entry(if added { if_added } else { if_removed }).or_default() += n;
        // The file of a vector holds others too.
        let vector = file.content_size_in_bytes().filter(|_| file.file_format() == DataFileFormat::Puffin);
        add("added-files-size", "removed-files-size", vector.map_or(file.file_size_in_bytes(), |bytes| bytes as u64));
        match file.content_type() {
            DataContentType::Data => {
                add("added-data-files", "deleted-data-files", 1);
                add("added-records", "deleted-records", file.record_count());
            }
            DataContentType::PositionDeletes => {
                add("added-delete-files", "removed-delete-files", 1);
                let (added, removed) = if vector.is_some() {
                    ("added-dvs", "removed-dvs")
                } else {
                    ("added-position-delete-files", "removed-position-delete-files")
                };
                add(added, removed, 1);
                add("added-position-deletes", "removed-position-deletes", file.record_count());
            }
            DataContentType::EqualityDeletes => {
                add("added-delete-files", "removed-delete-files", 1);
                add("added-equality-delete-files", "removed-equality-delete-files", 1);
                add("added-equality-deletes", "removed-equality-deletes", file.record_count());
            }
        }
    }

    /// The counts and the running totals. Where the parent has no total, or one that is too small to be true, the snapshot has none either:
    /// none is better than a wrong one.
    pub(crate) fn summary(mut self, parent: Option<&Properties>) -> Properties {
        self.counts.insert("changed-partition-count", self.partitions.len() as u64);
        let count = |key| self.counts.get(key).copied().unwrap_or(0);
        let mut summary: Properties = self.counts.iter().map(|(key, n)| ((*key).to_owned(), n.to_string())).collect();
        for (total, added, removed) in TOTALS {
            let before = match parent {
                None => Some(0),
                Some(parent) => parent.get(total).and_then(|n| n.parse::<u64>().ok()),
            };
            let now = before.and_then(|n| n.checked_add(count(added))?.checked_sub(count(removed)));
            if let Some(now) = now {
                summary.insert(total.to_owned(), now.to_string());
            }
        }
        summary
    }
}
