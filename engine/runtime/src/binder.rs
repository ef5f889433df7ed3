//! The binder: one instance gathers what sources say of an epoch, fixes it in a [`Binding`], and has it made durable.
//!
//! Two outputs. `facts` goes out, broadcast, as soon as the epoch's facts are gathered: operators that need watermark or
//! clock do not wait for the disk. `durable` carries (epoch, chain hash) under a capability that is held until the row is
//! fsynced: its frontier *is* the durable frontier (invariant 2), and a sink that waits for it needs no other protocol.

use crate::facts::{Bound, EpochFacts, SourceFacts, Tick};
use crate::link::waker;
use crate::plan::Plan;
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Binding, BindingState, ChainHash, Epoch, Error, Micros, Partition, Result, watermark};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use timely::dataflow::operators::vec::Broadcast;

/// Facts for every worker, and the durable epochs with their chain hashes (on worker 0).
pub(crate) type BinderStreams<'s> = (StreamVec<'s, Epoch, EpochFacts>, StreamVec<'s, Epoch, (Epoch, ChainHash)>);

/// Builds the binder over the facts of all sources.
pub(crate) fn binder<'s>(
    ticks: StreamVec<'s, Epoch, Tick>,
    sources: StreamVec<'s, Epoch, SourceFacts>,
    plan: &Arc<Plan>,
) -> BinderStreams<'s> {
    let scope = ticks.scope();
    let mut builder = OperatorBuilder::new("Binder".to_owned(), scope);
    let mut ticks = builder.new_input(ticks, Pipeline);
    let mut sources = builder.new_input(sources, Exchange::new(|_: &SourceFacts| 0));
    let (facts, facts_stream) = builder.new_output();
    let (durable, durable_stream) = builder.new_output();
    let (mut facts, mut durable) = (OutputBuilder::from(facts), OutputBuilder::from(durable));
    let mut state = (scope.index() == 0).then(|| BinderState::new(plan.clone()));
    if scope.index() == 0 {
        let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
        plan.log.attach(waker(wake));
    }
    let plan = plan.clone();
    builder.build(move |capabilities| {
        drop(capabilities); // the ticks bring one for each epoch
        let mut open: BTreeMap<Epoch, (Tick, [Capability<Epoch>; 2])> = BTreeMap::new();
        let mut said: BTreeMap<Epoch, Vec<SourceFacts>> = BTreeMap::new();
        let mut unbound: BTreeMap<Epoch, Capability<Epoch>> = BTreeMap::new();
        move |frontiers| {
            ticks.for_each(|stamp, batch| {
                for tick in batch.drain(..) {
                    let held = [0, 1].map(|port| stamp.delayed(&tick.epoch, port));
                    open.insert(tick.epoch, (tick, held));
                }
            });
            sources.for_each(|stamp, batch| {
                said.entry(*stamp.least().expect("facts are stamped with their epoch")).or_default().append(batch);
            });
            let Some(state) = state.as_mut().filter(|_| !plan.control.has_failed()) else {
                open.clear();
                unbound.clear();
                return;
            };
            let (mut facts, mut durable) = (facts.activate(), durable.activate());
            while let Some(entry) = open.first_entry().filter(|e| !frontiers[1].less_equal(e.key())) {
                let (epoch, (tick, [facts_capability, durable_capability])) = entry.remove_entry();
                match state.bind(&tick, said.remove(&epoch).unwrap_or_default()) {
                    Ok((bound, replayed)) => {
                        facts.session(&facts_capability).give(bound);
                        match replayed {
                            Some(chain) => durable.session(&durable_capability).give((epoch, chain)),
                            None => drop(unbound.insert(epoch, durable_capability)),
                        }
                    }
                    Err(error) => return plan.control.fail(error),
                }
            }
            for reply in plan.log.replies() {
                match reply {
                    Ok((epoch, chain)) => {
                        plan.note_chain(epoch, chain);
                        let capability = unbound.remove(&epoch).expect("only what was sent is reported durable");
                        durable.session(&capability).give((epoch, chain));
                    }
                    Err(error) => return plan.control.fail(error),
                }
            }
        }
    });
    (facts_stream.broadcast(), durable_stream)
}

/// The log's state, and what idleness is judged by.
struct BinderState {
    plan: Arc<Plan>,
    state: BindingState,
    /// Clock of the newest epoch that brought a partition a usable record, first listed it, or began this generation.
    active: BTreeMap<Partition, Micros>,
    /// The chain hashes of the rows being replayed.
    replay: BTreeMap<Epoch, ChainHash>,
    tables_bound: bool,
    began: Option<Micros>,
}

impl BinderState {
    fn new(plan: Arc<Plan>) -> BinderState {
        let replay = plan.replay.iter().map(|(row, chain)| (row.epoch, *chain)).collect();
        let state = plan.start.state.clone();
        BinderState { plan, state, active: BTreeMap::new(), replay, tables_bound: false, began: None }
    }

    /// Fixes an epoch. The chain hash comes back when its row is in the log already.
    fn bind(&mut self, tick: &Tick, said: Vec<SourceFacts>) -> Result<(EpochFacts, Option<ChainHash>)> {
        let before = self.state.watermark;
        let replayed = tick.bound.as_ref().and_then(|b| b.replay.as_ref());
        let row = match replayed {
            Some(row) => self.check_replay(row, &said, before)?,
            None => self.new_row(tick, &said, before)?,
        };
        self.state.apply(&row);
        let facts = EpochFacts {
            epoch: row.epoch,
            clock: row.clock,
            watermark_before: before,
            watermark: row.watermark,
            checkpoint: row.checkpoint && self.plan.cuts_at(row.epoch),
        };
        self.plan.control.publish(&facts);
        let measures = &self.plan.control.measures;
        measures.epochs.bound(row.epoch, self.plan.environment.clock.monotonic());
        measures.partitions.idle(&self.state.idle);
        if replayed.is_none() {
            measures.caught_up();
        }
        if facts.checkpoint {
            self.plan.control.cuts().entry(row.epoch).or_default().state = Some(self.state.clone());
        }
        if row.is_final {
            self.plan.control.finish();
        }
        if let Some(chain) = self.replay.remove(&row.epoch) {
            self.plan.control.status.replayed_epochs.add(1);
            self.plan.note_chain(row.epoch, chain);
            return Ok((facts, Some(chain)));
        }
        assert!(
            self.plan.log.send(row).is_ok(),
            "the log's queue holds the rows of all epochs that may be open and not durable"
        );
        Ok((facts, None))
    }

    fn new_row(&mut self, tick: &Tick, said: &[SourceFacts], before: Option<Micros>) -> Result<Binding> {
        let advances: BTreeMap<_, _> = said.iter().flat_map(|s| s.advances.iter().copied()).collect();
        let mut partitions = self.state.partitions.clone();
        for (partition, advance) in &advances {
            let state = partitions.entry(*partition).or_default();
            (state.end, state.newest) = (advance.end, advance.newest);
        }
        let began = *self.began.get_or_insert(tick.clock);
        for partition in said.iter().flat_map(|s| &s.active) {
            self.active.insert(*partition, tick.clock);
        }
        let (idle, is_final) = match &tick.bound {
            Some(bound) => (bound.idle.clone(), bound.is_final),
            None => {
                let timeout = self.plan.settings.idle_timeout_ms as i64 * 1_000;
                let at_end: BTreeSet<_> = said.iter().flat_map(|s| s.at_end.iter().copied()).collect();
                let may = |p: &Partition| {
                    let active = self.active.get(p).copied().unwrap_or(began);
                    watermark::may_be_idle(at_end.contains(p), tick.clock, active, timeout)
                };
                (partitions.keys().copied().filter(may).collect(), self.all_exhausted(said))
            }
        };
        let lateness = self.plan.settings.lateness_ms as i64 * 1_000;
        let mut watermark = watermark::advance(before, &partitions, &idle, is_final, lateness);
        if is_planted(Bug::WatermarkFromWallClock) && !is_final {
            watermark = before.max(Some(self.plan.environment.clock.wall().plus(-lateness)));
        }
        if let Some(bound) = &tick.bound {
            check_recorded(tick.epoch, bound, watermark)?;
        }
        let mut schemas: Vec<_> = said.iter().flat_map(|s| s.schemas.iter().copied()).collect();
        schemas.retain(|s| !self.state.schemas.contains_key(&(s.source, s.id)));
        schemas.sort_unstable();
        schemas.dedup();
        let tables = if std::mem::replace(&mut self.tables_bound, true) { Vec::new() } else { self.plan.new_tables() };
        Ok(Binding {
            epoch: tick.epoch,
            clock: tick.clock,
            advances,
            idle: (idle != self.state.idle).then_some(idle),
            watermark,
            is_final,
            checkpoint: tick.checkpoint,
            schemas,
            tables,
        })
    }

    fn all_exhausted(&self, said: &[SourceFacts]) -> bool {
        said.len() == self.plan.sources.len() * self.plan.workers && said.iter().all(|s| s.exhausted)
    }

    /// What the sources read again must add up to the row (they have checked count and hash), and so must the watermark.
    fn check_replay(&self, row: &Binding, said: &[SourceFacts], before: Option<Micros>) -> Result<Binding> {
        let advances: BTreeMap<_, _> = said.iter().flat_map(|s| s.advances.iter().copied()).collect();
        if advances != row.advances {
            return Err(Error::doubt(format!(
                "replaying epoch {}: the binding names {} partitions, the sources now gave {}",
                row.epoch,
                row.advances.len(),
                advances.len()
            )));
        }
        let mut state = self.state.clone();
        state.apply(row);
        let lateness = self.plan.settings.lateness_ms as i64 * 1_000;
        let watermark = watermark::advance(before, &state.partitions, &state.idle, row.is_final, lateness);
        if watermark != row.watermark {
            return Err(Error::doubt(format!(
                "replaying epoch {}: the binding says watermark {:?}, it now comes out as {:?}",
                row.epoch,
                row.watermark.map(|w| w.to_string()),
                watermark.map(|w| w.to_string())
            ))
            .hint("the allowed lateness changed since the epoch was bound; put it back, or start over"));
        }
        Ok(row.clone())
    }
}

fn check_recorded(epoch: Epoch, bound: &Bound, watermark: Option<Micros>) -> Result<()> {
    let Some(expected) = bound.watermark.filter(|w| *w != watermark) else { return Ok(()) };
    let say = |w: Option<Micros>| w.map_or("null".to_owned(), |w| w.to_string());
    Err(Error::user(format!(
        "reading the bindings file: epoch {epoch} says watermark {}, its records give {}",
        say(expected),
        say(watermark)
    ))
    .hint("the file and the input do not belong together, or the allowed lateness differs"))
}
