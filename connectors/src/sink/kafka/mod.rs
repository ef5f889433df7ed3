//! Writes to Kafka: one transaction holds one or more whole epochs, of all topics, and the marker (DESIGN, "Sinks").
//!
//! ```text
//!  open    initialise every id 0..WRITERS_MAX x 0..SLOTS_MAX  (fences all older producers, ends their transactions)
//!          read the marker up to the high watermark --> may we write? --> transaction with our marker alone --> read it back
//!  commit  producer 0: begin, rows, marker, all acknowledged, commit
//!          producer 1:                                              begin, ...          (in turn)
//!  doubt   any error: destroy all producers, is the marker still ours?, initialise all, read the marker
//!          --> committed: done | absent: the whole transaction again | anything else: stop
//! ```
//!
//! Invariants: a producer sends nothing before the one before it has committed; no error code is believed, the marker
//! decides; who is shut out by a marker never initialises again. Two producers take turns because commits back to back on
//! one were measured at about 25 ms where the coordinator still completes the transaction before, and in turn at about 3 ms;
//! `latency_of_commits_in_turn` (tests/kafka) measures both.

mod decision;
mod markers;
mod producer;
mod topics;

use crate::kafka_settings::{Delivery, KafkaSinkSettings};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{ChainHash, EpochOutput, Error, Fault, Marker, Result, Sink, SinkIdentity};
use decision::Outcome;
use markers::{Reach, Reader};
use producer::{Outgoing, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Writers whose ids are initialised at the start, whatever is configured: one writer makes an epoch visible as a whole.
pub const WRITERS_MAX: u32 = 1;

/// Producers a writer may have: two suffice for the turns, and each id costs a start some 10 ms.
pub const SLOTS_MAX: u32 = 4;

/// Attempts to settle one unknown outcome or one start. Each waits for the cluster within its own timeouts (20 to 60 s),
/// so this bounds an outage that the sink rides out to a few minutes; then the job's restart takes over.
const ATTEMPTS_MAX: u32 = 8;

/// What the sink did.
#[derive(Debug, Default)]
pub struct KafkaSinkCounters {
    /// Transactions committed, those that only hold a marker included.
    pub committed: AtomicU64,
    /// Transactions found absent after an error, and sent again.
    pub aborted: AtomicU64,
    /// Times that all producers were destroyed and initialised again.
    pub reinitialised: AtomicU64,
    /// Rows committed.
    pub rows: AtomicU64,
}

/// A Kafka sink: all topics of a job on one cluster.
pub struct KafkaSink {
    name: String,
    settings: KafkaSinkSettings,
    /// By [`dataflow_core::TopicId`].
    topics: Vec<String>,
    counters: Arc<KafkaSinkCounters>,
    open: Option<Open>,
}

/// The sink after `open`.
struct Open {
    identity: SinkIdentity,
    markers: String,
    key: String,
    /// Partitions of each topic, as of the start: a topic that grows later would move keys within the generation.
    partitions: Vec<u32>,
    slots: Vec<Option<Producer>>,
    turn: usize,
    /// What the sink's marker is known to be.
    held: Marker,
}

impl KafkaSink {
    /// A sink with these settings that writes to `topics`, indexed by [`dataflow_core::TopicId`]. Nothing is connected yet.
    ///
    /// # Errors
    /// When a setting is out of its range or would break a guarantee.
    pub fn new(name: impl Into<String>, settings: KafkaSinkSettings, topics: Vec<String>) -> Result<KafkaSink> {
        let name = name.into();
        let refuse = |what: &str| Err(Error::user(format!("reading the settings of kafka sink '{name}': {what}")));
        if !(1..=SLOTS_MAX).contains(&settings.slots) {
            return refuse(&format!("'slots' is {}, and must be 1 to {SLOTS_MAX}", settings.slots));
        }
        if settings.create_topics.is_some_and(|c| c.partitions == 0 || c.replication == 0) {
            return refuse("'create_topics' needs at least one partition and one replica");
        }
        if settings.transaction_timeout_ms < 1000 {
            return refuse("'transaction_timeout_ms' is below 1000, which no broker's restart fits in");
        }
        settings.producer(None)?;
        Ok(KafkaSink { name, settings, topics, counters: Arc::default(), open: None })
    }

    /// What the sink did so far.
    pub fn counters(&self) -> Arc<KafkaSinkCounters> {
        self.counters.clone()
    }

    /// One attempt to become the writer.
    fn establish(&self, open: &mut Open) -> Result<Option<Marker>> {
        let reader = Reader::new(&self.settings, &open.markers, &open.key)?;
        self.may_still_write(open, &reader)?;
        self.initialise(open)?;
        let found = reader.last(Reach::Everything)?;
        let found = decision::admit(&self.name, found, &open.identity, self.settings.start_over)?;
        let (epoch, chain) = found.map_or((0, ChainHash::default()), |m| (m.epoch, m.chain));
        let ours = open.identity.marker(epoch, chain);
        self.send(open, &[], ours)?;
        let now = reader.last(Reach::Everything)?;
        if now != Some(ours) {
            decision::admit(&self.name, now, &open.identity, false)?;
            return Err(Error::outside(format!(
                "opening sink '{}': the marker written is not the one read",
                self.name
            ))
            .retry());
        }
        open.held = ours;
        Ok(found)
    }

    /// Shuts out before anything is initialised who is shut out already: an initialisation would end the transaction of
    /// the newer generation.
    fn may_still_write(&self, open: &Open, reader: &Reader) -> Result<()> {
        let found = reader.last(Reach::Stable)?;
        decision::admit(&self.name, found, &open.identity, self.settings.start_over).map(|_| ())
    }

    /// Destroys all producers and initialises every id there may be.
    fn initialise(&self, open: &mut Open) -> Result<()> {
        open.slots.clear();
        open.turn = 0;
        if self.settings.delivery == Delivery::AtLeastOnce {
            open.slots.push(Some(Producer::start(&self.settings, &self.name, None)?));
            return Ok(());
        }
        let ours = |writer, slot| writer == 0 && slot < self.settings.slots;
        let left_out =
            |writer, slot| is_planted(Bug::SlotLeftUnfenced) && ours(writer, slot) && slot + 1 == self.settings.slots;
        let open_ref = &*open;
        // At once, since each waits for the coordinator; all of them before anything is sent.
        let started: Vec<Result<Option<Producer>>> = std::thread::scope(|scope| {
            let ids = (0..WRITERS_MAX).flat_map(|writer| (0..SLOTS_MAX).map(move |slot| (writer, slot)));
            let threads: Vec<_> = ids
                .filter(|(writer, slot)| !left_out(*writer, *slot))
                .map(|(writer, slot)| {
                    scope.spawn(move || self.start(open_ref, writer, slot).map(|p| ours(writer, slot).then_some(p)))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("starting a producer does not panic")).collect()
        });
        for producer in started {
            open.slots.extend(producer?.map(Some));
        }
        open.slots.resize_with(self.settings.slots as usize, || None);
        Ok(())
    }

    fn start(&self, open: &Open, writer: u32, slot: u32) -> Result<Producer> {
        let id = format!("{}-{}-{writer}-{slot}", open.identity.job, self.name);
        Producer::start(&self.settings, &self.name, Some(&id))
    }

    /// Sends rows and marker with the producer whose turn it is.
    fn send(&self, open: &mut Open, epochs: &[EpochOutput], marker: Marker) -> Result<()> {
        let value = serde_json::to_vec(&marker).expect("a marker is plain numbers");
        if open.slots[open.turn].is_none() {
            // Only with a planted bug is an id initialised as late as this.
            open.slots[open.turn] = Some(self.start(open, 0, open.turn as u32)?);
        }
        let producer = open.slots[open.turn].as_ref().expect("it was started above");
        let rows = || {
            epochs.iter().flat_map(|epoch| &epoch.rows).map(|row| {
                let topic = usize::from(row.topic.0);
                let partition = row.route % u64::from(open.partitions[topic]);
                Outgoing {
                    topic: &self.topics[topic],
                    partition: i32::try_from(partition).expect("partition numbers are 31 bits"),
                    key: row.key.as_deref(),
                    value: &row.value,
                }
            })
        };
        let mark = || {
            std::iter::once(Outgoing {
                topic: &open.markers,
                partition: 0,
                key: Some(open.key.as_bytes()),
                value: &value,
            })
        };
        match self.settings.delivery {
            Delivery::ExactlyOnce if is_planted(Bug::MarkerOutsideTransaction) => {
                producer.transaction(rows())?;
                producer.transaction(mark())?;
            }
            Delivery::ExactlyOnce => producer.transaction(rows().chain(mark()))?,
            Delivery::AtLeastOnce => {
                producer.send(rows())?;
                producer.send(mark())?;
            }
        }
        open.turn = (open.turn + 1) % open.slots.len();
        self.counters.committed.fetch_add(1, Relaxed);
        self.counters.rows.fetch_add(epochs.iter().map(|e| e.rows.len() as u64).sum(), Relaxed);
        Ok(())
    }

    /// Finds out what became of a commit that ended in an error, and completes it.
    fn settle(&self, open: &mut Open, epochs: &[EpochOutput], marker: Marker, mut error: Error) -> Result<()> {
        for attempt in 1..=ATTEMPTS_MAX {
            tracing::warn!(sink = self.name, epoch = marker.epoch, attempt, %error, "a commit's outcome is unknown; reading the marker");
            self.counters.reinitialised.fetch_add(1, Relaxed);
            let outcome = self.look_again(open, marker);
            match outcome {
                Ok(Outcome::Committed) => return Ok(()),
                Ok(Outcome::Absent) => {
                    self.counters.aborted.fetch_add(1, Relaxed);
                    match self.send(open, epochs, marker) {
                        Ok(()) => return Ok(()),
                        Err(next) if next.fault == Fault::User => return Err(next),
                        Err(next) => error = next,
                    }
                }
                Err(next) if next.fault == Fault::Outside => error = next,
                Err(stop) => return Err(stop),
            }
        }
        Err(error.hint("the cluster did not recover in time; the job may be started again once it has"))
    }

    fn look_again(&self, open: &mut Open, marker: Marker) -> Result<Outcome> {
        open.slots.clear();
        let reader = Reader::new(&self.settings, &open.markers, &open.key)?;
        self.may_still_write(open, &reader)?;
        self.initialise(open)?;
        let found = reader.last(Reach::Everything)?;
        decision::outcome(&self.name, found, open.held, marker, &open.identity)
    }
}

impl Sink for KafkaSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, identity: &SinkIdentity) -> Result<Option<Marker>> {
        let partitions = topics::prepare(&self.settings, &identity.job, &self.topics)?;
        let mut open = Open {
            identity: identity.clone(),
            markers: markers::topic_of(&identity.job),
            key: markers::key_of(&identity.job, &self.name),
            partitions,
            slots: Vec::new(),
            turn: 0,
            held: identity.marker(0, ChainHash::default()),
        };
        let mut attempt = 1;
        let found = loop {
            match self.establish(&mut open) {
                Ok(found) => break found,
                Err(error) if error.fault == Fault::Outside && attempt < ATTEMPTS_MAX => {
                    tracing::warn!(sink = self.name, attempt, %error, "opening the sink failed; trying again");
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        self.open = Some(open);
        // A marker of epoch 0 only fences: the sink never held output.
        Ok(found.filter(|marker| marker.epoch > 0))
    }

    fn commit(&mut self, epochs: &[EpochOutput]) -> Result<()> {
        let mut open = self
            .open
            .take()
            .ok_or_else(|| Error::us(format!("committing to sink '{}', which is not open", self.name)))?;
        let last = decision::follows(open.held.epoch, epochs.iter().map(|e| e.epoch))?;
        let chain = epochs.last().expect("a commit has at least one epoch").chain;
        let marker = open.identity.marker(last, chain);
        // After an error that this does not settle the sink stays closed: nothing may be sent any more.
        match self.send(&mut open, epochs, marker) {
            Ok(()) => {}
            // A row that no broker will take. Nothing is in doubt: without its rows the transaction was not committed.
            Err(error) if error.fault == Fault::User => return Err(error),
            Err(error) => self.settle(&mut open, epochs, marker, error)?,
        }
        open.held = marker;
        self.open = Some(open);
        Ok(())
    }
}
