//! What the workers of one process share beside the dataflow: the wish to stop, the first failure, wake-ups, and the counters
//! that status, tests and the terminal line read.
//!
//! Nothing here may influence what an epoch computes (invariant 1): it decides only when epochs are opened and read.

use crate::checkpoint_writer::PartCut;
use crate::facts::EpochFacts;
use crate::measures::Measures;
use dataflow_core::{BindingState, ChainHash, Epoch, Error, Micros, Waker};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// Shared by all workers of a process.
#[derive(Default)]
pub struct Control {
    stop: AtomicBool,
    finished: AtomicBool,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
    input: AtomicBool,
    epoch_full: AtomicBool,
    watermark: AtomicI64,
    ticker: OnceLock<Waker>,
    /// Counters and gauges.
    pub status: Status,
    /// What is measured beside them.
    pub measures: Measures,
    /// What checkpoints gather, by epoch.
    pub(crate) cuts: Mutex<BTreeMap<Epoch, CutFacts>>,
}

/// What is known of a checkpoint epoch before its manifest is written.
#[derive(Default)]
pub(crate) struct CutFacts {
    pub(crate) state: Option<BindingState>,
    pub(crate) chain: Option<ChainHash>,
    pub(crate) parts: Vec<PartCut>,
    pub(crate) clean: bool,
    /// Monotonic time when the epoch was opened.
    pub(crate) opened: Duration,
}

impl Control {
    /// A fresh one, nothing asked and nothing failed.
    pub fn new() -> Arc<Control> {
        let control = Control::default();
        control.watermark.store(i64::MIN, Ordering::Relaxed);
        Arc::new(control)
    }

    /// Asks for a clean stop: the open epoch becomes the last, with a checkpoint.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake_ticker();
    }

    /// Whether a clean stop was asked for.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Ends the generation with `error`. The first one is kept.
    pub fn fail(&self, error: Error) {
        let mut failure = self.failure.lock().expect("no holder of this lock can panic");
        if failure.is_none() {
            tracing::error!(fault = ?error.fault, "{error}");
            *failure = Some(error);
        }
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Whether the generation has failed: workers drop their dataflows and return.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// What `say` makes of the first failure, until it is taken.
    pub fn failure<T>(&self, say: impl FnOnce(&Error) -> T) -> Option<T> {
        self.failure.lock().expect("no holder of this lock can panic").as_ref().map(say)
    }

    /// Takes the first failure.
    pub fn take_failure(&self) -> Option<Error> {
        self.failure.lock().expect("no holder of this lock can panic").take()
    }

    pub(crate) fn attach_ticker(&self, waker: Waker) {
        let _ = self.ticker.set(waker);
    }

    /// Wakes the ticker: something it waits for may have come.
    pub(crate) fn wake_ticker(&self) {
        if let Some(ticker) = self.ticker.get() {
            ticker.wake();
        }
    }

    /// A source put a record into the open epoch.
    pub(crate) fn input_came(&self) {
        if !self.input.swap(true, Ordering::SeqCst) {
            self.wake_ticker();
        }
    }

    /// A source stopped reading because the open epoch is full.
    pub(crate) fn epoch_is_full(&self) {
        if !self.epoch_full.swap(true, Ordering::SeqCst) {
            self.status.full_epochs.add(1);
            self.wake_ticker();
        }
    }

    pub(crate) fn has_input(&self) -> bool {
        self.input.load(Ordering::SeqCst)
    }

    pub(crate) fn is_epoch_full(&self) -> bool {
        self.epoch_full.load(Ordering::SeqCst)
    }

    pub(crate) fn epoch_opened(&self) {
        self.input.store(false, Ordering::SeqCst);
        self.epoch_full.store(false, Ordering::SeqCst);
    }

    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::SeqCst);
        self.wake_ticker();
    }

    /// Whether the bounded input has ended and an epoch bound that.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst)
    }

    pub(crate) fn publish(&self, facts: &EpochFacts) {
        if let Some(watermark) = facts.watermark {
            self.watermark.store(watermark.0, Ordering::Relaxed);
        }
    }

    /// The newest watermark, for the alignment of partitions and for people only.
    pub fn watermark(&self) -> Option<Micros> {
        Some(self.watermark.load(Ordering::Relaxed)).filter(|w| *w != i64::MIN).map(Micros)
    }

    pub(crate) fn cuts(&self) -> MutexGuard<'_, BTreeMap<Epoch, CutFacts>> {
        self.cuts.lock().expect("no holder of this lock can panic")
    }
}

macro_rules! status {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters (they only rise) and gauges of this process, since its start.
        #[derive(Default)]
        pub struct Status {
            $($(#[doc = $doc])+ pub $name: Counter,)+
            /// Records read, by worker.
            pub records_by_worker: Mutex<BTreeMap<usize, u64>>,
            /// Free counters of operators, such as findings by detector.
            pub labelled: Mutex<BTreeMap<String, u64>>,
            /// Rows of durable collections, and of views that are counted, by name.
            pub rows: Mutex<BTreeMap<String, i64>>,
        }

        impl Status {
            /// A serialisable copy.
            pub fn snapshot(&self) -> StatusSnapshot {
                StatusSnapshot {
                    $($name: self.$name.get(),)+
                    records_by_worker: self.records_by_worker.lock().expect("no holder panics").clone(),
                    labelled: self.labelled.lock().expect("no holder panics").clone(),
                    rows: self.rows.lock().expect("no holder panics").clone(),
                }
            }
        }

        /// [`Status`] at one moment; the content of `status.json`.
        #[derive(Clone, Debug, Serialize)]
        pub struct StatusSnapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Records read, by worker.
            pub records_by_worker: BTreeMap<usize, u64>,
            /// Free counters of operators.
            pub labelled: BTreeMap<String, u64>,
            /// Rows of durable collections, and of views that are counted, by name.
            pub rows: BTreeMap<String, i64>,
        }
    };
}

status! {
    /// The epoch the state was restored from; 0 for a fresh start.
    restored_epoch,
    /// Epochs replayed from their bindings.
    replayed_epochs,
    /// Epochs whose output a sink dropped because its marker covers them.
    epochs_dropped_by_marker,
    /// The newest epoch that was opened.
    epoch_opened,
    /// The newest epoch whose binding is durable.
    epoch_durable,
    /// The newest epoch with output that every sink has committed.
    epoch_committed,
    /// The newest complete checkpoint.
    epoch_checkpointed,
    /// Records read.
    records,
    /// Records accepted.
    accepted,
    /// Late records.
    late,
    /// Dead letters.
    dead_letters,
    /// Duplicates dropped.
    duplicates,
    /// Findings raised.
    raised,
    /// Findings withdrawn.
    withdrawn,
    /// Times the ticker held an epoch back because too many were not staged.
    backpressure,
    /// Microseconds in which it held one back.
    backpressure_us,
    /// Epochs closed early because they were full.
    full_epochs,
    /// Transactions a sink committed.
    transactions,
    /// Checkpoints completed.
    checkpoints,
    /// Bytes the last checkpoint added to the store.
    checkpoint_bytes,
    /// Microseconds the last checkpoint's cut took on the slowest worker.
    checkpoint_cut_us,
    /// Damaged checkpoints that were passed over on start.
    damaged_checkpoints,
    /// Transactions aborted or of unknown outcome and resolved.
    aborted_transactions,
    /// Records of sources, by their offsets, that retention removed before they were read and that were passed over as the settings say.
    lost_records,
    /// Records, by their offsets, of source topics created anew that stood below the bound offsets and were passed over as the settings say.
    skipped_records,
    /// Times that a source topic was found gone or created anew.
    recreated_topics,
    /// Objects that were read to their end.
    objects_read,
    /// Versions of source objects that were refused, because the object was read in another one.
    objects_changed,
    /// Source objects that were gone before they were read.
    objects_gone,
    /// Source objects that could not be unpacked to their end.
    objects_damaged,
}

/// A number that many threads may change.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Raises it to `n` if it is lower.
    pub fn raise(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Status {
    /// Adds to a labelled counter.
    pub fn count(&self, label: &str, n: u64) {
        let mut labelled = self.labelled.lock().expect("no holder panics");
        match labelled.get_mut(label) {
            Some(count) => *count += n,
            None => {
                labelled.insert(label.to_owned(), n);
            }
        }
    }

    /// A durable collection, or a counted view, has so many rows more, or fewer.
    pub fn count_rows(&self, view: &str, more: i64) {
        *self.rows.lock().expect("no holder panics").entry(view.to_owned()).or_default() += more;
    }

    pub(crate) fn read(&self, worker: usize, n: u64) {
        self.records.add(n);
        *self.records_by_worker.lock().expect("no holder panics").entry(worker).or_default() += n;
    }
}
