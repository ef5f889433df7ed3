//! All workers of a life on the thread of the run, so that whose turn it is costs no switch between threads.
//!
//! timely means each worker to have a thread: building an allocator waits for those of all others. So each is built on a thread
//! that ends when it is done, and moves to the run's thread from there.

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
pub(crate) fn connected(count: usize) -> Result<Vec<Worker>, String> {
    let (builders, others) = CommunicationConfig::Process(count).try_build()?;
    let built = initialize_from(builders, others, Parcel)?.join();
    built.into_iter().map(|parcel| Ok(Worker::new(WorkerConfig::default(), parcel?.0, None))).collect()
}
