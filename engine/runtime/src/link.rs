//! A link: a bounded queue of requests to a task and of replies back to an operator, with wakers for both ends.
//!
//! Neither end ever blocks on the other. The bound of each link is named where it is made; a full request queue is
//! given back to the operator, which tries again when a reply wakes it.

use dataflow_core::{Mailbox, Spawner, Task, TaskState, Waker};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The operator's end.
pub struct Link<Q, R> {
    requests: Mailbox<Q>,
    replies: Mailbox<R>,
    task: Waker,
    operator: Arc<OnceLock<Waker>>,
}

impl<Q: Send + 'static, R: Send + 'static> Link<Q, R> {
    /// Starts a task that hands all waiting requests to `serve`, which sends its replies through the [`Replies`] it is given.
    pub fn spawn(
        spawner: &dyn Spawner,
        name: &str,
        bound: usize,
        serve: impl FnMut(Vec<Q>, &Replies<R>) -> TaskState + Send + 'static,
    ) -> Link<Q, R> {
        let (requests, replies) = (Mailbox::new(bound), Mailbox::new(usize::MAX));
        let operator = Arc::new(OnceLock::new());
        let out = Replies { mailbox: replies.clone(), operator: operator.clone() };
        let task = spawner.spawn(name, Box::new(Server { requests: requests.clone(), replies: out, serve }));
        Link { requests, replies, task, operator }
    }

    /// Says which operator to wake when a reply is there. The first call counts.
    pub fn attach(&self, operator: Waker) {
        let _ = self.operator.set(operator);
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The request itself, when the queue is full.
    pub fn send(&self, request: Q) -> Result<(), Q> {
        self.requests.push(request)?;
        self.task.wake();
        Ok(())
    }

    /// All replies so far. There are at most as many as requests were sent, and those are bounded.
    pub fn replies(&self) -> Vec<R> {
        self.replies.drain()
    }
}

/// Starts tasks as [`Spawner::spawn_in_background`] does.
pub(crate) struct InBackground<'a>(pub(crate) &'a dyn Spawner);

impl Spawner for InBackground<'_> {
    fn spawn(&self, name: &str, task: Box<dyn Task>) -> Waker {
        self.0.spawn_in_background(name, task)
    }
}

/// Wakes an operator from any thread. A worker that is gone needs no waking.
pub(crate) fn waker(activator: timely::scheduling::SyncActivator) -> Waker {
    Waker::new(move || {
        let _ = activator.activate();
    })
}

/// Stands before a waker: shut, nobody is woken. Who shuts it runs again by itself, and looks for news after opening it.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// The waker behind this gate.
    pub(crate) fn before(&self, waker: Waker) -> Waker {
        let is_open = self.0.clone();
        Waker::new(move || {
            if is_open.load(Ordering::SeqCst) {
                waker.wake();
            }
        })
    }

    pub(crate) fn set(&self, is_open: bool) {
        self.0.store(is_open, Ordering::SeqCst);
    }
}

/// The task's way back to the operator.
pub struct Replies<R> {
    mailbox: Mailbox<R>,
    operator: Arc<OnceLock<Waker>>,
}

impl<R> Replies<R> {
    /// Sends a reply and wakes the operator.
    pub fn send(&self, reply: R) {
        assert!(self.mailbox.push(reply).is_ok(), "the queue of replies has no bound of its own");
        if let Some(operator) = self.operator.get() {
            operator.wake();
        }
    }
}

struct Server<Q, R, F> {
    requests: Mailbox<Q>,
    replies: Replies<R>,
    serve: F,
}

impl<Q: Send, R: Send, F: FnMut(Vec<Q>, &Replies<R>) -> TaskState + Send> Task for Server<Q, R, F> {
    fn run(&mut self) -> TaskState {
        (self.serve)(self.requests.drain(), &self.replies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_shut_gate_wakes_nobody() {
        let woken = Arc::new(AtomicU32::new(0));
        let (gate, counter) = (Gate::default(), woken.clone());
        let waker = gate.before(Waker::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }));
        for is_open in [false, true, false] {
            gate.set(is_open);
            waker.wake();
        }
        assert_eq!(woken.load(Ordering::SeqCst), 1);
    }
}
