//! What every part of an open warehouse needs: its files, an async runtime to wait on, the clock and random numbers it was given.

use dataflow_core::{Environment, Error, Result};
use iceberg::io::FileIO;
use std::future::Future;
use std::time::Duration;
use uuid::Uuid;

/// The shared part of an open warehouse.
pub(crate) struct Session {
    pub(crate) io: FileIO,
    runtime: tokio::runtime::Runtime,
    environment: Environment,
}

impl Session {
    pub(crate) fn new(io: FileIO, environment: Environment) -> Result<Session> {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = built.map_err(|e| Error::outside("start the runtime of a warehouse").because(e))?;
        Ok(Session { io, runtime, environment })
    }

    /// Waits for `work` on this thread.
    pub(crate) fn wait<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    /// Waits for a while: up to `most`, at random, so that two that met once do not meet again.
    pub(crate) fn pause(&self, most: Duration) {
        let micros = self.environment.random.next_u64() % (most.as_micros() as u64).max(1);
        self.wait(async { tokio::time::sleep(Duration::from_micros(micros)).await });
    }

    /// A name that no other file has.
    pub(crate) fn uuid(&self) -> Uuid {
        let random = &self.environment.random;
        let bits = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
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
