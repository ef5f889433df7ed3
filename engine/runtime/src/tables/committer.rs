//! The committer of tables: makes the snapshots of a checkpoint epoch, once the manifest that holds their intents is durable.
//!
//! On worker 0. Epochs in order, one at a time; the outcome of a call that is not known is the sink's to find out. What may succeed
//! later (a catalog that is down) is tried again for as long as the job runs: meanwhile intents wait, and when too many do, no
//! further checkpoint is written. Between commits the sink may keep its tables small ([`TableCommitter::maintain`]), and beside them files
//! are rewritten (`rewrites`).

use super::index::Intent;
use super::rewrites::RewriteTask;
use super::{Schemas, TableConnection};
use crate::backoff::Backoff;
use crate::control::Control;
use crate::link::{InBackground, Link, waker};
use crate::plan::Plan;
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{
    ChainHash, Clock, Epoch, Error, Micros, Restorable, Result, TableCommit, TableCommitter, TaskState,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

/// What is tried again, to who watches.
const COMMIT: &str = "commit";

/// Builds the operator; its output's frontier is what is committed.
pub(crate) fn committer<'s>(
    intents: StreamVec<'s, Epoch, Intent>,
    durable: StreamVec<'s, Epoch, (Epoch, ChainHash)>,
    checkpointed: StreamVec<'s, Epoch, ()>,
    plan: &Arc<Plan>,
    connection: &Arc<TableConnection>,
    schemas: &Arc<Schemas>,
) -> StreamVec<'s, Epoch, ()> {
    let scope = intents.scope();
    let name = connection.sink.name().to_owned();
    let mut builder = OperatorBuilder::new(format!("Commit {name}"), scope);
    let mut intents = builder.new_input(intents, Exchange::new(|_: &Intent| 0));
    let mut durable = builder.new_input(durable, Pipeline);
    let mut checkpointed = builder.new_input(checkpointed, Pipeline);
    let (committed, committed_stream) = builder.new_output::<Vec<()>>();
    let committed = OutputBuilder::<_, CapacityContainerBuilder<Vec<()>>>::from(committed);
    let is_committer = scope.index() == 0;
    let address = builder.operator_info().address.to_vec();
    let wake = || waker(scope.worker().sync_activator_for(address.clone()));
    let link = is_committer.then(|| {
        let link = spawn(plan, connection, schemas);
        link.attach(wake());
        link
    });
    let rewrites = is_committer.then(|| RewriteTask::spawn(&plan.environment, connection, schemas, wake())).flatten();
    let (plan, connection, schemas) = (plan.clone(), connection.clone(), schemas.clone());
    builder.build(move |capabilities| {
        drop(capabilities);
        let restored = plan.start.state.epoch;
        let mut open: BTreeMap<Epoch, OpenCommit> = BTreeMap::new();
        let mut chains: BTreeMap<Epoch, ChainHash> = BTreeMap::new();
        let mut committing: VecDeque<Capability<Epoch>> = VecDeque::new();
        let mut is_checked = false;
        move |frontiers| {
            let _keep = &committed;
            intents.for_each(|stamp, batch| {
                for intent in batch.drain(..) {
                    let held =
                        || OpenCommit { held: stamp.retain_least(0), clock: intent.clock, tables: BTreeMap::new() };
                    let open = open.entry(intent.epoch).or_insert_with(held);
                    let of_table = open.tables.entry(intent.table).or_default();
                    of_table[usize::from(intent.is_rewrite)].push(intent.content);
                }
            });
            durable.for_each(|_, batch| chains.extend(batch.drain(..)));
            checkpointed.for_each(|_, batch| batch.clear());
            let Some(link) = link.as_ref().filter(|_| !plan.control.has_failed()) else {
                open.clear();
                committing.clear();
                return;
            };
            let measures = &plan.control.measures.tables;
            for reply in link.replies() {
                match reply {
                    Ok(epoch) => {
                        committing.pop_front();
                        connection.note_committed(epoch);
                        measures.visible(schemas.keys().cloned(), epoch);
                        plan.control.status.epoch_committed.raise(epoch);
                        rewrites.iter().for_each(|task| task.begin(restored));
                    }
                    Err(error) => return plan.control.fail(error),
                }
            }
            rewrites.iter().for_each(RewriteTask::take);
            // By then all workers have said what the checkpoint holds.
            if !is_checked && !frontiers[0].less_equal(&0) {
                is_checked = true;
                if let Err(error) = connection.check_restored() {
                    return plan.control.fail(error);
                }
            }
            while let Some(entry) = open.first_entry() {
                let epoch = *entry.key();
                // Intents of before the start come with the first stamp, and the checkpoint that holds them was restored.
                let stamped = if epoch <= restored { 0 } else { epoch };
                let is_whole = !frontiers[0].less_equal(&stamped);
                let is_held = !frontiers[2].less_equal(&epoch) || is_planted(Bug::CommitBeforeManifest);
                if !is_whole || epoch > restored && !is_held {
                    break;
                }
                let chain = match chains.get(&epoch).copied().map_or_else(|| plan.chain_before_start(epoch), Ok) {
                    Ok(chain) => chain,
                    Err(error) => return plan.control.fail(error),
                };
                let OpenCommit { held, clock, tables } = entry.remove();
                let request = Request { epoch, chain, clock, tables };
                assert!(link.send(request).is_ok(), "few checkpoints have intents at a time");
                committing.extend(held);
                chains = chains.split_off(&(epoch + 1));
            }
            measures.waiting(connection.sink.name(), connection.uncommitted().len());
            // Epochs without intents need no hash.
            if let (None, Some(next)) = (open.keys().next(), frontiers[0].frontier().first()) {
                chains = chains.split_off(next);
            }
        }
    });
    committed_stream
}

/// What the workers have of an epoch for a table: intents of rows, and of a rewrite.
type Intents = [Vec<Vec<u8>>; 2];

struct OpenCommit {
    held: Option<Capability<Epoch>>,
    clock: Micros,
    tables: BTreeMap<String, Intents>,
}

/// An epoch to commit.
struct Request {
    epoch: Epoch,
    chain: ChainHash,
    clock: Micros,
    tables: BTreeMap<String, Intents>,
}

fn spawn(plan: &Plan, connection: &Arc<TableConnection>, schemas: &Arc<Schemas>) -> Link<Request, Result<Epoch>> {
    let sink = connection.sink.name().to_owned();
    let last = schemas.keys().map(|table| (table.clone(), connection.restored(table).marker_epoch())).collect();
    let mut commits = Commits {
        connection: connection.clone(),
        committer: connection.sink.committer(schemas),
        restored: plan.start.state.epoch,
        last,
        finished: BTreeMap::new(),
        waiting: VecDeque::new(),
        backoff: Backoff::default(),
        control: plan.control.clone(),
        clock: plan.environment.clock.clone(),
    };
    let (control, completed) = (plan.control.clone(), plan.completed.clone());
    Link::spawn(
        &InBackground(&*plan.environment.spawner),
        &format!("commit {sink}"),
        usize::MAX,
        move |requests, replies| {
            commits.waiting.extend(requests);
            let has_work = !commits.waiting.is_empty();
            while let Some(request) = commits.waiting.pop_front() {
                match commits.commit(&request) {
                    Ok(epoch) => {
                        commits.backoff.reset();
                        control.measures.tables.succeeded(&sink, COMMIT);
                        replies.send(Ok(epoch));
                    }
                    Err(error) if error.transient && !control.has_failed() => {
                        tracing::warn!(sink, "{error}; the commit is tried again");
                        control.measures.tables.failed(&sink, COMMIT, &error, commits.clock.wall());
                        commits.waiting.push_front(request);
                        return TaskState::Sleeping(commits.backoff.pause());
                    }
                    Err(error) => {
                        replies.send(Err(error));
                        return TaskState::Done;
                    }
                }
            }
            if !has_work {
                return TaskState::Waiting;
            }
            let restorable: Restorable = completed.lock().expect("no holder panics").restorable;
            match commits.committer.maintain(&restorable) {
                Ok(()) => {}
                Err(error) if error.transient => tracing::warn!(sink, "{error}; it is tried again later"),
                Err(error) => {
                    replies.send(Err(error));
                    return TaskState::Done;
                }
            }
            TaskState::Waiting
        },
    )
}

/// The committer's task.
struct Commits {
    connection: Arc<TableConnection>,
    committer: Box<dyn TableCommitter>,
    /// The epoch that the start began with.
    restored: Epoch,
    /// The epoch of each table's last commit.
    last: BTreeMap<String, Epoch>,
    /// That of those which were made, or found, since the start.
    finished: BTreeMap<String, Epoch>,
    waiting: VecDeque<Request>,
    backoff: Backoff,
    control: Arc<Control>,
    clock: Arc<dyn Clock>,
}

impl Commits {
    fn commit(&mut self, request: &Request) -> Result<Epoch, Error> {
        let Request { epoch, chain, clock, tables } = request;
        let marker = self.connection.identity.marker(*epoch, *chain);
        let sink = self.connection.sink.name().to_owned();
        let (measures, all_began) = (&self.control.measures, self.clock.monotonic());
        let mut commits = Vec::new();
        for (table, [intents, rewrite]) in tables {
            let last = *self.last.entry(table.clone()).or_default();
            // In the table already, by its marker; which says nothing of a rewrite of the same epoch.
            let is_in = last > *epoch || last == *epoch && rewrite.is_empty();
            if is_in || self.finished.get(table) == Some(epoch) {
                continue;
            }
            let (intents, rewrite) = (intents.clone(), rewrite.clone());
            let has_index = self.connection.has_index(table);
            commits.push(TableCommit { table: table.clone(), marker, after: last, has_index, intents, rewrite });
        }
        let (mut made, mut rows) = (Vec::new(), 0);
        let outcome = self.committer.commit(&commits, &mut |number, took| made.push((number, took)));
        for (number, took) in made {
            let table = &commits[number].table;
            self.last.insert(table.clone(), *epoch);
            self.finished.insert(table.clone(), *epoch);
            let state = self.committer.state(table);
            rows += state.as_ref().map_or(0, |state| state.added + state.deleted);
            tracing::debug!(sink, table, epoch, ms = took.as_millis() as u64, "committed");
            measures.tables.committed(&sink, table, *epoch, state, took);
        }
        outcome?;
        // A table may be ahead, after a checkpoint that was lost; and one that others had changed is not as it was at an epoch of before.
        let is_before_mending = *epoch <= self.restored && self.connection.is_mended();
        if self.last.values().all(|last| last <= epoch) && !is_before_mending {
            self.committer.complete(&marker, *clock)?;
        }
        let now = self.clock.monotonic();
        measures.epochs.delivered(&sink, now.saturating_sub(all_began), rows as usize, 0);
        measures.epochs.committed(&sink, *epoch, now);
        Ok(*epoch)
    }
}
