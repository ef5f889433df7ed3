//! The cluster that librdkafka talks to.

use super::cluster::{Cluster, TransactionalProducer};
use super::markers::Reader;
use super::producer::Producer;
use super::topics;
use crate::kafka_settings::KafkaSinkSettings;
use dataflow_core::Result;

/// A Kafka cluster, by a sink's settings.
pub struct Librdkafka {
    sink: String,
    settings: KafkaSinkSettings,
}

impl Librdkafka {
    /// The cluster that the settings name, as sink `sink` uses it. Nothing is connected yet.
    pub fn new(sink: &str, settings: KafkaSinkSettings) -> Librdkafka {
        Librdkafka { sink: sink.to_owned(), settings }
    }
}

impl Cluster for Librdkafka {
    type Producer = Producer;
    type Reader = Reader;

    fn reader(&self, topic: &str, key: &str) -> Result<Reader> {
        Reader::new(&self.settings, topic, key)
    }

    fn prepare(&self, reader: &Reader, markers: &str, topics: &[String]) -> Result<Vec<u32>> {
        topics::prepare(&self.settings, reader.client(), markers, topics)
    }

    fn connect(&self, id: Option<&str>, topic: &str) -> Result<Producer> {
        Producer::connect(&self.settings, &self.sink, id, topic)
    }

    /// All at once, since each waits for the cluster.
    fn connect_all(
        &self,
        ids: &[Option<&str>],
        topic: &str,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<Producer>> {
        std::thread::scope(|scope| {
            let connecting: Vec<_> = ids.iter().map(|id| scope.spawn(move || self.connect(*id, topic))).collect();
            meanwhile()?;
            connecting.into_iter().map(|t| t.join().expect("connecting a producer does not panic")).collect()
        })
    }

    /// As [`Librdkafka::connect_all`].
    fn initialise_all(&self, producers: &mut [Producer]) -> Result<()> {
        std::thread::scope(|scope| {
            let fencing: Vec<_> = producers.iter_mut().map(|p| scope.spawn(|| p.initialise())).collect();
            fencing.into_iter().try_for_each(|t| t.join().expect("initialising a producer does not panic"))
        })
    }
}
