//! The Kafka source and the at-least-once sink on a cluster that fails, librdkafka's own mock: brokers that go away, leaders that
//! move, answers that come late, requests that end in errors. Nothing is lost, and all of it stays in order.
//!
//! The mock has no administration (a question to its controller is never answered, hence the short `socket.timeout.ms`), no
//! retention and no transactions that a reader sees; `tests/kafka` has those, on a real broker.

#![allow(clippy::unwrap_used)] // All of this file is a test.

use dataflow_connectors::kafka_settings::{KafkaSinkSettings, KafkaSourceSettings};
use dataflow_connectors::sink::kafka::KafkaSink;
use dataflow_connectors::source::kafka::KafkaSource;
use dataflow_core::{
    ChainHash, EpochOutput, Error, Fault, Generation, Lineage, Micros, OutputRow, Partition, Poll, Position, RowOrder,
    Sink, SinkIdentity, Source, SourceId, SourceReader, TopicId, Waker,
};
use dataflow_state::storage::MemoryStorage;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const TOPIC: &str = "logins";
const PARTITIONS: u32 = 3;
/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Cluster(MockCluster<'static, DefaultProducerContext>);

// SAFETY: the mock's functions hand what they are told to its own thread, or take its lock.
unsafe impl Sync for Cluster {}

impl std::ops::Deref for Cluster {
    type Target = MockCluster<'static, DefaultProducerContext>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn cluster() -> Cluster {
    let cluster = Cluster(MockCluster::new(3).unwrap());
    cluster.create_topic(TOPIC, PARTITIONS as i32, 3).unwrap();
    (0..PARTITIONS as i32).for_each(|index| cluster.partition_leader(TOPIC, index, Some(index + 1)).unwrap());
    cluster
}

fn config(cluster: &Cluster) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers()).set("enable.idempotence", "true");
    config
}

/// Gives a fault time to be felt.
fn pause(ms: u64) {
    std::thread::park_timeout(Duration::from_millis(ms));
}

/// Counts wakes, and waits for the next.
#[derive(Clone, Default)]
struct Bell(Arc<(Mutex<u64>, Condvar)>);

impl Bell {
    fn waker(&self) -> Waker {
        let bell = self.0.clone();
        Waker::new(move || {
            *bell.0.lock().unwrap() += 1;
            bell.1.notify_all();
        })
    }

    fn wait(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while *rung == 0 {
            let (next, waited) = self.0.1.wait_timeout(rung, PATIENCE).unwrap();
            assert!(!waited.timed_out(), "nobody woke the reader");
            rung = next;
        }
        *rung = 0;
    }
}

/// A source, and a producer that sends numbers to it.
struct Setup {
    cluster: Cluster,
    producer: BaseProducer,
    sent: BTreeMap<u32, u64>,
    source: KafkaSource,
    reader: Box<dyn SourceReader>,
    bell: Bell,
    read: BTreeMap<u32, u64>,
}

fn setup(interval_ms: u64, more: &str) -> Setup {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    let settings: KafkaSourceSettings = serde_json::from_str(&format!(
        r#"{{"brokers":"{brokers}","topic":"{TOPIC}","group_id":"g","discover_interval_ms":{interval_ms},"allow_compacted":true,
            "client":{{"socket.timeout.ms":"1200","topic.metadata.refresh.interval.ms":"200","topic.metadata.propagation.max.ms":"500","reconnect.backoff.max.ms":"500"}}{more}}}"#
    ))
    .unwrap();
    let source = KafkaSource::new(settings, Arc::new(MemoryStorage::new())).unwrap();
    let bell = Bell::default();
    let reader = source.open(0, 1, bell.waker()).unwrap();
    let producer = config(&cluster).set("reconnect.backoff.max.ms", "500").create().unwrap();
    Setup { cluster, producer, sent: BTreeMap::new(), source, reader, bell, read: BTreeMap::new() }
}

impl Setup {
    fn start(interval_ms: u64, more: &str) -> Setup {
        let mut setup = setup(interval_ms, more);
        for found in setup.reader.discover().unwrap() {
            assert_eq!(found.start, 0);
            setup.reader.assign(found.index, 0).unwrap();
        }
        setup
    }

    /// Hands records to the producer, which sends them when it can.
    fn send(&mut self, count: u64) {
        for index in 0..PARTITIONS {
            let sent = self.sent.entry(index).or_default();
            for _ in 0..count {
                let value = format!("{index}/{sent}");
                let record = BaseRecord::<str, str>::to(TOPIC).partition(index as i32).payload(&value);
                self.producer.send(record).map_err(|(error, _)| error).unwrap();
                *sent += 1;
            }
        }
        self.producer.poll(Duration::ZERO);
    }

    /// Reads until everything sent has come, each record once and in order.
    fn read_all(&mut self) -> Result<(), Error> {
        loop {
            let (mut is_pending, mut out) = (true, Vec::new());
            self.reader.discover()?;
            for (index, sent) in &self.sent {
                let read = self.read.entry(*index).or_default();
                is_pending &= self.reader.poll(*index, None, 100, &mut out)? != Poll::More;
                for record in out.drain(..) {
                    assert_eq!(record.offset, *read, "partition {index}");
                    assert_eq!(record.value.as_deref(), Some(format!("{index}/{read}").as_bytes()));
                    *read += 1;
                }
                assert!(*read <= *sent);
            }
            if self.read == self.sent {
                return Ok(());
            }
            if is_pending {
                // The producer works in polls, so the bell alone is not waited for.
                self.producer.poll(Duration::from_millis(5));
            }
        }
    }

    /// Reads in a replay up to `until`, sleeping only in the bell.
    fn replay(&mut self, index: u32, until: u64) -> Result<usize, Error> {
        let mut out = Vec::new();
        while self.reader.poll(index, Some(until), 100, &mut out)? != Poll::AtEnd {
            self.bell.wait();
        }
        Ok(out.len())
    }
}

#[test]
fn the_source_reads_each_record_once_whatever_the_brokers_do() {
    use RDKafkaRespErr::*;
    let mut s = Setup::start(100, "");
    s.send(500);
    s.read_all().unwrap();
    // A broker goes away and comes back.
    s.cluster.broker_down(2).unwrap();
    s.send(500);
    pause(300);
    s.cluster.broker_up(2).unwrap();
    s.read_all().unwrap();
    // Leaders move, one of them away from a broker that is down for good.
    s.cluster.broker_down(1).unwrap();
    s.cluster.partition_leader(TOPIC, 0, Some(3)).unwrap();
    s.send(500);
    s.cluster.partition_leader(TOPIC, 2, Some(2)).unwrap();
    s.read_all().unwrap();
    s.cluster.broker_up(1).unwrap();
    // Every answer comes late.
    s.cluster.broker_round_trip_time(-1, Duration::from_millis(150)).unwrap();
    s.send(200);
    s.read_all().unwrap();
    s.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    // Requests end in errors, those that close the connection among them.
    let errors = [
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR__TRANSPORT,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
    ];
    s.cluster.request_errors(RDKafkaApiKey::Fetch, &errors);
    s.cluster.request_errors(RDKafkaApiKey::ListOffsets, &errors[..3]);
    s.cluster.request_errors(RDKafkaApiKey::Produce, &errors[..3]);
    s.send(500);
    s.read_all().unwrap();
    assert_eq!(s.source.counters().recreated.load(Relaxed), 0);
}

#[test]
fn a_topic_is_gone_only_when_it_stays_away() {
    let mut s = Setup::start(300, "");
    s.send(10);
    s.read_all().unwrap();
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    s.cluster.topic_error(TOPIC, unknown).unwrap();
    pause(2_200); // for the watch to look, and not as often as it takes
    s.cluster.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    s.send(10);
    s.read_all().unwrap();
    assert_eq!(s.source.counters().recreated.load(Relaxed), 0);
    s.cluster.topic_error(TOPIC, unknown).unwrap();
    s.sent.insert(0, u64::MAX); // never comes: the error must
    let error = s.read_all().unwrap_err();
    assert_eq!(error.fault, Fault::Doubt);
    assert!(error.to_string().contains("it is gone"), "{error}");
    assert_eq!(s.source.counters().recreated.load(Relaxed), 1);
}

#[test]
fn a_topic_that_is_not_there_for_a_moment_does_not_stop_a_restart() {
    let mut s = setup(100, "");
    s.send(10);
    s.producer.flush(PATIENCE).unwrap();
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    s.cluster.topic_error(TOPIC, unknown).unwrap();
    assert_eq!(s.reader.discover().unwrap_err().fault, Fault::User, "a new job is told at once");
    s.reader.resume();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pause(400);
            s.cluster.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
        });
        s.reader.assign(0, 4).unwrap();
    });
    assert_eq!(s.replay(0, 10).unwrap(), 6);
}

#[test]
fn a_replay_never_waits_for_what_is_not_there() {
    let mut s = setup(100, r#","on_recreated":"skip","on_lost":"skip""#);
    s.send(10);
    s.producer.flush(PATIENCE).unwrap();
    s.reader.resume();
    s.reader.assign(1, 0).unwrap();
    s.reader.assign(2, 60).unwrap(); // may be waited for, unless a replay needs it
    // The offset is refused once, as after a change of the leader: the replay finds out and goes on.
    s.cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
    assert_eq!(s.replay(1, 10).unwrap(), 10);
    // The log ends below the bound end, whether or not the offset to read from is still within.
    for next in [4, 10] {
        s.reader.assign(0, next).unwrap();
        let error = s.replay(0, 50).unwrap_err();
        assert_eq!(error.fault, Fault::Doubt);
        let expected = "replaying 'logins/0' from offset 10: the partition ends at 10, the bindings say 50";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let error = s.replay(2, 70).unwrap_err().to_string();
    assert!(error.starts_with("replaying 'logins/2' from offset 60: the partition ends at 10"), "{error}");
    s.reader.assign(1, 0).unwrap();
    s.cluster.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let error = s.replay(1, 50).unwrap_err().to_string();
    assert!(error.contains("it was deleted or created anew, it is gone"), "{error}");
}

fn row(topic: u16, route: u64, value: String) -> OutputRow {
    let position = Position { partition: Partition { source: SourceId(0), index: 0 }, offset: 0 };
    let order = RowOrder { phase: 1, time: Micros(0), position, rank: 0 };
    OutputRow { topic: TopicId(topic), order, route, key: Some(b"k".to_vec()), value: value.into_bytes() }
}

/// What a consumer sees of a partition.
fn contents(cluster: &Cluster, topic: &str, partition: i32) -> Vec<String> {
    let consumer: BaseConsumer = config(cluster)
        .remove("enable.idempotence")
        .set("group.id", "oracle")
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
            Ok(message) => seen.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap()),
            Err(KafkaError::PartitionEOF(_)) => return seen,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_sink_loses_nothing_and_keeps_the_order() {
    use RDKafkaRespErr::*;
    const ROWS: u64 = 60;
    let cluster = cluster();
    cluster.create_topic("job-markers", 1, 3).unwrap();
    let settings: KafkaSinkSettings = serde_json::from_str(&format!(
        r#"{{"brokers":"{}","delivery":"at-least-once","transaction_timeout_ms":1000,"client":{{"socket.timeout.ms":"1200","reconnect.backoff.max.ms":"500"}}}}"#,
        cluster.bootstrap_servers()
    ))
    .unwrap();
    let mut sink = KafkaSink::new("out", settings, vec![TOPIC.to_owned()]).unwrap();
    let generation = Generation { number: 1, nonce: 5 };
    let identity = SinkIdentity { job: "job".into(), lineage: Lineage(11), generation };
    assert_eq!(sink.open(&identity).unwrap(), None);
    let counters = sink.counters();
    let mut sent = Vec::new();
    let mut commit = |count: u64, rows: u64| {
        for _ in 0..count {
            let epoch = sent.last().map_or(1, |last| last / ROWS + 1);
            let numbers: Vec<u64> = (0..rows).map(|at| epoch * ROWS + at).collect();
            let rows = numbers.iter().map(|n| row(0, n % ROWS, format!("{n:08}"))).collect();
            sink.commit(&[EpochOutput { epoch, chain: ChainHash([epoch as u8; 16]), rows }]).unwrap();
            sent.extend(numbers);
        }
    };
    commit(3, ROWS);
    // A broker that is back soon, and answers that come late.
    cluster.broker_down(1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pause(300);
            cluster.broker_up(1).unwrap();
        });
        commit(2, ROWS);
    });
    cluster.broker_round_trip_time(-1, Duration::from_millis(100)).unwrap();
    commit(2, ROWS);
    cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    // Leaders move; requests end in errors.
    (0..3).for_each(|index| cluster.partition_leader(TOPIC, index, Some(3 - index)).unwrap());
    commit(2, ROWS);
    // One row for a partition: where one of several requests may have been kept, the client takes the success of a later one as a
    // proof that it was, which holds on a broker; the mock checks no sequence.
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[
            RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        ],
    );
    commit(3, u64::from(PARTITIONS));
    assert_eq!(counters.reinitialised.load(Relaxed), 0, "the client gets over all of this by itself");
    // All brokers are away for longer than the client holds a record: the marker decides.
    cluster.broker_down(-1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while counters.reinitialised.load(Relaxed) == 0 {
                pause(20);
            }
            cluster.broker_up(-1).unwrap();
        });
        commit(2, ROWS);
    });
    for index in 0..PARTITIONS {
        let seen: Vec<u64> =
            contents(&cluster, TOPIC, index as i32).iter().map(|value| value.parse().unwrap()).collect();
        let is_here = |n: &u64| n % u64::from(PARTITIONS) == u64::from(index);
        let expected: Vec<u64> = sent.iter().copied().filter(is_here).collect();
        // What was sent again stands again, after its first copy.
        let mut copied = BTreeSet::new();
        let first: Vec<u64> = seen.into_iter().filter(|n| copied.insert(*n)).collect();
        assert_eq!(first, expected, "partition {index}");
    }
}
