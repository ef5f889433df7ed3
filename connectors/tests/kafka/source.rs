//! Reading, ends, restarts and losses of the source.

use super::broker::{self, PATIENCE, fresh, producer, send};
use dataflow_connectors::kafka_settings::KafkaSourceSettings;
use dataflow_connectors::source::kafka::KafkaSource;
use dataflow_core::{Discovered, Fault, Poll, Record, Result, Source, SourceReader, Waker};
use dataflow_state::storage::MemoryStorage;
use rdkafka::producer::Producer as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};

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

struct Reading {
    source: KafkaSource,
    reader: Box<dyn SourceReader>,
    bell: Bell,
}

fn settings(topic: &str, more: &str) -> KafkaSourceSettings {
    let brokers = broker::brokers();
    serde_json::from_str(&format!(
        r#"{{"brokers":"{brokers}","topic":"{topic}","group_id":"g-{topic}","discover_interval_ms":300{more}}}"#
    ))
    .unwrap()
}

fn open(topic: &str, more: &str) -> Reading {
    open_in(&Arc::new(MemoryStorage::new()), topic, more)
}

fn open_in(storage: &Arc<MemoryStorage>, topic: &str, more: &str) -> Reading {
    let source = KafkaSource::new(settings(topic, more), storage.clone()).unwrap();
    let bell = Bell::default();
    let reader = source.open(0, 1, bell.waker()).unwrap();
    Reading { source, reader, bell }
}

impl Reading {
    fn start(topic: &str, more: &str) -> Reading {
        let mut reading = open(topic, more);
        for found in reading.reader.discover().unwrap() {
            reading.reader.assign(found.index, found.start).unwrap();
        }
        reading
    }

    /// Polls, sleeping only in the bell, until the end is claimed.
    fn drain(&mut self, index: u32, until: Option<u64>) -> Result<Vec<Record>> {
        let mut out = Vec::new();
        loop {
            match self.reader.poll(index, until, 7, &mut out)? {
                Poll::More => {}
                Poll::Pending => self.bell.wait(),
                Poll::AtEnd => return Ok(out),
                Poll::Ended => panic!("a topic does not end"),
            }
        }
    }

    fn values(&mut self, index: u32, until: Option<u64>) -> Vec<String> {
        self.drain(index, until)
            .unwrap()
            .iter()
            .map(|r| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap())
            .collect()
    }

    /// Discovers and polls until one of them fails.
    fn until_error(&mut self, index: u32) -> dataflow_core::Error {
        let mut out = Vec::new();
        loop {
            let failed =
                self.reader.discover().map(drop).and_then(|()| self.reader.poll(index, None, 7, &mut out).map(drop));
            match failed {
                Err(error) => return error,
                Ok(()) => self.bell.wait(),
            }
        }
    }
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn ends_are_proven_past_transaction_markers() {
    let topic = fresh("src");
    broker::create(&topic, 1, &[]);
    let transactional = producer(Some(&topic));
    let transaction = |values: &[&str], commit| {
        transactional.begin_transaction().unwrap();
        send(&transactional, &topic, 0, "k", values);
        if commit {
            transactional.commit_transaction(PATIENCE).unwrap()
        } else {
            transactional.abort_transaction(PATIENCE).unwrap()
        }
    };
    transaction(&["a", "b"], true); // 0 1, marker 2
    transaction(&["gone"], false); // 3, marker 4
    transaction(&["c"], true); // 5, marker 6
    let mut reading = Reading::start(&topic, "");
    let records = reading.drain(0, None).unwrap();
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1, 5]);
    assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));

    // Every bound in between is reached, and none is overrun; offsets 2 to 4 and 6 hold no record.
    for until in 0..=7 {
        let mut again = open(&topic, "");
        again.reader.assign(0, 0).unwrap();
        assert_eq!(again.reader.discover().unwrap(), []);
        let expected: Vec<_> = [0, 1, 5].into_iter().filter(|offset| *offset < until).collect();
        let offsets = |records: Vec<Record>| records.iter().map(|r| r.offset).collect::<Vec<_>>();
        assert_eq!(offsets(again.drain(0, Some(until)).unwrap()), expected);
        let rest: Vec<_> = [0, 1, 5].into_iter().filter(|offset| *offset >= until).collect();
        assert_eq!(offsets(again.drain(0, None).unwrap()), rest);
    }

    // An open transaction is not read and its records are not the end of it.
    transactional.begin_transaction().unwrap();
    send(&transactional, &topic, 0, "k", &["d"]);
    let mut out = Vec::new();
    assert_eq!(reading.reader.poll(0, Some(8), 7, &mut out).unwrap(), Poll::Pending);
    transactional.commit_transaction(PATIENCE).unwrap();
    assert_eq!(reading.values(0, Some(8)), ["d"]);
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn starts_and_new_partitions() {
    let topic = fresh("src");
    broker::create(&topic, 2, &[]);
    let plain = producer(None);
    send(&plain, &topic, 0, "k", &["a", "b"]);
    send(&plain, &topic, 1, "k", &["c"]);
    let found = |more: &str| open(&topic, more).reader.discover().unwrap();
    let at = |starts: &[u64]| {
        starts.iter().zip(0..).map(|(start, index)| Discovered { index, start: *start }).collect::<Vec<_>>()
    };
    assert_eq!(found(""), at(&[0, 0]));
    assert_eq!(found(r#","start":"latest""#), at(&[2, 1]));
    assert_eq!(found(r#","start":{"timestamp":0}"#), at(&[0, 0]));
    assert_eq!(found(r#","start":{"timestamp":99999999999999}"#), at(&[2, 1]));

    let mut reading = Reading::start(&topic, r#","start":"latest""#);
    assert_eq!(reading.values(0, None), Vec::<String>::new());
    // A reader that found nothing is woken, by records and by partitions.
    send(&plain, &topic, 0, "k", &["d"]);
    while reading.values(0, None) != ["d"] {
        reading.bell.wait();
    }
    broker::grow(&topic, 3);
    let appeared = loop {
        let found = reading.reader.discover().unwrap();
        if !found.is_empty() {
            break found;
        }
        reading.bell.wait();
    };
    assert_eq!(appeared, [Discovered { index: 2, start: 0 }]);

    // Two workers share the partitions.
    let source = KafkaSource::new(settings(&topic, ""), Arc::new(MemoryStorage::new())).unwrap();
    let share = |worker| -> Vec<u32> {
        source.open(worker, 2, Waker::none()).unwrap().discover().unwrap().iter().map(|d| d.index).collect()
    };
    assert_eq!((share(0), share(1)), (vec![0, 2], vec![1]));

    // After a restart what is not bound is new, wherever the source began.
    let mut restarted = open(&topic, r#","start":"latest""#);
    restarted.reader.resume();
    restarted.reader.assign(0, 3).unwrap();
    assert_eq!(
        restarted.reader.discover().unwrap(),
        [Discovered { index: 1, start: 0 }, Discovered { index: 2, start: 0 }]
    );
    // Also for a worker that has no bound partition of its own.
    let mut other = open(&topic, r#","start":"latest""#);
    other.reader.resume();
    assert_eq!(other.reader.discover().unwrap(), at(&[0, 0, 0]));
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn records_lost_to_retention_are_noticed() {
    let topic = fresh("src");
    broker::create(&topic, 1, &[]);
    let plain = producer(None);
    send(&plain, &topic, 0, "k", &["a", "b", "c", "d"]);
    broker::remove_below(&topic, 0, 3);
    let error = open(&topic, "").reader.assign(0, 1).unwrap_err();
    assert_eq!(error.fault, Fault::Doubt);
    assert!(error.to_string().contains("removed 2 offsets"), "{error}");
    let mut skipping = open(&topic, r#","on_lost":"skip""#);
    skipping.reader.assign(0, 1).unwrap();
    skipping.reader.discover().unwrap();
    assert_eq!(skipping.values(0, None), ["d"]);
    assert_eq!(skipping.source.counters().lost.load(Relaxed), 2);

    // Removed while it runs, before it was read: assigned as a partition that the reader knows.
    let mut running = Reading::start(&topic, "");
    running.reader.assign(0, 0).unwrap();
    assert_eq!(running.until_error(0).fault, Fault::Doubt);
    let mut running = Reading::start(&topic, r#","on_lost":"skip""#);
    running.reader.assign(0, 0).unwrap();
    assert_eq!(running.values(0, None), ["d"]);
    assert_eq!(running.source.counters().lost.load(Relaxed), 3);
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn a_topic_created_anew_is_noticed() {
    let topic = fresh("src");
    broker::create(&topic, 1, &[]);
    let plain = producer(None);
    send(&plain, &topic, 0, "k", &["a", "b", "c"]);
    let mut reading = Reading::start(&topic, "");
    assert_eq!(reading.values(0, None), ["a", "b", "c"]);
    broker::delete(&topic);
    broker::create(&topic, 1, &[]);
    let anew = producer(None);
    send(&anew, &topic, 0, "k", &["z"]);
    assert_eq!(reading.until_error(0).fault, Fault::Doubt);
    // After a restart it shows by the bound offset.
    let error = open(&topic, "").reader.assign(0, 3).unwrap_err();
    assert_eq!(error.fault, Fault::Doubt);
    assert!(error.to_string().contains("ends at 1 and was read up to 3"), "{error}");
    // And by its id where the new topic has grown as long; but a job that has bound nothing yet may begin with it.
    let storage = Arc::new(MemoryStorage::new());
    open_in(&storage, &topic, "").reader.discover().unwrap();
    broker::delete(&topic);
    broker::create(&topic, 1, &[]);
    send(&producer(None), &topic, 0, "k", &["z"]);
    let resumed = |more: &str| {
        let mut reading = open_in(&storage, &topic, more);
        reading.reader.resume();
        reading.reader.assign(0, 1).unwrap();
        reading.reader.discover().map(|_| reading.source.counters().recreated.load(Relaxed))
    };
    let error = resumed("").unwrap_err();
    assert_eq!(error.fault, Fault::Doubt);
    assert!(error.to_string().contains("its id was '"), "{error}");
    assert_eq!(resumed(r#","on_recreated":"skip""#).unwrap(), 1);
    assert_eq!(resumed("").unwrap(), 0, "told once");
    broker::delete(&topic);
    broker::create(&topic, 1, &[]);
    let anew = producer(None);
    send(&anew, &topic, 0, "k", &["z"]);
    open_in(&storage, &topic, "").reader.discover().unwrap();

    let mut waiting = open(&topic, r#","on_recreated":"skip""#);
    waiting.reader.assign(0, 3).unwrap();
    waiting.reader.discover().unwrap();
    send(&anew, &topic, 0, "k", &["y", "x", "w"]);
    assert_eq!(waiting.values(0, Some(4)), ["w"]);
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn missing_and_compacted_topics_are_refused() {
    let missing = open(&fresh("src"), "").reader.discover().unwrap_err();
    assert_eq!(missing.fault, Fault::User);
    let topic = fresh("src");
    broker::create(&topic, 1, &[("cleanup.policy", "compact")]);
    let refused = open(&topic, "").reader.discover().unwrap_err();
    assert!(refused.to_string().contains("compacted"), "{refused}");
    assert_eq!(open(&topic, r#","allow_compacted":true"#).reader.discover().unwrap().len(), 1);
}

#[test]
#[ignore = "needs a broker: make e2e"]
fn many_records_through_small_bounds() {
    let topic = fresh("src");
    broker::create(&topic, 1, &[]);
    let plain = producer(None);
    let values: Vec<String> = (0..50_000).map(|n| format!("{n:0200}")).collect();
    for chunk in values.chunks(5000) {
        send(&plain, &topic, 0, "k", &chunk.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut reading = Reading::start(&topic, r#","queued_kb_max":64"#);
    assert!(reading.values(0, None).into_iter().eq(values));
    // Checkpointed offsets show up in the group, for lag tools.
    reading.reader.checkpointed(&[(0, 123)].into());
    while broker::committed(&format!("g-{topic}"), &topic, 0) != Some(123) {}
}
