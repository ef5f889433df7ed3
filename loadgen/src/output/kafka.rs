//! The traffic as a Kafka producer: Avro in Confluent's framing, both schema versions registered, partitioned by user.
//!
//! The idempotent producer keeps the order within a partition. A delivery that fails ends the run: what was asked for was
//! not written. Labels hold the offsets that the broker gave.

use super::Summary;
use crate::logins::{Labels, Login, SCHEMA_V1, SCHEMA_V2, Traffic, partition_of};
use dataflow_core::{Clock, Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, producer};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// How long a broker may take to answer a question.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the last messages may take to be acknowledged.
const FLUSH: Duration = Duration::from_secs(60);
/// Records between two looks at the answers.
const PROGRESS: u64 = 256;
/// The longest wait for the moment at which a record is due, between two looks at the answers and the wish to stop.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Messages that wait for their acknowledgement: bounds the memory.
const QUEUED_MESSAGES_MAX: &str = "200000";

/// Where to write.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `host:port,...`.
    pub brokers: String,
    /// The registry's base address.
    pub registry: String,
    /// The topic; created with the traffic's partitions when it is absent, which alone needs the right to create one.
    pub topic: String,
    /// Whether to wait until records are due.
    pub paced: bool,
    /// Further client properties.
    pub properties: BTreeMap<String, String>,
}

/// Writes the traffic until it ends or `stop` is set; what was written until then is flushed, and the labels are true of it.
/// `progress` is told the number of records now and then.
///
/// # Errors
/// The broker, the topic or the registry does not do its part.
pub fn produce(
    traffic: &Traffic,
    settings: &KafkaSettings,
    clock: &dyn Clock,
    stop: &AtomicBool,
    mut progress: impl FnMut(u64),
) -> Result<Summary> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers).set("enable.idempotence", "true").set("linger.ms", "5");
    config.set("queue.buffering.max.messages", QUEUED_MESSAGES_MAX);
    config.extend(settings.properties.clone());
    let subject = format!("{}-value", settings.topic);
    let ids = [register(&settings.registry, &subject, SCHEMA_V1)?, register(&settings.registry, &subject, SCHEMA_V2)?];
    let partitions = traffic.settings().partitions;
    let context = Arc::new(Deliveries::default());
    let producer = BaseProducer::from_config_and_context(&config, Shared(context.clone()))
        .map_err(|e| Error::user(format!("connect to Kafka at '{}'", settings.brokers)).because(e))?;
    if partitions_of(&producer, &settings.topic)? == 0 {
        create_topic(&config, &settings.topic, partitions)?;
    }
    check_topic(&producer, &settings.topic, partitions)?;

    let begin = clock.monotonic();
    let mut records = vec![0u64; partitions as usize];
    let mut total = 0u64;
    for (partition, _, login) in traffic.stream() {
        let due = begin + Duration::from_micros(if settings.paced { login.due_us } else { 0 });
        while let Some(wait) = due.checked_sub(clock.monotonic()).filter(|wait| !wait.is_zero() && !is_set(stop)) {
            // Not with a timeout: rdkafka turns without a pause for the last millisecond of it, which here is all of it.
            producer.poll(Duration::ZERO);
            std::thread::park_timeout(wait.min(WAIT_MAX));
        }
        if is_set(stop) {
            break;
        }
        debug_assert!(login.key.is_empty() || partition == partition_of(&login.key, partitions));
        send(&producer, &context, &settings.topic, partition, login, ids)?;
        records[partition as usize] += 1;
        total += 1;
        if total.is_multiple_of(PROGRESS) {
            producer.poll(Duration::ZERO);
            progress(total);
        }
        if let Some(error) = context.lock().failed.take() {
            return Err(Error::outside(format!("write to topic '{}'", settings.topic)).because(error));
        }
    }
    producer.flush(FLUSH).map_err(|e| Error::outside(format!("flush topic '{}'", settings.topic)).because(e))?;
    let mut deliveries = context.lock();
    if let Some(error) = deliveries.failed.take() {
        return Err(Error::outside(format!("write to topic '{}'", settings.topic)).because(error));
    }
    let labels = std::mem::take(&mut deliveries.labels).finish(traffic);
    Ok(Summary { records, labels })
}

fn is_set(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

/// What the broker answered.
#[derive(Default)]
struct Deliveries(Mutex<Answers>);

#[derive(Default)]
struct Answers {
    failed: Option<KafkaError>,
    /// Attack records on their way, by opaque number from 1.
    attacks: BTreeMap<usize, Login>,
    count: usize,
    labels: Labels,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

struct Shared(Arc<Deliveries>);

impl ClientContext for Shared {}

impl ProducerContext<producer::NoCustomPartitioner> for Shared {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let mut answers = self.0.lock();
        let attack = answers.attacks.remove(&opaque);
        match result {
            Err((error, _)) => answers.failed = Some(error.clone()),
            Ok(message) => {
                if let Some(login) = attack {
                    answers.labels.observe(message.partition() as u32, message.offset() as u64, &login);
                }
            }
        }
    }
}

fn send(
    producer: &BaseProducer<Shared>,
    context: &Deliveries,
    topic: &str,
    partition: u32,
    login: Login,
    ids: [u32; 2],
) -> Result<()> {
    let value = login.framed(ids);
    let key = login.key.clone();
    let mut opaque = 0;
    if login.campaign.is_some() {
        let mut answers = context.lock();
        answers.count += 1;
        opaque = answers.count;
        answers.attacks.insert(opaque, login);
    }
    let mut record = BaseRecord::with_opaque_to(topic, opaque).partition(partition as i32).key(key.as_bytes());
    if let Some(value) = &value {
        record = record.payload(value.as_slice());
    }
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(50));
            }
            Err((error, _)) => return Err(Error::outside(format!("write to topic '{topic}'")).because(error)),
        }
    }
}

/// Registers a schema; registering it again gives the same id.
fn register(registry: &str, subject: &str, schema: &str) -> Result<u32> {
    #[derive(serde::Deserialize)]
    struct Answer {
        id: u32,
    }
    let address = format!("{}/subjects/{subject}/versions", registry.trim_end_matches('/'));
    let failed = || Error::outside(format!("register a schema at '{address}'"));
    let body = serde_json::json!({ "schema": schema }).to_string();
    let mut response = ureq::post(&address)
        .header("Content-Type", "application/vnd.schemaregistry.v1+json")
        .config()
        .timeout_global(Some(ANSWER))
        .build()
        .send(body)
        .map_err(|e| failed().because(e))?;
    let text = response.body_mut().read_to_string().map_err(|e| failed().because(e))?;
    serde_json::from_str::<Answer>(&text).map(|answer| answer.id).map_err(|e| failed().because(e))
}

fn create_topic(config: &ClientConfig, topic: &str, partitions: u32) -> Result<()> {
    let failed = || Error::outside(format!("create topic '{topic}'"));
    let admin: AdminClient<DefaultClientContext> = AdminClient::from_config(config).map_err(|e| failed().because(e))?;
    let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER));
    let results = block_on(admin.create_topics([&new], &options)).map_err(|e| failed().because(e))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed().because(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// How many partitions the topic has; 0 when there is none. Asks for all topics: asking for one by name may create it.
fn partitions_of(producer: &BaseProducer<Shared>, topic: &str) -> Result<usize> {
    let failed = || Error::outside(format!("look up topic '{topic}'"));
    let metadata = producer.client().fetch_metadata(None, ANSWER).map_err(|e| failed().because(e))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    Ok(found.map_or(0, |topic| topic.partitions().len()))
}

/// Waits until the topic is known, and refuses one with another number of partitions.
fn check_topic(producer: &BaseProducer<Shared>, topic: &str, partitions: u32) -> Result<()> {
    let failed = || Error::outside(format!("look up topic '{topic}'"));
    let metadata = producer.client().fetch_metadata(Some(topic), ANSWER).map_err(|e| failed().because(e))?;
    let found = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if found != partitions as usize {
        return Err(Error::user(format!("write {partitions} partitions to topic '{topic}', which has {found}"))
            .hint(format!("say --partitions {found}")));
    }
    Ok(())
}

/// Runs one future on this thread: the admin client's, which its own thread completes.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
