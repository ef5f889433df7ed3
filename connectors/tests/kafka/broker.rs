//! The broker as the tests see it: topics of their own, plain producers, and a consumer that knows nothing of the product.

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Far longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The broker's address.
pub(crate) fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS names the broker: run it with 'make e2e'")
}

/// A name that no other test or run uses.
pub(crate) fn fresh(prefix: &str) -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{prefix}-{random:016x}")
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait_for<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers());
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    config().create().unwrap()
}

pub(crate) fn create(topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        new = new.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    wait_for(admin().create_topics([&new], &options)).unwrap()[0].as_ref().unwrap();
}

pub(crate) fn grow(topic: &str, partitions: usize) {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    wait_for(admin().create_partitions([&NewPartitions::new(topic, partitions)], &options)).unwrap()[0]
        .as_ref()
        .unwrap();
}

pub(crate) fn delete(topic: &str) {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    wait_for(admin().delete_topics(&[topic], &options)).unwrap()[0].as_ref().unwrap();
    let client: BaseConsumer = config().create().unwrap();
    while client.fetch_metadata(Some(topic), PATIENCE).unwrap().topics()[0].error().is_none() {}
}

/// Removes what is below `offset`, as retention does.
pub(crate) fn remove_below(topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    wait_for(admin().delete_records(&list, &AdminOptions::new())).unwrap();
}

/// A producer of the test's own, transactional when it has an id.
pub(crate) fn producer(transactional_id: Option<&str>) -> BaseProducer {
    let mut config = config();
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    let producer: BaseProducer = config.create().unwrap();
    if transactional_id.is_some() {
        producer.init_transactions(PATIENCE).unwrap();
    }
    producer
}

pub(crate) fn send(producer: &BaseProducer, topic: &str, partition: i32, key: &str, values: &[&str]) {
    for value in values {
        producer.send(BaseRecord::to(topic).partition(partition).key(key).payload(*value)).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// What a group has committed.
pub(crate) fn committed(group: &str, topic: &str, partition: i32) -> Option<i64> {
    let consumer: BaseConsumer = config().set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let found = consumer.committed_offsets(list, PATIENCE).unwrap();
    found.elements()[0].offset().to_raw().filter(|offset| *offset >= 0)
}

/// What a consumer sees of a partition: key and value of each record up to its end.
pub(crate) fn contents(topic: &str, partition: i32, isolation: &str) -> Vec<(String, String)> {
    let consumer: BaseConsumer = config()
        .set("group.id", "oracle")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut seen = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("the end comes before the patience ends") {
            Ok(message) => {
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or(b"(null)").to_vec()).unwrap();
                seen.push((text(message.key()), text(message.payload())));
            }
            Err(KafkaError::PartitionEOF(_)) => return seen,
            Err(error) => panic!("{error}"),
        }
    }
}
