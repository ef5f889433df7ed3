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
//! It holds no timers: `due` names keys that have something to release. `Final` rebuilds it from the state on a restart; `Eager` has
//! nothing to say at a release, and makes what is left from before final when the key is next touched.

use super::key_state::{Inserted, KeyState, Rules};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Epoch, Error, Micros, Result, Shard, Stamped, stable_hash};
use dataflow_runtime::control::Control;
use dataflow_runtime::facts::EpochFacts;
use dataflow_runtime::job::{JobScope, Stateful};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    let facts = job.facts();
    let control = job.plan().control.clone();
    // Before the operator is begun: timely panics over one that is not finished, and a state that can not be read is an error.
    let mut work = Worker::open(job.state(name)?, rules.clone(), emit, control.clone())?;
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
    control: Arc<Control>,
    /// Keys with a pending event at or after this time, to be visited when the watermark has passed it.
    due: BTreeMap<Micros, Vec<Box<[u8]>>>,
    distinct: Vec<Stamped<R::Event>>,
    said: Vec<Said<R::Finding>>,
    /// Keys whose pending events a changed program has yet to judge.
    unjudged: Vec<Box<[u8]>>,
    /// Only with a planted bug: a cut that was put off.
    late_cut: Option<Epoch>,
}

impl<R: Rules> Worker<R> {
    fn open(mut state: Stateful<KeyState<R>>, rules: R, emit: Emit, control: Arc<Control>) -> Result<Worker<R>> {
        let mut due: BTreeMap<Micros, Vec<Box<[u8]>>> = BTreeMap::new();
        let mut said_otherwise = 0;
        if emit == Emit::Final || state.plan().is_changed {
            state.table.scan(&mut |key, value: KeyState<R>| {
                if let Some(first) = value.first_pending() {
                    said_otherwise += u64::from(value.is_public() != (emit == Emit::Eager));
                    due.entry(first).or_default().push(key.into());
                }
                Ok(())
            })?;
        }
        if said_otherwise > 0 {
            return Err(Error::user(format!("starting with emit = {emit:?}: {said_otherwise} keys have pending events under the other one"))
                .hint("go on with the other one until the watermark has passed them (or the input has ended), stop cleanly, then change it"));
        }
        let mut unjudged: Vec<Box<[u8]>> = Vec::new();
        if state.plan().is_changed {
            unjudged.extend(due.values().flatten().cloned());
            unjudged.sort_unstable();
        }
        Ok(Worker {
            state,
            rules,
            emit,
            control,
            due,
            distinct: Vec::new(),
            said: Vec::new(),
            unjudged,
            late_cut: None,
        })
    }

    fn epoch(&mut self, facts: &EpochFacts, events: Vec<Stamped<R::Event>>) -> Result<()> {
        let mut keyed = Vec::with_capacity(events.len());
        for event in events {
            let mut key = Vec::new();
            if self.rules.key(&event.data, &mut key) {
                keyed.push((key.into_boxed_slice(), event));
            }
        }
        // A defined order, whatever the order of arrival: by key, then by (time, position).
        keyed.sort_unstable_by(|a, b| (&a.0, a.1.order()).cmp(&(&b.0, b.1.order())));
        let mut released: Vec<Box<[u8]>> = Vec::new();
        if let Some(watermark) = facts.watermark {
            let rest = self.due.split_off(&watermark);
            released = std::mem::replace(&mut self.due, rest).into_values().flatten().collect();
        }
        let unjudged = std::mem::take(&mut self.unjudged);
        released.extend(unjudged.iter().cloned());
        released.sort_unstable();
        released.dedup();
        let mut keys: Vec<&[u8]> =
            keyed.iter().map(|(key, _)| &**key).chain(released.iter().map(|key| &**key)).collect();
        keys.sort_unstable();
        keys.dedup();
        self.state.table.load(&keys)?;
        let (mut keyed, mut released) = (keyed.into_iter().peekable(), released.into_iter().peekable());
        loop {
            let next = match (keyed.peek(), released.peek()) {
                (Some((a, _)), Some(b)) => a.min(b).clone(),
                (Some((a, _)), None) => a.clone(),
                (None, Some(b)) => b.clone(),
                (None, None) => break,
            };
            let new: Vec<_> =
                std::iter::from_fn(|| keyed.next_if(|(key, _)| *key == next)).map(|(_, event)| event).collect();
            released.next_if(|key| *key == next);
            let again = unjudged.binary_search(&next).is_ok();
            self.key(facts, next, new, again);
        }
        self.count();
        self.state.table.end_epoch(facts.watermark)?;
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
        let status = &self.control.status;
        let withdrawn = self.said.iter().filter(|said| said.withdrawn).count() as u64;
        status.withdrawn.add(withdrawn);
        status.raised.add(self.said.len() as u64 - withdrawn);
        for said in &self.said {
            let what = if said.withdrawn { "withdrawn" } else { "raised" };
            status.count(&format!("{what}.{}", self.rules.label(&said.finding)), 1);
        }
    }

    /// One key's share of an epoch.
    fn key(&mut self, facts: &EpochFacts, key: Box<[u8]>, new: Vec<Stamped<R::Event>>, again: bool) {
        let value = self.state.table.get_mut(&key);
        let newest = new.last().map(|e| e.time);
        let (mut first, mut duplicates) = (if again { 0 } else { usize::MAX }, 0);
        if again {
            value.change_from(0);
        }
        for event in new {
            let distinct = (self.emit == Emit::Eager).then(|| event.clone());
            let (inserted, at) = value.insert(&self.rules, event);
            if inserted == Inserted::Duplicate {
                duplicates += 1;
                continue;
            }
            duplicates += u64::from(inserted == Inserted::Replaces);
            value.change_from(at);
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
                value.release(&self.rules, facts.watermark, |event, findings| {
                    distinct.push(event);
                    said.extend(findings.iter().cloned().map(say(false)));
                });
            }
        }
        value.seal(&self.rules, self.emit == Emit::Eager);
        self.control.status.duplicates.add(duplicates);
        // Eager says nothing at a release: one visit after the newest event is enough to make the pending ones final.
        let visit = match self.emit {
            Emit::Eager => newest.filter(|_| value.pending() > 0),
            Emit::Final => value.first_pending(),
        };
        if let Some(time) = visit {
            self.due.entry(time).or_default().push(key);
        }
    }
}

/// The partitioning of a key's rows in a sink: the same for all rows of the key.
pub fn route(key: &[u8]) -> u64 {
    stable_hash(key)
}
