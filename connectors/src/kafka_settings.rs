//! Settings of the Kafka source and sink: plain serde data, and the client configurations made from them.
//!
//! Owns which properties of librdkafka are ours: those that a guarantee rests on can not be overridden. Values in `client`
//! may be secrets (the caller has resolved the references); they are never printed.

use dataflow_core::{Error, Result};
use rdkafka::ClientConfig;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Bytes that one partition may have fetched and not yet read, in KiB: bounds memory at partitions x this, and is enough
/// for 10 ms of 100 MB/s; in the client a small record takes three times its bytes.
pub const QUEUED_KB_MAX_DEFAULT: u32 = 1024;

/// The largest message that a producer sends and a created topic takes: the row of the largest record that is decoded
/// ([`RECORD_BYTES_MAX`](crate::decode::RECORD_BYTES_MAX)), whose every byte JSON may write as six, in the key and in the value; and a
/// rest for what else stands in a row. Below the largest request that a broker takes by default (100 MiB).
pub const MESSAGE_BYTES_MAX: usize = 12 * crate::decode::RECORD_BYTES_MAX + (1 << 20);

/// Bytes of one answer of a broker, and what librdkafka lets a batch of zstd unfold into. What is larger stops its partition, so it is
/// not lower than what another job may have written. Most answers are far smaller: librdkafka keeps `fetch.max.bytes` to
/// `queued_kb_max`, beyond which a broker sends a first batch alone. gzip, snappy and lz4 unfold without a bound of the client's: a
/// known limit, and one for who may write to the topic.
const RECEIVE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (1 << 20);

/// Records that a producer may hold unacknowledged: a row of some 300 bytes takes twice that in the client, so this is 10 MB.
const QUEUED_FOR_SENDING_MAX: u32 = 16 * 1024;

/// Bytes that a producer may hold unacknowledged, in KiB: the largest row has to fit. How much is handed over at once is bounded in
/// `sink/kafka/batch.rs`.
const QUEUED_FOR_SENDING_KB_MAX: usize = (MESSAGE_BYTES_MAX >> 10) + 1024;

/// Properties that exactly-once and replay rest on; a value in `client` would silently break them.
const OURS: [&str; 20] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.timeout.ms",
    "queued.max.messages.kbytes",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Further properties of the client, by librdkafka's names (`security.protocol`, `sasl.password`, ...).
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct ClientProperties(pub BTreeMap<String, String>);

impl fmt::Debug for ClientProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where a source begins that no binding knows yet. Partitions that appear later begin at their beginning, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest record there is.
    #[default]
    Earliest,
    /// After the newest.
    Latest,
    /// At the first record of this time (milliseconds since 1970) or later.
    Timestamp(i64),
}

/// What to do when records that were bound or due are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLoss {
    /// Stop with an error that says what to do.
    #[default]
    Stop,
    /// Go on with what is there; the gap is counted and reported.
    Skip,
}

/// Which records of open and aborted transactions are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// None.
    #[default]
    ReadCommitted,
    /// All. What is read may later be aborted.
    ReadUncommitted,
}

/// Settings of a Kafka source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSourceSettings {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The group under which checkpointed offsets are committed, for lag tools. Never read back.
    pub group_id: String,
    /// Where to begin.
    #[serde(default)]
    pub start: Start,
    /// Further client properties.
    #[serde(default)]
    pub client: ClientProperties,
    /// The topic was deleted and created again. `skip` waits until its offsets have passed the bound ones and counts what stands
    /// below; a replay that needs the old topic stops.
    #[serde(default)]
    pub on_recreated: OnLoss,
    /// Offsets were lost to retention. `skip` goes on with the oldest record there is, and counts what was passed over. It does
    /// not help where a replay needs them: the epochs that read them were bound, so the replay stops with both counts.
    #[serde(default)]
    pub on_lost: OnLoss,
    /// Read a compacted topic although a replay may then find fewer records than were bound.
    #[serde(default)]
    pub allow_compacted: bool,
    /// Which records are read.
    #[serde(default)]
    pub isolation: Isolation,
    /// How often new partitions, the topic's identity and the low watermark are looked at.
    #[serde(default = "discover_interval_ms")]
    pub discover_interval_ms: u64,
    /// Bound of what one partition may have fetched ahead, in KiB.
    #[serde(default = "queued_kb_max")]
    pub queued_kb_max: u32,
}

/// What a Kafka sink promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Transactions: each row once, epochs become visible as a whole.
    #[default]
    ExactlyOnce,
    /// No transactions: rows of the epochs after the marker may come again after a crash.
    AtLeastOnce,
}

/// How missing topics are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTopics {
    /// Partitions of an output topic (the marker topic has one).
    pub partitions: u32,
    /// Replicas of every topic.
    pub replication: u32,
}

/// Settings of a Kafka sink.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSinkSettings {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Further client properties.
    #[serde(default)]
    pub client: ClientProperties,
    /// The promise.
    #[serde(default)]
    pub delivery: Delivery,
    /// Create topics that are missing; else a missing one is an error.
    #[serde(default)]
    pub create_topics: Option<CreateTopics>,
    /// Producers that take turns, 1 to [`crate::sink::kafka::SLOTS_MAX`].
    #[serde(default = "slots")]
    pub slots: u32,
    /// The broker ends a transaction that is open for longer, when nobody fenced it before.
    #[serde(default = "transaction_timeout_ms")]
    pub transaction_timeout_ms: u32,
    /// Take over topics whose marker is of another lineage.
    #[serde(default)]
    pub start_over: bool,
}

fn discover_interval_ms() -> u64 {
    30_000
}

fn queued_kb_max() -> u32 {
    QUEUED_KB_MAX_DEFAULT
}

fn slots() -> u32 {
    2
}

fn transaction_timeout_ms() -> u32 {
    60_000
}

impl KafkaSourceSettings {
    /// How often the watch looks.
    pub(crate) fn discover_interval(&self) -> Duration {
        Duration::from_millis(self.discover_interval_ms.max(1))
    }

    /// Between two looks at what may pass, such as a topic that a restarting broker does not know: a few seconds in all.
    pub(crate) fn look_interval(&self) -> Duration {
        self.discover_interval().min(Duration::from_secs(1))
    }

    /// The consumer's configuration.
    ///
    /// # Errors
    /// When `client` holds a property that is ours.
    pub(crate) fn consumer(&self) -> Result<ClientConfig> {
        let isolation = match self.isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        let mut config = consumer(&self.brokers, &self.client, &self.group_id, isolation)?;
        config.set("queued.max.messages.kbytes", self.queued_kb_max.to_string());
        Ok(config)
    }
}

impl KafkaSinkSettings {
    /// A consumer that reads the markers.
    pub(crate) fn consumer(&self, isolation: &str) -> Result<ClientConfig> {
        let mut config = consumer(&self.brokers, &self.client, "dataflow-markers", isolation)?;
        // The end of the topic is told by an empty answer, which the broker gives after this wait; a start reads it thrice.
        config.set("fetch.wait.max.ms", "1");
        Ok(config)
    }

    /// A producer; transactional when it has an id.
    pub(crate) fn producer(&self, transactional_id: Option<&str>) -> Result<ClientConfig> {
        let mut config = base(&self.brokers, &self.client)?;
        let timeout = self.transaction_timeout_ms.to_string();
        config
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", &timeout)
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
            // Rows are handed over in one go, and the flush that follows waits for no lingering: one request a partition.
            .set("linger.ms", "100")
            // What is acknowledged needs no report of its own: the flush counts.
            .set("delivery.report.only.error", "true")
            .set("queue.buffering.max.kbytes", QUEUED_FOR_SENDING_KB_MAX.to_string())
            .set("queue.buffering.max.messages", QUEUED_FOR_SENDING_MAX.to_string());
        if let Some(id) = transactional_id {
            config.set("transactional.id", id).set("transaction.timeout.ms", &timeout);
        }
        Ok(config)
    }

    /// The configuration for administrative requests.
    pub(crate) fn admin(&self) -> Result<ClientConfig> {
        base(&self.brokers, &self.client)
    }
}

fn consumer(brokers: &str, client: &ClientProperties, group: &str, isolation: &str) -> Result<ClientConfig> {
    let mut config = base(brokers, client)?;
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .set("check.crcs", "true")
        .set("allow.auto.create.topics", "false");
    // An alert's latency is a tick: neither the broker nor the client may sit on a record or back off for long.
    let receive = RECEIVE_BYTES_MAX.to_string();
    for (key, value) in [
        ("fetch.wait.max.ms", "100"),
        ("fetch.queue.backoff.ms", "10"),
        ("fetch.error.backoff.ms", "100"),
        ("receive.message.max.bytes", &receive),
    ] {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
    Ok(config)
}

fn base(brokers: &str, client: &ClientProperties) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    for (key, value) in &client.0 {
        if OURS.contains(&key.as_str()) {
            return Err(Error::user(format!("reading the settings of kafka: 'client' may not set '{key}'"))
                .hint("remove it: the engine's guarantees rest on this property"));
        }
        config.set(key, value);
    }
    config.set("bootstrap.servers", brokers);
    // Else small requests wait for the acknowledgement of the one before (40 ms).
    if config.get("socket.nagle.disable").is_none() {
        config.set("socket.nagle.disable", "true");
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> serde_json::Result<KafkaSourceSettings> {
        serde_json::from_str(text)
    }

    #[test]
    fn defaults_and_unknown_fields() {
        let settings = source(r#"{"brokers":"b:9092","topic":"t","group_id":"g"}"#).unwrap();
        assert_eq!((settings.start, settings.on_lost), (Start::Earliest, OnLoss::Stop));
        let config = settings.consumer().unwrap();
        for (key, value) in
            [("auto.offset.reset", "error"), ("enable.auto.commit", "false"), ("isolation.level", "read_committed")]
        {
            assert_eq!(config.get(key), Some(value));
        }
        assert!(source(r#"{"brokers":"b","topic":"t","group_id":"g","topics":"t"}"#).is_err());
        let from = source(r#"{"brokers":"b","topic":"t","group_id":"g","start":{"timestamp":5}}"#).unwrap();
        assert_eq!(from.start, Start::Timestamp(5));
    }

    #[test]
    fn guarantees_are_not_overridden_and_secrets_not_printed() {
        let ours = r#"{"brokers":"b","topic":"t","group_id":"g","client":{"enable.auto.commit":"true"}}"#;
        assert_eq!(source(ours).unwrap().consumer().unwrap_err().fault, dataflow_core::Fault::User);
        let secret = source(r#"{"brokers":"b","topic":"t","group_id":"g","client":{"sasl.password":"hush"}}"#).unwrap();
        assert_eq!(secret.consumer().unwrap().get("sasl.password"), Some("hush"));
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
