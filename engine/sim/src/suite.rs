//! One seed of a graph, and many on a few threads.

use crate::scheduler::said;
use crate::{Failure, Report, lake, run};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graph {
    /// Detectors of logins, to a Kafka sink or a local log.
    Logins,
    /// Durable collections and views, to a sink of Iceberg tables.
    Lake,
}

impl Graph {
    /// Runs a seed.
    ///
    /// # Errors
    /// What went wrong, with the seed.
    pub fn run(self, seed: u64) -> Result<Report, Failure> {
        let ran = std::panic::catch_unwind(|| match self {
            Graph::Logins => run::run(seed),
            Graph::Lake => lake::run(seed),
        });
        let ran = ran.unwrap_or_else(|payload| Err(format!("panicked: {}", said(&*payload))));
        ran.map_err(|what| Failure { graph: self, seed, what })
    }
}

/// Runs the seeds of a graph on `threads` threads. The sum of what they met, and the failures by seed; with `until_failure` no seed is begun after
/// the first one.
///
/// # Panics
/// When there are no threads to run on.
pub fn run_seeds(graph: Graph, seeds: Range<u64>, threads: usize, until_failure: bool) -> (Report, Vec<Failure>) {
    assert!(threads > 0, "seeds need a thread to run on");
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let results = Mutex::new((Report::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= seeds.end || stop.load(SeqCst) {
                        return;
                    }
                    let ran = graph.run(seed);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    match ran {
                        Ok(report) => results.0.add(&report),
                        Err(failure) => {
                            stop.store(until_failure, SeqCst);
                            results.1.push(failure);
                        }
                    }
                }
            });
        }
    });
    let (report, mut failures) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.seed);
    (report, failures)
}
