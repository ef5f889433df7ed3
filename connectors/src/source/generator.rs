//! A source without an outside: records that a seeded [`Generator`] makes up, the same ones whenever they are read again.
//!
//! Invariant 1 rests on the generator being a pure function of (partition, block): a block is made as a whole, so a
//! restart at any offset makes the bytes that were there before. A record has a due time on the generator's own time line,
//! from 0; with a pace it is handed out once the wall clock has reached `start + due`, so what was due while the job was down
//! comes at once, as from a broker. `start` must be the same in every generation: the caller keeps it.
//! A replay (`until`) does not wait for the clock: what was bound had been due.

use super::pulse;
use bytes::Bytes;
use dataflow_core::{Clock, Discovered, Error, Micros, Poll, Record, Result, Source, SourceReader, Spawner, Waker};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a paced reader is woken: `tick.min`, as an epoch cannot close sooner.
const PULSE: Duration = Duration::from_millis(5);

/// A record that was made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// When it happens, in microseconds since the generator's beginning. Does not fall within a partition.
    pub due_us: u64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
}

/// Makes records up. A pure function of its own settings and the arguments.
pub trait Generator: Send + Sync {
    /// The number of partitions.
    fn partitions(&self) -> u32;
    /// How many records partition `partition` has in all; `None`: without end.
    fn length(&self, partition: u32) -> Option<u64>;
    /// The records of a block; a reader holds one block per partition.
    fn block_records(&self) -> u64;
    /// Makes the records at offsets `block * block_records()` and following: exactly `block_records()` of them, also
    /// where the partition ends within the block.
    fn block(&self, partition: u32, block: u64) -> Vec<Generated>;
}

/// When records are handed out.
#[derive(Clone)]
pub struct Pace {
    /// The clock to wait for.
    pub clock: Arc<dyn Clock>,
    /// Starts the task that wakes the reader.
    pub spawner: Arc<dyn Spawner>,
    /// What due time 0 is on the clock.
    pub start: Micros,
}

/// The source.
#[derive(Clone)]
pub struct GeneratorSource {
    name: String,
    generator: Arc<dyn Generator>,
    pace: Option<Pace>,
}

impl GeneratorSource {
    /// Hands records out as fast as they are read.
    pub fn new(name: impl Into<String>, generator: Arc<dyn Generator>) -> GeneratorSource {
        GeneratorSource { name: name.into(), generator, pace: None }
    }

    /// Hands records out when they are due.
    #[must_use]
    pub fn paced(mut self, pace: Pace) -> GeneratorSource {
        self.pace = Some(pace);
        self
    }
}

impl Source for GeneratorSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, worker: usize, peers: usize, wake: Waker) -> Result<Box<dyn SourceReader>> {
        let mine = (0..self.generator.partitions()).filter(|index| *index as usize % peers == worker);
        let source = self.clone();
        let unknown = mine.collect();
        let pulse = self.pace.as_ref().map(|pace| pulse::start(&*pace.spawner, &self.name, wake, PULSE));
        Ok(Box::new(GeneratorReader { source, unknown, assigned: BTreeMap::new(), _pulse: pulse }))
    }
}

struct GeneratorReader {
    source: GeneratorSource,
    /// Partitions of this share that were neither discovered nor assigned.
    unknown: Vec<u32>,
    assigned: BTreeMap<u32, Place>,
    _pulse: Option<Arc<()>>,
}

/// Where a partition is read.
struct Place {
    next: u64,
    /// The block that holds `next`, once it was made.
    block: Option<(u64, Vec<Generated>)>,
}

impl SourceReader for GeneratorReader {
    fn discover(&mut self) -> Result<Vec<Discovered>> {
        Ok(self.unknown.drain(..).map(|index| Discovered { index, start: 0 }).collect())
    }

    fn assign(&mut self, index: u32, next: u64) -> Result<()> {
        let (name, generator) = (&self.source.name, &self.source.generator);
        if index >= generator.partitions() || generator.length(index).is_some_and(|length| next > length) {
            return Err(Error::outside(format!(
                "read '{name}/{index}' from offset {next}: the generator makes no such record"
            ))
            .hint("its settings must stay as they were when the job began: put them back, or start over"));
        }
        self.unknown.retain(|known| *known != index);
        self.assigned.insert(index, Place { next, block: None });
        Ok(())
    }

    fn poll(&mut self, index: u32, until: Option<u64>, budget: usize, out: &mut Vec<Record>) -> Result<Poll> {
        let generator = &*self.source.generator;
        let now = match (&self.source.pace, until) {
            (Some(pace), None) => pace.clock.wall().since(pace.start),
            _ => i64::MAX,
        };
        let place = self
            .assigned
            .get_mut(&index)
            .ok_or_else(|| Error::us(format!("poll '{}/{index}', which was not assigned", self.source.name)))?;
        let end = generator.length(index).unwrap_or(u64::MAX);
        let size = generator.block_records();
        for _ in 0..budget {
            if until.is_some_and(|until| place.next >= until) {
                return Ok(Poll::AtEnd);
            }
            if place.next >= end {
                return Ok(Poll::Ended);
            }
            let number = place.next / size;
            if place.block.as_ref().is_none_or(|(made, _)| *made != number) {
                place.block = Some((number, generator.block(index, number)));
            }
            let records = place.block.as_ref().map_or(&[][..], |(_, records)| records);
            let record = records.get((place.next % size) as usize).ok_or_else(|| {
                Error::us(format!("block {number} of '{}/{index}' has {} records", self.source.name, records.len()))
            })?;
            if i64::try_from(record.due_us).unwrap_or(i64::MAX) > now {
                return Ok(Poll::AtEnd);
            }
            out.push(Record { offset: place.next, key: record.key.clone(), value: record.value.clone() });
            place.next += 1;
        }
        Ok(Poll::More)
    }

    /// Within the block at hand: `None` when all of it is due, for then nobody knows how many more are.
    fn lag(&self, index: u32) -> Option<u64> {
        let pace = self.source.pace.as_ref()?;
        let now = u64::try_from(pace.clock.wall().since(pace.start)).unwrap_or(0);
        let place = self.assigned.get(&index)?;
        let (_, records) = place.block.as_ref()?;
        let due = records.partition_point(|record| record.due_us <= now);
        let delivered = (place.next % self.source.generator.block_records()) as usize;
        (due < records.len()).then(|| due.saturating_sub(delivered) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::Task;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    /// Records that say where they stand; one each millisecond.
    struct Counting {
        length: Option<u64>,
    }

    impl Generator for Counting {
        fn partitions(&self) -> u32 {
            3
        }
        fn length(&self, _: u32) -> Option<u64> {
            self.length
        }
        fn block_records(&self) -> u64 {
            7
        }
        fn block(&self, partition: u32, block: u64) -> Vec<Generated> {
            let one = |offset: u64| Generated {
                due_us: offset * 1000,
                key: None,
                value: Some(Bytes::from(format!("{partition}/{offset}"))),
            };
            (block * 7..block * 7 + 7).map(one).collect()
        }
    }

    struct Hand(AtomicI64);
    impl Clock for Hand {
        fn wall(&self) -> Micros {
            Micros(self.0.load(Ordering::SeqCst))
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[derive(Default)]
    struct Spawned(std::sync::Mutex<Vec<Box<dyn Task>>>);
    impl Spawner for Spawned {
        fn spawn(&self, _: &str, task: Box<dyn Task>) -> Waker {
            self.0.lock().unwrap().push(task);
            Waker::none()
        }
    }

    fn values(records: &[Record]) -> Vec<String> {
        records.iter().map(|r| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn any_chunks_and_restarts_give_the_same(budgets in prop::collection::vec(1usize..30, 1..12), length in 0u64..120) {
            let source = GeneratorSource::new("g", Arc::new(Counting { length: Some(length) }));
            let mut got = Vec::new();
            let mut next = 0;
            for budget in budgets.into_iter().chain([1000]) {
                let mut reader = source.open(1, 3, Waker::none()).unwrap();
                reader.assign(1, next).unwrap();
                prop_assert_eq!(reader.discover().unwrap(), vec![]);
                let poll = reader.poll(1, None, budget, &mut got).unwrap();
                next = got.len() as u64;
                prop_assert_eq!(poll == Poll::Ended, next == length && poll != Poll::More);
            }
            prop_assert_eq!(values(&got), (0..length).map(|o| format!("1/{o}")).collect::<Vec<_>>());
            prop_assert!(got.iter().enumerate().all(|(at, record)| record.offset == at as u64));
        }
    }

    #[test]
    fn paced_by_the_clock_but_not_in_a_replay() {
        let clock = Arc::new(Hand(AtomicI64::new(5_000_000)));
        let spawned = Arc::new(Spawned::default());
        let pace = Pace { clock: clock.clone(), spawner: spawned.clone(), start: Micros(5_000_000) };
        let source = GeneratorSource::new("g", Arc::new(Counting { length: None })).paced(pace);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        let wake = Waker::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let mut reader = source.open(0, 2, wake).unwrap();
        let starts = reader.discover().unwrap();
        assert_eq!(starts, [Discovered { index: 0, start: 0 }, Discovered { index: 2, start: 0 }]);
        reader.assign(0, 0).unwrap();
        reader.assign(2, 0).unwrap();
        let mut out = Vec::new();
        assert_eq!(reader.poll(0, None, 100, &mut out).unwrap(), Poll::AtEnd);
        assert_eq!(values(&out), ["0/0"]);
        clock.0.store(5_003_999, Ordering::SeqCst);
        assert_eq!(reader.poll(0, None, 100, &mut out).unwrap(), Poll::AtEnd);
        assert_eq!(values(&out), ["0/0", "0/1", "0/2", "0/3"]);
        assert_eq!(reader.poll(2, Some(40), 100, &mut out).unwrap(), Poll::AtEnd);
        assert_eq!(out.len(), 44);
        let mut task = spawned.0.lock().unwrap().pop().unwrap();
        assert_ne!(task.run(), dataflow_core::TaskState::Done);
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        drop(reader);
        assert_eq!(task.run(), dataflow_core::TaskState::Done);
    }

    #[test]
    fn settings_that_changed_are_refused() {
        let source = GeneratorSource::new("g", Arc::new(Counting { length: Some(10) }));
        let mut reader = source.open(0, 1, Waker::none()).unwrap();
        assert!(reader.assign(0, 10).is_ok());
        assert!(reader.assign(0, 11).is_err());
        assert!(reader.assign(3, 0).is_err());
    }
}
