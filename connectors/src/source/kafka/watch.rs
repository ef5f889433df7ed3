//! The background thread of a reader: it serves the client's callbacks and asks what a reader must not block for.
//!
//! New partitions, a topic that was created anew, the bounds of a partition whose offset the broker refused, and the
//! nearing loss of what the oldest checkpoint would read. It changes nothing: it reports by [`Report`] and wakes the reader.

use super::client::Consumer;
use super::decision::{Bounds, near_loss};
use super::topic;
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
    /// Partitions that need no report.
    pub(crate) known: BTreeSet<u32>,
    /// The topic's id at the start.
    pub(crate) id: Option<String>,
    /// Wakes the reader.
    pub(crate) wake: Waker,
}

/// The reader's end of a running watch. The thread ends when this is dropped.
pub(crate) struct Watch {
    /// What was found.
    pub(crate) reports: Mailbox<Report>,
    /// Partitions whose bounds are wanted.
    asked: Mailbox<u32>,
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
            restorable: Arc::default(),
            stop: Arc::default(),
        };
        let (reports, asked, restorable, stop) =
            (watch.reports.clone(), watch.asked.clone(), watch.restorable.clone(), watch.stop.clone());
        let name = format!("kafka-{}-{}", task.topic, task.worker);
        // A thread and no task: it lives in blocking calls of librdkafka, and a reader has no spawner. The simulation has
        // sources of its own.
        #[allow(clippy::disallowed_methods)]
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                Running { task, reports, asked, restorable, warned: BTreeSet::new(), gone: false }.run(&stop)
            })
            .map_err(|e| Error::outside(format!("starting thread '{name}'")).because(e))?;
        Ok(watch)
    }

    /// Asks for a partition's bounds; a report will follow. A question too many is asked again by the reader's next poll.
    pub(crate) fn ask(&self, index: u32) -> bool {
        self.asked.push(index).is_ok()
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
    asked: Mailbox<u32>,
    restorable: Arc<Mutex<BTreeMap<u32, u64>>>,
    warned: BTreeSet<u32>,
    gone: bool,
}

impl Running {
    fn run(mut self, stop: &AtomicBool) {
        // How often to ask a broker is no part of any computation, so no clock is passed in.
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now;
        let mut last = now();
        while !stop.load(Ordering::Acquire) {
            self.serve();
            for index in self.asked.drain() {
                self.answer(index);
            }
            if now().duration_since(last) >= self.task.interval {
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

    fn answer(&self, index: u32) {
        match topic::bounds(&self.task.consumer, &self.task.topic, index) {
            Ok(bounds) => self.report(Report::Bounds(index, bounds)),
            // The question stands until the broker answers.
            Err(error) => {
                tracing::warn!(topic = self.task.topic, partition = index, %error, "the broker does not say what it has");
                let _ = self.asked.push(index);
            }
        }
    }

    fn look(&mut self) {
        match topic::partitions(self.task.consumer.client(), &self.task.topic) {
            Ok(Some(count)) => {
                self.compare_ids();
                let (worker, peers) = (self.task.worker, self.task.peers);
                (0..count).filter(|index| index % peers == worker).for_each(|index| self.appear(index));
            }
            Ok(None) if !std::mem::replace(&mut self.gone, true) => {
                self.report(Report::Recreated("it is gone".to_owned()))
            }
            Ok(None) => {}
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
        let Some(now) = topic::id(&self.task.consumer, &self.task.topic) else { return };
        match &self.task.id {
            Some(before) if *before != now => {
                self.report(Report::Recreated(format!("its id was '{before}' and is '{now}'")));
            }
            _ => {}
        }
        self.task.id = Some(now);
    }

    fn appear(&mut self, index: u32) {
        if self.task.known.contains(&index) {
            return;
        }
        // A partition that appears in a running topic is read from its beginning, wherever the source itself began.
        match topic::bounds(&self.task.consumer, &self.task.topic, index) {
            Ok(bounds) => {
                self.task.known.insert(index);
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
