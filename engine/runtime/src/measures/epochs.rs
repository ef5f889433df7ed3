//! How long an epoch takes: from its first record to bound, durable, and staged and committed in each sink.
//!
//! Only epochs with records count: a heartbeat has nothing that anyone waits for. A record counts from the moment at which the source took
//! it, so what it waited in a broker is not in here; the lag of the partition says that.

use super::histogram::{Histogram, HistogramSnapshot};
use super::lock;
use dataflow_core::Epoch;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// The histogram of epoch latencies, with the label `stage` (and `sink`).
pub const EPOCH_SECONDS: &str = "dataflow_epoch_latency_seconds";
/// The histogram of commit durations, with the label `sink`.
pub const COMMIT_SECONDS: &str = "dataflow_sink_commit_seconds";

/// Epochs whose beginning is remembered. Far more than may be open: what has left a sink's view without rows is never asked for again.
const BEGUN_MAX: usize = 4_096;

/// Shared by source, binder and sinks.
#[derive(Default)]
pub struct Epochs {
    begun: Mutex<BTreeMap<Epoch, Duration>>,
    stages: Mutex<Option<Stages>>,
    sinks: Mutex<BTreeMap<String, SinkMeasure>>,
}

struct Stages {
    bound: Histogram,
    durable: Histogram,
}

/// One sink.
struct SinkMeasure {
    staged: Histogram,
    committed: Histogram,
    commit: Histogram,
    /// Staged and not committed: when their first record was read.
    waiting: BTreeMap<Epoch, Duration>,
    said: SinkProgress,
}

/// How far a sink is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SinkProgress {
    /// The newest epoch with output that it has staged.
    pub epoch_staged: Epoch,
    /// The newest epoch with output that it has committed.
    pub epoch_committed: Epoch,
    /// Epochs staged and not committed.
    pub epochs_waiting: usize,
    /// Bytes staged and not committed.
    pub staged_bytes: u64,
    /// The bound of these bytes.
    pub staged_bytes_max: u64,
    /// Rows committed.
    pub rows: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Transactions committed.
    pub transactions: u64,
}

/// A sink at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct SinkSnapshot {
    /// How far it is.
    #[serde(flatten)]
    pub progress: SinkProgress,
    /// First record to staged.
    pub staged: HistogramSnapshot,
    /// First record to committed.
    pub committed: HistogramSnapshot,
    /// Duration of a commit.
    pub commit: HistogramSnapshot,
}

/// All stages at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct EpochsSnapshot {
    /// First record to bound.
    pub bound: Option<HistogramSnapshot>,
    /// First record to durable.
    pub durable: Option<HistogramSnapshot>,
    /// Each sink.
    pub sinks: BTreeMap<String, SinkSnapshot>,
}

impl Epochs {
    /// An epoch has its first record on some worker. The earliest counts.
    pub(crate) fn begun(&self, epoch: Epoch, now: Duration) {
        let mut begun = lock(&self.begun);
        begun.entry(epoch).or_insert(now);
        if begun.len() > BEGUN_MAX {
            begun.pop_first();
        }
    }

    /// Its facts are gathered.
    pub(crate) fn bound(&self, epoch: Epoch, now: Duration) {
        self.passed(epoch, now, |stages| &stages.bound);
    }

    /// Its row is on stable storage.
    pub(crate) fn durable(&self, epoch: Epoch, now: Duration) {
        self.passed(epoch, now, |stages| &stages.durable);
    }

    fn passed(&self, epoch: Epoch, now: Duration, stage: impl Fn(&Stages) -> &Histogram) {
        let Some(began) = lock(&self.begun).get(&epoch).copied() else { return };
        let mut stages = lock(&self.stages);
        let of = |stage: &'static str| Histogram::new(metrics::histogram!(EPOCH_SECONDS, "stage" => stage));
        let stages = stages.get_or_insert_with(|| Stages { bound: of("bound"), durable: of("durable") });
        stage(stages).record(now.saturating_sub(began));
    }

    /// A sink has the epoch's rows in its buffer; one of tables says so on each worker that has some.
    pub(crate) fn staged(&self, sink: &str, epoch: Epoch, now: Duration) {
        let began = lock(&self.begun).get(&epoch).copied();
        self.with_sink(sink, |sink| {
            sink.said.epoch_staged = sink.said.epoch_staged.max(epoch);
            if let Some(began) = began {
                sink.staged.record(now.saturating_sub(began));
                sink.waiting.insert(epoch, began);
                // What nets to nothing is never committed.
                if sink.waiting.len() > BEGUN_MAX {
                    sink.waiting.pop_first();
                }
            }
        });
    }

    /// A sink has committed all epochs with output up to `last`.
    pub(crate) fn committed(&self, sink: &str, last: Epoch, now: Duration) {
        self.with_sink(sink, |sink| {
            let rest = sink.waiting.split_off(&(last + 1));
            for began in std::mem::replace(&mut sink.waiting, rest).into_values() {
                sink.committed.record(now.saturating_sub(began));
            }
            sink.said.epoch_committed = sink.said.epoch_committed.max(last);
            sink.said.transactions += 1;
        });
    }

    /// What a sink's buffer holds.
    pub(crate) fn buffered(&self, sink: &str, epochs: usize, bytes: usize, most: usize) {
        self.with_sink(sink, |sink| {
            (sink.said.epochs_waiting, sink.said.staged_bytes) = (epochs, bytes as u64);
            sink.said.staged_bytes_max = most as u64;
        });
    }

    /// A commit took so long and delivered this.
    pub(crate) fn delivered(&self, sink: &str, took: Duration, rows: usize, bytes: usize) {
        self.with_sink(sink, |sink| {
            sink.commit.record(took);
            sink.said.rows += rows as u64;
            sink.said.bytes += bytes as u64;
        });
    }

    fn with_sink(&self, name: &str, f: impl FnOnce(&mut SinkMeasure)) {
        let mut sinks = lock(&self.sinks);
        if !sinks.contains_key(name) {
            let of = |stage: &'static str| {
                Histogram::new(metrics::histogram!(EPOCH_SECONDS, "stage" => stage, "sink" => name.to_owned()))
            };
            let measure = SinkMeasure {
                staged: of("staged"),
                committed: of("committed"),
                commit: Histogram::new(metrics::histogram!(COMMIT_SECONDS, "sink" => name.to_owned())),
                waiting: BTreeMap::new(),
                said: SinkProgress::default(),
            };
            sinks.insert(name.to_owned(), measure);
        }
        f(sinks.get_mut(name).expect("inserted above"));
    }

    /// All of it.
    pub fn snapshot(&self) -> EpochsSnapshot {
        let stages = lock(&self.stages);
        let of_sink = |sink: &SinkMeasure| SinkSnapshot {
            progress: sink.said.clone(),
            staged: sink.staged.snapshot(),
            committed: sink.committed.snapshot(),
            commit: sink.commit.snapshot(),
        };
        EpochsSnapshot {
            bound: stages.as_ref().map(|s| s.bound.snapshot()),
            durable: stages.as_ref().map(|s| s.durable.snapshot()),
            sinks: lock(&self.sinks).iter().map(|(name, sink)| (name.clone(), of_sink(sink))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_timed_from_its_first_record_to_each_stage() {
        let (epochs, ms) = (Epochs::default(), Duration::from_millis);
        epochs.begun(7, ms(100));
        epochs.begun(7, ms(103)); // another worker, later
        epochs.bound(7, ms(104));
        epochs.bound(8, ms(104)); // a heartbeat: nothing was read
        epochs.durable(7, ms(106));
        epochs.staged("out", 7, ms(105));
        epochs.begun(9, ms(110));
        epochs.staged("out", 9, ms(111));
        epochs.committed("out", 8, ms(112));
        let EpochsSnapshot { bound, durable, sinks } = epochs.snapshot();
        assert_eq!(bound.map(|b| b.sum_us), Some(4_000));
        assert_eq!(durable.map(|b| b.sum_us), Some(6_000));
        let sink = &sinks["out"];
        assert_eq!((sink.staged.sum_us, sink.committed.sum_us), (6_000, 12_000));
        assert_eq!((sink.progress.epoch_staged, sink.progress.epoch_committed, sink.progress.transactions), (9, 8, 1));
        epochs.committed("out", 9, ms(120));
        assert_eq!(epochs.snapshot().sinks["out"].committed.sum_us, 22_000);
    }
}
