//! The task that fetches: goes through the list, then through what is new, and fills the queue with lines.
//!
//! ```text
//!  list has an entry ──► open it ──► batches of lines ──► its end ──┐
//!        │ no                                          (End entry)  │
//!  an object is found ──► open it, append its entry ──►  ...        ├─► next
//!        │ no                                                       │
//!  list the bucket ──► nothing new: the end for now, look again later
//! ```
//!
//! A batch is handed on once the entries of its objects are durable; it may span objects, so that many small ones share an fsync.
//!
//! While the service is away the step that asked for it is done again, for as long as it takes; an object whose reading was cut off is read
//! again from its beginning, past the lines that were had. Before the bucket has ever answered the error ends the job: its address may be wrong.

use super::bucket::{Bucket, Missing, Object};
use super::lines::{Lines, Piece};
use super::list::{Entry, Known, ObjectList};
use super::queue::{Queue, weight};
use super::{LINE_BYTES_MAX, ObjectsCounters, ObjectsSource};
use bytes::Bytes;
use dataflow_core::{Clock, Error, Record, Result, Task, TaskState, Waker};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Objects whose keys are held because they were found and not read yet. A page of a listing has 1000.
pub const PENDING_MAX: usize = 10_000;
/// Bytes of lines that are handed on at once.
const BATCH_BYTES: usize = 1 << 20;
/// Between two attempts to reach a service that is away, at least.
const AGAIN: Duration = Duration::from_secs(1);
/// With at most so many objects all are listed each time: it is one request, as asking for the new ones is.
const LISTED_IN_ONE: u64 = 1_000;

/// The task.
pub(super) struct Fetch {
    name: String,
    bucket: Arc<Bucket>,
    list: ObjectList,
    queue: Weak<Queue>,
    reader: Waker,
    counters: Arc<ObjectsCounters>,
    listing: Listing,
    poll: Duration,
    /// Where the list's next entry stands.
    place: u64,
    /// The rank of the next line, and from which on lines are handed on.
    rank: u64,
    start: u64,
    open: Option<OpenObject>,
    batch: Vec<Record>,
    batch_bytes: usize,
    /// The bucket has answered, in this life or in one before.
    has_answered: bool,
}

/// What was found and when it was looked for.
struct Listing {
    clock: Arc<dyn Clock>,
    every: Duration,
    found: BTreeMap<String, Object>,
    /// The last listing stopped at this key, after so many objects, because enough was found.
    stopped_at: Option<(String, u64)>,
    /// When all objects were listed last, and how many there were.
    listed: Option<(Duration, u64)>,
}

/// The object that is being read.
struct OpenObject {
    object: Object,
    key: Bytes,
    lines: Lines,
    /// The rank of its first line.
    first: u64,
    /// Reading was cut off, so `lines` has nothing more to say.
    is_cut_off: bool,
}

/// What a step came to.
enum Step {
    /// Go on.
    Again,
    /// The reader is asked for room or for an answer, and wakes this.
    Wait,
    /// Nothing new.
    Idle,
}

impl Task for Fetch {
    fn run(&mut self) -> TaskState {
        loop {
            let Some(queue) = self.queue.upgrade() else { return TaskState::Done };
            match self.step(&queue) {
                Ok(Step::Again) => {}
                Ok(Step::Wait) => return TaskState::Waiting,
                Ok(Step::Idle) => {
                    self.reader.wake();
                    return TaskState::Sleeping(self.poll);
                }
                Err(error) if error.transient && self.has_answered => {
                    tracing::warn!(source = self.name, "{error}; it is tried again");
                    return TaskState::Sleeping(self.poll.max(AGAIN));
                }
                Err(error) => {
                    queue.fail(error);
                    self.reader.wake();
                    return TaskState::Done;
                }
            }
        }
    }
}

impl Fetch {
    /// A task that begins at the line of rank `start`.
    ///
    /// # Errors
    /// When the list does not reach that line.
    pub(super) fn new(
        source: &ObjectsSource,
        bucket: Bucket,
        list: ObjectList,
        start: u64,
        queue: Weak<Queue>,
        reader: Waker,
    ) -> Result<Fetch> {
        let (place, rank) = list.place_of(start)?;
        source.counters.changed.store(list.refused(), Ordering::Relaxed);
        let has_answered = list.greatest().is_some();
        Ok(Fetch {
            name: source.settings.name.clone(),
            bucket: Arc::new(bucket),
            list,
            queue,
            reader,
            counters: source.counters.clone(),
            listing: Listing {
                clock: source.environment.clock.clone(),
                every: source.settings.full_listing,
                found: BTreeMap::new(),
                stopped_at: None,
                listed: None,
            },
            poll: source.settings.poll,
            place,
            rank,
            start,
            open: None,
            batch: Vec::new(),
            batch_bytes: 0,
            has_answered,
        })
    }

    fn step(&mut self, queue: &Queue) -> Result<Step> {
        if queue.is_asking() {
            return Ok(Step::Wait);
        }
        if let Some(missing) = queue.given_up() {
            self.missing(&missing.key, missing.why);
            self.list.cut(self.place)?;
            // What stood after it is found again by a listing of all.
            self.listing.forget();
        }
        if self.batch_bytes >= BATCH_BYTES {
            return self.hand_on(queue);
        }
        if self.open.as_ref().is_some_and(|open| open.is_cut_off) {
            return self.resume();
        }
        if self.open.is_some() {
            return self.read();
        }
        if let Some((entry, after)) = self.list.entry(self.place)? {
            return self.open_listed(queue, entry, after);
        }
        if self.rank < self.start {
            return Err(self.too_short(&format!("the objects of the list end at line {}", self.rank)));
        }
        if let Some((_, object)) = self.listing.found.pop_first() {
            return self.open_new(object);
        }
        if !self.batch.is_empty() || !self.list.is_synced() {
            return self.hand_on(queue);
        }
        if self.look()? {
            queue.reopen();
            return Ok(Step::Again);
        }
        queue.end();
        Ok(Step::Idle)
    }

    /// Hands the batch on, once what gives its offsets their meaning is durable.
    fn hand_on(&mut self, queue: &Queue) -> Result<Step> {
        if !queue.has_room() {
            return Ok(Step::Wait);
        }
        self.list.sync()?;
        self.batch_bytes = 0;
        queue.push(&mut self.batch);
        self.reader.wake();
        Ok(Step::Again)
    }

    /// Opens the object of an entry of the list.
    fn open_listed(&mut self, queue: &Queue, entry: Entry, after: u64) -> Result<Step> {
        let Entry::Read(object) = entry else {
            self.place = after; // a refused version, or the end of an object that is not read again
            return Ok(Step::Again);
        };
        if let Some((Entry::End { lines }, end)) = self.list.entry(after)?
            && lines == self.rank
        {
            self.place = end; // it has no lines: nothing needs it
            return Ok(Step::Again);
        }
        match Lines::open(&self.bucket, &object)? {
            Ok(lines) => self.opened(object, lines, after),
            Err(why) if self.rank < self.start => return Err(self.needed(&object.key, why)),
            Err(_) if !self.batch.is_empty() => return self.hand_on(queue),
            Err(why) => {
                queue.ask(&object.key, why);
                self.reader.wake();
                return Ok(Step::Wait);
            }
        }
        Ok(Step::Again)
    }

    /// Opens an object that was found, and puts it into the list.
    fn open_new(&mut self, object: Object) -> Result<Step> {
        let lines = match Lines::open(&self.bucket, &object) {
            Ok(lines) => lines,
            Err(error) => {
                self.listing.found.insert(object.key.clone(), object);
                return Err(error);
            }
        };
        match lines {
            Ok(lines) => {
                self.list.append(&Entry::Read(object.clone()))?;
                self.opened(object, lines, self.list.end());
            }
            // In its new version it is found again.
            Err(Missing::Changed) => {}
            Err(Missing::Gone) => self.missing(&object.key, Missing::Gone),
        }
        Ok(Step::Again)
    }

    fn opened(&mut self, object: Object, lines: Lines, after: u64) {
        let key = Bytes::copy_from_slice(object.key.as_bytes());
        self.open = Some(OpenObject { object, key, lines, first: self.rank, is_cut_off: false });
        self.place = after;
    }

    /// Opens the open object again, of which nothing more could be read, and passes over the lines that were had.
    fn resume(&mut self) -> Result<Step> {
        let Some(open) = &mut self.open else { return Ok(Step::Again) };
        let mut why = None;
        match Lines::open(&self.bucket, &open.object)? {
            Ok(mut lines) => {
                for _ in open.first..self.rank {
                    if let Piece::Missing(missing) = lines.next()? {
                        why = Some(missing);
                        break;
                    }
                }
                (open.lines, open.is_cut_off) = (lines, false);
            }
            Err(missing) => why = Some(missing),
        }
        let key = open.object.key.clone();
        why.map_or(Ok(Step::Again), |why| Err(self.needed(&key, why)))
    }

    /// Reads lines of the open object until there is a batch.
    fn read(&mut self) -> Result<Step> {
        let Some(open) = &mut self.open else { return Ok(Step::Again) };
        while self.batch_bytes < BATCH_BYTES {
            let piece = open.lines.next().inspect_err(|_| open.is_cut_off = true)?;
            let value = match piece {
                Piece::Line(line) => Some(line),
                Piece::TooLong => {
                    tracing::warn!(
                        source = self.name,
                        object = open.object.key,
                        line = self.rank - open.first,
                        "a line is longer than {LINE_BYTES_MAX} bytes; it is a dead letter without its bytes"
                    );
                    None
                }
                Piece::Damaged(why) => {
                    tracing::error!(
                        source = self.name,
                        object = open.object.key,
                        line = self.rank - open.first,
                        why,
                        "an object can not be unpacked to its end; what is missing is one dead letter"
                    );
                    add(&self.counters.damaged);
                    None
                }
                Piece::End => return self.ended(),
                Piece::Missing(why) => {
                    let key = open.object.key.clone();
                    return Err(self.needed(&key, why));
                }
            };
            let record = Record { offset: self.rank, key: Some(open.key.clone()), value };
            self.rank += 1;
            if record.offset >= self.start {
                self.batch_bytes += weight(&record);
                self.batch.push(record);
            }
        }
        Ok(Step::Again)
    }

    /// The open object is read to its end: where that is was noted before, or is now.
    fn ended(&mut self) -> Result<Step> {
        let Some(OpenObject { object, first, .. }) = self.open.take() else { return Ok(Step::Again) };
        if self.rank < self.start {
            return Err(self.too_short(&format!("object '{}' ends at line {}", object.key, self.rank)));
        }
        match self.list.entry(self.place)? {
            None => {
                self.list.append(&Entry::End { lines: self.rank })?;
                self.place = self.list.end();
            }
            Some((Entry::End { lines }, after)) if lines == self.rank => self.place = after,
            Some((entry, _)) => {
                let what = format!(
                    "read object '{}' again: it has {} lines, and the list goes on with {entry:?}",
                    object.key,
                    self.rank - first
                );
                return Err(Error::doubt(what).hint("restore the data folder as it was, or start over with a new one"));
            }
        }
        add(&self.counters.read);
        Ok(Step::Again)
    }

    /// Looks for new objects; whether there are.
    fn look(&mut self) -> Result<bool> {
        let now = self.listing.clock.monotonic();
        let is_due = |(at, count): (Duration, u64)| count <= LISTED_IN_ONE || now >= at + self.listing.every;
        let lists_all = !self.bucket.is_sorted() || self.listing.listed.is_none_or(is_due);
        let stopped_at = self.listing.stopped_at.take();
        let (after, mut count) = match stopped_at.clone() {
            Some((key, count)) => (Some(key), count),
            None if lists_all => (None, 0),
            None => (self.list.greatest().map(str::to_owned), 0),
        };
        let is_sorted = self.bucket.is_sorted();
        let mut refused = Vec::new();
        let (list, listing) = (&self.list, &mut self.listing);
        let listed = self.bucket.list(after.as_deref(), |object| {
            count += 1;
            if after.as_ref().is_some_and(|after| object.key <= *after) {
                return true; // of a service that does not know `start-after`
            }
            match list.knows(&object) {
                Known::New => {
                    listing.found.insert(object.key.clone(), object);
                }
                Known::Same => {}
                Known::Changed => refused.push(object),
            }
            if listing.found.len() + refused.len() > PENDING_MAX {
                listing.found.pop_last();
                refused.truncate(PENDING_MAX); // the others are met again
                listing.stopped_at = listing.found.last_key_value().map(|(key, _)| (key.clone(), count));
                return !is_sorted;
            }
            true
        });
        listed.inspect_err(|_| listing.stopped_at = stopped_at)?;
        self.has_answered = true;
        if listing.stopped_at.is_none() && lists_all {
            listing.listed = Some((now, count));
        }
        for object in refused {
            tracing::error!(
                source = self.name,
                object = object.key,
                etag = object.etag,
                size = object.size,
                "an object that was read has changed; its new content is refused"
            );
            add(&self.counters.changed);
            self.list.append(&Entry::Refused(object))?;
            self.place = self.list.end();
        }
        self.list.sync()?;
        Ok(!self.listing.found.is_empty())
    }

    fn missing(&self, key: &str, why: Missing) {
        tracing::error!(source = self.name, object = key, "an object is passed over: {why}");
        if why == Missing::Gone {
            add(&self.counters.gone);
        }
    }

    fn needed(&self, key: &str, why: Missing) -> Error {
        Error::outside(format!("read object '{key}' of '{}' from line {} on: {why}", self.name, self.rank))
            .hint("lines of it are bound: put it back as it was, or start over with a new data folder")
    }

    fn too_short(&self, why: &str) -> Error {
        Error::doubt(format!("read '{}' from line {} on: {why}", self.name, self.start))
            .hint("restore the data folder as it was, or start over with a new one")
    }
}

impl Listing {
    /// Everything is to be listed anew.
    fn forget(&mut self) {
        self.found.clear();
        (self.stopped_at, self.listed) = (None, None);
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
