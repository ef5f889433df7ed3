//! A broker with transactions as Kafka has them (KIP-98, before KIP-890): a coordinator with its states, producer epochs that fence,
//! logs that a read_committed reader sees up to the first open transaction, and answers that do not come.
//!
//! ```text
//!  initialise  Empty, Complete*  the epoch rises
//!              Ongoing           the epoch rises --> PrepareAbort --> CompleteAbort, now or later
//!              Prepare*          CONCURRENT_TRANSACTIONS, until it is complete: at once, or at the next attempt
//!  produce     Empty, Complete*  --> Ongoing; an older epoch is refused; a record may be refused; a request may be late
//!  end         Ongoing --> PrepareCommit, answered --> CompleteCommit, now or later
//!              answer lost | request lost | request late or twice | too late: aborted by the time-out, which raises the epoch
//! ```
//!
//! It outlives the job's lives, and what of them is still on its way. One instance is one sink's cluster.

mod cluster;
mod coordinator;

pub(crate) use cluster::SimCluster;

use crate::clock::SimTime;
use crate::dice::{Dice, Purpose};
use crate::life::{Blow, Life, Passage, gone};
use crate::scheduler::Service;
use crate::trace::Trace;
use coordinator::{Ended, Request, State};
use dataflow_core::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The path that fuses and traces know broker calls by.
pub(crate) const PATH: &str = "broker";

/// A record in the broker's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The topic.
    pub(crate) topic: String,
    /// The key.
    pub(crate) key: Option<Vec<u8>>,
    /// The value.
    pub(crate) value: Vec<u8>,
    /// The number of its transaction.
    pub(crate) transaction: usize,
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
    /// Transactions ended by an initialisation.
    pub aborted: u64,
    /// Transactions ended because they took too long.
    pub timed_out: u64,
    /// Calls that met a transaction which was decided and not yet complete.
    pub concurrent: u64,
    /// Commits that arrived when they had nothing to commit any more.
    pub stale: u64,
    /// Requests with records that arrived late, and into a transaction.
    pub produced_late: u64,
    /// Requests with records that arrived late, and were refused.
    pub late_refused: u64,
}

/// The broker.
pub(crate) struct SimBroker {
    trace: Arc<Trace>,
    time: Arc<SimTime>,
    state: Mutex<State>,
}

impl Service for SimBroker {
    fn has_in_flight(&self) -> bool {
        self.state().has_in_flight()
    }

    /// A request that was on its way arrives, or a transaction that was decided is completed.
    fn deliver(&self) {
        let mut state = self.state();
        let number = state.deliver();
        self.trace.note("deliver", PATH, number);
    }
}

impl SimBroker {
    /// An empty broker.
    pub(crate) fn new(
        seed: u64,
        trace: Arc<Trace>,
        time: Arc<SimTime>,
        fault_percent: u64,
        faults: u32,
    ) -> Arc<SimBroker> {
        let state = State::new(Dice::new(seed, Purpose::Broker), fault_percent, faults);
        Arc::new(SimBroker { trace, time, state: Mutex::new(state) })
    }

    /// Gives the new producer's epoch, which shuts out whoever had the id.
    fn initialise(&self, life: &Life, id: &str) -> Result<u64> {
        self.call(life, "initialise", |state| {
            let fault = state.fault();
            if state.await_completion(id) && fault {
                return Err(error("initialising a producer", "CONCURRENT_TRANSACTIONS"));
            }
            let epoch = state.initialise(id);
            if fault {
                return Err(timeout("initialising a producer"));
            }
            state.await_completion(id); // what was open is aborted
            Ok(epoch)
        })
    }

    /// Sends records into the id's open transaction, which the first ones open. A record is in it whole or not at all.
    fn produce(&self, life: &Life, id: &str, epoch: u64, records: Vec<Item>) -> Result<()> {
        let now = self.time.now_us();
        self.call(life, "produce", |state| {
            state.check(id, epoch, "producing a record", "INVALID_PRODUCER_EPOCH")?;
            state.await_completion(id);
            let fault = state.fault();
            if fault && state.dice.percent(30) {
                state.delay(id, epoch, Request::Produce(records));
                return Err(timeout("producing a record"));
            }
            let refused = fault.then(|| state.dice.below(records.len() as u64) as usize);
            let taken = records.into_iter().enumerate().filter(|(at, _)| Some(*at) != refused);
            state.append(id, now, taken.map(|(_, record)| record));
            if refused.is_some() {
                state.counters.refused += 1;
                return Err(error("producing a record", "NOT_ENOUGH_REPLICAS"));
            }
            Ok(())
        })
    }

    /// Commits the id's open transaction.
    fn commit(&self, life: &Life, id: &str, epoch: u64) -> Result<()> {
        self.call(life, "commit", |state| {
            state.check(id, epoch, "committing a transaction", "PRODUCER_FENCED")?;
            if !state.fault() {
                return match state.end(id, epoch) {
                    Ended::Prepared => Ok(()),
                    Ended::Nothing => Err(error("committing a transaction", "INVALID_TXN_STATE")),
                };
            }
            state.counters.unknown += 1;
            match state.dice.below(4) {
                0 => {
                    state.end(id, epoch);
                    state.counters.applied_unseen += 1;
                    // The client asked again, and that request takes its time.
                    state.delay(id, epoch, Request::Commit);
                }
                1 => state.delay(id, epoch, Request::Commit),
                2 => state.time_out(id),
                _ => {}
            }
            Err(timeout("committing a transaction"))
        })
    }

    /// Offset and value of the last committed record of `topic` under `key`: up to the first open transaction, or waiting for those
    /// that are open until they end, at the latest by their time-out.
    fn last(&self, life: &Life, topic: &str, key: &str, waits: bool) -> Result<Option<(u64, Vec<u8>)>> {
        self.call(life, "read", |state| {
            if waits {
                state.end_all(topic);
            }
            if state.rare_fault() { Err(timeout("reading the markers")) } else { Ok(state.last(topic, key.as_bytes())) }
        })
    }

    /// Something that is asked of the broker and changes nothing.
    fn ask(&self, life: &Life, what: &str) -> Result<()> {
        self.call(life, what, |state| if state.rare_fault() { Err(timeout("connecting a client")) } else { Ok(()) })
    }

    /// Everything a read_committed consumer sees once all is decided, in order.
    pub(crate) fn committed(&self) -> Vec<Item> {
        self.state().committed()
    }

    /// What happened.
    pub(crate) fn counters(&self) -> BrokerCounters {
        self.state().counters
    }

    fn call<T>(&self, life: &Life, what: &str, act: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        match life.network_call(what, PATH, 0) {
            Passage::Open | Passage::Blown(Blow::Fail) => {
                let mut state = self.state();
                state.time_out_before(self.time.now_us());
                act(&mut state)
            }
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

fn error(what: &str, code: &str) -> Error {
    Error::outside(format!("{what}: {code}")).retry()
}

fn timeout(what: &str) -> Error {
    error(what, "timed out, the outcome is unknown")
}
