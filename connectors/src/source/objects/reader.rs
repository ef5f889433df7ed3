//! The reader of the one partition: takes what the fetching task has brought.

use super::ObjectsSource;
use super::bucket::Bucket;
use super::fetch::Fetch;
use super::list::ObjectList;
use super::queue::{Queue, Rest};
use dataflow_core::{Discovered, Error, Poll, Record, Result, SourceReader, Waker};
use std::sync::Arc;

/// The one partition.
const PARTITION: u32 = 0;

/// The reader on the worker that has the partition.
pub(super) struct ObjectsReader {
    source: ObjectsSource,
    /// Until the partition is assigned.
    opened: Option<(Bucket, ObjectList)>,
    wake: Waker,
    queue: Arc<Queue>,
    /// Wakes the task.
    task: Option<Waker>,
    next: u64,
}

impl ObjectsReader {
    pub(super) fn new(source: ObjectsSource, bucket: Bucket, list: ObjectList, wake: Waker) -> ObjectsReader {
        ObjectsReader { source, opened: Some((bucket, list)), wake, queue: Arc::default(), task: None, next: 0 }
    }

    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake();
        }
    }
}

impl SourceReader for ObjectsReader {
    fn discover(&mut self) -> Result<Vec<Discovered>> {
        let is_new = self.opened.is_some();
        Ok(is_new.then_some(Discovered { index: PARTITION, start: 0 }).into_iter().collect())
    }

    fn assign(&mut self, index: u32, next: u64) -> Result<()> {
        let name = &self.source.settings.name;
        let Some((bucket, list)) = self.opened.take().filter(|_| index == PARTITION) else {
            return Err(Error::us(format!("assign '{name}/{index}': there is one partition, assigned once")));
        };
        let fetch = Fetch::new(&self.source, bucket, list, next, Arc::downgrade(&self.queue), self.wake.clone())?;
        self.next = next;
        self.task = Some(self.source.environment.spawner.spawn(&format!("objects {name}"), Box::new(fetch)));
        Ok(())
    }

    fn poll(&mut self, index: u32, until: Option<u64>, budget: usize, out: &mut Vec<Record>) -> Result<Poll> {
        if self.task.is_none() || index != PARTITION {
            return Err(Error::us(format!("poll '{}/{index}', which was not assigned", self.source.settings.name)));
        }
        let before = out.len();
        if self.queue.take(budget, until, out) {
            self.wake_task();
        }
        self.next += (out.len() - before) as u64;
        if until.is_some_and(|until| self.next >= until) {
            return Ok(Poll::AtEnd);
        }
        match (self.queue.rest(), until) {
            (Rest::More, _) => Ok(Poll::More),
            (Rest::AtEnd, None) => Ok(Poll::AtEnd),
            (Rest::Nothing | Rest::AtEnd, _) => Ok(Poll::Pending),
            // What is bound has been read: nobody has seen a line of the object.
            (Rest::Missing(_), None) => {
                self.queue.give_up();
                self.wake_task();
                Ok(Poll::Pending)
            }
            (Rest::Missing(missing), Some(until)) => {
                let what = format!(
                    "read '{}/{index}' up to line {until} again: object '{}' is needed, and {}",
                    self.source.settings.name, missing.key, missing.why
                );
                Err(Error::outside(what).hint("put the object back as it was, or start over with a new data folder"))
            }
            (Rest::Failed(error), _) => Err(error),
        }
    }

    fn lag(&self, _: u32) -> Option<u64> {
        Some(self.queue.len() as u64)
    }
}

/// Has the task see that nobody reads any more.
impl Drop for ObjectsReader {
    fn drop(&mut self) {
        self.queue = Arc::default();
        self.wake_task();
    }
}

/// The reader of a worker that has no partition.
pub(super) struct ElsewhereReader;

impl SourceReader for ElsewhereReader {
    fn discover(&mut self) -> Result<Vec<Discovered>> {
        Ok(Vec::new())
    }

    fn assign(&mut self, index: u32, _: u64) -> Result<()> {
        Err(Error::us(format!("assign partition {index} of a source of objects, which another worker has")))
    }

    fn poll(&mut self, index: u32, _: Option<u64>, _: usize, _: &mut Vec<Record>) -> Result<Poll> {
        Err(Error::us(format!("poll partition {index} of a source of objects, which another worker has")))
    }
}
