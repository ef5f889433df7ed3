//! Transactions, fencing and unknown outcomes of the sink.

use super::broker::{self, PATIENCE, contents, fresh};
use dataflow_connectors::kafka_settings::KafkaSinkSettings;
use dataflow_connectors::sink::kafka::KafkaSink;
use dataflow_core::{
    ChainHash, Epoch, EpochOutput, Fault, Generation, Lineage, Marker, Micros, OutputRow, Partition, Position,
    RowOrder, Sink, SinkIdentity, SourceId, TopicId,
};
use rdkafka::producer::Producer as _;
use std::sync::atomic::Ordering::Relaxed;

struct Job {
    name: String,
    topics: Vec<String>,
}

impl Job {
    fn new() -> Job {
        let name = fresh("job");
        Job { topics: vec![format!("{name}-a"), format!("{name}-b")], name }
    }

    fn identity(&self, number: u64, nonce: u64) -> SinkIdentity {
        SinkIdentity { job: self.name.clone(), lineage: Lineage(11), generation: Generation { number, nonce } }
    }

    fn sink_with(&self, more: &str) -> KafkaSink {
        let brokers = broker::brokers();
        let text = format!(r#"{{"brokers":"{brokers}","create_topics":{{"partitions":3,"replication":1}}{more}}}"#);
        let settings: KafkaSinkSettings = serde_json::from_str(&text).unwrap();
        KafkaSink::new("out", settings, self.topics.clone()).unwrap()
    }

    fn open(&self, number: u64, nonce: u64) -> (KafkaSink, dataflow_core::Result<Option<Marker>>) {
        let mut sink = self.sink_with("");
        let found = sink.open(&self.identity(number, nonce));
        (sink, found)
    }

    fn marker(&self) -> Marker {
        let all = contents(&format!("{}-markers", self.name), 0, "read_committed");
        let (key, value) = all.last().unwrap();
        assert_eq!(*key, format!("{}/out/0-63", self.name));
        serde_json::from_str(value).unwrap()
    }

    /// All rows that a consumer sees, by topic and partition.
    fn rows(&self, topic: usize, isolation: &str) -> Vec<Vec<String>> {
        let partition = |p| contents(&self.topics[topic], p, isolation).into_iter().map(|(_, value)| value).collect();
        (0..3).map(partition).collect()
    }
}

fn row(topic: u16, route: u64, value: &str) -> OutputRow {
    let position = Position { partition: Partition { source: SourceId(0), index: 0 }, offset: 0 };
    let order = RowOrder { phase: 1, time: Micros(0), position, rank: 0 };
    OutputRow { topic: TopicId(topic), order, route, key: Some(b"k".to_vec()), value: value.as_bytes().to_vec() }
}

fn epoch(epoch: Epoch, rows: Vec<OutputRow>) -> EpochOutput {
    EpochOutput { epoch, chain: ChainHash([epoch as u8; 16]), rows }
}

fn one(number: Epoch) -> EpochOutput {
    epoch(number, vec![row(0, 0, &format!("row {number}"))])
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn epochs_and_their_marker_are_one() {
    let job = Job::new();
    let (mut sink, found) = job.open(1, 5);
    assert_eq!(found.unwrap(), None);
    assert_eq!(job.marker(), job.identity(1, 5).marker(0, ChainHash::default()));
    let rows = vec![row(0, 4, "a"), row(0, 1, "b"), row(0, 2, "c"), row(1, 0, "d")];
    sink.commit(&[epoch(3, rows), epoch(4, vec![row(0, 7, "e")])]).unwrap();
    sink.commit(&[epoch(9, vec![row(1, 3, "f")])]).unwrap();
    assert_eq!(job.rows(0, "read_committed"), [vec![], vec!["a", "b", "e"], vec!["c"]]);
    assert_eq!(job.rows(1, "read_committed"), [vec!["d", "f"], vec![], vec![]]);
    assert_eq!(job.marker(), job.identity(1, 5).marker(9, ChainHash([9; 16])));
    assert_eq!(sink.commit(&[one(9)]).unwrap_err().fault, Fault::Us);

    // The next generation finds it; rows of an epoch once committed stay.
    let (mut next, found) = job.open(2, 6);
    assert_eq!(found.unwrap(), Some(job.identity(1, 5).marker(9, ChainHash([9; 16]))));
    next.commit(&[one(10)]).unwrap();
    assert_eq!(job.marker(), job.identity(2, 6).marker(10, ChainHash([10; 16])));
    assert_eq!(next.counters().reinitialised.load(Relaxed), 0);
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn a_newer_generation_shuts_the_older_out() {
    let job = Job::new();
    let (mut old, _) = job.open(1, 5);
    old.commit(&[one(1)]).unwrap();
    let (mut new, found) = job.open(2, 6);
    assert_eq!(found.unwrap().unwrap().epoch, 1);
    assert_eq!(old.commit(&[one(2)]).unwrap_err().fault, Fault::Fenced);
    // It was not initialised again: the new one was not disturbed.
    new.commit(&[one(2)]).unwrap();
    new.commit(&[one(3)]).unwrap();
    assert_eq!(new.counters().reinitialised.load(Relaxed), 0);
    assert_eq!(job.rows(0, "read_committed")[0], ["row 1", "row 2", "row 3"]);

    // Coming late, with an older number, or with our number and another nonce, is no better.
    assert_eq!(job.open(1, 5).1.unwrap_err().fault, Fault::Fenced);
    assert_eq!(job.open(2, 7).1.unwrap_err().fault, Fault::Fenced);
    new.commit(&[one(4)]).unwrap();
    assert_eq!(new.counters().reinitialised.load(Relaxed), 0);
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn what_was_sent_and_not_committed_goes_away() {
    let job = Job::new();
    let (mut first, _) = job.open(1, 5);
    first.commit(&[one(1)]).unwrap();
    drop(first);
    // The product's own ids, as a process that is killed between its sends and its commit leaves them: all slots open.
    let hanging: Vec<_> = (0..4)
        .map(|slot| {
            let producer = broker::producer(Some(&format!("{}-out-0-{slot}", job.name)));
            producer.begin_transaction().unwrap();
            broker::send(&producer, &job.topics[0], 0, "k", &["never"]);
            let marker = serde_json::to_string(&job.identity(1, 5).marker(2, ChainHash([2; 16]))).unwrap();
            broker::send(&producer, &format!("{}-markers", job.name), 0, &format!("{}/out/0-63", job.name), &[&marker]);
            producer
        })
        .collect();
    let (mut second, found) = job.open(2, 6);
    assert_eq!(found.unwrap(), Some(job.identity(1, 5).marker(1, ChainHash([1; 16]))));
    for producer in &hanging {
        assert!(producer.commit_transaction(PATIENCE).is_err(), "it must be fenced");
    }
    second.commit(&[one(2)]).unwrap();
    assert_eq!(job.rows(0, "read_committed")[0], ["row 1", "row 2"]);
    assert_eq!(job.rows(0, "read_uncommitted")[0].iter().filter(|row| *row == "never").count(), 4);
}

/// Somebody takes our transactional ids and goes away again without a marker: the code says "fenced", the marker says we
/// are still the writer.
#[test]
#[ignore = "needs a broker: make e2e"]
fn an_unknown_outcome_is_settled_by_the_marker() {
    let job = Job::new();
    let (mut sink, _) = job.open(1, 5);
    sink.commit(&[one(1)]).unwrap();
    for slot in 0..4 {
        drop(broker::producer(Some(&format!("{}-out-0-{slot}", job.name))));
    }
    sink.commit(&[one(2)]).unwrap();
    sink.commit(&[one(3)]).unwrap();
    assert_eq!(sink.counters().reinitialised.load(Relaxed), 1);
    assert_eq!(sink.counters().aborted.load(Relaxed), 1);
    assert_eq!(job.rows(0, "read_committed")[0], ["row 1", "row 2", "row 3"]);
    assert_eq!(job.marker().epoch, 3);
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn another_lineage_is_refused_unless_told() {
    let job = Job::new();
    let (mut sink, _) = job.open(7, 5);
    sink.commit(&[one(4)]).unwrap();
    drop(sink);
    let other = SinkIdentity { lineage: Lineage(12), ..job.identity(1, 9) };
    assert_eq!(job.sink_with("").open(&other).unwrap_err().fault, Fault::Doubt);
    let mut over = job.sink_with(r#","start_over":true"#);
    assert_eq!(over.open(&other).unwrap(), None);
    over.commit(&[one(1)]).unwrap();
    assert_eq!(job.marker(), other.marker(1, ChainHash([1; 16])));
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn a_row_that_can_not_be_sent_is_an_error() {
    // More than the client sends; and more than a topic takes that was there before, which only the broker knows.
    for (bytes, is_there, said) in
        [(98 << 20, false, "102760448 bytes"), (3 << 20, true, "'max.message.bytes' of the topic")]
    {
        let job = Job::new();
        if is_there {
            broker::create(&job.topics[0], 3, &[("max.message.bytes", "1048588")]);
        }
        let (mut sink, _) = job.open(1, 5);
        let large = "x".repeat(bytes);
        let error = sink.commit(&[epoch(1, vec![row(0, 0, "small"), row(0, 0, &large)])]).unwrap_err();
        assert_eq!(error.fault, Fault::User, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        // Nothing is sent after an error.
        assert_eq!(sink.commit(&[one(2)]).unwrap_err().fault, Fault::Us);
        assert_eq!(job.rows(0, "read_committed")[0], Vec::<String>::new());
        assert_eq!(job.marker().epoch, 0);
    }
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn a_missing_topic_is_named() {
    let job = Job::new();
    let text = format!(r#"{{"brokers":"{}"}}"#, broker::brokers());
    let mut sink = KafkaSink::new("out", serde_json::from_str(&text).unwrap(), job.topics.clone()).unwrap();
    let error = sink.open(&job.identity(1, 1)).unwrap_err();
    assert_eq!(error.fault, Fault::User);
    assert!(error.to_string().contains(&job.topics[0]), "{error}");
    // Looking for it did not create it.
    assert_eq!(sink.open(&job.identity(1, 1)).unwrap_err().fault, Fault::User);
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn at_least_once_writes_its_marker_after_the_rows() {
    let job = Job::new();
    let mut sink = job.sink_with(r#","delivery":"at-least-once""#);
    assert_eq!(sink.open(&job.identity(1, 5)).unwrap(), None);
    sink.commit(&[one(1), one(2)]).unwrap();
    drop(sink);
    let mut sink = job.sink_with(r#","delivery":"at-least-once""#);
    assert_eq!(sink.open(&job.identity(2, 5)).unwrap().unwrap().epoch, 2);
    assert_eq!(job.rows(0, "read_committed")[0], ["row 1", "row 2"]);
}

/// Topics take 1 MB unless told otherwise; 80 MiB is about what the test's own consumer takes.
#[test]
#[ignore = "needs a broker: make e2e"]
fn a_row_of_many_megabytes_fits_into_a_created_topic() {
    let job = Job::new();
    let (mut sink, found) = job.open(1, 5);
    found.unwrap();
    let value = "x".repeat(80 << 20);
    sink.commit(&[epoch(1, vec![row(0, 0, &value)])]).unwrap();
    assert!(job.rows(0, "read_committed")[0] == [value], "the row is not there, or not whole");
    assert_eq!(sink.counters().reinitialised.load(Relaxed), 0);
}

/// More rows than the client's queue holds (100 000).
#[test]
#[ignore = "needs a broker: make e2e"]
fn a_large_commit_waits_for_room() {
    let job = Job::new();
    let (mut sink, _) = job.open(1, 5);
    let rows: Vec<_> = (0..150_000).map(|n| row(0, 0, &n.to_string())).collect();
    sink.commit(&[epoch(1, rows)]).unwrap();
    let seen = &job.rows(0, "read_committed")[0];
    assert!(seen.iter().enumerate().all(|(at, value)| *value == at.to_string()), "the rows are out of order");
    assert_eq!(seen.len(), 150_000);
}

/// The measure behind the turns: commits of one row, back to back. Prints; asserts only that each became visible.
#[test]
#[ignore = "needs a broker: make e2e"]
fn latency_of_commits_in_turn() {
    for slots in [2, 1] {
        let job = Job::new();
        drop(job.open(1, 5));
        let mut sink = job.sink_with(&format!(r#","slots":{slots}"#));
        // A test that measures needs the machine's clock.
        #[allow(clippy::disallowed_methods)]
        let start = std::time::Instant::now();
        sink.open(&job.identity(2, 5)).unwrap();
        println!("slots {slots}: opened in {} ms", start.elapsed().as_millis());
        for number in 1..=20 {
            sink.commit(&[one(number)]).unwrap();
        }
        let mut micros: Vec<u128> = (21..=220)
            .map(|number| {
                // A test that measures needs the machine's clock.
                #[allow(clippy::disallowed_methods)]
                let start = std::time::Instant::now();
                sink.commit(&[one(number)]).unwrap();
                start.elapsed().as_micros()
            })
            .collect();
        micros.sort_unstable();
        println!("slots {slots}: 200 commits, p50 {} us, p99 {} us", micros[100], micros[198]);
        assert_eq!(job.rows(0, "read_committed")[0].len(), 220);
    }
}
