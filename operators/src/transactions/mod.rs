//! Source transactions: what one did to several tables becomes visible in one epoch, in all of them.
//!
//! ```text
//!  changes of table a ──┐                                    ┌──► changes of table a ─► durable collection
//!  changes of table b ──┼──► one worker: ledger ─► released ─┼──► changes of table b ─► durable collection
//!  transaction topic ───┘        │ waiting events, ends      └──► ...
//!                                └─► state, cut at a checkpoint
//! ```
//!
//! Debezium numbers the events of a transaction and says at its end, in a topic of its own, how many there are of each table; these topics
//! are read at different paces. Events wait in state until their transaction is whole (`ledger.rs`) and are then released together. All of
//! this is on one worker: a connector sends its database's transactions one after another, so there is nothing to divide.
//!
//! A transaction of more than `max_records` events is released in parts, counted, or ends the job. Repeated events and ends of
//! a transaction that was released are told by its id, which is kept for seven days of the epoch clock: 60 bytes a
//! transaction, on disk.

mod ledger;

pub use ledger::{OnLarge, TransactionSettings};

use dataflow_core::change::{ChangeEvent, TransactionBoundary};
use dataflow_core::{DeadLetter, Epoch, Micros, Position, Result, Shard, Stamped};
use dataflow_runtime::{EpochFacts, JobScope, Stateful};
use dataflow_state::table::{StateValue, decode_postcard, encode_postcard};
use ledger::{Arrival, End, Keep, Kept, Key, Ledger};
use std::collections::BTreeMap;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use timely::dataflow::operators::vec::{Filter, Map};

/// The name of the state in checkpoints.
const OPERATOR: &str = "transactions";
/// Its one worker is that of this shard, however many there are.
const SHARD: Shard = Shard(0);

/// A table's changes.
pub struct TableChanges<'s> {
    /// The name of its source, which ends with the name that the transaction topic calls the table by.
    pub source: String,
    /// What changed.
    pub events: StreamVec<'s, Epoch, Stamped<ChangeEvent>>,
    /// What could not be read of it.
    pub dead: StreamVec<'s, Epoch, DeadLetter>,
}

/// The changes of `tables`, in their order, each transaction's in one epoch.
///
/// # Errors
/// When the state can not be restored.
pub fn whole_transactions<'s>(
    job: &mut JobScope<'s>,
    settings: TransactionSettings,
    boundaries: StreamVec<'s, Epoch, Stamped<TransactionBoundary>>,
    tables: Vec<TableChanges<'s>>,
) -> Result<Vec<StreamVec<'s, Epoch, Stamped<ChangeEvent>>>> {
    let facts = job.facts();
    let control = job.plan().control.clone();
    let mut work = Work::open(job, settings)?;
    let count = tables.len();
    let arrivals = arrivals(job, boundaries, tables);
    let mut builder = OperatorBuilder::new("Transactions".to_owned(), job.scope());
    let mut arrivals = builder.new_input(arrivals, Exchange::new(|_: &Arrival| u64::from(SHARD.0)));
    let mut facts = builder.new_input(facts, Pipeline);
    let (released, released_stream) = builder.new_output();
    let (parts, parts_stream) = builder.new_output::<Vec<()>>();
    let mut released = OutputBuilder::from(released);
    builder.build(move |capabilities| {
        drop(capabilities); // the facts bring one for each epoch
        let mut arrived: BTreeMap<Epoch, Vec<Arrival>> = BTreeMap::new();
        let mut fixed: BTreeMap<Epoch, (EpochFacts, [Capability<Epoch>; 2])> = BTreeMap::new();
        move |frontiers| {
            let _keep = &parts;
            arrivals.for_each(|stamp, batch| {
                let epoch = *stamp.least().expect("arrivals are stamped with their epoch");
                arrived.entry(epoch).or_default().append(batch);
            });
            facts.for_each(|stamp, batch| {
                for facts in batch.drain(..) {
                    fixed.insert(facts.epoch, (facts, [0, 1].map(|port| stamp.delayed(&facts.epoch, port))));
                }
            });
            if control.has_failed() {
                return fixed.clear();
            }
            let mut released = released.activate();
            while let Some(entry) = fixed.first_entry().filter(|entry| !frontiers[0].less_equal(entry.key())) {
                let (epoch, (facts, [released_at, _parts_at])) = entry.remove_entry();
                match work.epoch(&facts, arrived.remove(&epoch).unwrap_or_default()) {
                    Ok(mut events) => released.session(&released_at).give_container(&mut events),
                    Err(error) => return control.fail(error),
                }
            }
        }
    });
    job.parts(parts_stream);
    let of_table = |rank: usize| {
        let of_table = released_stream.clone().filter(move |(table, _)| usize::from(*table) == rank);
        of_table.map(|(_, event)| event)
    };
    Ok((0..count).map(of_table).collect())
}

/// All that arrives, as one stream.
fn arrivals<'s>(
    job: &JobScope<'s>,
    boundaries: StreamVec<'s, Epoch, Stamped<TransactionBoundary>>,
    tables: Vec<TableChanges<'s>>,
) -> StreamVec<'s, Epoch, Arrival> {
    let sources: Vec<String> = tables.iter().map(|table| table.source.clone()).collect();
    let ends = boundaries.flat_map(move |boundary| {
        let (id, counts) = boundary.data.end()?;
        let counts = counts.filter_map(|(table, count)| {
            let is_of =
                |source: &String| source.strip_suffix(table).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            Some((sources.iter().position(is_of)? as u16, count))
        });
        Some(Arrival::End(id.into(), End { offset: boundary.position.offset, counts: counts.collect() }))
    });
    let mut all = vec![ends];
    for (rank, TableChanges { events, dead, .. }) in tables.into_iter().enumerate() {
        let rank = rank as u16;
        all.push(events.map(move |event| Arrival::Event(rank, event)));
        all.push(dead.map(move |DeadLetter { position: Position { partition, offset }, .. }| {
            Arrival::Dead((rank, partition.index), offset)
        }));
    }
    job.scope().concatenate(all)
}

impl StateValue for Kept {
    const VERSION: u16 = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        encode_postcard(self, out);
    }

    fn decode(bytes: &[u8]) -> Result<Kept> {
        decode_postcard(bytes, "what waits for its transaction")
    }

    fn expires(&self) -> Micros {
        match self {
            Kept::Done { until } => *until,
            _ => Micros(i64::MAX),
        }
    }

    fn weight(&self) -> usize {
        let row = match self {
            Kept::Event(Stamped { data: ChangeEvent::Change(change), .. }) => {
                change.key.weight() + change.row.as_ref().map_or(0, dataflow_core::Row::weight)
            }
            _ => 0,
        };
        size_of::<Kept>() + row
    }

    fn is_default(&self) -> bool {
        *self == Kept::Nothing
    }
}

/// The operator's logic on one worker.
struct Work {
    ledger: Ledger,
    state: Stateful<Kept>,
    control: std::sync::Arc<dataflow_runtime::Control>,
}

impl Work {
    fn open(job: &JobScope<'_>, settings: TransactionSettings) -> Result<Work> {
        let (mut ledger, mut state) = (Ledger::new(settings), job.state_by_clock::<Kept>(OPERATOR)?);
        let mut kept: BTreeMap<Key, Kept> = BTreeMap::new();
        state.table.scan(&mut |bytes, value| {
            if !matches!(value, Kept::Done { .. }) {
                kept.insert(key_of(bytes)?, value);
            }
            Ok(())
        })?;
        kept.into_iter().try_for_each(|(key, value)| ledger.restore(&mut state, key, &value))?;
        state.table.end_epoch(Some(job.plan().start.state.clock))?;
        Ok(Work { ledger, state, control: job.plan().control.clone() })
    }

    fn epoch(&mut self, facts: &EpochFacts, arrivals: Vec<Arrival>) -> Result<Vec<(u16, Stamped<ChangeEvent>)>> {
        let (released, counts) = self.ledger.epoch(&mut self.state, facts.clock, arrivals)?;
        for (what, count) in [("whole", counts.whole), ("in_parts", counts.in_parts)] {
            if count > 0 {
                self.control.status.count(&format!("transactions.{what}"), count);
            }
        }
        self.state.table.end_epoch(Some(facts.clock))?;
        self.state.measure(facts.clock, |key| format!("{}", key.escape_ascii()));
        if facts.checkpoint {
            self.state.cut(facts.epoch, Some(facts.clock))?;
        }
        Ok(released)
    }
}

/// Bytes after the key that bring it into its shard.
const SHARD_BYTES: usize = 4;

fn key_of(bytes: &[u8]) -> Result<Key> {
    decode_postcard(&bytes[..bytes.len().saturating_sub(SHARD_BYTES)], "the key of what waits for its transaction")
}

impl Keep for Stateful<Kept> {
    fn get(&mut self, key: &Key) -> Result<Kept> {
        let slot = self.table.load(&[&bytes_of(key)])?[0];
        Ok(self.table.get(slot).clone())
    }

    fn put(&mut self, key: &Key, kept: Kept) -> Result<()> {
        let slot = self.table.load(&[&bytes_of(key)])?[0];
        *self.table.get_mut(slot) = kept;
        Ok(())
    }
}

fn bytes_of(key: &Key) -> Vec<u8> {
    SHARD.key_with(&postcard::to_allocvec(key).expect("a key is plain data, and memory grows"))
}
