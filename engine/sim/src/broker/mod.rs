//! A broker with transactions, as far as a sink depends on one: producer ids that fence, transactions that become visible whole, and
//! answers that do not come.
//!
//! ```text
//!  initialise(slot)  ends the slot's open transaction, fences whoever had the slot
//!  produce(slot)     into the slot's open transaction; may be refused
//!  commit(slot)      applied | applied, answer lost | lost | on its way, and applied later (unless fenced by then)
//!  marker()          the last committed marker
//! ```
//!
//! It outlives the job's lives, and what of them is still on its way. One instance is one sink's cluster.

mod connector;

pub(crate) use connector::BrokerSink;

use crate::dice::{Dice, Purpose};
use crate::life::{Blow, Life, Passage, gone};
use crate::trace::Trace;
use dataflow_core::{Epoch, Error, Marker, OutputRow, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Slots that exist, whatever a connector uses of them.
pub(crate) const SLOTS: usize = 3;
/// The path that fuses and traces know broker calls by.
pub(crate) const PATH: &str = "broker";

/// What is sent in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A row of an epoch.
    Row(Epoch, OutputRow),
    /// The sink's marker.
    Marker(Marker),
}

/// What the broker did to its callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerCounters {
    /// Commits whose answer the caller did not get.
    pub unknown: u64,
    /// Of those, the ones that were applied after all, at once or later.
    pub applied_unseen: u64,
    /// Records that were refused.
    pub refused: u64,
    /// Calls of a producer that was fenced.
    pub fenced: u64,
    /// Transactions that an initialisation ended.
    pub aborted: u64,
}

/// The broker.
pub(crate) struct SimBroker {
    trace: Arc<Trace>,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    /// Percent of the calls that go wrong, while there are faults left.
    fault_percent: u64,
    faults_left: u32,
    slots: [Slot; SLOTS],
    /// Commits on their way: slot and the producer's epoch.
    in_flight: Vec<(usize, u64)>,
    committed: Vec<Item>,
    counters: BrokerCounters,
}

#[derive(Default)]
struct Slot {
    epoch: u64,
    open: Option<Vec<Item>>,
}

impl SimBroker {
    /// An empty broker.
    pub(crate) fn new(seed: u64, trace: Arc<Trace>, fault_percent: u64, faults: u32) -> Arc<SimBroker> {
        let dice = Dice::new(seed, Purpose::Broker);
        let state = State {
            dice,
            fault_percent,
            faults_left: faults,
            slots: Default::default(),
            in_flight: Vec::new(),
            committed: Vec::new(),
            counters: BrokerCounters::default(),
        };
        Arc::new(SimBroker { trace, state: Mutex::new(state) })
    }

    /// Fences the slot's producer, ends its transaction, and gives the new producer's epoch.
    pub(crate) fn initialise(&self, life: &Life, slot: usize) -> Result<u64> {
        self.call(life, "initialise", slot, |state| {
            let fault = state.fault();
            let held = &mut state.slots[slot];
            held.epoch += 1;
            state.counters.aborted += u64::from(held.open.take().is_some());
            if fault { Err(timeout("initialising a producer")) } else { Ok(held.epoch) }
        })
    }

    /// Sends items into the slot's open transaction, which the first one opens. An item is in it whole or not at all.
    pub(crate) fn produce(&self, life: &Life, slot: usize, epoch: u64, items: &[Item]) -> Result<()> {
        self.call(life, "produce", slot, |state| {
            state.check(slot, epoch)?;
            let refused = if state.fault() { Some(state.dice.below(items.len().max(1) as u64) as usize) } else { None };
            let taken = items.iter().enumerate().filter(|(at, _)| Some(*at) != refused).map(|(_, item)| item.clone());
            state.slots[slot].open.get_or_insert_default().extend(taken);
            if refused.is_some() {
                state.counters.refused += 1;
                return Err(Error::outside("producing a record: not enough replicas").retry());
            }
            Ok(())
        })
    }

    /// Commits the slot's open transaction.
    pub(crate) fn commit(&self, life: &Life, slot: usize, epoch: u64) -> Result<()> {
        self.call(life, "commit", slot, |state| {
            state.check(slot, epoch)?;
            if !state.fault() {
                state.apply(slot);
                return Ok(());
            }
            state.counters.unknown += 1;
            match state.dice.below(3) {
                0 => {
                    state.apply(slot);
                    state.counters.applied_unseen += 1;
                }
                1 => state.in_flight.push((slot, epoch)),
                _ => {}
            }
            Err(timeout("committing a transaction"))
        })
    }

    /// The last committed marker.
    pub(crate) fn marker(&self, life: &Life) -> Result<Option<Marker>> {
        match life.network_call("marker", PATH, 0) {
            Passage::Gone => Err(gone("read", PATH)),
            Passage::Blown(Blow::Before | Blow::After) => {
                life.end();
                Err(gone("read", PATH))
            }
            Passage::Open | Passage::Blown(Blow::Fail) => Ok(self.state().marker()),
        }
    }

    /// A commit that was on its way arrives, if there is one. Whether there was.
    pub(crate) fn deliver(&self) -> bool {
        let mut state = self.state();
        if state.in_flight.is_empty() {
            return false;
        }
        let count = state.in_flight.len() as u64;
        let at = state.dice.below(count) as usize;
        let (slot, epoch) = state.in_flight.remove(at);
        let applies = state.slots[slot].epoch == epoch && state.slots[slot].open.is_some();
        if applies {
            state.apply(slot);
            state.counters.applied_unseen += 1;
        }
        self.trace.note("deliver", PATH, u64::from(applies));
        true
    }

    /// Whether a commit is on its way.
    pub(crate) fn has_in_flight(&self) -> bool {
        !self.state().in_flight.is_empty()
    }

    /// Everything a read_committed consumer sees, in order.
    pub(crate) fn committed(&self) -> Vec<Item> {
        self.state().committed.clone()
    }

    /// What happened.
    pub(crate) fn counters(&self) -> BrokerCounters {
        self.state().counters
    }

    fn call<T>(&self, life: &Life, what: &str, slot: usize, act: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        match life.network_call(what, PATH, slot as u64) {
            Passage::Open | Passage::Blown(Blow::Fail) => act(&mut self.state()),
            Passage::Gone => Err(gone(what, PATH)),
            Passage::Blown(blow) => {
                if blow == Blow::After {
                    drop(act(&mut self.state()));
                }
                life.end();
                Err(gone(what, PATH))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fault(&mut self) -> bool {
        let fault = self.faults_left > 0 && self.dice.percent(self.fault_percent);
        self.faults_left -= u32::from(fault);
        fault
    }

    fn check(&mut self, slot: usize, epoch: u64) -> Result<()> {
        if self.slots[slot].epoch == epoch {
            return Ok(());
        }
        self.counters.fenced += 1;
        Err(Error::outside("using a producer: another one has its transactional id"))
    }

    fn apply(&mut self, slot: usize) {
        self.committed.extend(self.slots[slot].open.take().unwrap_or_default());
    }

    fn marker(&self) -> Option<Marker> {
        self.committed.iter().rev().find_map(|item| match item {
            Item::Marker(marker) => Some(*marker),
            Item::Row(..) => None,
        })
    }
}

fn timeout(what: &str) -> Error {
    Error::outside(format!("{what}: timed out, the outcome is unknown")).retry()
}
