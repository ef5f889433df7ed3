//! What the broker knows: transactional ids with their states, the log, and which of its transactions were committed.

use super::{BrokerCounters, Item, error};
use crate::dice::Dice;
use dataflow_core::Result;
use std::collections::BTreeMap;

/// A transaction that is open for longer is aborted.
const TIMEOUT_US: u64 = 60_000_000;

pub(super) struct State {
    pub(super) dice: Dice,
    /// Percent of the calls that go wrong, while there are faults left.
    fault_percent: u64,
    faults_left: u32,
    ids: BTreeMap<String, Id>,
    /// Requests on their way.
    in_flight: Vec<InFlight>,
    /// All records, of whatever topic; the index is the offset.
    log: Vec<Item>,
    /// By number.
    transactions: Vec<Outcome>,
    pub(super) counters: BrokerCounters,
}

#[derive(Default)]
struct Id {
    epoch: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Default)]
enum Phase {
    /// Nothing is open: a new id, or the transaction before is complete.
    #[default]
    Empty,
    /// A transaction since this time.
    Ongoing { transaction: usize, since_us: u64 },
    /// It is decided and will be committed, whatever comes.
    PrepareCommit { transaction: usize },
    /// It is decided and will be aborted; until then nothing behind it is visible.
    PrepareAbort { transaction: usize },
}

/// A request that its sender does not wait for any more.
struct InFlight {
    /// The transactional id.
    id: String,
    /// The producer's epoch.
    epoch: u64,
    /// What it asks for.
    what: Request,
}

pub(super) enum Request {
    /// To commit the open transaction.
    Commit,
    /// To take records into it.
    Produce(Vec<Item>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Open,
    Committed,
    Aborted,
}

/// What the end of a transaction came to.
pub(super) enum Ended {
    /// It is decided.
    Prepared,
    /// There was none.
    Nothing,
}

impl State {
    pub(super) fn new(dice: Dice, fault_percent: u64, faults_left: u32) -> State {
        State {
            dice,
            fault_percent,
            faults_left,
            ids: BTreeMap::new(),
            in_flight: Vec::new(),
            log: Vec::new(),
            transactions: Vec::new(),
            counters: BrokerCounters::default(),
        }
    }

    pub(super) fn fault(&mut self) -> bool {
        let fault = self.faults_left > 0 && self.dice.percent(self.fault_percent);
        self.faults_left -= u32::from(fault);
        fault
    }

    /// A fault of a call that is made often and says little.
    pub(super) fn rare_fault(&mut self) -> bool {
        self.dice.below(8) == 0 && self.fault()
    }

    /// That the epoch is the id's newest.
    pub(super) fn check(&mut self, id: &str, epoch: u64, what: &str, code: &str) -> Result<()> {
        if self.ids.get(id).is_some_and(|id| id.epoch == epoch) {
            return Ok(());
        }
        self.counters.fenced += 1;
        Err(error(what, code))
    }

    fn is_prepared(&self, id: &str) -> bool {
        let phase = self.ids.get(id).map(|id| id.phase);
        matches!(phase, Some(Phase::PrepareCommit { .. } | Phase::PrepareAbort { .. }))
    }

    /// Waits, as a client does that asks again and again, until a decided transaction of the id is complete. Whether there was one.
    pub(super) fn await_completion(&mut self, id: &str) -> bool {
        let is_prepared = self.is_prepared(id);
        if is_prepared {
            self.counters.concurrent += 1;
            self.complete(id);
        }
        is_prepared
    }

    /// A request that will arrive later.
    pub(super) fn delay(&mut self, id: &str, epoch: u64, what: Request) {
        self.in_flight.push(InFlight { id: id.to_owned(), epoch, what });
    }

    /// The markers of a decided transaction are written.
    pub(super) fn complete(&mut self, id: &str) {
        let Some(id) = self.ids.get_mut(id) else { return };
        let (transaction, outcome) = match id.phase {
            Phase::PrepareCommit { transaction } => (transaction, Outcome::Committed),
            Phase::PrepareAbort { transaction } => (transaction, Outcome::Aborted),
            _ => return,
        };
        self.transactions[transaction] = outcome;
        id.phase = Phase::Empty;
    }

    /// Decides that what is open is aborted, now or some time later, and raises the epoch, which it returns.
    pub(super) fn initialise(&mut self, id: &str) -> u64 {
        let known = self.ids.entry(id.to_owned()).or_default();
        known.epoch += 1;
        let epoch = known.epoch;
        if let Phase::Ongoing { transaction, .. } = known.phase {
            known.phase = Phase::PrepareAbort { transaction };
            self.counters.aborted += 1;
            self.complete_mostly(id);
        }
        epoch
    }

    /// The markers of a decided transaction are written now, or some time later.
    fn complete_mostly(&mut self, id: &str) {
        if self.dice.percent(70) {
            self.complete(id);
        }
    }

    pub(super) fn append(&mut self, id: &str, now_us: u64, records: impl Iterator<Item = Item>) {
        let known = self.ids.entry(id.to_owned()).or_default();
        let transaction = match known.phase {
            Phase::Ongoing { transaction, .. } => transaction,
            _ => {
                let transaction = self.transactions.len();
                self.transactions.push(Outcome::Open);
                known.phase = Phase::Ongoing { transaction, since_us: now_us };
                transaction
            }
        };
        self.log.extend(records.map(|record| Item { transaction, ..record }));
    }

    /// Decides the id's transaction; it is complete now, or some time later.
    pub(super) fn end(&mut self, id: &str, epoch: u64) -> Ended {
        let known = self.ids.get_mut(id).filter(|known| known.epoch == epoch);
        let Some(Id { phase: phase @ Phase::Ongoing { .. }, .. }) = known else { return Ended::Nothing };
        if let Phase::Ongoing { transaction, .. } = *phase {
            *phase = Phase::PrepareCommit { transaction };
        }
        self.complete_mostly(id);
        Ended::Prepared
    }

    /// The id's transaction has taken too long.
    pub(super) fn time_out(&mut self, id: &str) {
        let Some(known) = self.ids.get_mut(id) else { return };
        if let Phase::Ongoing { transaction, .. } = known.phase {
            (known.phase, known.epoch) = (Phase::PrepareAbort { transaction }, known.epoch + 1);
            self.counters.timed_out += 1;
            self.complete_mostly(id);
        }
    }

    /// Ends all transactions that have taken too long.
    pub(super) fn time_out_before(&mut self, now_us: u64) {
        let late = |id: &Id| matches!(id.phase, Phase::Ongoing { since_us, .. } if since_us + TIMEOUT_US < now_us);
        let late: Vec<String> = self.ids.iter().filter(|(_, id)| late(id)).map(|(name, _)| name.clone()).collect();
        late.iter().for_each(|id| self.time_out(id));
    }

    /// Whoever waits for the end of all transactions in `topic` sees each of them end.
    pub(super) fn end_all(&mut self, topic: &str) {
        let ids: Vec<String> = self.ids.keys().cloned().collect();
        for id in ids {
            self.complete(&id);
            let open = match self.ids[&id].phase {
                Phase::Ongoing { transaction, .. } => Some(transaction),
                _ => None,
            };
            if self.log.iter().any(|item| Some(item.transaction) == open && item.topic == topic) {
                self.time_out(&id);
                self.complete(&id);
            }
        }
    }

    /// See [`super::SimBroker::last`].
    pub(super) fn last(&self, topic: &str, key: &[u8]) -> Option<(u64, Vec<u8>)> {
        let of_topic = self.log.iter().enumerate().filter(|(_, item)| item.topic == topic);
        let stable = of_topic.take_while(|(_, item)| self.transactions[item.transaction] != Outcome::Open);
        let committed = stable.filter(|(_, item)| self.transactions[item.transaction] == Outcome::Committed);
        let under_key = committed.filter(|(_, item)| item.key.as_deref() == Some(key));
        under_key.last().map(|(offset, item)| (offset as u64, item.value.clone()))
    }

    pub(super) fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty() || self.ids.keys().any(|id| self.is_prepared(id))
    }

    /// One of the requests on their way arrives, or one of the decided transactions is completed. Which.
    pub(super) fn deliver(&mut self) -> u64 {
        let prepared: Vec<String> = self.ids.keys().filter(|id| self.is_prepared(id)).cloned().collect();
        let at = self.dice.below((self.in_flight.len() + prepared.len()) as u64) as usize;
        match at.checked_sub(self.in_flight.len()) {
            Some(at) => self.complete(&prepared[at]),
            None => self.arrive(at),
        }
        at as u64
    }

    fn arrive(&mut self, at: usize) {
        let InFlight { id, epoch, what } = self.in_flight.remove(at);
        match what {
            Request::Commit => match self.end(&id, epoch) {
                Ended::Prepared => self.counters.applied_unseen += 1,
                Ended::Nothing => self.counters.stale += 1,
            },
            // A newer epoch shuts it out; else it goes into whatever transaction is open.
            Request::Produce(records) => match self.ids.get(&id) {
                Some(Id { epoch: newest, phase: Phase::Ongoing { since_us, .. } }) if *newest == epoch => {
                    let since_us = *since_us;
                    self.append(&id, since_us, records.into_iter());
                    self.counters.produced_late += 1;
                }
                _ => self.counters.late_refused += 1,
            },
        }
    }

    /// See [`super::SimBroker::committed`].
    pub(super) fn committed(&mut self) -> Vec<Item> {
        let ids: Vec<String> = self.ids.keys().cloned().collect();
        ids.iter().for_each(|id| self.complete(id));
        let committed = |item: &&Item| self.transactions[item.transaction] == Outcome::Committed;
        self.log.iter().filter(committed).cloned().collect()
    }
}
