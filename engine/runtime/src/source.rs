//! The source operator: reads this worker's partitions, decodes, stamps with the open epoch, and says what the epoch took.
//!
//! A live epoch takes what comes until the next tick; a bound one (replay, bindings file) takes exactly its range, and a
//! replay must meet the recorded count and hash (invariant 1) or the job stops. A record whose schema is not resolved yet is
//! stamped into no epoch: it and what follows it in the partition wait, and the partition is not at its end.
//!
//! It decides the dead letters, which need nothing but the record and its epoch's clock (SEMANTICS "Login records", the first
//! four rows); lateness needs the watermark and is decided by [`crate::time`].

use crate::alarm::Alarm;
use crate::control::Control;
use crate::facts::{Bound, SourceFacts, Tick};
use crate::link::{Gate, waker};
use crate::measures::partitions::PartitionMeasure;
use crate::plan::Plan;
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{
    Advance, DeadLetter, Decode, Decoded, Epoch, Error, EventTime, Micros, Partition, Poll, Position, Record, Result,
    SourceId, SourceReader, Stamped, Waker,
};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use xxhash_rust::xxh3::Xxh3;

/// Records one activation may emit, so that a busy source can not starve the worker's other operators.
const ACTIVATION_RECORDS_MAX: usize = 8_192;
/// Records one poll of a partition may return: partitions take turns.
const POLL_RECORDS_MAX: usize = 1_024;
/// How soon a source that waits for bytes of a bound epoch looks again, should its reader not wake it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Everything a job may do with a source: the records, the dead letters, and (for the binder) the facts.
pub(crate) struct SourceStreams<'s, T: Clone + 'static> {
    pub(crate) records: StreamVec<'s, Epoch, Stamped<T>>,
    pub(crate) dead: StreamVec<'s, Epoch, DeadLetter>,
    pub(crate) facts: StreamVec<'s, Epoch, SourceFacts>,
}

/// Builds the operator for source `id`.
pub(crate) fn source<'s, T>(
    ticks: StreamVec<'s, Epoch, Tick>,
    plan: &Arc<Plan>,
    id: SourceId,
    decoder: Box<dyn Decode<T>>,
) -> SourceStreams<'s, T>
where
    T: EventTime + Clone + Serialize + DeserializeOwned + Send + 'static,
{
    let scope = ticks.scope();
    let (worker, peers) = (scope.index(), scope.peers());
    let mut builder = OperatorBuilder::new(format!("Source {}", plan.sources[usize::from(id.0)].name()), scope);
    let mut input = builder.new_input(ticks, Pipeline);
    let (records, records_stream) = builder.new_output();
    let (dead, dead_stream) = builder.new_output();
    let (facts, facts_stream) = builder.new_output();
    let (mut records, mut dead, mut facts) =
        (OutputBuilder::from(records), OutputBuilder::from(dead), OutputBuilder::from(facts));
    let address = builder.operator_info().address;
    let mut alarm = Alarm::new(scope, &address);
    let gate = Gate::default();
    let wake = gate.before(waker(scope.worker().sync_activator_for(address.to_vec())));
    let plan = plan.clone();
    let mut share = match Share::open(&plan, id, worker, peers, decoder, wake) {
        Ok(share) => Some(share),
        Err(error) => {
            plan.control.fail(error);
            None
        }
    };
    builder.build(move |capabilities| {
        drop(capabilities); // the ticks bring one for each epoch
        let mut ticks: VecDeque<(Tick, [Capability<Epoch>; 3])> = VecDeque::new();
        let (mut taken, mut letters) = (Vec::new(), Vec::new());
        move |frontiers| {
            input.for_each(|stamp, batch| {
                for tick in batch.drain(..) {
                    let held = [0, 1, 2].map(|port| stamp.delayed(&tick.epoch, port));
                    ticks.push_back((tick, held));
                }
            });
            let Some(share) = share.as_mut().filter(|_| !plan.control.has_failed()) else {
                ticks.clear();
                return;
            };
            let (mut records, mut dead, mut facts) = (records.activate(), dead.activate(), facts.activate());
            let mut budget = ACTIVATION_RECORDS_MAX;
            while let Some((tick, held)) = ticks.front() {
                let closing = ticks.len() > 1 || frontiers[0].is_empty();
                gate.set(true);
                let read = share.read(tick, closing, &mut budget, &mut taken, &mut letters);
                records.session(&held[0]).give_iterator(taken.drain(..));
                dead.session(&held[1]).give_iterator(letters.drain(..));
                match read.and_then(|progress| Ok((progress, share.close_if(progress, tick)?))) {
                    Ok((_, Some(said))) => {
                        facts.session(&held[2]).give(said);
                        ticks.pop_front();
                    }
                    Ok((Progress::Again, None)) => return alarm.now(),
                    Ok((_, None)) => {
                        gate.set(!share.has_enough(tick));
                        return alarm.within(share.look_again());
                    }
                    Err(error) => return plan.control.fail(error),
                }
            }
        }
    });
    SourceStreams { records: records_stream, dead: dead_stream, facts: facts_stream }
}

/// What reading into an epoch came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The epoch has all it takes: say its facts.
    Complete,
    /// The activation's budget is used up: come back at once.
    Again,
    /// Nothing at hand: come back when woken.
    Wait,
}

/// One worker's share of a source.
struct Share<T> {
    plan: Arc<Plan>,
    id: SourceId,
    worker: usize,
    reader: Box<dyn SourceReader>,
    decoder: Box<dyn Decode<T>>,
    partitions: BTreeMap<u32, PartitionReader>,
    /// The epoch being read.
    epoch: Option<Epoch>,
    /// Records stamped into it by this worker, and the bytes of their keys and values.
    stamped: u64,
    stamped_bytes: u64,
    /// It takes no more records.
    is_full: bool,
    polled: Vec<Record>,
    /// The partition that is polled first, so that all get their turn within the budget.
    turn: u32,
    checkpointed: Epoch,
}

#[derive(Default)]
struct PartitionReader {
    next: u64,
    newest: Option<Micros>,
    /// Read but not stamped: the first one's schema is not resolved.
    held: VecDeque<Record>,
    last: Option<Poll>,
    /// In the open epoch.
    records: u64,
    hash: Xxh3,
    active: bool,
    listed: bool,
}

impl<T: EventTime> Share<T> {
    fn open(
        plan: &Arc<Plan>,
        id: SourceId,
        worker: usize,
        peers: usize,
        mut decoder: Box<dyn Decode<T>>,
        wake: Waker,
    ) -> Result<Share<T>> {
        let mut reader = plan.sources[usize::from(id.0)].open(worker, peers, wake)?;
        // Everything bound, not what a checkpoint holds: there may be none yet.
        if plan.start.bound.partitions.keys().any(|partition| partition.source == id) {
            reader.resume();
        }
        let mut partitions = BTreeMap::new();
        for (partition, state) in &plan.start.state.partitions {
            if partition.source == id && partition.index as usize % peers == worker {
                reader.assign(partition.index, state.end)?;
                let known = PartitionReader { next: state.end, newest: state.newest, ..PartitionReader::default() };
                partitions.insert(partition.index, known);
            }
        }
        decoder.bind(&plan.bound_schemas(id))?;
        Ok(Share {
            plan: plan.clone(),
            id,
            worker,
            reader,
            decoder,
            partitions,
            epoch: None,
            stamped: 0,
            stamped_bytes: 0,
            is_full: false,
            polled: Vec::new(),
            turn: 0,
            checkpointed: 0,
        })
    }

    fn look_again(&self) -> Duration {
        if self.partitions.values().any(|p| p.last != Some(Poll::Ended)) { LOOK_AGAIN } else { Duration::from_secs(1) }
    }

    /// Whether more records need not be heard of: a live epoch that has some is closed soon, and what has come by then is read as it closes.
    fn has_enough(&self, tick: &Tick) -> bool {
        tick.bound.is_none() && self.stamped > 0
    }

    /// Reads into the epoch of `tick` what belongs there and is at hand.
    fn read(
        &mut self,
        tick: &Tick,
        closing: bool,
        budget: &mut usize,
        taken: &mut Vec<Stamped<T>>,
        letters: &mut Vec<DeadLetter>,
    ) -> Result<Progress> {
        self.decoder.resolving()?;
        if self.epoch != Some(tick.epoch) {
            self.begin(tick)?;
        }
        let is_last_round = tick.bound.is_none() && closing;
        let order: Vec<u32> =
            self.partitions.range(self.turn..).chain(self.partitions.range(..self.turn)).map(|p| *p.0).collect();
        let mut complete = true;
        let mut more = false;
        for index in order {
            if self.is_full {
                // The next epoch goes on here: a partition with a backlog must not starve those behind it.
                self.turn = index;
                break;
            }
            if *budget == 0 {
                self.turn = index;
                return Ok(if is_last_round { Progress::Complete } else { Progress::Again });
            }
            match self.read_partition(index, tick, budget, taken, letters)? {
                Progress::Complete => {}
                Progress::Again => (complete, more) = (false, true),
                Progress::Wait => complete = false,
            }
        }
        if is_last_round {
            return Ok(Progress::Complete);
        }
        if !taken.is_empty() || !letters.is_empty() {
            self.plan.control.input_came();
        }
        if self.is_full {
            self.plan.control.epoch_is_full();
            return Ok(Progress::Wait);
        }
        Ok(match (&tick.bound, complete, more) {
            (Some(_), true, _) => Progress::Complete,
            (_, _, true) => Progress::Again,
            _ => Progress::Wait,
        })
    }

    fn begin(&mut self, tick: &Tick) -> Result<()> {
        (self.epoch, self.stamped, self.stamped_bytes, self.is_full) = (Some(tick.epoch), 0, 0, false);
        for partition in self.partitions.values_mut() {
            (partition.records, partition.active, partition.listed) = (0, false, false);
            partition.hash = Xxh3::new();
        }
        let replayed = tick.bound.as_ref().and_then(|bound| bound.replay.as_ref());
        self.decoder.begin(tick.epoch, replayed.map(|row| &row.schemas[..]))?;
        let checkpointed = self.plan.control.status.epoch_checkpointed.get();
        if checkpointed > self.checkpointed {
            self.checkpointed = checkpointed;
            if let Some((newest, oldest)) = self.plan.checkpointed_offsets(self.id) {
                self.reader.checkpointed(&newest);
                self.reader.restorable(&oldest);
            }
        }
        let replaying = tick.bound.as_ref().is_some_and(|b| b.replay.is_some());
        if replaying {
            return self.list_bound(tick.bound.as_deref().expect("a replayed epoch is bound"));
        }
        for found in self.reader.discover()? {
            self.reader.assign(found.index, found.start)?;
            let listed = PartitionReader { next: found.start, listed: true, ..PartitionReader::default() };
            self.partitions.insert(found.index, listed);
            // Its records wait for the next epoch.
            self.plan.control.input_came();
        }
        // A bindings file may name partitions that never had a record: they count for the watermark all the same.
        for partition in tick.bound.iter().flat_map(|b| b.ends.keys()) {
            let mine = partition.source == self.id && partition.index as usize % self.plan.workers == self.worker;
            if mine && !self.partitions.contains_key(&partition.index) {
                self.reader.assign(partition.index, 0)?;
                let listed = PartitionReader { listed: true, ..PartitionReader::default() };
                self.partitions.insert(partition.index, listed);
            }
        }
        Ok(())
    }

    /// In a replay a partition begins where its first binding says.
    fn list_bound(&mut self, bound: &Bound) -> Result<()> {
        for (partition, advance) in &bound.replay.as_ref().expect("the caller looked").advances {
            let mine = partition.source == self.id && partition.index as usize % self.plan.workers == self.worker;
            if mine && !self.partitions.contains_key(&partition.index) {
                // A bindings file's first row may list a partition and read from it at once: then it began at 0.
                let start = if advance.records == 0 { advance.end } else { 0 };
                self.reader.assign(partition.index, start)?;
                let listed = PartitionReader { next: start, listed: true, ..PartitionReader::default() };
                self.partitions.insert(partition.index, listed);
            }
        }
        Ok(())
    }

    fn read_partition(
        &mut self,
        index: u32,
        tick: &Tick,
        budget: &mut usize,
        taken: &mut Vec<Stamped<T>>,
        letters: &mut Vec<DeadLetter>,
    ) -> Result<Progress> {
        let id = Partition { source: self.id, index };
        let state = self.partitions.get_mut(&index).expect("the caller iterates over them");
        let mut until = tick.bound.as_ref().map(|b| b.ends.get(&id).copied().unwrap_or(state.next));
        if is_planted(Bug::ReplayOffByOne) && tick.bound.as_ref().is_some_and(|b| b.replay.is_some()) {
            until = until.map(|u| if u > state.next + 1 { u - 1 } else { u });
        }
        if until.is_some_and(|u| u <= state.next) {
            return Ok(Progress::Complete);
        }
        if until.is_none() && state.listed {
            return Ok(Progress::Wait); // its first binding holds no records
        }
        if until.is_none() && is_ahead(state.newest, &self.plan) {
            // It waits for the slower partitions. Where its end is is not known meanwhile, so it can not become idle.
            state.last = state.last.filter(|last| *last != Poll::AtEnd);
            return Ok(Progress::Wait);
        }
        // What is bound is taken whole.
        let room = if until.is_none() { Room::of(&self.plan) } else { Room::ENDLESS };
        if state.held.is_empty() {
            let most =
                (*budget).min(POLL_RECORDS_MAX).min(usize::try_from(room.records - self.stamped).unwrap_or(usize::MAX));
            state.last = Some(self.reader.poll(index, until, most, &mut self.polled)?);
            state.held.extend(self.polled.drain(..));
        }
        let clock_limit = tick.clock.plus(self.plan.settings.future_max_ms as i64 * 1_000);
        let mut count = 0;
        while let Some(record) = state.held.front().filter(|r| until.is_none_or(|u| r.offset < u)) {
            let bytes = weight(record);
            if !room.has(self.stamped, self.stamped_bytes, bytes) {
                self.is_full = true;
                break;
            }
            let position = Position { partition: id, offset: record.offset };
            let value = match self.decoder.decode(record) {
                Decoded::Unresolved => {
                    state.held.iter().for_each(|record| self.decoder.foresee(record));
                    break;
                }
                Decoded::Value(value) => value.event_time().map(|time| (time, value)),
                Decoded::Dead(reason) => Err(reason),
            };
            let record = state.held.pop_front().expect("the loop looked at it");
            hash_record(&mut state.hash, &record);
            (state.next, state.records) = (record.offset + 1, state.records + 1);
            (self.stamped, self.stamped_bytes) = (self.stamped + 1, self.stamped_bytes + bytes);
            match value.and_then(|(time, v)| if time > clock_limit { Err("future_timestamp") } else { Ok((time, v)) }) {
                Ok((time, data)) => {
                    (state.newest, state.active) = (state.newest.max(Some(time)), true);
                    taken.push(Stamped { time, position, data });
                }
                Err(reason) => {
                    let status = &self.plan.control.status;
                    status.dead_letters.add(1);
                    status.count(&format!("dead_letters.{reason}"), 1);
                    let reason = reason.to_owned();
                    letters.push(DeadLetter {
                        position,
                        epoch: tick.epoch,
                        reason,
                        key: record.key,
                        raw: record.value,
                    });
                }
            }
            count += 1;
        }
        *budget = budget.saturating_sub(count);
        self.is_full |= self.stamped >= room.records;
        if count > 0 && self.stamped == count as u64 {
            self.plan.control.measures.epochs.begun(tick.epoch, self.plan.environment.clock.monotonic());
        }
        self.plan.control.status.read(self.worker, count as u64);
        if let Some(until) = until {
            let is_proven = state.held.is_empty() && state.last == Some(Poll::AtEnd);
            if is_proven || state.next >= until {
                state.next = state.next.max(until);
                return Ok(Progress::Complete);
            }
            if state.last == Some(Poll::Ended) && state.held.is_empty() {
                return Err(self.ended_early(id, until));
            }
        }
        Ok(if state.held.is_empty() && state.last == Some(Poll::More) { Progress::Again } else { Progress::Wait })
    }

    fn ended_early(&self, id: Partition, until: u64) -> Error {
        let name = self.plan.partition_name(id);
        let next = self.partitions[&id.index].next;
        Error::doubt(format!("replaying '{name}': the input ends at offset {next}, the bindings say {until}"))
            .hint("the input was cut or replaced since it was bound; restore it, or start over with a new data folder")
    }

    /// Ends the epoch if it is complete, and says what it took.
    fn close_if(&mut self, progress: Progress, tick: &Tick) -> Result<Option<SourceFacts>> {
        if progress != Progress::Complete {
            return Ok(None);
        }
        let mut facts = SourceFacts {
            source: self.id,
            worker: self.worker,
            advances: Vec::new(),
            active: Vec::new(),
            at_end: Vec::new(),
            exhausted: self.partitions.values().all(|p| p.last == Some(Poll::Ended) && p.held.is_empty()),
            schemas: self.decoder.resolved(),
        };
        for (index, state) in &self.partitions {
            let id = Partition { source: self.id, index: *index };
            let advance =
                Advance { end: state.next, records: state.records, hash: state.hash.digest(), newest: state.newest };
            let bound = tick.bound.as_ref().and_then(|b| b.replay.as_ref()).and_then(|row| row.advances.get(&id));
            if let Some(bound) = bound.filter(|b| **b != advance) {
                return Err(self.mismatch(id, tick.epoch, bound, &advance));
            }
            if state.records > 0 || state.listed || bound.is_some() {
                facts.advances.push((id, advance));
            }
            if state.active || state.listed {
                facts.active.push(id);
            }
            if matches!(state.last, Some(Poll::AtEnd | Poll::Ended)) && state.held.is_empty() {
                facts.at_end.push(id);
            }
        }
        self.epoch = None;
        self.measure();
        Ok(Some(facts))
    }

    /// Says where the partitions stand, after an epoch.
    fn measure(&self) {
        let share = self.partitions.iter().map(|(index, state)| {
            let measure = PartitionMeasure {
                worker: self.worker,
                next: state.next,
                lag: self.reader.lag(*index).map(|behind| behind + state.held.len() as u64),
                newest: state.newest,
                records: state.records,
                is_at_end: matches!(state.last, Some(Poll::AtEnd | Poll::Ended)) && state.held.is_empty(),
                is_ahead: is_ahead(state.newest, &self.plan),
                is_idle: false,
            };
            (Partition { source: self.id, index: *index }, measure)
        });
        self.plan.control.measures.partitions.read(share);
    }

    fn mismatch(&self, id: Partition, epoch: Epoch, bound: &Advance, read: &Advance) -> Error {
        let name = self.plan.partition_name(id);
        let say = |a: &Advance| format!("{} records up to offset {}, hash {:016x}", a.records, a.end, a.hash);
        Error::doubt(format!(
            "replaying epoch {epoch} of '{name}': the binding says {}, the source now gives {}",
            say(bound),
            say(read)
        ))
        .hint("the source's content changed since it was read (compaction, a recreated topic, an edited file); start over with a new data folder if that is meant")
    }
}

/// What a worker's share of a source may put into a live epoch.
struct Room {
    records: u64,
    bytes: u64,
}

impl Room {
    const ENDLESS: Room = Room { records: u64::MAX, bytes: u64::MAX };

    fn of(plan: &Plan) -> Room {
        let (settings, workers) = (&plan.settings, plan.workers as u64);
        // At least one record: fewer records than workers would keep every epoch empty and the job at a stand.
        Room { records: (settings.epoch_max_records / workers).max(1), bytes: settings.epoch_max_bytes / workers }
    }

    /// Whether a record of `bytes` fits beside what is there. A first one always does, however large.
    fn has(&self, records: u64, bytes_before: u64, bytes: u64) -> bool {
        records == 0 || (records < self.records && bytes_before.saturating_add(bytes) <= self.bytes)
    }
}

/// Bytes of a record's key and value.
fn weight(record: &Record) -> u64 {
    [&record.key, &record.value].into_iter().flatten().map(|bytes| bytes.len() as u64).sum()
}

/// Watermark alignment (DESIGN section 4): influences only when a partition is read, never what an epoch means.
fn is_ahead(newest: Option<Micros>, plan: &Plan) -> bool {
    matches!((newest, Control::watermark(&plan.control)), (Some(t), Some(w)) if t.since(w) > plan.settings.drift_us())
}

/// Offset, key and value, each with its length, so that no two records share their bytes.
fn hash_record(hash: &mut Xxh3, record: &Record) {
    hash.update(&record.offset.to_le_bytes());
    for part in [&record.key, &record.value] {
        let length = part.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64);
        hash.update(&length.to_le_bytes());
        hash.update(part.as_deref().unwrap_or_default());
    }
}
