//! The simulated broker as the Kafka sink sees a cluster: one life's connections to it.

use super::{Item, SimBroker};
use crate::life::Life;
use dataflow_connectors::sink::kafka::cluster::{Cluster, MarkerReader, Outgoing, Reach, TransactionalProducer};
use dataflow_core::{Error, Result};
use std::sync::Arc;

/// Partitions of each output topic. What a consumer sees is compared over all of them, in the order in which it came.
const PARTITIONS: u32 = 3;
/// Records of one request.
const RECORDS_MAX: usize = 16;

/// The cluster of one life.
#[derive(Clone)]
pub(crate) struct SimCluster {
    pub(crate) broker: Arc<SimBroker>,
    pub(crate) life: Arc<Life>,
}

/// A producer.
pub(crate) struct SimProducer {
    cluster: SimCluster,
    id: String,
    /// Its epoch, once it is initialised.
    epoch: Option<u64>,
    /// Whether its transaction has a record: of an empty one the coordinator hears nothing.
    has_sent: bool,
}

/// A reader of markers.
pub(crate) struct SimReader {
    cluster: SimCluster,
    topic: String,
    key: String,
}

impl Cluster for SimCluster {
    type Producer = SimProducer;
    type Reader = SimReader;

    fn reader(&self, topic: &str, key: &str) -> Result<SimReader> {
        Ok(SimReader { cluster: self.clone(), topic: topic.to_owned(), key: key.to_owned() })
    }

    fn prepare(&self, _reader: &SimReader, _markers: &str, topics: &[String]) -> Result<Vec<u32>> {
        Ok(vec![PARTITIONS; topics.len()])
    }

    fn connect(&self, id: Option<&str>, _topic: &str) -> Result<SimProducer> {
        self.broker.ask(&self.life, "connect")?;
        let id = id.ok_or_else(|| Error::us("connecting a producer without transactions to the simulated broker"))?;
        Ok(SimProducer { cluster: self.clone(), id: id.to_owned(), epoch: None, has_sent: false })
    }
}

impl SimProducer {
    fn epoch(&self) -> Result<u64> {
        self.epoch.ok_or_else(|| Error::us(format!("using producer '{}' before it is initialised", self.id)))
    }
}

impl TransactionalProducer for SimProducer {
    fn initialise(&mut self) -> Result<()> {
        self.epoch = Some(self.cluster.broker.initialise(&self.cluster.life, &self.id)?);
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.has_sent = false;
        self.epoch().map(drop)
    }

    fn send<'a>(&mut self, records: impl Iterator<Item = Outgoing<'a>>) -> Result<()> {
        let (SimCluster { broker, life }, epoch) = (&self.cluster, self.epoch()?);
        let items = records.map(|record| Item {
            topic: record.topic.to_owned(),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.to_vec(),
            transaction: usize::MAX,
        });
        let items: Vec<Item> = items.collect();
        self.has_sent |= !items.is_empty();
        items.chunks(RECORDS_MAX).try_for_each(|request| broker.produce(life, &self.id, epoch, request.to_vec()))
    }

    fn commit(&mut self) -> Result<()> {
        let SimCluster { broker, life } = &self.cluster;
        if self.has_sent { broker.commit(life, &self.id, self.epoch()?) } else { Ok(()) }
    }

    fn rest(&mut self) {}
}

impl MarkerReader for SimReader {
    fn last(&self, reach: Reach) -> Result<Option<(u64, Vec<u8>)>> {
        let SimCluster { broker, life } = &self.cluster;
        broker.last(life, &self.topic, &self.key, reach == Reach::Everything)
    }
}
