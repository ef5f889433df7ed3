//! The keyed history: the one generic operator behind all detectors (DESIGN section 4).
//!
//! ```text
//!  accepted events ──by key──► [ per key: history | pending | said ] ──► distinct events
//!  facts (broadcast) ─────────►   one batch an epoch, in key order   ──► said: raised and withdrawn findings
//!                                            │ checkpoint epochs     ──► parts (a frontier)
//!                                            └─ KeyedTable: bounded cache over RocksDB or the heap
//! ```
//!
//! An epoch is worked when both frontiers have passed it: all its keys are loaded with one read, each key's new events are put
//! in their place, judged from the first change on, and the difference to what was said goes out (`Eager`); or they wait
//! and go out with their findings in the epoch whose watermark releases them (`Final`). Events below the watermark become final in
//! either case. Pending events are part of the key's state: beyond the cache's bound they lie in the backend.
//!
//! A program that changed (another fingerprint, from a clean stop) judges every pending event again in its first epoch and says the
//! difference to what the old one said.
//!
//! It holds no timers. `Final` keeps in `due` which keys have something to release, and rebuilds it from the state on a restart. `Eager`
//! has nothing to say at a release, and makes what the watermark has passed final when the key is next touched: until then a key
//! that nothing happens to is neither read nor written.

use super::key_state::{Inserted, KeyState, Rules};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Epoch, Error, Micros, Result, Shard, Stamped, stable_hash};
use dataflow_runtime::control::Control;
use dataflow_runtime::facts::EpochFacts;
use dataflow_runtime::job::{JobScope, Stateful};
use dataflow_state::table::Slot;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

/// When findings are said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emit {
    /// In the epoch in which an event arrives; taken back if an event that comes later in arrival, earlier in time, changes them.
    #[default]
    Eager,
    /// When the watermark has passed the event; never taken back.
    Final,
}

/// A finding that is said, or taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said<F> {
    /// What is said.
    pub finding: F,
    /// Whether it is taken back.
    pub withdrawn: bool,
    /// The epoch that says it.
    pub epoch: Epoch,
}

/// Events that are no duplicates, and what is said of them.
pub type HistoryStreams<'s, R> =
    (StreamVec<'s, Epoch, Stamped<<R as Rules>::Event>>, StreamVec<'s, Epoch, Said<<R as Rules>::Finding>>);

/// Runs `rules` over accepted events. `name` names its state in checkpoints and must not change between versions of a job.
///
/// # Errors
/// When the state can not be restored.
pub fn keyed_history<'s, R: Rules>(
    job: &mut JobScope<'s>,
    name: &str,
    rules: R,
    emit: Emit,
    events: StreamVec<'s, Epoch, Stamped<R::Event>>,
) -> Result<HistoryStreams<'s, R>> {
    history(job, name, rules, emit, events, true)
}

/// As [`keyed_history`], for a job that has the distinct events from elsewhere: only what is said of them.
///
/// # Errors
/// When the state can not be restored.
pub fn keyed_findings<'s, R: Rules>(
    job: &mut JobScope<'s>,
    name: &str,
    rules: R,
    emit: Emit,
    events: StreamVec<'s, Epoch, Stamped<R::Event>>,
) -> Result<StreamVec<'s, Epoch, Said<R::Finding>>> {
    history(job, name, rules, emit, events, false).map(|(_, said)| said)
}

fn history<'s, R: Rules>(
    job: &mut JobScope<'s>,
    name: &str,
    rules: R,
    emit: Emit,
    events: StreamVec<'s, Epoch, Stamped<R::Event>>,
    with_distinct: bool,
) -> Result<HistoryStreams<'s, R>> {
    let facts = job.facts();
    let control = job.plan().control.clone();
    // Before the operator is begun: timely panics over one that is not finished, and a state that can not be read is an error.
    let mut work = Worker::open(job.state(name)?, rules.clone(), emit, with_distinct, control.clone())?;
    let mut builder = OperatorBuilder::new(format!("KeyedHistory {name}"), job.scope());
    let by_key = {
        let mut key = Vec::new();
        Exchange::new(move |event: &Stamped<R::Event>| {
            key.clear();
            rules.key(&event.data, &mut key);
            u64::from(Shard::of(&key).0)
        })
    };
    let mut events = builder.new_input(events, by_key);
    let mut facts = builder.new_input(facts, Pipeline);
    let (distinct, distinct_stream) = builder.new_output();
    let (said, said_stream) = builder.new_output();
    let (parts, parts_stream) = builder.new_output::<Vec<()>>();
    let (mut distinct, mut said) = (OutputBuilder::from(distinct), OutputBuilder::from(said));
    builder.build(move |capabilities| {
        drop(capabilities); // the facts bring one for each epoch
        let mut arrived: BTreeMap<Epoch, Vec<Stamped<R::Event>>> = BTreeMap::new();
        let mut fixed: BTreeMap<Epoch, (EpochFacts, [Capability<Epoch>; 3])> = BTreeMap::new();
        move |frontiers| {
            let _keep = &parts;
            events.for_each(|stamp, batch| {
                arrived.entry(*stamp.least().expect("events are stamped with their epoch")).or_default().append(batch);
            });
            facts.for_each(|stamp, batch| {
                for facts in batch.drain(..) {
                    let held = [0, 1, 2].map(|port| stamp.delayed(&facts.epoch, port));
                    fixed.insert(facts.epoch, (facts, held));
                }
            });
            if control.has_failed() {
                fixed.clear();
                return;
            }
            let (mut distinct, mut said) = (distinct.activate(), said.activate());
            while let Some(entry) = fixed.first_entry().filter(|e| !frontiers[0].less_equal(e.key())) {
                let (epoch, (facts, [distinct_at, said_at, _parts_at])) = entry.remove_entry();
                match work.epoch(&facts, arrived.remove(&epoch).unwrap_or_default()) {
                    Ok(()) => {
                        distinct.session(&distinct_at).give_container(&mut work.distinct);
                        said.session(&said_at).give_container(&mut work.said);
                    }
                    Err(error) => return control.fail(error),
                }
            }
        }
    });
    job.parts(parts_stream);
    Ok((distinct_stream, said_stream))
}

/// The operator's logic on one worker, an epoch at a time.
struct Worker<R: Rules> {
    state: Stateful<KeyState<R>>,
    rules: R,
    emit: Emit,
    with_distinct: bool,
    control: Arc<Control>,
    /// `Final` only: keys with a pending event at this time, to be visited when the watermark has passed it.
    due: BTreeMap<Micros, Vec<Box<[u8]>>>,
    distinct: Vec<Stamped<R::Event>>,
    said: Vec<Said<R::Finding>>,
    /// Keys whose pending events a changed program has yet to judge.
    unjudged: BTreeSet<Box<[u8]>>,
    visits: Visits,
    /// Only with a planted bug: a cut that was put off.
    late_cut: Option<Epoch>,
}

/// What an epoch has to do with which keys. Kept between epochs for its buffers.
#[derive(Default)]
struct Visits {
    /// The keys' bytes, one after the other.
    keys: Vec<u8>,
    visits: Vec<Visit>,
}

/// One thing to do with a key.
struct Visit {
    hash: u64,
    key: Range<usize>,
    /// The event to add, by its index in the epoch; `None` for a key that is only to be looked at.
    event: Option<usize>,
}

impl Visits {
    fn clear(&mut self) {
        self.keys.clear();
        self.visits.clear();
    }

    /// Notes a visit; `key` appends the key and says whether there is one.
    fn add(&mut self, event: Option<usize>, key: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.keys.len();
        if key(&mut self.keys) {
            let key = start..self.keys.len();
            self.visits.push(Visit { hash: stable_hash(&self.keys[key.clone()]), key, event });
        }
    }

    /// Brings them in a defined order, whatever the order of arrival: by the key's hash, the key, and the order of events.
    fn sort<T>(&mut self, events: &[Option<Stamped<T>>]) {
        let keys = &self.keys;
        let order = |visit: &Visit| visit.event.map(|at| events[at].as_ref().expect("not taken yet").order());
        self.visits.sort_unstable_by(|a, b| {
            let key = |visit: &Visit| &keys[visit.key.clone()];
            a.hash.cmp(&b.hash).then_with(|| key(a).cmp(key(b))).then_with(|| order(a).cmp(&order(b)))
        });
    }

    fn key(&self, visit: &Visit) -> &[u8] {
        &self.keys[visit.key.clone()]
    }

    /// The visits of each key.
    fn by_key(&self) -> impl Iterator<Item = &[Visit]> {
        self.visits.chunk_by(|a, b| a.hash == b.hash && self.key(a) == self.key(b))
    }
}

impl<R: Rules> Worker<R> {
    fn open(
        mut state: Stateful<KeyState<R>>,
        rules: R,
        emit: Emit,
        with_distinct: bool,
        control: Arc<Control>,
    ) -> Result<Worker<R>> {
        let mut due: BTreeMap<Micros, Vec<Box<[u8]>>> = BTreeMap::new();
        let mut unjudged = BTreeSet::new();
        let mut said_otherwise = 0;
        let is_changed = state.plan().is_changed;
        if emit == Emit::Final || is_changed {
            let watermark = state.plan().watermark_at_start();
            state.table.scan(&mut |key, value: KeyState<R>| {
                // Below the watermark nothing is open, though eager emission may not have looked at the key since.
                let Some(first) = value.first_pending().filter(|_| value.last_pending() >= watermark) else {
                    return Ok(());
                };
                said_otherwise += u64::from(value.is_public() != (emit == Emit::Eager));
                if emit == Emit::Final {
                    due.entry(first).or_default().push(key.into());
                }
                if is_changed {
                    unjudged.insert(key.into());
                }
                Ok(())
            })?;
        }
        if said_otherwise > 0 {
            return Err(Error::user(format!("starting with emit = {emit:?}: {said_otherwise} keys have pending events under the other one"))
                .hint("go on with the other one until the watermark has passed them (or the input has ended), stop cleanly, then change it"));
        }
        Ok(Worker {
            state,
            rules,
            emit,
            with_distinct,
            control,
            due,
            distinct: Vec::new(),
            said: Vec::new(),
            unjudged,
            visits: Visits::default(),
            late_cut: None,
        })
    }

    fn epoch(&mut self, facts: &EpochFacts, events: Vec<Stamped<R::Event>>) -> Result<()> {
        let mut events: Vec<Option<Stamped<R::Event>>> = events.into_iter().map(Some).collect();
        let mut visits = std::mem::take(&mut self.visits);
        visits.clear();
        for (at, event) in events.iter().enumerate() {
            let event = event.as_ref().expect("not taken yet");
            visits.add(Some(at), |key| self.rules.key(&event.data, key));
        }
        let mut look_at = |key: &[u8]| {
            visits.add(None, |out| {
                out.extend_from_slice(key);
                true
            });
        };
        if let Some(watermark) = facts.watermark {
            let rest = self.due.split_off(&watermark);
            std::mem::replace(&mut self.due, rest).into_values().flatten().for_each(|key| look_at(&key));
        }
        let unjudged = std::mem::take(&mut self.unjudged);
        unjudged.iter().for_each(|key| look_at(key));
        visits.sort(&events);
        let keys: Vec<&[u8]> = visits.by_key().map(|visits_of_key| visits.key(&visits_of_key[0])).collect();
        let slots = self.state.table.load(&keys)?;
        let mut new = Vec::new();
        for ((of_key, key), slot) in visits.by_key().zip(&keys).zip(slots) {
            let event = |visit: &Visit| visit.event.map(|at| events[at].take().expect("an event has one key"));
            new.extend(of_key.iter().filter_map(event));
            self.state.load.key(of_key[0].hash, key, new.len());
            self.key(facts, key, slot, &mut new, unjudged.contains(*key));
        }
        self.visits = visits;
        self.count();
        self.state.table.end_epoch(facts.watermark)?;
        self.state.measure(facts.clock, |key| self.rules.key_text(key));
        if let Some(epoch) = self.late_cut.take() {
            self.state.cut(epoch, facts.watermark)?;
        }
        if facts.checkpoint {
            if is_planted(Bug::CheckpointWithNextEpoch) {
                self.late_cut = Some(facts.epoch);
            } else {
                self.state.cut(facts.epoch, facts.watermark)?;
            }
        }
        Ok(())
    }

    /// Counts what the epoch says, for status and metrics.
    fn count(&self) {
        let mut counts: BTreeMap<(bool, &'static str), u64> = BTreeMap::new();
        for said in &self.said {
            *counts.entry((said.withdrawn, self.rules.label(&said.finding))).or_default() += 1;
        }
        let status = &self.control.status;
        for ((withdrawn, label), count) in counts {
            let (total, what) = if withdrawn { (&status.withdrawn, "withdrawn") } else { (&status.raised, "raised") };
            total.add(count);
            status.count(&format!("{what}.{label}"), count);
        }
    }

    /// One key's share of an epoch; takes the events out of `new`. `again`: what is pending is to be judged by a changed program.
    fn key(&mut self, facts: &EpochFacts, key: &[u8], slot: Slot, new: &mut Vec<Stamped<R::Event>>, again: bool) {
        let value = self.state.table.get_mut(slot);
        let is_eager = self.emit == Emit::Eager;
        let (mut first, mut duplicates) = (usize::MAX, 0);
        if again || value.is_public() != is_eager {
            // What was final before this epoch was said, by another program or the other emission, and stays as it is.
            value.release(&self.rules, facts.watermark_before, |_, _| ());
        }
        if again {
            value.forget_judged();
            first = 0;
        }
        for event in new.drain(..) {
            let distinct = (is_eager && self.with_distinct).then(|| event.clone());
            let time = event.time;
            let (inserted, at) = value.insert(&self.rules, event);
            // Where nobody asked for the distinct events, another history of the job counts what is left out of them.
            if inserted != Inserted::New && self.with_distinct {
                duplicates += 1;
                self.state.load.duplicate(self.rules.key_text(key), time, facts.clock);
            }
            if inserted == Inserted::Duplicate {
                continue;
            }
            first = first.min(at);
            if inserted == Inserted::New {
                self.distinct.extend(distinct);
            }
        }
        let (mut withdrawn, mut raised) = (Vec::new(), Vec::new());
        if first != usize::MAX {
            value.judge(&self.rules, first, &mut withdrawn, &mut raised);
        }
        let epoch = facts.epoch;
        let say = |withdrawn| move |finding| Said { finding, withdrawn, epoch };
        match self.emit {
            Emit::Eager => {
                self.said.extend(withdrawn.into_iter().map(say(true)));
                self.said.extend(raised.into_iter().map(say(false)));
                value.release(&self.rules, facts.watermark, |_, _| ());
            }
            Emit::Final => {
                let (distinct, said) = (&mut self.distinct, &mut self.said);
                let with_distinct = self.with_distinct;
                value.release(&self.rules, facts.watermark, |event, findings| {
                    distinct.extend(Some(event).filter(|_| with_distinct));
                    said.extend(findings.iter().cloned().map(say(false)));
                });
                if let Some(time) = value.first_pending() {
                    self.due.entry(time).or_default().push(key.into());
                }
            }
        }
        value.seal(&self.rules, is_eager);
        if duplicates > 0 {
            self.control.status.duplicates.add(duplicates);
        }
    }
}

/// The partitioning of a key's rows in a sink: the same for all rows of the key.
pub fn route(key: &[u8]) -> u64 {
    stable_hash(key)
}
