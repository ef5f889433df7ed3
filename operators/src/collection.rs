//! The durable collection: the current row of each key, from change events, as a differential collection of rows.
//!
//! ```text
//!  change events ─► by key ─► state: key -> (position, row), in RocksDB ─► (old row, -1), (new row, +1) at the epoch
//!     truncates ──► to every worker                └── on a start: all rows, at the restored epoch
//! ```
//!
//! Everything downstream is a function of its output and is rebuilt from it on a start (invariant 7). A change applies if its position
//! is not below its key's and is above that of the last truncate (SEMANTICS "Sources"); else it is a repeat or a stale row of a
//! snapshot, and is dropped and counted. Within an epoch changes are taken in the order of their offsets; what comes and goes in one
//! epoch nets to nothing. The position of a deleted key is kept for [`DELETED_KEPT_US`] of the epoch clock.

use dataflow_core::change::{Change, ChangeEvent, ChangePosition, Op};
use dataflow_core::{Epoch, Error, Micros, Position, Result, Row, Shard, Stamped, TableSchema, time::DAY};
use dataflow_runtime::control::Control;
use dataflow_runtime::{Changes, EpochFacts, JobScope, Stateful};
use dataflow_state::table::{Slot, StateValue, decode_postcard, encode_postcard};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use timely::dataflow::operators::vec::{Broadcast, Filter};
use timely::dataflow::operators::{Capability, Operator};

/// For how long the position of a deleted key is known: the furthest that a replay of its source may reach back.
pub const DELETED_KEPT_US: i64 = 7 * DAY;
/// Keys visited at a time.
const BATCH: usize = 4_096;
/// What keys of rows begin with in the state, and what the position of the last truncate does.
const ROWS: u8 = 0;
const TRUNCATED: &[u8] = &[1];

/// Keeps the table `name` of the shape `schema` current. `name` names its state in checkpoints and must not change between versions of a job.
///
/// # Errors
/// When the table has no key, or the state can not be restored.
pub fn durable_collection<'s>(
    job: &mut JobScope<'s>,
    name: &str,
    schema: &TableSchema,
    events: StreamVec<'s, Epoch, Stamped<ChangeEvent>>,
) -> Result<Changes<'s>> {
    if schema.key.is_empty() {
        return Err(
            Error::user(format!("keeping table '{name}': it has no key")).hint("declare the columns of its key")
        );
    }
    let facts = job.facts();
    let control = job.plan().control.clone();
    let restored = job.plan().start.state.epoch;
    let mut work = Table::open(job, name, schema)?;
    let is_truncate = |event: &Stamped<ChangeEvent>| matches!(event.data, ChangeEvent::Truncate { .. });
    let truncates = events.clone().filter(move |event| is_truncate(event)).broadcast();
    let changes = keyed(events, name, control.clone());
    let mut builder = OperatorBuilder::new(format!("Collection {name}"), job.scope());
    let mut changes = builder.new_input(changes, Exchange::new(|(key, _): &Keyed| u64::from(Shard::of(key).0)));
    let mut truncates = builder.new_input(truncates, Pipeline);
    let mut facts = builder.new_input(facts, Pipeline);
    let (rows, rows_stream) = builder.new_output();
    let (parts, parts_stream) = builder.new_output::<Vec<()>>();
    let mut rows = OutputBuilder::from(rows);
    let again = job.scope().activator_for(builder.operator_info().address);
    builder.build(move |mut capabilities| {
        capabilities.truncate(1);
        let mut at_start = capabilities.pop().filter(|_| restored > 0).map(|mut capability| {
            capability.downgrade(&restored);
            (capability, Restoring::begin(&work, restored))
        });
        let mut arrived: BTreeMap<Epoch, Vec<(Position, What)>> = BTreeMap::new();
        let mut fixed: BTreeMap<Epoch, (EpochFacts, [Capability<Epoch>; 2])> = BTreeMap::new();
        move |frontiers| {
            let _keep = &parts;
            let epoch_of = |least: Option<&Epoch>| *least.expect("events are stamped with their epoch");
            changes.for_each(|stamp, batch| {
                let of_epoch = arrived.entry(epoch_of(stamp.least())).or_default();
                of_epoch.extend(batch.drain(..).map(|(key, change)| (change.position, What::Change(key, change.data))));
            });
            truncates.for_each(|stamp, batch| {
                let of_epoch = arrived.entry(epoch_of(stamp.least())).or_default();
                of_epoch.extend(batch.drain(..).filter_map(|event| match event.data {
                    ChangeEvent::Truncate { position, .. } => Some((event.position, What::Truncate(position))),
                    _ => None,
                }));
            });
            facts.for_each(|stamp, batch| {
                for facts in batch.drain(..) {
                    fixed.insert(facts.epoch, (facts, [0, 1].map(|port| stamp.delayed(&facts.epoch, port))));
                }
            });
            if control.has_failed() {
                fixed.clear();
                at_start = None;
                return;
            }
            let mut rows = rows.activate();
            if let Some((capability, restoring)) = &mut at_start {
                match restoring.next_shard(&mut work) {
                    Ok(true) => {
                        rows.session(&*capability).give_container(&mut work.out);
                        return again.activate();
                    }
                    Ok(false) => at_start = None,
                    Err(error) => return control.fail(error),
                }
            }
            let is_over = |epoch: &Epoch| !frontiers[..2].iter().any(|frontier| frontier.less_equal(epoch));
            while let Some(entry) = fixed.first_entry().filter(|entry| is_over(entry.key())) {
                let (epoch, (facts, [rows_at, _parts_at])) = entry.remove_entry();
                match work.epoch(&facts, arrived.remove(&epoch).unwrap_or_default()) {
                    Ok(()) => rows.session(&rows_at).give_container(&mut work.out),
                    Err(error) => return control.fail(error),
                }
            }
        }
    });
    job.parts(parts_stream);
    Ok(rows_stream)
}

/// A change with the state's key of its row.
type Keyed = (Vec<u8>, Stamped<Change>);

/// What happens to the table.
enum What {
    Change(Vec<u8>, Change),
    Truncate(Option<ChangePosition>),
}

/// Changes by the keys that they touch: one that replaces another row is a delete of that one as well. Changed keys are counted: a delete
/// and a create with one position, as Debezium sends it, or an update that says its old key.
fn keyed<'s>(
    events: StreamVec<'s, Epoch, Stamped<ChangeEvent>>,
    name: &str,
    control: Arc<Control>,
) -> StreamVec<'s, Epoch, Keyed> {
    let label = format!("changes.changed_key.{name}");
    events.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, &format!("Changes {name}"), |_, _| {
        let mut deleted: Option<(ChangePosition, Row)> = None;
        move |input, output| {
            input.for_each(|stamp, batch| {
                let mut session = output.session(&stamp);
                for Stamped { time, position, data } in batch.drain(..) {
                    let ChangeEvent::Change(change) = data else { continue };
                    if changes_key(&change, &mut deleted) {
                        control.status.count(&label, 1);
                    }
                    if let Some(old) = change.replaces.clone().filter(|old| *old != change.key) {
                        session.give((state_key(&old), Stamped { time, position, data: change.taking(old) }));
                    }
                    session.give((state_key(&change.key), Stamped { time, position, data: change }));
                }
            });
        }
    })
}

/// Whether a change is that of a key; `deleted` is the last delete, before and after it.
fn changes_key(change: &Change, deleted: &mut Option<(ChangePosition, Row)>) -> bool {
    let before = deleted.take();
    match change.op {
        Op::Delete => *deleted = change.position.map(|position| (position, change.key.clone())),
        Op::Create => return before.is_some_and(|(at, key)| Some(at) == change.position && key != change.key),
        Op::Read | Op::Update => {}
    }
    change.replaces.as_ref().is_some_and(|old| *old != change.key)
}

fn state_key(key: &Row) -> Vec<u8> {
    postcard::to_extend(key, vec![ROWS]).expect("a row is encodable, and memory grows")
}

/// What is known of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Current {
    /// Of the last change that applied.
    position: Option<ChangePosition>,
    row: Option<Row>,
    /// Without a row: until when the position is kept.
    until_us: i64,
}

impl StateValue for Current {
    const VERSION: u16 = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        encode_postcard(self, out);
    }

    fn decode(bytes: &[u8]) -> Result<Current> {
        decode_postcard(bytes, "the current row of a key")
    }

    fn expires(&self) -> Micros {
        if self.row.is_some() { Micros(i64::MAX) } else { Micros(self.until_us) }
    }

    fn weight(&self) -> usize {
        size_of::<Current>() + self.row.as_ref().map_or(0, Row::weight)
    }

    fn is_default(&self) -> bool {
        self.row.is_none() && self.position.is_none()
    }
}

/// The operator's logic on one worker.
struct Table {
    name: String,
    schema: TableSchema,
    state: Stateful<Current>,
    control: Arc<Control>,
    worker: usize,
    peers: usize,
    /// The position of the last truncate.
    truncated: Option<ChangePosition>,
    out: Vec<(Row, Epoch, isize)>,
}

impl Table {
    fn open(job: &JobScope<'_>, name: &str, schema: &TableSchema) -> Result<Table> {
        let (worker, peers) = (job.scope().index(), job.plan().workers);
        let mut state: Stateful<Current> = job.state_by_clock(name)?;
        let slots = load_truncated(&mut state, worker, peers)?;
        let truncated = slots.into_iter().filter_map(|slot| state.table.get(slot).position).max();
        let control = job.plan().control.clone();
        let (name, schema) = (name.to_owned(), schema.clone());
        Ok(Table { name, schema, state, control, worker, peers, truncated, out: Vec::new() })
    }

    fn epoch(&mut self, facts: &EpochFacts, mut events: Vec<(Position, What)>) -> Result<()> {
        // In the order of offsets; of the two halves of a change that replaces a row the order does not matter, their keys differ.
        events.sort_by_key(|(position, _)| *position);
        let mut before: BTreeMap<Vec<u8>, Option<Row>> = BTreeMap::new();
        let mut changes = Vec::new();
        for (_, what) in events {
            match what {
                What::Change(key, change) => changes.push((key, change)),
                What::Truncate(position) => {
                    self.apply(facts, std::mem::take(&mut changes), &mut before)?;
                    self.truncate(facts, position, &mut before)?;
                }
            }
        }
        self.apply(facts, changes, &mut before)?;
        self.say(facts.epoch, before)?;
        self.state.table.end_epoch(Some(facts.clock))?;
        self.state.measure(facts.clock, |key| format!("{}", key.escape_ascii()));
        if facts.checkpoint {
            self.state.cut(facts.epoch, Some(facts.clock))?;
        }
        Ok(())
    }

    fn apply(
        &mut self,
        facts: &EpochFacts,
        changes: Vec<(Vec<u8>, Change)>,
        before: &mut BTreeMap<Vec<u8>, Option<Row>>,
    ) -> Result<()> {
        let (mut stale, mut incomplete, mut unknown) = (0, 0, 0);
        for batch in changes.chunks(BATCH) {
            let keys: Vec<&[u8]> = batch.iter().map(|(key, _)| key.as_slice()).collect();
            let slots = self.state.table.load(&keys)?;
            for (slot, (key, change)) in slots.into_iter().zip(batch) {
                let current = self.state.table.get_mut(slot);
                let is_stale = change.position.is_some_and(|position| {
                    current.position.is_some_and(|known| position < known)
                        || self.truncated.is_some_and(|truncated| position <= truncated)
                });
                if is_stale {
                    stale += 1;
                    continue;
                }
                before.entry(key.clone()).or_insert_with(|| current.row.clone());
                unknown += u64::from(change.row.is_none() && current.row.is_none());
                incomplete += u64::from(!change.unavailable.is_empty() && current.row.is_none());
                let row = change.completed(current.row.as_ref());
                if let Some(row) = &row {
                    let wrong = |error: Error| Error {
                        what: format!("keeping table '{}': {}", self.name, error.what),
                        ..error
                    };
                    self.schema.check(row).map_err(wrong)?;
                }
                current.row = row;
                current.position = change.position.or(current.position);
                current.until_us = facts.clock.plus(DELETED_KEPT_US).0;
            }
        }
        for (what, count) in [("stale", stale), ("incomplete", incomplete), ("delete_of_unknown", unknown)] {
            if count > 0 {
                self.control.status.count(&format!("changes.{what}.{}", self.name), count);
            }
        }
        Ok(())
    }

    /// Deletes all rows.
    fn truncate(
        &mut self,
        facts: &EpochFacts,
        position: Option<ChangePosition>,
        before: &mut BTreeMap<Vec<u8>, Option<Row>>,
    ) -> Result<()> {
        if position.is_some_and(|position| self.truncated.is_some_and(|known| position < known)) {
            self.control.status.count(&format!("changes.stale.{}", self.name), 1);
            return Ok(());
        }
        let mut keys = Vec::new();
        self.state.table.scan(&mut |key, current| {
            keys.extend(current.row.is_some().then(|| key.to_vec()));
            Ok(())
        })?;
        let until_us = facts.clock.plus(DELETED_KEPT_US).0;
        for batch in keys.chunks(BATCH) {
            let asked: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
            for (slot, key) in self.state.table.load(&asked)?.into_iter().zip(batch) {
                let current = self.state.table.get_mut(slot);
                let row = current.row.take();
                current.until_us = until_us;
                before.entry(key.clone()).or_insert(row);
            }
        }
        self.truncated = self.truncated.max(position);
        for slot in load_truncated(&mut self.state, self.worker, self.peers)? {
            let kept = self.state.table.get_mut(slot);
            // A position that no later one of the source can fall below is never too old.
            (kept.position, kept.until_us) = (self.truncated, i64::MAX);
        }
        Ok(())
    }

    /// What the epoch changed in all.
    fn say(&mut self, epoch: Epoch, before: BTreeMap<Vec<u8>, Option<Row>>) -> Result<()> {
        let keys: Vec<&[u8]> = before.keys().map(Vec::as_slice).collect();
        let mut more = 0;
        for (slot, old) in self.state.table.load(&keys)?.into_iter().zip(before.values()) {
            let new = &self.state.table.get(slot).row;
            if old != new {
                more += i64::from(new.is_some()) - i64::from(old.is_some());
                self.out.extend(old.iter().map(|row| (row.clone(), epoch, -1)));
                self.out.extend(new.iter().map(|row| (row.clone(), epoch, 1)));
            }
        }
        if more != 0 {
            self.control.status.count_rows(&self.name, more);
        }
        Ok(())
    }
}

/// The rows of a worker's shards on their way out, at the restored epoch.
struct Restoring {
    epoch: Epoch,
    shards: std::vec::IntoIter<Shard>,
    /// Keys of the store, as it estimates them: of rows, and of positions of what was deleted.
    about: u64,
    rows: u64,
}

impl Restoring {
    fn begin(table: &Table, epoch: Epoch) -> Restoring {
        let shards: Vec<Shard> = Shard::owned_by(table.worker, table.peers).collect();
        let about = table.state.table.stats().backend.keys_estimate;
        table.control.measures.restore.expect(&table.name, about);
        Restoring { epoch, shards: shards.into_iter(), about, rows: 0 }
    }

    /// Puts the rows of the next shard into the table's output; whether there was one.
    fn next_shard(&mut self, table: &mut Table) -> Result<bool> {
        let Some(shard) = self.shards.next() else {
            table.control.measures.restore.all_given_out(&table.name, self.about, self.rows);
            return Ok(false);
        };
        let (out, epoch) = (&mut table.out, self.epoch);
        table.state.table.scan_shard(shard, &mut |_, current| {
            out.extend(current.row.map(|row| (row, epoch, 1)));
            Ok(())
        })?;
        let rows = out.len() as u64;
        self.rows += rows;
        table.control.measures.restore.given_out(&table.name, rows);
        table.control.status.count_rows(&table.name, rows as i64);
        Ok(true)
    }
}

/// The position of the last truncate, which each of the worker's shards keeps, so that it goes with them to another number of workers.
fn load_truncated(state: &mut Stateful<Current>, worker: usize, peers: usize) -> Result<Vec<Slot>> {
    let keys: Vec<Vec<u8>> = Shard::owned_by(worker, peers).map(|shard| shard.key_with(TRUNCATED)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    state.table.load(&keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::Datum;

    /// How many of these changes are of a key: what was done, at which position, to which key, in place of which.
    fn check(changes: &[(Op, u64, i32, Option<i32>)], expected: usize) {
        let key = |id: i32| -> Row { [Datum::Int(id)].into_iter().collect() };
        let mut deleted = None;
        let of_key = changes.iter().filter(|(op, at, id, replaces)| {
            let (position, row, unavailable) = (Some(ChangePosition(*at, *at)), None, Vec::new());
            let replaces = replaces.map(key);
            let change = Change { op: *op, position, key: key(*id), row, unavailable, replaces, transaction: None };
            changes_key(&change, &mut deleted)
        });
        assert_eq!(of_key.count(), expected, "{changes:?}");
    }

    #[test]
    fn changed_keys_are_told() {
        check(&[(Op::Delete, 5, 1, None), (Op::Create, 5, 2, None)], 1);
        check(&[(Op::Delete, 5, 1, None), (Op::Create, 6, 2, None)], 0);
        check(&[(Op::Delete, 5, 1, None), (Op::Create, 5, 1, None)], 0);
        check(&[(Op::Delete, 5, 1, None), (Op::Update, 5, 3, None), (Op::Create, 5, 2, None)], 0);
        check(&[(Op::Update, 5, 2, Some(1)), (Op::Update, 6, 2, Some(2)), (Op::Create, 7, 3, None)], 1);
    }
}
