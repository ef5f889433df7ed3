//! A task that wakes a reader at a fixed interval, for sources that nobody tells about news: a growing file, a paced generator.
//!
//! It ends when the reader is dropped.

use dataflow_core::{Spawner, Task, TaskState, Waker};
use std::sync::{Arc, Weak};
use std::time::Duration;

struct Pulse {
    wake: Waker,
    every: Duration,
    reader: Weak<()>,
}

impl Task for Pulse {
    fn run(&mut self) -> TaskState {
        if self.reader.strong_count() == 0 {
            return TaskState::Done;
        }
        self.wake.wake();
        TaskState::Sleeping(self.every)
    }
}

/// Starts the task; it runs for as long as the returned token lives.
pub(super) fn start(spawner: &dyn Spawner, name: &str, wake: Waker, every: Duration) -> Arc<()> {
    let token = Arc::new(());
    spawner.spawn(name, Box::new(Pulse { wake, every, reader: Arc::downgrade(&token) }));
    token
}
