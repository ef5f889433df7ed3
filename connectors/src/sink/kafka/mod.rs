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
//!
//! This file and [`decision`] are the protocol, over any [`Cluster`]; the others are the cluster that librdkafka talks to.

mod batch;
pub mod cluster;
mod decision;
mod events;
mod librdkafka;
mod markers;
mod producer;
mod topics;

use crate::kafka_settings::{Delivery, KafkaSinkSettings};
use cluster::{Cluster, MarkerReader, Outgoing, Reach, TransactionalProducer};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{ChainHash, EpochOutput, Error, Fault, Marker, Result, Sink, SinkIdentity};
use decision::Outcome;
pub use librdkafka::Librdkafka;
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

/// What the protocol is told by settings.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// The promise.
    pub delivery: Delivery,
    /// Producers that take turns.
    pub slots: u32,
    /// Take over topics whose marker is of another lineage.
    pub start_over: bool,
}

/// A Kafka sink: all topics of a job on one cluster.
pub struct KafkaSink<C: Cluster = Librdkafka> {
    name: String,
    cluster: C,
    protocol: Protocol,
    /// By [`dataflow_core::TopicId`].
    topics: Vec<String>,
    counters: Arc<KafkaSinkCounters>,
    open: Option<Open<C>>,
}

/// The sink after `open`.
struct Open<C: Cluster> {
    identity: SinkIdentity,
    markers: String,
    key: String,
    /// Partitions of each topic, as of the start: a topic that grows later would move keys within the generation.
    partitions: Vec<u32>,
    slots: Vec<Option<C::Producer>>,
    turn: usize,
    /// Producers of ids that only had to be fenced. They rest: to end one costs a start 100 ms.
    at_rest: Vec<C::Producer>,
    /// What the sink's marker is known to be.
    held: Marker,
}

impl KafkaSink<Librdkafka> {
    /// A sink with these settings that writes to `topics`, indexed by [`dataflow_core::TopicId`]. Nothing is connected yet.
    ///
    /// # Errors
    /// When a setting is out of its range or would break a guarantee.
    pub fn new(name: impl Into<String>, settings: KafkaSinkSettings, topics: Vec<String>) -> Result<KafkaSink> {
        let name = name.into();
        let refuse = |what: &str| Err(refused_settings(&name, what));
        if settings.create_topics.is_some_and(|c| c.partitions == 0 || c.replication == 0) {
            return refuse("'create_topics' needs at least one partition and one replica");
        }
        if settings.transaction_timeout_ms < 1000 {
            return refuse("'transaction_timeout_ms' is below 1000, which no broker's restart fits in");
        }
        settings.producer(None)?;
        let (delivery, slots, start_over) = (settings.delivery, settings.slots, settings.start_over);
        let cluster = Librdkafka::new(&name, settings);
        KafkaSink::over(name, cluster, Protocol { delivery, slots, start_over }, topics)
    }
}

impl<C: Cluster> KafkaSink<C> {
    /// As [`KafkaSink::new`], over any cluster.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn over(name: impl Into<String>, cluster: C, protocol: Protocol, topics: Vec<String>) -> Result<KafkaSink<C>> {
        let name = name.into();
        if !(1..=SLOTS_MAX).contains(&protocol.slots) {
            let slots = protocol.slots;
            return Err(refused_settings(&name, &format!("'slots' is {slots}, and must be 1 to {SLOTS_MAX}")));
        }
        Ok(KafkaSink { name, cluster, protocol, topics, counters: Arc::default(), open: None })
    }

    /// What the sink did so far.
    pub fn counters(&self) -> Arc<KafkaSinkCounters> {
        self.counters.clone()
    }

    /// One attempt to become the writer.
    fn establish(&self, open: &mut Open<C>, reader: &C::Reader) -> Result<Option<Marker>> {
        self.fence(open, reader)?;
        let found = self.marker(open, reader, Reach::Everything)?;
        let found = decision::admit(&self.name, found, &open.identity, self.protocol.start_over)?;
        let (epoch, chain) = found.map_or((0, ChainHash::default()), |m| (m.epoch, m.chain));
        let ours = open.identity.marker(epoch, chain);
        self.send(open, &[], ours)?;
        let now = self.marker(open, reader, Reach::Everything)?;
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

    /// Destroys all producers and initialises every id there may be, unless we are shut out already: an initialisation would
    /// end the transaction of the newer generation.
    fn fence(&self, open: &mut Open<C>, reader: &C::Reader) -> Result<()> {
        open.slots.clear();
        open.at_rest.clear();
        open.turn = 0;
        let ids = self.ids();
        let names: Vec<_> = ids.iter().map(|id| self.id_of(open, *id)).collect();
        let names: Vec<Option<&str>> = names.iter().map(Option::as_deref).collect();
        // All are initialised before anything is sent.
        let mut producers = self.cluster.connect_all(&names, &open.markers, || {
            let found = self.marker(open, reader, Reach::Stable)?;
            decision::admit(&self.name, found, &open.identity, self.protocol.start_over).map(drop)
        })?;
        if self.protocol.delivery == Delivery::ExactlyOnce {
            self.cluster.initialise_all(&mut producers)?;
        }
        for ((writer, slot), producer) in ids.into_iter().zip(producers) {
            if writer == 0 && slot < self.slots() {
                open.slots.push(Some(producer));
            } else {
                open.at_rest.push(producer);
            }
        }
        open.slots.resize_with(self.slots() as usize, || None);
        Ok(())
    }

    /// Writer and slot of every id that may ever have been used.
    fn ids(&self) -> Vec<(u32, u32)> {
        if self.protocol.delivery == Delivery::AtLeastOnce {
            return vec![(0, 0)];
        }
        let left_out = |id: &(u32, u32)| is_planted(Bug::SlotLeftUnfenced) && *id == (0, self.slots() - 1);
        let all = (0..WRITERS_MAX).flat_map(|writer| (0..SLOTS_MAX).map(move |slot| (writer, slot)));
        all.filter(|id| !left_out(id)).collect()
    }

    /// Producers that take turns.
    fn slots(&self) -> u32 {
        if self.protocol.delivery == Delivery::AtLeastOnce { 1 } else { self.protocol.slots }
    }

    /// The transactional id of a writer's slot; none without transactions.
    fn id_of(&self, open: &Open<C>, (writer, slot): (u32, u32)) -> Option<String> {
        let id = || format!("{}-{}-{writer}-{slot}", open.identity.job, self.name);
        (self.protocol.delivery == Delivery::ExactlyOnce).then(id)
    }

    fn marker(&self, open: &Open<C>, reader: &C::Reader, reach: Reach) -> Result<Option<Marker>> {
        let last = reader.last(reach)?;
        last.map(|(offset, value)| parse(&open.markers, offset, &value)).transpose()
    }

    /// Sends rows and marker with the producer whose turn it is.
    fn send(&self, open: &mut Open<C>, epochs: &[EpochOutput], marker: Marker) -> Result<()> {
        let value = serde_json::to_vec(&marker).expect("a marker is plain numbers");
        if open.slots[open.turn].is_none() {
            // Only with a planted bug is an id initialised as late as this.
            let id = self.id_of(open, (0, open.turn as u32));
            let mut producer = self.cluster.connect(id.as_deref(), &open.markers)?;
            producer.initialise()?;
            open.slots[open.turn] = Some(producer);
        }
        open.slots.iter_mut().flatten().chain(&mut open.at_rest).for_each(C::Producer::rest);
        let producer = open.slots[open.turn].as_mut().expect("it was started above");
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
        match self.protocol.delivery {
            Delivery::ExactlyOnce if is_planted(Bug::MarkerOutsideTransaction) => {
                transaction(producer, rows())?;
                transaction(producer, mark())?;
            }
            Delivery::ExactlyOnce => transaction(producer, rows().chain(mark()))?,
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
    fn settle(&self, open: &mut Open<C>, epochs: &[EpochOutput], marker: Marker, mut error: Error) -> Result<()> {
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

    fn look_again(&self, open: &mut Open<C>, marker: Marker) -> Result<Outcome> {
        let reader = self.cluster.reader(&open.markers, &open.key)?;
        self.fence(open, &reader)?;
        let found = self.marker(open, &reader, Reach::Everything)?;
        decision::outcome(&self.name, found, open.held, marker, &open.identity)
    }
}

impl<C: Cluster> Sink for KafkaSink<C> {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, identity: &SinkIdentity) -> Result<Option<Marker>> {
        let (markers, key) = (cluster::markers_of(&identity.job), cluster::key_of(&identity.job, &self.name));
        let mut reader = self.cluster.reader(&markers, &key)?;
        let partitions = self.cluster.prepare(&reader, &markers, &self.topics)?;
        let mut open = Open {
            identity: identity.clone(),
            markers,
            key,
            partitions,
            slots: Vec::new(),
            turn: 0,
            at_rest: Vec::new(),
            held: identity.marker(0, ChainHash::default()),
        };
        let mut attempt = 1;
        let found = loop {
            match self.establish(&mut open, &reader) {
                Ok(found) => break found,
                Err(error) if error.fault == Fault::Outside && attempt < ATTEMPTS_MAX => {
                    tracing::warn!(sink = self.name, attempt, %error, "opening the sink failed; trying again");
                    attempt += 1;
                    reader = self.cluster.reader(&open.markers, &open.key)?;
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

/// Sends the records as one transaction. After an error nothing is known about its outcome.
fn transaction<'a>(
    producer: &mut impl TransactionalProducer,
    records: impl Iterator<Item = Outgoing<'a>>,
) -> Result<()> {
    producer.begin()?;
    let sent = producer.send(records);
    if !is_planted(Bug::SwallowedProduceError) {
        sent?;
    }
    producer.commit()
}

fn refused_settings(sink: &str, what: &str) -> Error {
    Error::user(format!("reading the settings of kafka sink '{sink}': {what}"))
}

fn parse(topic: &str, offset: u64, value: &[u8]) -> Result<Marker> {
    serde_json::from_slice(value).map_err(|e| {
        Error::doubt(format!("reading the marker at offset {offset} of '{topic}'")).because(e).hint(
            "something else writes to this topic, or a newer version of the engine did; use the version that wrote it",
        )
    })
}
