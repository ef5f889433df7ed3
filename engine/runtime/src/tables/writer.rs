//! The writer of tables: nets what changes, writes it to files at a checkpoint epoch, and keeps where each row is.
//!
//! One instance a worker, rows by key. Two frontiers: *staged*, what is netted in memory and no longer held as an open epoch, and
//! *parts*, what is cut. What was netted is looked up in the index in short steps, one each time the operator runs, and files are written by a
//! task; meanwhile later epochs are netted, up to a bound. The state (index and intents) is changed only for epochs up to c before the cut of
//! c, so the cut holds nothing of c+1.
//!
//! An update whose row is the same again nets to nothing and writes nothing. A table that only grows ([`TableMode::Append`]) has no index:
//! its marker says what it holds. How rows that a rewrite moves are followed is told in `rewrites`.

use super::index::{Intent, index_key};
use super::work::{Step, Work};
use super::{Schemas, TableConnection, TableMode};
use crate::facts::EpochFacts;
use crate::job::JobScope;
use crate::link::waker;
use dataflow_core::{Epoch, Result, Row, Shard, TableSchema};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

/// Changes of a table: rows with the epochs in which they come (+1) or go (-1).
pub type Changes<'s> = StreamVec<'s, Epoch, (Row, Epoch, isize)>;

/// What comes out of a writer: two frontiers, and the intents.
pub(crate) struct WriterStreams<'s> {
    /// Its frontier: what is netted.
    pub(crate) staged: StreamVec<'s, Epoch, ()>,
    /// Its frontier: what is cut.
    pub(crate) parts: StreamVec<'s, Epoch, ()>,
    /// The intents of each checkpoint epoch, and of those before the start that may not be committed.
    pub(crate) intents: StreamVec<'s, Epoch, Intent>,
}

/// A change on its way to the worker that owns its key.
pub(super) type Keyed = (u16, Row, Epoch, isize);

/// Builds the operator.
///
/// # Errors
/// When its state can not be restored, or a table whose index is behind it can not be read.
pub(crate) fn writer<'s>(
    job: &mut JobScope<'s>,
    connection: &Arc<TableConnection>,
    schemas: &Arc<Schemas>,
    changes: Vec<(TableMode, Changes<'s>)>,
) -> Result<WriterStreams<'s>> {
    let scope = job.scope();
    let facts = job.facts();
    let name = connection.sink.name().to_owned();
    let modes = changes.iter().map(|(mode, _)| *mode).collect();
    let mut work = Work::open(job, connection, schemas, modes, scope.index())?;
    let ranked = changes.into_iter().enumerate().map(|(rank, (_, changes))| ranked(changes, rank as u16, &name));
    let changes = timely::dataflow::operators::core::Concatenate::concatenate(&scope, ranked.collect::<Vec<_>>());
    let mut builder = OperatorBuilder::new(format!("Tables {name}"), scope);
    let by_key = {
        let schemas: Vec<(String, TableSchema)> = schemas.iter().map(|(name, s)| (name.clone(), s.clone())).collect();
        Exchange::new(move |(table, row, _, _): &Keyed| {
            let (name, schema) = &schemas[usize::from(*table)];
            let key = index_key(name, &schema.key_of(row));
            u64::from(Shard::of(&key).0)
        })
    };
    let mut changes = builder.new_input(changes, by_key);
    let mut facts = builder.new_input(facts, Pipeline);
    let (staged, staged_stream) = builder.new_output::<Vec<()>>();
    let (parts, parts_stream) = builder.new_output::<Vec<()>>();
    let (intents, intents_stream) = builder.new_output();
    let _outputs = (
        OutputBuilder::<_, CapacityContainerBuilder<Vec<()>>>::from(staged),
        OutputBuilder::<_, CapacityContainerBuilder<Vec<()>>>::from(parts),
    );
    let mut intents = OutputBuilder::from(intents);
    let address = builder.operator_info().address.to_vec();
    let again = scope.activator_for(address.clone().into());
    let wake = waker(scope.worker().sync_activator_for(address));
    work.files.attach(wake.clone());
    connection.attach_writer(wake);
    let (control, clock) = (job.plan().control.clone(), job.plan().environment.clock.clone());
    builder.build(move |mut capabilities| {
        let mut at_start = capabilities.pop(); // of the intents; the others come with each epoch
        drop(capabilities);
        let mut open: BTreeMap<Epoch, (Capability<Epoch>, Vec<Keyed>)> = BTreeMap::new();
        let mut cuts: BTreeMap<Epoch, (EpochFacts, [Capability<Epoch>; 2])> = BTreeMap::new();
        move |frontiers| {
            let _keep = &_outputs;
            changes.for_each(|stamp, batch| {
                // A message may hold several epochs; each is held by its own capability.
                for change in batch.drain(..).filter(|change| !work.has(change)) {
                    let held = open.entry(change.2).or_insert_with(|| (stamp.delayed(&change.2, 0), Vec::new()));
                    held.1.push(change);
                }
            });
            work.tell_rebuilt();
            facts.for_each(|stamp, batch| {
                for facts in batch.drain(..).filter(|facts| facts.checkpoint) {
                    let held = [1, 2].map(|port| stamp.delayed(&facts.epoch, port));
                    cuts.insert(facts.epoch, (facts, held));
                }
            });
            if control.has_failed() {
                open.clear();
                cuts.clear();
                at_start = None;
                return;
            }
            let mut intents = intents.activate();
            if let Some(capability) = at_start.take() {
                intents.session(&capability).give_iterator(work.uncommitted.drain(..));
            }
            let is_over = |epoch: &Epoch| !frontiers.iter().any(|frontier| frontier.less_equal(epoch));
            match work.step() {
                Ok(Step::Idle | Step::Done(None)) => {}
                Ok(Step::More) => again.activate(),
                Ok(Step::Done(Some(cut))) => {
                    let (facts, [_parts, intents_at]) = cuts.remove(&cut).expect("held until it is cut");
                    match work.cut(&facts) {
                        Ok(new) => intents.session(&intents_at).give_iterator(new.into_iter()),
                        Err(error) => return control.fail(error),
                    }
                }
                Err(error) => return control.fail(error),
            }
            loop {
                // The facts of an epoch that is over are all here: nothing past the next cut is netted before it.
                let next_cut = cuts.keys().copied().find(|cut| Some(*cut) != work.cutting());
                let next = open.first_entry().filter(|entry| is_over(entry.key()));
                if let Some(entry) = next.filter(|entry| work.takes(*entry.key(), next_cut)) {
                    let (epoch, (_held, changes)) = entry.remove_entry();
                    if let Err(error) = work.net(changes) {
                        return control.fail(error);
                    }
                    control.measures.epochs.staged(&name, epoch, clock.monotonic());
                    continue;
                }
                let is_whole = |cut: &Epoch| is_over(cut) && open.keys().next().is_none_or(|first| first > cut);
                if !work.write(next_cut.filter(is_whole)) {
                    return;
                }
                again.activate();
            }
        }
    });
    Ok(WriterStreams { staged: staged_stream, parts: parts_stream, intents: intents_stream })
}

fn ranked<'s>(changes: Changes<'s>, rank: u16, sink: &str) -> StreamVec<'s, Epoch, Keyed> {
    use timely::dataflow::operators::Operator;
    changes.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, &format!("Changes {sink}"), move |_, _| {
        move |input, output| {
            input.for_each(|stamp, batch| {
                let ranked = batch.drain(..).map(|(row, epoch, diff)| (rank, row, epoch, diff));
                output.session(&stamp).give_iterator(ranked);
            });
        }
    })
}
