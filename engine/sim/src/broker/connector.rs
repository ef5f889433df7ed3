//! The connector of [`SimBroker`]: the protocol of `connectors/src/sink/kafka`, step for step, over the simulated broker.
//!
//! ```text
//!  open    may we write? -> initialise every slot -> read the marker -> may we write? -> a transaction with our marker alone -> read it back
//!  commit  the slots in turn: rows and marker in one transaction
//!  doubt   drop all producers -> may we still write? -> initialise every slot -> the marker decides: done, again, or stop
//! ```
//!
//! Where the real connector consults a planted bug, this one does too.

use super::{Item, SLOTS, SimBroker};
use crate::life::Life;
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{ChainHash, EpochOutput, Error, Fault, Marker, Result, Sink, SinkIdentity};
use std::sync::Arc;

/// Attempts to open or to settle; the broker's faults are fewer.
const ATTEMPTS_MAX: u32 = 12;

/// A sink of one life.
pub(crate) struct BrokerSink {
    name: String,
    broker: Arc<SimBroker>,
    life: Arc<Life>,
    open: Option<Open>,
}

struct Open {
    identity: SinkIdentity,
    /// The producer's epoch of each slot that was initialised.
    slots: [Option<u64>; SLOTS],
    turn: usize,
    held: Marker,
}

enum Outcome {
    Committed,
    Absent,
}

impl BrokerSink {
    /// A sink that is not open yet.
    pub(crate) fn new(name: &str, broker: Arc<SimBroker>, life: Arc<Life>) -> BrokerSink {
        BrokerSink { name: name.to_owned(), broker, life, open: None }
    }

    fn establish(&self, open: &mut Open) -> Result<Option<Marker>> {
        admit(self.broker.marker(&self.life)?, &open.identity)?;
        self.initialise(open)?;
        let found = admit(self.broker.marker(&self.life)?, &open.identity)?;
        let (epoch, chain) = found.map_or((0, ChainHash::default()), |m| (m.epoch, m.chain));
        let ours = open.identity.marker(epoch, chain);
        self.send(open, &[], ours)?;
        let now = self.broker.marker(&self.life)?;
        if now != Some(ours) {
            admit(now, &open.identity)?;
            return Err(Error::outside("opening a sink: the marker written is not the one read").retry());
        }
        open.held = ours;
        Ok(found)
    }

    fn initialise(&self, open: &mut Open) -> Result<()> {
        (open.slots, open.turn) = ([None; SLOTS], 0);
        let left_out = |slot| is_planted(Bug::SlotLeftUnfenced) && slot + 1 == SLOTS;
        for slot in (0..SLOTS).filter(|slot| !left_out(*slot)) {
            open.slots[slot] = Some(self.broker.initialise(&self.life, slot)?);
        }
        Ok(())
    }

    fn send(&self, open: &mut Open, epochs: &[EpochOutput], marker: Marker) -> Result<()> {
        let slot = open.turn;
        let producer = match open.slots[slot] {
            Some(producer) => producer,
            // Only with a planted bug is a slot initialised as late as this.
            None => *open.slots[slot].insert(self.broker.initialise(&self.life, slot)?),
        };
        let rows = epochs.iter().flat_map(|e| e.rows.iter().map(|row| Item::Row(e.epoch, row.clone()))).collect();
        let mark = Item::Marker(marker);
        let transactions: Vec<Vec<Item>> = match is_planted(Bug::MarkerOutsideTransaction) {
            true => vec![rows, vec![mark]],
            false => vec![[rows, vec![mark]].concat()],
        };
        for items in transactions {
            let produced = self.broker.produce(&self.life, slot, producer, &items);
            if !is_planted(Bug::SwallowedProduceError) {
                produced?;
            }
            self.broker.commit(&self.life, slot, producer)?;
        }
        open.turn = (open.turn + 1) % SLOTS;
        Ok(())
    }

    fn settle(&self, open: &mut Open, epochs: &[EpochOutput], marker: Marker, mut error: Error) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            match self.look_again(open, marker) {
                Ok(Outcome::Committed) => return Ok(()),
                Ok(Outcome::Absent) => match self.send(open, epochs, marker) {
                    Ok(()) => return Ok(()),
                    Err(next) => error = next,
                },
                Err(next) if next.fault == Fault::Outside => error = next,
                Err(stop) => return Err(stop),
            }
        }
        Err(error)
    }

    fn look_again(&self, open: &mut Open, marker: Marker) -> Result<Outcome> {
        admit(self.broker.marker(&self.life)?, &open.identity)?;
        self.initialise(open)?;
        let found = admit(self.broker.marker(&self.life)?, &open.identity)?;
        match found {
            Some(found) if found == marker => Ok(Outcome::Committed),
            Some(found) if found == open.held => Ok(Outcome::Absent),
            _ if is_planted(Bug::FencedProducerInitialises) => Ok(Outcome::Absent),
            found => Err(Error::doubt(format!("reading a sink's marker after an unknown commit: it is {found:?}"))),
        }
    }
}

/// Whether we may write, given the marker found.
fn admit(found: Option<Marker>, identity: &SinkIdentity) -> Result<Option<Marker>> {
    let Some(marker) = found else { return Ok(None) };
    if marker.lineage != identity.lineage {
        return Err(Error::doubt(format!("opening a sink: it holds output of lineage {}", marker.lineage)));
    }
    let (theirs, ours) = (marker.generation, identity.generation);
    let shut_out = theirs.number > ours.number || (theirs.number == ours.number && theirs.nonce != ours.nonce);
    if shut_out && !is_planted(Bug::FencedProducerInitialises) {
        return Err(Error::fenced(format!("writing to a sink: generation {theirs} has taken over from {ours}")));
    }
    Ok(Some(marker))
}

impl Sink for BrokerSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, identity: &SinkIdentity) -> Result<Option<Marker>> {
        let held = identity.marker(0, ChainHash::default());
        let mut open = Open { identity: identity.clone(), slots: [None; SLOTS], turn: 0, held };
        let mut attempt = 1;
        let found = loop {
            match self.establish(&mut open) {
                Ok(found) => break found,
                Err(error) if error.fault == Fault::Outside && attempt < ATTEMPTS_MAX => attempt += 1,
                Err(error) => return Err(error),
            }
        };
        self.open = Some(open);
        Ok(found.filter(|marker| marker.epoch > 0))
    }

    fn commit(&mut self, epochs: &[EpochOutput]) -> Result<()> {
        let mut open = self.open.take().ok_or_else(|| Error::us("committing to a sink that is not open"))?;
        let mut before = open.held.epoch;
        for epoch in epochs {
            if epoch.epoch <= before {
                return Err(Error::us(format!("committing epoch {} to a sink that holds {before}", epoch.epoch)));
            }
            before = epoch.epoch;
        }
        let last = epochs.last().ok_or_else(|| Error::us("committing no epoch"))?;
        let marker = open.identity.marker(last.epoch, last.chain);
        if let Err(error) = self.send(&mut open, epochs, marker) {
            self.settle(&mut open, epochs, marker, error)?;
        }
        open.held = marker;
        self.open = Some(open);
        Ok(())
    }
}
