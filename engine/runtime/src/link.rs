//! A link: a bounded queue of requests to a task and of replies back to an operator, with wakers for both ends.
//!
//! Neither end ever blocks on the other. The bound of each link is named where it is made; a full request queue is
//! given back to the operator, which tries again when a reply wakes it.

use dataflow_core::{Mailbox, Spawner, Task, TaskState, Waker};
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

/// Wakes an operator from any thread. A worker that is gone needs no waking.
pub(crate) fn waker(activator: timely::scheduling::SyncActivator) -> Waker {
    Waker::new(move || {
        let _ = activator.activate();
    })
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
