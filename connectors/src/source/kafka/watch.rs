//! The background thread of a reader: it serves the client's callbacks and asks what a reader must not block for.
//!
//! New partitions, a topic that was created anew, the bounds of a partition whose offset the broker refused, and the
//! nearing loss of what the oldest kept checkpoint would read. It changes nothing: it reports by [`Report`] and wakes the reader.
//!
//! An answer that a broker may give for a moment only, while it restarts or has not heard of everything, is asked for
//! [`LOOKS_MAX`] times before it is reported: that there is no such topic, and that a partition is shorter than it was.

use super::client::Consumer;
use super::decision::{Bounds, Standing, near_loss, standing};
use super::topic::{self, LOOKS_MAX};
use dataflow_core::{Discovered, Error, Mailbox, Waker};
use rdkafka::consumer::Consumer as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What waits for the reader: more than the partitions of any one round, and a full box only delays the rest to the next.
const REPORTS_MAX: usize = 4096;

/// How long the thread sits in the client's callbacks before it looks around; also how long it outlives its reader.
const TURN: Duration = Duration::from_millis(100);

/// What the watch found.
#[derive(Debug)]
pub(crate) enum Report {
    /// A partition appeared.
    Appeared(Discovered),
    /// The bounds of a partition that the reader asked about.
    Bounds(u32, Bounds),
    /// The topic's id changed, or it is gone.
    Recreated(String),
    /// The client can not go on.
    Broken(Error),
}

/// What the thread works for.
pub(crate) struct Task {
    /// The client.
    pub(crate) consumer: Arc<Consumer>,
    /// The topic.
    pub(crate) topic: String,
    /// Which partitions are the reader's: those with `index % peers == worker`.
    pub(crate) worker: u32,
    /// See `worker`.
    pub(crate) peers: u32,
    /// How often it looks.
    pub(crate) interval: Duration,
    /// Between two looks at what may pass.
    pub(crate) look_interval: Duration,
    /// Wakes the reader.
    pub(crate) wake: Waker,
}

/// What the reader's first discovery found; before it no partition counts as new.
pub(crate) struct Listed {
    /// Partitions that need no report.
    pub(crate) known: BTreeSet<u32>,
    /// The topic's id.
    pub(crate) id: Option<String>,
}

/// The reader's end of a running watch. The thread ends when this is dropped.
pub(crate) struct Watch {
    /// What was found.
    pub(crate) reports: Mailbox<Report>,
    /// Partitions whose bounds are wanted, each with the offset that should be within.
    asked: Mailbox<(u32, u64)>,
    listed: Mailbox<Listed>,
    /// The offsets that the oldest kept checkpoint would restore.
    restorable: Arc<Mutex<BTreeMap<u32, u64>>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Starts the thread.
    pub(crate) fn start(task: Task) -> dataflow_core::Result<Watch> {
        let watch = Watch {
            reports: Mailbox::new(REPORTS_MAX),
            asked: Mailbox::new(REPORTS_MAX),
            listed: Mailbox::new(1),
            restorable: Arc::default(),
            stop: Arc::default(),
        };
        let running = Running {
            reports: watch.reports.clone(),
            asked: watch.asked.clone(),
            listed: watch.listed.clone(),
            restorable: watch.restorable.clone(),
            found: None,
            questions: BTreeMap::new(),
            warned: BTreeSet::new(),
            gone: 0,
            task,
        };
        let (stop, name) = (watch.stop.clone(), format!("kafka-{}-{}", running.task.topic, running.task.worker));
        // A thread and no task: it lives in blocking calls of librdkafka, and a reader has no spawner. The simulation has
        // sources of its own.
        #[allow(clippy::disallowed_methods)]
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || running.run(&stop))
            .map_err(|e| Error::outside(format!("starting thread '{name}'")).because(e))?;
        Ok(watch)
    }

    /// Asks for a partition's bounds, in which `offset` should be; a report will follow. A question too many is asked again by
    /// the reader's next poll.
    pub(crate) fn ask(&self, index: u32, offset: u64) -> bool {
        self.asked.push((index, offset)).is_ok()
    }

    /// Says what the first discovery found.
    pub(crate) fn listed(&self, listed: Listed) {
        assert!(self.listed.push(listed).is_ok(), "there is one first discovery");
    }

    /// Says what the oldest kept checkpoint would restore.
    pub(crate) fn restorable(&self, offsets: &BTreeMap<u32, u64>) {
        self.restorable.lock().expect("no holder of this lock can panic").clone_from(offsets);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

struct Running {
    task: Task,
    reports: Mailbox<Report>,
    asked: Mailbox<(u32, u64)>,
    listed: Mailbox<Listed>,
    restorable: Arc<Mutex<BTreeMap<u32, u64>>>,
    found: Option<Listed>,
    questions: BTreeMap<u32, Question>,
    warned: BTreeSet<u32>,
    /// Looks in a row that did not find the topic.
    gone: u32,
}

/// A question about a partition that is not answered yet.
#[derive(Clone, Copy)]
struct Question {
    offset: u64,
    looks: u32,
    due: Instant,
}

// How often to ask a broker is no part of any computation, so no clock is passed in.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

impl Running {
    fn run(mut self, stop: &AtomicBool) {
        let mut last = now();
        while !stop.load(Ordering::Acquire) {
            self.serve();
            self.found = self.listed.drain().into_iter().next().or(self.found.take());
            for (index, offset) in self.asked.drain() {
                self.questions.insert(index, Question { offset, looks: 0, due: now() });
            }
            self.answer();
            let interval = if self.gone > 0 { self.task.look_interval } else { self.task.interval };
            if now().duration_since(last) >= interval {
                last = now();
                self.look();
            }
        }
    }

    /// Lets the client call back for a turn. Nothing but events may stand in the common queue.
    fn serve(&self) {
        match self.task.consumer.poll(TURN) {
            None => {}
            Some(Ok(_)) => self.report(Report::Broken(Error::us(format!(
                "reading topic '{}': a record came through the consumer's common queue",
                self.task.topic
            )))),
            Some(Err(error @ rdkafka::error::KafkaError::MessageConsumptionFatal(_))) => {
                let what = format!("reading topic '{}'", self.task.topic);
                self.report(Report::Broken(Error::outside(what).because(error)));
            }
            Some(Err(error)) => tracing::debug!(topic = self.task.topic, %error, "the kafka client goes on by itself"),
        }
    }

    /// Answers the questions that are due; the others stand until the broker answers.
    fn answer(&mut self) {
        for (index, mut question) in std::mem::take(&mut self.questions) {
            if question.due <= now() {
                question.looks += 1;
                match self.bounds(index) {
                    Some(bounds) if is_settled(question, bounds) => {
                        self.report(Report::Bounds(index, bounds));
                        continue;
                    }
                    _ => question.due = now() + self.task.look_interval,
                }
            }
            self.questions.insert(index, question);
        }
    }

    fn bounds(&mut self, index: u32) -> Option<Bounds> {
        // Asking a topic that is not there for its bounds would wait for it.
        let found = match topic::partitions(self.task.consumer.client(), &self.task.topic) {
            Ok(Some(count)) if count > index => topic::bounds(&self.task.consumer, &self.task.topic, index).map(Some),
            Ok(found) => {
                self.gone = self.gone.max(u32::from(found.is_none()));
                Ok(None)
            }
            Err(error) => Err(error),
        };
        found.unwrap_or_else(|error| {
            tracing::warn!(topic = self.task.topic, partition = index, %error, "the broker does not say what it has");
            None
        })
    }

    fn look(&mut self) {
        match topic::partitions(self.task.consumer.client(), &self.task.topic) {
            Ok(Some(count)) => {
                self.gone = 0;
                self.compare_ids();
                let (worker, peers) = (self.task.worker, self.task.peers);
                (0..count).filter(|index| index % peers == worker).for_each(|index| self.appear(index));
            }
            Ok(None) => {
                self.gone = self.gone.saturating_add(1);
                if self.gone == LOOKS_MAX {
                    self.report(Report::Recreated("it is gone".to_owned()));
                }
            }
            Err(error) => {
                tracing::warn!(topic = self.task.topic, %error, "looking for new partitions failed; next round again")
            }
        }
        let restorable = self.restorable.lock().expect("no holder of this lock can panic").clone();
        for (index, offset) in restorable {
            self.foresee(index, offset);
        }
    }

    fn compare_ids(&mut self) {
        let Some(known) = &mut self.found else { return };
        let Some(now) = topic::id(&self.task.consumer, &self.task.topic) else { return };
        let before = known.id.replace(now.clone());
        if let Some(before) = before.filter(|before| *before != now) {
            self.report(Report::Recreated(format!("its id was '{before}' and is '{now}'")));
        }
    }

    fn appear(&mut self, index: u32) {
        let Some(listed) = self.found.as_mut().filter(|listed| !listed.known.contains(&index)) else { return };
        // A partition that appears in a running topic is read from its beginning, wherever the source itself began.
        match topic::bounds(&self.task.consumer, &self.task.topic, index) {
            Ok(bounds) => {
                listed.known.insert(index);
                self.report(Report::Appeared(Discovered { index, start: bounds.low }));
            }
            Err(error) => {
                tracing::warn!(topic = self.task.topic, partition = index, %error, "a new partition is not ready yet")
            }
        }
    }

    fn foresee(&mut self, index: u32, restorable: u64) {
        let Ok(bounds) = topic::bounds(&self.task.consumer, &self.task.topic, index) else { return };
        if !near_loss(restorable, bounds) {
            self.warned.remove(&index);
        } else if self.warned.insert(index) {
            tracing::warn!(
                topic = self.task.topic,
                partition = index,
                oldest = bounds.low,
                restorable,
                "retention is about to remove records that a restore would read again; raise the topic's retention or checkpoint more often"
            );
        }
    }

    fn report(&self, report: Report) {
        if self.reports.push(report).is_err() {
            tracing::warn!(topic = self.task.topic, "the reader does not take its reports");
        }
        self.task.wake.wake();
    }
}

/// A partition that ends below the offset may be catching up after a change of its leader.
fn is_settled(question: Question, bounds: Bounds) -> bool {
    standing(question.offset, bounds) != Standing::Beyond || question.looks >= LOOKS_MAX
}
