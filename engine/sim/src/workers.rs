//! All workers of a life on the thread of the run, so that whose turn it is costs no switch between threads.
//!
//! timely means each worker to have a thread: building an allocator waits for those of all others. So each is built on a thread
//! that ends when it is done, and moves to the run's thread from there.

use crate::scheduler::{Scheduler, said};
use dataflow_core::Result;
use dataflow_runtime::{JobScope, Plan, threads};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use timely::communication::{Allocator, initialize_from};
use timely::worker::Worker;
use timely::{CommunicationConfig, WorkerConfig};

/// An allocator on its way to another thread.
struct Parcel(Allocator);

// SAFETY: an allocator that was just built shares its `Rc`s with nothing but itself, so whoever holds it holds all of them; and the thread
// that built it has ended when it is used again. What allocators share with each other is `Send`.
unsafe impl Send for Parcel {}

/// As many workers as asked for, connected with each other. Without timely's timer: an operator that wants to look again later is run at
/// its worker's next step.
fn connected(count: usize) -> std::result::Result<Vec<Worker>, String> {
    let (builders, others) = CommunicationConfig::Process(count).try_build()?;
    let built = initialize_from(builders, others, Parcel)?.join();
    built.into_iter().map(|parcel| Ok(Worker::new(WorkerConfig::default(), parcel?.0, None))).collect()
}

/// Runs the workers of a job until all have ended or the life is over.
///
/// # Errors
/// When they can not be built.
pub(crate) fn run(
    job: &Arc<Plan>,
    workers: usize,
    scheduler: &Arc<Scheduler>,
    build: &dyn Fn(&mut JobScope<'_>) -> Result<()>,
) -> std::result::Result<(), String> {
    scheduler.begin(job.clone());
    let mut workers = connected(workers)?;
    let mut begun = vec![false; workers.len()];
    while let Some(next) = scheduler.next_worker() {
        let worker = &mut workers[next];
        let ran = catch_unwind(AssertUnwindSafe(|| {
            if !std::mem::replace(&mut begun[next], true) {
                threads::install(worker, job, build);
            } else {
                worker.step();
            }
        }));
        match ran {
            Ok(()) if worker.has_dataflows() => {}
            Ok(()) => scheduler.leave(next),
            Err(payload) => scheduler.panicked(said(&*payload)),
        }
    }
    // What a panic left behind may panic again; the first one is told.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        for worker in &mut workers {
            worker.installed_dataflows().into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
        }
    }));
    Ok(())
}
