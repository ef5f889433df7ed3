//! What every part of an open warehouse needs: its files, an async runtime to wait on, the clock and random numbers it was given.

use crate::storage::ListFiles;
use dataflow_core::{Environment, Error, Result, SinkIdentity};
use iceberg::io::FileIO;
use std::future::Future;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use uuid::Uuid;

/// The shared part of an open warehouse.
pub(crate) struct Session {
    pub(crate) io: FileIO,
    pub(crate) folders: Arc<dyn ListFiles>,
    runtime: tokio::runtime::Runtime,
    environment: Environment,
    owner: OnceLock<SinkIdentity>,
    sleep: Option<Sleep>,
}

/// So many tables are worked on at once: what takes long is waiting, for a bucket and a catalog.
const AT_ONCE: usize = 8;
/// So many files of one table are written or removed at once.
pub(crate) const REQUESTS_AT_ONCE: usize = 8;

/// How a call waits before another attempt, where that is not by sleeping.
pub type Sleep = Box<dyn Fn(Duration) + Send + Sync>;

impl Session {
    pub(crate) fn new(
        (io, folders): (FileIO, Arc<dyn ListFiles>),
        environment: Environment,
        sleep: Option<Sleep>,
    ) -> Result<Session> {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = built.map_err(|e| Error::outside("start the runtime of a warehouse").because(e))?;
        Ok(Session { io, folders, runtime, environment, owner: OnceLock::new(), sleep })
    }

    /// Says in whose name files are written from now on. The first call counts.
    pub(crate) fn own(&self, owner: SinkIdentity) {
        let _ = self.owner.set(owner);
    }

    /// In whose name files are written.
    pub(crate) fn owner(&self) -> Option<&SinkIdentity> {
        self.owner.get()
    }

    /// Time since the process began, for what is done now and then.
    pub(crate) fn monotonic(&self) -> Duration {
        self.environment.clock.monotonic()
    }

    /// Waits for `work` on this thread.
    pub(crate) fn wait<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    /// Waits for a while: up to `most`, at random, so that two that met once do not meet again.
    pub(crate) fn pause(&self, most: Duration) {
        let micros = self.environment.random.next_u64() % (most.as_micros() as u64).max(1);
        let pause = Duration::from_micros(micros);
        match &self.sleep {
            Some(sleep) => sleep(pause),
            None => self.wait(async { tokio::time::sleep(pause).await }),
        }
    }

    /// What `work` gives of each of `items`, in their order. Several at once on threads of their own; one after the other on a ground whose
    /// time is not this machine's, as nothing there may come down to which thread is first.
    pub(crate) fn each<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let threads = if self.sleep.is_some() { 1 } else { AT_ONCE.min(items.len()) };
        if threads < 2 {
            return items.iter().map(work).collect();
        }
        let next = AtomicUsize::new(0);
        let take = || {
            let turn = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < items.len()));
            turn.map(|at| (at, work(&items[at]))).collect::<Vec<_>>()
        };
        let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
            let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            ended.flatten().collect()
        });
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, given)| given).collect()
    }

    /// A name that no other file has.
    pub(crate) fn uuid(&self) -> Uuid {
        let random = &self.environment.random;
        let bits = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }

    /// A random number.
    pub(crate) fn number(&self) -> u64 {
        self.environment.random.next_u64()
    }

    /// A positive random number, as snapshots are called.
    pub(crate) fn snapshot_id(&self) -> i64 {
        ((self.environment.random.next_u64() >> 1) as i64).max(1)
    }

    /// Milliseconds since 1970, as the wall clock has it.
    pub(crate) fn now_ms(&self) -> i64 {
        self.environment.clock.wall().0.div_euclid(1_000)
    }
}

/// An error of the iceberg crate, told by what was attempted. Which of them a repetition may help is not told apart by the crate; those of
/// its own reading (`DataInvalid`, `FeatureUnsupported`) are not, all others come from files and services.
pub(crate) fn outside(what: impl Into<String>) -> impl FnOnce(iceberg::Error) -> Error {
    move |cause| {
        let lasting = matches!(cause.kind(), iceberg::ErrorKind::DataInvalid | iceberg::ErrorKind::FeatureUnsupported);
        let error = Error::outside(what).because(cause);
        if lasting { error } else { error.retry() }
    }
}
