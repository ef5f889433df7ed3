//! The outside log as a source: partitions that appear while the job runs, records that become visible with the simulated time,
//! fetches that bring less than there is or nothing yet, outages, and, for seeds that want it, retention right up to the newest checkpoint.

use crate::clock::SimTime;
use crate::dice::Dice;
use crate::life::Life;
use crate::traffic::LogPartition;
use dataflow_core::{Discovered, Error, Poll, Record, Result, Source, SourceReader, Waker};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The log, which outlives the job's lives.
pub(crate) struct OutsideLog {
    name: &'static str,
    partitions: Vec<LogPartition>,
    time: Arc<SimTime>,
    /// Whether what a checkpoint does not need is deleted at once.
    retention: bool,
    state: Mutex<State>,
    /// From and to when nothing comes.
    outages: Vec<(u64, u64)>,
    /// Records deleted so far.
    pub(crate) deleted: AtomicU64,
    /// Fetches that an outage left without an answer.
    pub(crate) away: AtomicU64,
    /// Partitions found that had not been there when the life began.
    pub(crate) added: AtomicU64,
}

struct State {
    dice: Dice,
    /// The first offset that is still there, by partition.
    first: BTreeMap<u32, u64>,
}

impl OutsideLog {
    /// The log that the source `name` reads.
    pub(crate) fn new(
        name: &'static str,
        dice: Dice,
        partitions: Vec<LogPartition>,
        time: Arc<SimTime>,
        retention: bool,
        outages: Vec<(u64, u64)>,
    ) -> Arc<OutsideLog> {
        let state = Mutex::new(State { dice, first: BTreeMap::new() });
        let (deleted, away, added) = Default::default();
        Arc::new(OutsideLog { name, partitions, time, retention, state, outages, deleted, away, added })
    }

    /// The log as a source of one life.
    pub(crate) fn source(self: &Arc<OutsideLog>, life: Arc<Life>) -> SimSource {
        SimSource { log: self.clone(), life, assigned: Arc::default(), began_us: self.time.now_us() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The source of one life.
pub(crate) struct SimSource {
    log: Arc<OutsideLog>,
    life: Arc<Life>,
    /// Partitions that some worker reads: the input is over only when all of it is.
    assigned: Arc<Mutex<BTreeSet<u32>>>,
    began_us: u64,
}

impl Source for SimSource {
    fn name(&self) -> &str {
        self.log.name
    }

    fn open(&self, worker: usize, peers: usize, _wake: Waker) -> Result<Box<dyn SourceReader>> {
        // The waker stays unused: without timely's timer an operator that wants to look again later is run at its worker's next step.
        let (log, life, assigned) = (self.log.clone(), self.life.clone(), self.assigned.clone());
        let (began_us, next) = (self.began_us, BTreeMap::new());
        Ok(Box::new(SimReader { log, life, all_assigned: assigned, worker, peers, began_us, next }))
    }
}

struct SimReader {
    log: Arc<OutsideLog>,
    life: Arc<Life>,
    all_assigned: Arc<Mutex<BTreeSet<u32>>>,
    worker: usize,
    peers: usize,
    began_us: u64,
    next: BTreeMap<u32, u64>,
}

impl SimReader {
    fn check_kept(&self, index: u32, next: u64) -> Result<()> {
        let first = self.log.state().first.get(&index).copied().unwrap_or(0);
        if next < first {
            let name = self.log.name;
            return Err(Error::outside(format!("read '{name}/{index}' from offset {next}: it begins at {first}"))
                .hint("the source was read below the newest complete checkpoint"));
        }
        Ok(())
    }
}

impl SourceReader for SimReader {
    fn discover(&mut self) -> Result<Vec<Discovered>> {
        let now = self.log.time.now_us();
        let listed = self.log.partitions.iter().enumerate().filter(|(_, p)| p.appears_us <= now);
        let mine = listed.map(|(index, _)| index as u32).filter(|i| *i as usize % self.peers == self.worker);
        let new: Vec<u32> = mine.filter(|i| !self.next.contains_key(i)).collect();
        let added = new.iter().filter(|i| self.log.partitions[**i as usize].appears_us > self.began_us).count();
        self.log.added.fetch_add(added as u64, SeqCst);
        Ok(new.into_iter().map(|index| Discovered { index, start: 0 }).collect())
    }

    fn assign(&mut self, index: u32, next: u64) -> Result<()> {
        if index as usize >= self.log.partitions.len() {
            let name = self.log.name;
            return Err(Error::outside(format!("read '{name}/{index}': there is no such partition")));
        }
        self.check_kept(index, next)?;
        self.next.insert(index, next);
        self.all_assigned.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
        Ok(())
    }

    fn poll(&mut self, index: u32, until: Option<u64>, budget: usize, out: &mut Vec<Record>) -> Result<Poll> {
        let next = *self
            .next
            .get(&index)
            .ok_or_else(|| Error::us(format!("poll '{}/{index}', which was not assigned", self.log.name)))?;
        let partition = &self.log.partitions[index as usize];
        let (now, length) = (self.log.time.now_us(), partition.records.len() as u64);
        let end = match until {
            Some(until) => until.min(length),
            None => partition.records.partition_point(|r| r.visible_us <= now) as u64,
        };
        if end > next {
            self.check_kept(index, next)?;
            if self.log.outages.iter().any(|(from, to)| (*from..*to).contains(&now)) {
                self.log.away.fetch_add(1, SeqCst);
                return Ok(Poll::Pending);
            }
            let mut state = self.log.state();
            if state.dice.percent(10) {
                return Ok(Poll::Pending);
            }
            let most = if state.dice.percent(50) { end - next } else { state.dice.range(1, end - next) };
            let to = next + most.min(budget as u64);
            let records = partition.records[next as usize..to as usize].iter().zip(next..);
            out.extend(records.map(|(r, offset)| Record { offset, key: r.key.clone(), value: r.value.clone() }));
            self.next.insert(index, to);
            if to < end {
                return Ok(Poll::More);
            }
        }
        if until.is_some_and(|until| until <= end.max(next)) {
            return Ok(Poll::AtEnd);
        }
        let all = self.all_assigned.lock().unwrap_or_else(PoisonError::into_inner).len() == self.log.partitions.len();
        Ok(if end >= length && all { Poll::Ended } else { Poll::AtEnd })
    }

    fn checkpointed(&mut self, offsets: &BTreeMap<u32, u64>) {
        if !self.log.retention || self.life.has_ended() {
            return;
        }
        let mut state = self.log.state();
        for (index, offset) in offsets {
            let first = state.first.entry(*index).or_default();
            self.log.deleted.fetch_add(offset.saturating_sub(*first), SeqCst);
            *first = (*first).max(*offset);
        }
    }
}
