//! What the sink's protocol asks of a cluster, and nothing else: behind it are librdkafka and, in the simulation, a broker
//! with the coordinator's states.

use dataflow_core::{Result, SHARDS};

/// The markers topic of a job: one partition, compacted, one key for each job, sink and shard range.
pub fn markers_of(job: &str) -> String {
    format!("{job}-markers")
}

/// The key of a sink's marker. One writer owns all shards.
pub fn key_of(job: &str, sink: &str) -> String {
    format!("{job}/{sink}/0-{}", SHARDS - 1)
}

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What is committed by now. Never waits; an open transaction, our own perhaps, may still add to it.
    Stable,
    /// Everything sent by now: waits for the end of the transactions that are open. Proves something only after the
    /// fencing, when nothing older can still come.
    Everything,
}

/// A record to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: &'a [u8],
}

/// A cluster with transactions.
pub trait Cluster: Send {
    /// Sends.
    type Producer: TransactionalProducer;
    /// Reads markers.
    type Reader: MarkerReader;

    /// A reader of what is under `key` in the markers topic.
    ///
    /// # Errors
    /// When it can not be made.
    fn reader(&self, topic: &str, key: &str) -> Result<Self::Reader>;

    /// Finds or creates the markers topic and the output topics; returns the partitions of the latter.
    ///
    /// # Errors
    /// When a topic is missing and may not be created, or is not as it has to be.
    fn prepare(&self, reader: &Self::Reader, markers: &str, topics: &[String]) -> Result<Vec<u32>>;

    /// Connects a producer, transactional when it has an id. It is not initialised. `topic` is one that exists.
    ///
    /// # Errors
    /// When the cluster does not answer.
    fn connect(&self, id: Option<&str>, topic: &str) -> Result<Self::Producer>;

    /// Connects a producer for each id, and does something `meanwhile`.
    ///
    /// # Errors
    /// Those of `meanwhile` first, then those of [`Cluster::connect`].
    fn connect_all(
        &self,
        ids: &[Option<&str>],
        topic: &str,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<Self::Producer>> {
        meanwhile()?;
        ids.iter().map(|id| self.connect(*id, topic)).collect()
    }

    /// Initialises each producer.
    ///
    /// # Errors
    /// Those of [`TransactionalProducer::initialise`].
    fn initialise_all(&self, producers: &mut [Self::Producer]) -> Result<()> {
        producers.iter_mut().try_for_each(TransactionalProducer::initialise)
    }
}

/// A producer. After an error of any call its outcome is unknown, and only dropping it is left to do.
pub trait TransactionalProducer: Send {
    /// Shuts out the producer that had the transactional id before, and ends its transaction. Called once, first.
    ///
    /// # Errors
    /// When the cluster does not say that it is done.
    fn initialise(&mut self) -> Result<()>;

    /// Begins a transaction.
    ///
    /// # Errors
    /// When the one before has not ended.
    fn begin(&mut self) -> Result<()>;

    /// Sends the records and waits until the brokers have acknowledged each.
    ///
    /// # Errors
    /// When one was not; [`dataflow_core::Fault::User`] for a record that no broker will take.
    fn send<'a>(&mut self, records: impl Iterator<Item = Outgoing<'a>>) -> Result<()>;

    /// Commits the transaction.
    ///
    /// # Errors
    /// Whatever it is, nothing is known about the outcome.
    fn commit(&mut self) -> Result<()>;

    /// Takes what has come in for a producer that does nothing.
    fn rest(&mut self);
}

/// Reads the markers of one sink. It lives for one start or one settlement.
pub trait MarkerReader: Send {
    /// Offset and value of the last committed record under the key.
    ///
    /// # Errors
    /// When the cluster does not answer, or a transaction stays open for too long.
    fn last(&self, reach: Reach) -> Result<Option<(u64, Vec<u8>)>>;
}
