//! What the Kafka sink's protocol relies on in a cluster: transactional ids that fence, transactions that become visible whole and in
//! the order of the log, and a reader that is not told less than there is.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use dataflow_connectors::sink::kafka::cluster::{
    Cluster, MarkerReader, Outgoing, Reach, TransactionalProducer, key_of, markers_of,
};

/// What every cluster does for a job of a name that it does not know yet.
///
/// # Panics
/// When it does not conform.
pub fn cluster<C: Cluster>(cluster: &C, job: &str) {
    let at = Topic { cluster, job, markers: markers_of(job), key: key_of(job, "out") };
    at.prepares();
    at.shows_what_is_committed_and_nothing_else();
    at.fences();
    at.ends_what_was_left_open();
    at.hides_what_lies_behind_an_open_transaction();
    at.commits_back_to_back();
}

struct Topic<'a, C> {
    cluster: &'a C,
    job: &'a str,
    markers: String,
    key: String,
}

impl<C: Cluster> Topic<'_, C> {
    fn prepares(&self) {
        let reader = self.cluster.reader(&self.markers, &self.key).unwrap();
        let topics = [format!("{}-a", self.job), format!("{}-b", self.job)];
        for _ in 0..2 {
            let partitions = self.cluster.prepare(&reader, &self.markers, &topics).unwrap();
            assert!(partitions.len() == 2 && partitions.iter().all(|count| *count > 0), "{partitions:?}");
        }
        self.holds(None);
    }

    fn shows_what_is_committed_and_nothing_else(&self) {
        let mut producer = self.initialised("0-0");
        producer.begin().unwrap();
        self.send(&mut producer, &self.key, "1");
        self.send(&mut producer, "another key", "other");
        assert_eq!(self.last(Reach::Stable), None, "an open transaction is visible");
        producer.commit().unwrap();
        self.holds(Some("1"));
    }

    fn fences(&self) {
        let mut old = self.initialised("0-0");
        old.begin().unwrap();
        self.send(&mut old, &self.key, "of the old one");
        let mut new = self.initialised("0-0");
        assert!(old.commit().is_err(), "a fenced producer commits");
        drop(old);
        self.holds(Some("1"));
        self.put(&mut new, "2");
        self.holds(Some("2"));

        // Fenced before it has sent anything.
        let mut idle = self.initialised("0-1");
        let mut newer = self.initialised("0-1");
        let sent = idle.begin().and_then(|()| idle.send([self.record(&self.key, "late")].into_iter()));
        assert!(sent.and_then(|()| idle.commit()).is_err(), "a fenced producer goes on");
        drop(idle);
        self.put(&mut newer, "3");
        self.put(&mut new, "4");
        self.holds(Some("4"));
    }

    fn ends_what_was_left_open(&self) {
        let mut left = self.initialised("0-0");
        left.begin().unwrap();
        self.send(&mut left, &self.key, "left open");
        drop(left);
        drop(self.initialised("0-0"));
        self.holds(Some("4"));
    }

    fn hides_what_lies_behind_an_open_transaction(&self) {
        let (mut one, mut two) = (self.initialised("0-0"), self.initialised("0-1"));
        one.begin().unwrap();
        self.send(&mut one, &self.key, "never");
        self.put(&mut two, "5");
        assert_eq!(self.last(Reach::Stable).as_deref(), Some("4"), "what lies behind an open transaction is visible");
        drop(one);
        drop(self.initialised("0-0"));
        self.holds(Some("5"));
    }

    fn commits_back_to_back(&self) {
        let mut producers = [self.initialised("0-0"), self.initialised("0-1")];
        let mut offsets = Vec::new();
        for (turn, value) in ["6", "7", "8", "9", "10", "11"].into_iter().enumerate() {
            // Twice on each, then the other one.
            self.put(&mut producers[turn / 2 % 2], value);
            let last = self.cluster.reader(&self.markers, &self.key).unwrap().last(Reach::Everything).unwrap();
            let (offset, read) = last.unwrap();
            assert_eq!(String::from_utf8(read).unwrap(), value);
            offsets.push(offset);
        }
        assert!(offsets.is_sorted_by(|before, after| before < after), "{offsets:?}");
    }

    /// Everything that was sent is decided, and this is the last of it that was committed.
    fn holds(&self, value: Option<&str>) {
        assert_eq!(self.last(Reach::Everything).as_deref(), value);
        assert_eq!(self.last(Reach::Stable).as_deref(), value);
    }

    fn last(&self, reach: Reach) -> Option<String> {
        let reader = self.cluster.reader(&self.markers, &self.key).unwrap();
        reader.last(reach).unwrap().map(|(_, value)| String::from_utf8(value).unwrap())
    }

    fn initialised(&self, slot: &str) -> C::Producer {
        let mut producer = self.cluster.connect(Some(&format!("{}-out-{slot}", self.job)), &self.markers).unwrap();
        producer.initialise().unwrap();
        producer
    }

    fn put(&self, producer: &mut C::Producer, value: &str) {
        producer.begin().unwrap();
        self.send(producer, &self.key, value);
        producer.commit().unwrap();
    }

    fn send(&self, producer: &mut C::Producer, key: &str, value: &str) {
        producer.send([self.record(key, value)].into_iter()).unwrap();
    }

    fn record<'a>(&'a self, key: &'a str, value: &'a str) -> Outgoing<'a> {
        Outgoing { topic: &self.markers, partition: 0, key: Some(key.as_bytes()), value: value.as_bytes() }
    }
}
