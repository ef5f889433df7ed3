//! What each source partition is at: position, lag, watermark, idleness, and whether it waits for slower ones.

use super::lock;
use dataflow_core::{Micros, Partition};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// One partition, as its reader last said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionMeasure {
    /// The worker that reads it.
    pub worker: usize,
    /// The next offset to read.
    pub next: u64,
    /// Records that are there and not read, where the connector knows.
    pub lag: Option<u64>,
    /// Event time of the newest record.
    pub newest: Option<Micros>,
    /// Records read since the start of the process.
    pub records: u64,
    /// It was read to its end.
    pub is_at_end: bool,
    /// It is not read until the others have come closer (watermark alignment).
    pub is_ahead: bool,
    /// It counts as idle: the watermark does not wait for it.
    pub is_idle: bool,
}

/// Shared by the sources and the binder.
#[derive(Default)]
pub struct Partitions {
    read: Mutex<BTreeMap<Partition, PartitionMeasure>>,
    idle: Mutex<BTreeSet<Partition>>,
}

impl Partitions {
    /// What one worker's share of a source came to in an epoch; `records` are those of the epoch.
    pub(crate) fn read(&self, share: impl Iterator<Item = (Partition, PartitionMeasure)>) {
        let mut read = lock(&self.read);
        for (partition, mut now) in share {
            let known = read.entry(partition).or_default();
            now.records += known.records;
            *known = now;
        }
    }

    /// The idle partitions, as bound.
    pub(crate) fn idle(&self, idle: &BTreeSet<Partition>) {
        let mut known = lock(&self.idle);
        if *known != *idle {
            known.clone_from(idle);
        }
    }

    /// All of them.
    pub fn snapshot(&self) -> BTreeMap<Partition, PartitionMeasure> {
        let mut read = lock(&self.read).clone();
        for partition in lock(&self.idle).iter() {
            if let Some(measure) = read.get_mut(partition) {
                measure.is_idle = true;
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::SourceId;

    #[test]
    fn records_add_up_and_idleness_is_as_bound() {
        let (partitions, one) = (Partitions::default(), Partition { source: SourceId(0), index: 1 });
        let epoch = |next, records| PartitionMeasure { next, records, ..PartitionMeasure::default() };
        partitions.read([(one, epoch(5, 5))].into_iter());
        partitions.read([(one, epoch(7, 2))].into_iter());
        partitions.idle(&BTreeSet::from([one]));
        let now = partitions.snapshot();
        assert_eq!((now[&one].next, now[&one].records, now[&one].is_idle), (7, 7, true));
        partitions.idle(&BTreeSet::new());
        assert!(!partitions.snapshot()[&one].is_idle);
    }
}
