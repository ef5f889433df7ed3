//! State and load of keyed operators: sizes, skew by shard, the hottest keys, the last duplicates.
//!
//! Each operator instance owns a [`KeyLoad`] and writes to it without a lock; twice a second of the epoch clock it puts a copy where
//! others can see it. The hottest keys are a space-saving sketch (Metwally, Agrawal, El Abbadi 2005) over a systematic sample: with
//! `COUNTERS_MAX` counters every key above 1/64 of the sample is among them, and `count - error` never says too much. Counts halve
//! with time, so a key that was hot an hour ago is not.

use super::lock;
use dataflow_core::{Micros, SHARDS, time::SECOND};
use dataflow_state::table::TableStats;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

/// Counters of a sketch.
const COUNTERS_MAX: usize = 64;
/// One record in so many is looked at: a look costs as much as a hash lookup, and a hot key shows all the same.
const SAMPLE_EVERY: u64 = 8;
/// Hot keys that are told.
const HOTTEST_MAX: usize = 12;
/// Duplicates that are told.
const DUPLICATES_MAX: usize = 20;
/// How often a copy is made.
const PUBLISH_EVERY_US: i64 = SECOND / 2;
/// How often counts halve.
const HALVE_EVERY_US: i64 = 30 * SECOND;

/// A key with much of the load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HotKey {
    /// The key, readable.
    pub key: String,
    /// Its share of the recent load, in thousandths; at least that.
    pub permille: u64,
}

/// An event that came twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DuplicateEvent {
    /// Its key, readable.
    pub key: String,
    /// When it happened.
    pub time: Micros,
    /// The clock of the epoch that dropped it.
    pub clock: Micros,
}

/// One instance of a keyed operator.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StateMeasure {
    /// The operator.
    pub operator: String,
    /// The worker.
    pub worker: usize,
    /// Keys in the backend, estimated.
    pub keys: u64,
    /// Bytes of live keys and values in the backend, estimated.
    pub live_bytes: u64,
    /// Memory of the backend alone.
    pub memory_bytes: u64,
    /// Values in the cache.
    pub cached: u64,
    /// Their bytes.
    pub cached_bytes: u64,
    /// Bytes of those not written to the backend yet.
    pub dirty_bytes: u64,
    /// Loads that the cache answered.
    pub hits: u64,
    /// Loads that the backend answered.
    pub misses: u64,
    /// Bytes by shard, as of the last cut.
    pub shard_bytes: Vec<u64>,
    /// Records by shard, since the start.
    pub shard_records: Vec<u64>,
    /// The hottest keys, hottest first.
    pub hottest: Vec<HotKey>,
    /// Events that it dropped because they came twice.
    pub duplicates_total: u64,
    /// The last of them, oldest first.
    pub duplicates: Vec<DuplicateEvent>,
}

/// All instances of keyed operators.
#[derive(Default)]
pub struct KeyedState(Mutex<BTreeMap<(String, usize), StateMeasure>>);

impl KeyedState {
    /// Sizes of the shards in a cut.
    pub(crate) fn cut(&self, operator: &str, worker: usize, shard_bytes: &[u64]) {
        self.change(operator, worker, |measure| measure.shard_bytes = shard_bytes.to_vec());
    }

    fn change(&self, operator: &str, worker: usize, f: impl FnOnce(&mut StateMeasure)) {
        let mut all = lock(&self.0);
        let measure = all.entry((operator.to_owned(), worker)).or_insert_with(|| StateMeasure {
            operator: operator.to_owned(),
            worker,
            ..StateMeasure::default()
        });
        f(measure);
    }

    /// All instances, by operator and worker.
    pub fn snapshot(&self) -> Vec<StateMeasure> {
        lock(&self.0).values().cloned().collect()
    }
}

/// The load of one operator instance, owned by it.
pub struct KeyLoad {
    operator: String,
    worker: usize,
    shard_records: Vec<u64>,
    sketch: Sketch,
    /// Records since the last one that was looked at.
    passed: u64,
    duplicates_total: u64,
    duplicates: VecDeque<DuplicateEvent>,
    published: Micros,
    halved: Micros,
}

impl KeyLoad {
    pub(crate) fn new(operator: &str, worker: usize) -> KeyLoad {
        KeyLoad {
            operator: operator.to_owned(),
            worker,
            shard_records: vec![0; usize::from(SHARDS)],
            sketch: Sketch::default(),
            passed: 0,
            duplicates_total: 0,
            duplicates: VecDeque::new(),
            published: Micros(i64::MIN),
            halved: Micros(i64::MIN),
        }
    }

    /// A key had `records` records in the epoch; `hash` is its [`dataflow_core::stable_hash`].
    pub fn key(&mut self, hash: u64, key: &[u8], records: usize) {
        self.shard_records[(hash % u64::from(SHARDS)) as usize] += records as u64;
        self.passed += records as u64;
        if self.passed >= SAMPLE_EVERY {
            self.sketch.add(hash, key, self.passed / SAMPLE_EVERY);
            self.passed %= SAMPLE_EVERY;
        }
    }

    /// An event of a key came twice.
    pub fn duplicate(&mut self, key: String, time: Micros, clock: Micros) {
        self.duplicates_total += 1;
        if self.duplicates.len() == DUPLICATES_MAX {
            self.duplicates.pop_front();
        }
        self.duplicates.push_back(DuplicateEvent { key, time, clock });
    }

    /// An epoch with this clock is over. Now and then makes what is known visible; `text` makes a key readable.
    pub(crate) fn epoch(
        &mut self,
        clock: Micros,
        to: &KeyedState,
        stats: impl FnOnce() -> TableStats,
        text: impl Fn(&[u8]) -> String,
    ) {
        if clock.since(self.published) < PUBLISH_EVERY_US {
            return;
        }
        self.published = clock;
        if clock.since(self.halved) >= HALVE_EVERY_US {
            self.halved = clock;
            self.sketch.halve();
        }
        let stats = stats();
        to.change(&self.operator, self.worker, |measure| {
            (measure.keys, measure.live_bytes) = (stats.backend.keys_estimate, stats.backend.live_bytes);
            measure.memory_bytes = stats.backend.memory_bytes;
            (measure.cached, measure.cached_bytes) = (stats.cached as u64, stats.cached_bytes as u64);
            measure.dirty_bytes = stats.dirty_bytes as u64;
            (measure.hits, measure.misses) = (stats.hits, stats.misses);
            measure.shard_records.clone_from(&self.shard_records);
            measure.hottest = self.sketch.hottest(text);
            measure.duplicates_total = self.duplicates_total;
            measure.duplicates = self.duplicates.iter().cloned().collect();
        });
    }
}

/// The space-saving sketch.
#[derive(Default)]
struct Sketch {
    /// Apart from the counters, so that a search reads one short run of memory.
    hashes: Vec<u64>,
    counters: Vec<Counter>,
    total: u64,
}

struct Counter {
    key: Box<[u8]>,
    count: u64,
    /// What it took over from the key before: at most so much is not its own.
    error: u64,
}

impl Sketch {
    fn add(&mut self, hash: u64, key: &[u8], n: u64) {
        self.total += n;
        if let Some(at) = self.hashes.iter().position(|known| *known == hash) {
            self.counters[at].count += n;
        } else if self.hashes.len() < COUNTERS_MAX {
            self.hashes.push(hash);
            self.counters.push(Counter { key: key.into(), count: n, error: 0 });
        } else {
            let least = self.counters.iter().enumerate().min_by_key(|(_, c)| c.count);
            let (at, error) = least.map(|(at, counter)| (at, counter.count)).expect("the sketch is full");
            self.hashes[at] = hash;
            self.counters[at] = Counter { key: key.into(), count: error + n, error };
        }
    }

    fn halve(&mut self) {
        self.total /= 2;
        for counter in &mut self.counters {
            (counter.count, counter.error) = (counter.count / 2, counter.error / 2);
        }
    }

    fn hottest(&self, text: impl Fn(&[u8]) -> String) -> Vec<HotKey> {
        let sure = |counter: &Counter| counter.count - counter.error;
        let mut counters: Vec<&Counter> = self.counters.iter().filter(|c| sure(c) > 0).collect();
        counters.sort_by(|a, b| sure(b).cmp(&sure(a)).then_with(|| a.key.cmp(&b.key)));
        let hot = |c: &&Counter| HotKey { key: text(&c.key), permille: sure(c) * 1_000 / self.total.max(1) };
        counters.iter().map(hot).filter(|hot| hot.permille > 0).take(HOTTEST_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::stable_hash;

    fn text(key: &[u8]) -> String {
        String::from_utf8_lossy(key).into_owned()
    }

    #[test]
    fn a_hot_key_is_found_among_many_and_cools_down() {
        let (mut load, state) = (KeyLoad::new("logins", 1), KeyedState::default());
        let second = |load: &mut KeyLoad, clock: i64, hot: &str| {
            for n in 0..4_000 {
                let key = if n % 3 == 0 { hot.to_owned() } else { format!("u{clock}-{n}") };
                load.key(stable_hash(key.as_bytes()), key.as_bytes(), 1);
            }
            load.epoch(Micros(clock * SECOND), &state, TableStats::default, text);
            state.snapshot()[0].clone()
        };
        let measure = second(&mut load, 1, "hot");
        let HotKey { key, permille } = &measure.hottest[0];
        assert!(key == "hot" && (250..=340).contains(permille), "{:?}", measure.hottest);
        assert!(measure.hottest[1].permille < 50, "{:?}", measure.hottest);
        assert_eq!((measure.worker, measure.shard_records.iter().sum::<u64>()), (1, 4_000));
        for clock in 0..20 {
            second(&mut load, 40 + 31 * clock, "new");
        }
        let measure = second(&mut load, 1_000, "new");
        assert_eq!(measure.hottest[0].key, "new");
        assert!(measure.hottest.iter().all(|hot| hot.key != "hot"), "{:?}", measure.hottest);
    }

    #[test]
    fn a_copy_is_made_twice_a_second() {
        let (mut load, state) = (KeyLoad::new("logins", 0), KeyedState::default());
        load.duplicate("ana".into(), Micros(5), Micros(7));
        load.epoch(Micros(0), &state, TableStats::default, text);
        load.key(3, b"ana", 2);
        load.epoch(Micros(PUBLISH_EVERY_US - 1), &state, || unreachable!("too soon"), text);
        assert_eq!(state.snapshot()[0].shard_records[3], 0);
        state.cut("logins", 0, &[9]);
        load.epoch(Micros(PUBLISH_EVERY_US), &state, TableStats::default, text);
        let measure = &state.snapshot()[0];
        assert_eq!((measure.shard_records[3], &measure.shard_bytes[..]), (2, &[9][..]));
        assert_eq!((measure.duplicates_total, &*measure.duplicates[0].key), (1, "ana"));
    }
}
