//! The newest committed rows of each topic, for whoever watches; nothing is kept until someone does.
//!
//! They are noted by the committer after the commit, so what is seen here is what a consumer sees. Replayed epochs that a sink's marker
//! covers are not committed again and are not seen again either.

use super::lock;
use dataflow_core::{Epoch, EpochOutput, Micros, TopicId};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows kept of each topic.
const ROWS_MAX: usize = 200;
/// A longer row is left out, with a count: it would be one dead letter of many megabytes.
const ROW_BYTES_MAX: usize = 64 << 10;

/// A committed row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommittedRow {
    /// Its number among all that were noted; rises.
    pub number: u64,
    /// Its epoch.
    pub epoch: Epoch,
    /// When its commit was known, by the machine's clock.
    pub at: Micros,
    /// The value's bytes: one JSON object.
    #[serde(skip)]
    pub value: Vec<u8>,
}

/// Written by the sinks' committers.
#[derive(Default)]
pub struct NewestRows {
    is_watched: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    number: u64,
    /// By sink and topic.
    rows: BTreeMap<(String, TopicId), VecDeque<CommittedRow>>,
}

impl NewestRows {
    /// From now on rows are kept.
    pub fn watch(&self) {
        self.is_watched.store(true, Ordering::Relaxed);
    }

    /// Epochs that sink `sink` has just committed.
    pub(crate) fn committed(&self, sink: &str, epochs: &[EpochOutput], at: Micros) {
        if !self.is_watched.load(Ordering::Relaxed) {
            return;
        }
        let mut kept = lock(&self.kept);
        let Kept { number, rows } = &mut *kept;
        for EpochOutput { epoch, rows: new, .. } in epochs {
            for of_topic in new.chunk_by(|a, b| a.topic == b.topic) {
                let key = (sink.to_owned(), of_topic[0].topic);
                let newest = rows.entry(key).or_default();
                for row in &of_topic[of_topic.len().saturating_sub(ROWS_MAX)..] {
                    *number += 1;
                    if row.value.len() > ROW_BYTES_MAX {
                        continue;
                    }
                    if newest.len() == ROWS_MAX {
                        newest.pop_front();
                    }
                    newest.push_back(CommittedRow { number: *number, epoch: *epoch, at, value: row.value.clone() });
                }
            }
        }
    }

    /// The rows of a topic with a number above `after`, oldest first.
    pub fn after(&self, sink: &str, topic: TopicId, after: u64) -> Vec<CommittedRow> {
        let kept = lock(&self.kept);
        let rows = kept.rows.get(&(sink.to_owned(), topic));
        rows.into_iter().flatten().filter(|row| row.number > after).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::{ChainHash, OutputRow, Partition, Position, RowOrder, SourceId};

    fn row(topic: u16, value: &str) -> OutputRow {
        let position = Position { partition: Partition { source: SourceId(0), index: 0 }, offset: 0 };
        let order = RowOrder { time: Micros(0), position, rank: 0, phase: 1 };
        OutputRow { topic: TopicId(topic), order, route: 0, key: None, value: value.as_bytes().to_vec() }
    }

    #[test]
    fn the_newest_rows_of_each_topic_once_someone_watches() {
        let newest = NewestRows::default();
        let epoch = |epoch, rows| EpochOutput { epoch, chain: ChainHash::default(), rows };
        newest.committed("out", &[epoch(1, vec![row(0, "unseen")])], Micros(1));
        newest.watch();
        let many: Vec<_> = (0..300).map(|n| row(1, &n.to_string())).collect();
        newest.committed(
            "out",
            &[epoch(2, [vec![row(0, "a")], many].concat()), epoch(3, vec![row(0, "b")])],
            Micros(2),
        );
        let texts = |topic, after| -> Vec<String> {
            let rows = newest.after("out", TopicId(topic), after);
            rows.into_iter().map(|row| String::from_utf8(row.value).unwrap()).collect()
        };
        assert_eq!(texts(0, 0), ["a", "b"]);
        assert_eq!((texts(1, 0).len(), texts(1, 0)[0].as_str()), (ROWS_MAX, "100"));
        let first = newest.after("out", TopicId(0), 0)[0].number;
        assert_eq!(texts(0, first), ["b"]);
    }
}
