//! How far a start is with what is rebuilt in memory: rows that durable collections have given out again, and rows of views that have come
//! to their tables again. It is over when everything up to the restored epoch has reached the sinks.
//!
//! Totals are what the stores say of themselves. RocksDB estimates its keys, and a collection's store also has positions of deleted keys; so a
//! total is "about" until the collection has been read to its end, and exact from then on. A fresh start has nothing to restore.

use super::lock;
use dataflow_core::Clock;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The target of the log's lines about a restore, which the log shows unless it is told otherwise.
pub const LOG: &str = "dataflow::restore";

/// Written by collections, writers of tables, and the operator behind the sinks.
#[derive(Default)]
pub struct Restore(Mutex<Option<State>>);

struct State {
    clock: Arc<dyn Clock>,
    began: Duration,
    /// When the first row came, from which on there is a rate.
    first: Option<Duration>,
    ended: Option<Duration>,
    /// By collection, over all workers.
    collections: BTreeMap<String, Progress>,
    /// Net: a view may say a row and take it back while it catches up.
    view_rows: i64,
    view_rows_total: u64,
}

/// Rows so far, and about how many there will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Rows so far.
    pub rows: u64,
    /// About how many there will be; never below `rows`.
    pub rows_total: u64,
}

/// A restore at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RestoreMeasure {
    /// The views have caught up with the restored epoch.
    pub is_over: bool,
    /// Rows of durable collections.
    pub collections: Progress,
    /// Rows of views that go to tables.
    pub views: Progress,
    /// Of each collection.
    pub by_collection: BTreeMap<String, Progress>,
    /// Since the process looked for its checkpoint.
    pub seconds: f64,
    /// Rows of both kinds, since the first.
    pub rows_per_second: f64,
    /// At that rate; `None` before it is known, and when it is over.
    pub remaining_seconds: Option<f64>,
}

impl RestoreMeasure {
    /// Rows of both kinds.
    pub fn all(&self) -> Progress {
        let (one, other) = (self.collections, self.views);
        Progress { rows: one.rows + other.rows, rows_total: one.rows_total + other.rows_total }
    }
}

impl Restore {
    /// There is a checkpoint to restore from, which the process has looked for since `began`.
    pub fn begin(&self, clock: &Arc<dyn Clock>, began: Duration) {
        *lock(&self.0) = Some(State {
            clock: clock.clone(),
            began,
            first: None,
            ended: None,
            collections: BTreeMap::new(),
            view_rows: 0,
            view_rows_total: 0,
        });
    }

    /// A worker will give out about so many rows of a collection.
    pub fn expect(&self, collection: &str, about: u64) {
        self.change(|state| state.collection(collection).rows_total += about);
    }

    /// A worker has given out so many more rows of it.
    pub fn given_out(&self, collection: &str, rows: u64) {
        self.change(|state| {
            state.rows_came();
            state.collection(collection).rows += rows;
        });
    }

    /// A worker that expected to give out `about` so many rows has given out all, `rows`.
    pub fn all_given_out(&self, collection: &str, about: u64, rows: u64) {
        self.change(|state| {
            let progress = state.collection(collection);
            progress.rows_total = (progress.rows_total + rows).saturating_sub(about);
        });
    }

    /// The tables that a worker writes have about so many rows of views.
    pub(crate) fn expect_views(&self, about: u64) {
        self.change(|state| state.view_rows_total += about);
    }

    /// So many rows more have come to their tables again.
    pub(crate) fn rebuilt(&self, rows: i64) {
        self.change(|state| {
            state.rows_came();
            state.view_rows += rows;
        });
    }

    /// Everything up to the restored epoch has reached the sinks. Logs it, the first time.
    pub fn end(&self) {
        let is_first = {
            let mut state = lock(&self.0);
            let state = state.as_mut().filter(|state| state.ended.is_none());
            state.map(|state| state.ended = Some(state.clock.monotonic())).is_some()
        };
        let Some(measure) = self.snapshot().filter(|_| is_first) else { return };
        let RestoreMeasure { collections, views, seconds, .. } = measure;
        if collections.rows > 0 {
            tracing::info!(
                target: LOG,
                rows = collections.rows,
                view_rows = views.rows,
                seconds = tenths(seconds),
                rows_per_second = (measure.all().rows as f64 / seconds).round() as u64,
                "the views are rebuilt and have caught up with the restored epoch"
            );
        }
    }

    /// Whether something is being restored.
    pub fn is_under_way(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(|state| state.ended.is_none())
    }

    /// How far it is; `None` of a fresh start.
    pub fn snapshot(&self) -> Option<RestoreMeasure> {
        lock(&self.0).as_ref().map(State::measure)
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        if let Some(state) = lock(&self.0).as_mut().filter(|state| state.ended.is_none()) {
            f(state);
        }
    }
}

/// To a tenth, as a log shows it.
fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

impl State {
    fn collection(&mut self, name: &str) -> &mut Progress {
        self.collections.entry(name.to_owned()).or_default()
    }

    fn rows_came(&mut self) {
        self.first.get_or_insert_with(|| self.clock.monotonic());
    }

    fn measure(&self) -> RestoreMeasure {
        let is_over = self.ended.is_some();
        let now = self.ended.unwrap_or_else(|| self.clock.monotonic());
        // An estimate that was too low is as wrong as one that is no longer needed.
        let known = |Progress { rows, rows_total }| Progress {
            rows,
            rows_total: if is_over { rows } else { rows_total.max(rows) },
        };
        let by_collection: BTreeMap<String, Progress> =
            self.collections.iter().map(|(name, progress)| (name.clone(), known(*progress))).collect();
        let mut collections = Progress::default();
        for progress in by_collection.values() {
            collections.rows += progress.rows;
            collections.rows_total += progress.rows_total;
        }
        let views = known(Progress { rows: self.view_rows.max(0) as u64, rows_total: self.view_rows_total });
        let flowed = self.first.map_or(Duration::ZERO, |first| now.saturating_sub(first)).as_secs_f64();
        let rows = (collections.rows + views.rows) as f64;
        let left = (collections.rows_total + views.rows_total) as f64 - rows;
        let rows_per_second = if flowed > 0.0 { rows / flowed } else { 0.0 };
        RestoreMeasure {
            is_over,
            collections,
            views,
            by_collection,
            seconds: now.saturating_sub(self.began).as_secs_f64(),
            rows_per_second,
            remaining_seconds: (!is_over && rows_per_second > 0.0).then(|| left / rows_per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::Micros;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A clock that is set.
    #[derive(Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn wall(&self) -> Micros {
            Micros(0)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    fn begun() -> (Restore, Arc<Seconds>) {
        let (restore, clock) = (Restore::default(), Arc::new(Seconds::default()));
        restore.begin(&(clock.clone() as Arc<dyn Clock>), Duration::ZERO);
        (restore, clock)
    }

    #[test]
    fn a_fresh_start_has_none() {
        let restore = Restore::default();
        restore.expect("users", 5);
        restore.end();
        assert!(!restore.is_under_way() && restore.snapshot().is_none());
    }

    #[test]
    fn rows_rate_and_what_is_left() {
        let (restore, clock) = begun();
        restore.expect("users", 60);
        restore.expect("users", 40);
        restore.expect_views(100);
        let at = |seconds: u64| clock.0.store(seconds, Ordering::Relaxed);
        assert_eq!(restore.snapshot().unwrap().remaining_seconds, None, "nothing is known of the rate");
        at(10);
        restore.given_out("users", 0);
        at(15);
        restore.given_out("users", 50);
        let measure = restore.snapshot().unwrap();
        assert_eq!((measure.all(), measure.seconds), (Progress { rows: 50, rows_total: 200 }, 15.0));
        assert_eq!((measure.rows_per_second, measure.remaining_seconds), (10.0, Some(15.0)));
        at(30);
        restore.rebuilt(120);
        restore.rebuilt(-20);
        restore.given_out("users", 50);
        assert!(restore.is_under_way(), "only the sinks know when it is over");
        restore.end();
        at(99);
        restore.end();
        restore.rebuilt(7);
        let measure = restore.snapshot().unwrap();
        assert!(measure.is_over && !restore.is_under_way());
        assert_eq!((measure.seconds, measure.rows_per_second, measure.remaining_seconds), (30.0, 10.0, None));
    }

    #[test]
    fn a_total_is_exact_once_all_is_read() {
        let (restore, _) = begun();
        // One worker's store also has keys without a row, the other's is larger than it thinks.
        restore.expect("users", 90);
        restore.expect("users", 5);
        restore.given_out("users", 50);
        restore.all_given_out("users", 90, 50);
        let users = || restore.snapshot().unwrap().by_collection["users"];
        assert_eq!(users(), Progress { rows: 50, rows_total: 55 });
        restore.given_out("users", 8);
        assert_eq!(users(), Progress { rows: 58, rows_total: 58 });
        restore.all_given_out("users", 5, 8);
        assert_eq!(users(), Progress { rows: 58, rows_total: 58 });
    }
}
