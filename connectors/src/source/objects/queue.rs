//! What the fetching task and the reader say to each other: records on the way, and what becomes of an object that is missing.

use super::bucket::Missing;
use dataflow_core::{Error, Record};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

/// Bytes of records that wait for the reader. Two fetches of a batch fit, so neither side waits for the other.
const BYTES_MAX: usize = 16 << 20;

/// The shared part.
#[derive(Default)]
pub(super) struct Queue(Mutex<Content>);

#[derive(Default)]
struct Content {
    records: VecDeque<Record>,
    bytes: usize,
    /// The task waits for room.
    is_full: bool,
    /// All that is listed was read and is in `records`.
    is_at_end: bool,
    missing: Option<MissingObject>,
    error: Option<Error>,
}

/// An object of the list whose lines come next, and which is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MissingObject {
    pub(super) key: String,
    pub(super) why: Missing,
    /// The reader does not need it.
    pub(super) is_given_up: bool,
}

/// What the reader finds when it has taken what is there.
pub(super) enum Rest {
    /// More has come.
    More,
    /// Nothing, and the task is at work.
    Nothing,
    /// Nothing, and nothing more is listed.
    AtEnd,
    /// Nothing, because this object is missing.
    Missing(MissingObject),
    /// The task has failed.
    Failed(Error),
}

impl Queue {
    /// Whether the task may put more in. When not, it is woken once it may.
    pub(super) fn has_room(&self) -> bool {
        let mut content = self.content();
        content.is_full = content.bytes >= BYTES_MAX;
        !content.is_full
    }

    /// Puts a batch in.
    pub(super) fn push(&self, batch: &mut Vec<Record>) {
        let mut content = self.content();
        content.is_at_end = false;
        content.bytes += batch.iter().map(weight).sum::<usize>();
        content.records.extend(batch.drain(..));
    }

    /// Says that all that is listed is in.
    pub(super) fn end(&self) {
        self.content().is_at_end = true;
    }

    /// Says that there is more to come.
    pub(super) fn reopen(&self) {
        self.content().is_at_end = false;
    }

    /// Asks what becomes of a missing object.
    pub(super) fn ask(&self, key: &str, why: Missing) {
        self.content().missing = Some(MissingObject { key: key.to_owned(), why, is_given_up: false });
    }

    /// Whether the reader has been asked and has not answered.
    pub(super) fn is_asking(&self) -> bool {
        self.content().missing.as_ref().is_some_and(|missing| !missing.is_given_up)
    }

    /// The missing object that the reader gave up, once.
    pub(super) fn given_up(&self) -> Option<MissingObject> {
        let mut content = self.content();
        if content.missing.as_ref().is_some_and(|missing| missing.is_given_up) { content.missing.take() } else { None }
    }

    /// The reader's answer: nothing needs the missing object.
    pub(super) fn give_up(&self) {
        if let Some(missing) = &mut self.content().missing {
            missing.is_given_up = true;
        }
    }

    /// Says that the task has ended with an error.
    pub(super) fn fail(&self, error: Error) {
        self.content().error = Some(error);
    }

    /// Takes up to `most` records with offsets below `until`. Whether the task is to be woken, because there is room again.
    pub(super) fn take(&self, most: usize, until: Option<u64>, out: &mut Vec<Record>) -> bool {
        let mut content = self.content();
        for _ in 0..most {
            let is_asked = |record: &Record| until.is_none_or(|until| record.offset < until);
            if !content.records.front().is_some_and(is_asked) {
                break;
            }
            let record = content.records.pop_front().expect("it was looked at");
            content.bytes -= weight(&record);
            out.push(record);
        }
        let has_room = content.is_full && content.bytes < BYTES_MAX / 2;
        content.is_full &= !has_room;
        has_room
    }

    /// What is to be said when records are taken.
    pub(super) fn rest(&self) -> Rest {
        let mut content = self.content();
        match (content.records.is_empty(), &content.missing) {
            (false, _) => Rest::More,
            (true, Some(missing)) if !missing.is_given_up => Rest::Missing(missing.clone()),
            _ if content.error.is_some() => content.error.take().map_or(Rest::Nothing, Rest::Failed),
            _ if content.is_at_end => Rest::AtEnd,
            _ => Rest::Nothing,
        }
    }

    /// Records that wait.
    pub(super) fn len(&self) -> usize {
        self.content().records.len()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

/// What a record takes up: its value, and its place in the queue. The key is one text for all of an object.
pub(super) fn weight(record: &Record) -> usize {
    size_of::<Record>() + record.value.as_ref().map_or(0, bytes::Bytes::len)
}
