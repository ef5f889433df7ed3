//! Work off the dataflow's threads: a [`Task`] that is run whenever it is woken, and the bounded [`Mailbox`] it is fed by.
//!
//! Worker threads never block: the binding log, the sinks' committers and the checkpoint writer are tasks. In
//! production a task is a thread that parks; in the simulation the seeded scheduler runs it, one at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What a task wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Nothing to do until woken.
    Waiting,
    /// Run again after this long at the latest, or when woken.
    Sleeping(Duration),
    /// It has ended and is dropped.
    Done,
}

/// Work that runs to the end of what there is to do, then says what it waits for.
pub trait Task: Send {
    /// Does what there is to do now. May block on I/O, never on another task.
    fn run(&mut self) -> TaskState;
}

/// Wakes a task or a worker's operator. Cheap; may be called from any thread, any number of times.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Waker {
        Waker(Arc::new(wake))
    }

    /// A waker that does nothing, for readers that are polled anyway.
    pub fn none() -> Waker {
        Waker::new(|| ())
    }

    /// Wakes.
    pub fn wake(&self) {
        (self.0)()
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// Starts tasks.
pub trait Spawner: Send + Sync {
    /// Starts `task` under `name` and returns what wakes it. It is run once at the start without a wake.
    fn spawn(&self, name: &str, task: Box<dyn Task>) -> Waker;

    /// As [`Spawner::spawn`], for work that comes in bursts and that nobody waits for by the millisecond, such as files of tables: where there
    /// are fewer cores than threads, those of the dataflow go first.
    fn spawn_in_background(&self, name: &str, task: Box<dyn Task>) -> Waker {
        self.spawn(name, task)
    }
}

/// A bounded queue between threads that never blocks: a full one gives the item back.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Arc<Mutex<VecDeque<T>>>,
    bound: usize,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Mailbox { queue: self.queue.clone(), bound: self.bound }
    }
}

impl<T> Mailbox<T> {
    /// An empty queue of at most `bound` items.
    pub fn new(bound: usize) -> Mailbox<T> {
        Mailbox { queue: Arc::default(), bound }
    }

    /// Appends an item.
    ///
    /// # Errors
    /// The item itself, when the queue is full.
    pub fn push(&self, item: T) -> std::result::Result<(), T> {
        let mut queue = self.lock();
        if queue.len() >= self.bound {
            return Err(item);
        }
        queue.push_back(item);
        Ok(())
    }

    /// Takes the oldest item.
    pub fn pop(&self) -> Option<T> {
        self.lock().pop_front()
    }

    /// Takes all items, oldest first.
    pub fn drain(&self) -> Vec<T> {
        self.lock().drain(..).collect()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().expect("no holder of this lock can panic")
    }
}
