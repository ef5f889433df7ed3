//! A histogram of durations with fixed bounds, which many threads may add to.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: about five to a decade where latencies of ticks lie, then up to a stuck job's.
pub const BOUNDS_US: [u64; 22] = [
    500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 50_000, 75_000, 100_000, 150_000, 200_000,
    300_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Durations, counted by bucket; also recorded under a metric of its own, if one is given.
pub struct Histogram {
    /// One more than the bounds: what is above them all.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
    metric: metrics::Histogram,
}

/// A histogram at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct HistogramSnapshot {
    /// Observations by bucket of [`BOUNDS_US`], the last one above them all.
    pub counts: Vec<u64>,
    /// Their sum in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// An empty one that also records in seconds under `metric`.
    pub(crate) fn new(metric: metrics::Histogram) -> Histogram {
        Histogram { counts: Default::default(), sum_us: AtomicU64::new(0), metric }
    }

    pub(crate) fn record(&self, took: Duration) {
        let us = took.as_micros() as u64;
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        self.metric.record(took.as_secs_f64());
    }

    /// What it holds now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(metrics::Histogram::noop());
        for us in [0, 500, 501, 30_000_000, 30_000_001] {
            histogram.record(Duration::from_micros(us));
        }
        let HistogramSnapshot { counts, sum_us } = histogram.snapshot();
        assert_eq!((counts[0], counts[1], counts[21], counts[22]), (2, 1, 1, 1));
        assert_eq!((counts.iter().sum::<u64>(), sum_us), (5, 60_001_002));
    }
}
