//! The committer of tables: makes the snapshots of a checkpoint epoch, once the manifest that holds their intents is durable.
//!
//! On worker 0. Epochs in order, one at a time; the outcome of a call that is not known is the sink's to find out. What may succeed
//! later (a catalog that is down) is tried again for as long as the job runs: meanwhile intents wait, and when too many do, no
//! further checkpoint is written.

use super::writer::WorkerIntent;
use super::{Schemas, TableConnection};
use crate::link::{Link, waker};
use crate::plan::Plan;
use dataflow_core::{ChainHash, Epoch, Error, Result, TableCommit, TableCommitter, TaskState};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

/// Pause after a commit that may succeed later, doubled each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Builds the operator; its output's frontier is what is committed.
pub(crate) fn committer<'s>(
    intents: StreamVec<'s, Epoch, WorkerIntent>,
    durable: StreamVec<'s, Epoch, (Epoch, ChainHash)>,
    checkpointed: StreamVec<'s, Epoch, ()>,
    plan: &Arc<Plan>,
    connection: &Arc<TableConnection>,
    schemas: &Arc<Schemas>,
) -> StreamVec<'s, Epoch, ()> {
    let scope = intents.scope();
    let name = connection.sink.name().to_owned();
    let mut builder = OperatorBuilder::new(format!("Commit {name}"), scope);
    let mut intents = builder.new_input(intents, Exchange::new(|_: &WorkerIntent| 0));
    let mut durable = builder.new_input(durable, Pipeline);
    let mut checkpointed = builder.new_input(checkpointed, Pipeline);
    let (committed, committed_stream) = builder.new_output::<Vec<()>>();
    let committed = OutputBuilder::<_, CapacityContainerBuilder<Vec<()>>>::from(committed);
    let is_committer = scope.index() == 0;
    let link = is_committer.then(|| {
        let link = spawn(plan, connection, schemas);
        link.attach(waker(scope.worker().sync_activator_for(builder.operator_info().address.to_vec())));
        link
    });
    let (plan, connection) = (plan.clone(), connection.clone());
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
                    let held = || OpenCommit { held: stamp.retain_least(0), tables: BTreeMap::new() };
                    let open = open.entry(intent.epoch).or_insert_with(held);
                    open.tables.entry(intent.table).or_default().push(intent.content);
                }
            });
            durable.for_each(|_, batch| chains.extend(batch.drain(..)));
            checkpointed.for_each(|_, batch| batch.clear());
            let Some(link) = link.as_ref().filter(|_| !plan.control.has_failed()) else {
                open.clear();
                committing.clear();
                return;
            };
            for reply in link.replies() {
                match reply {
                    Ok(epoch) => {
                        committing.pop_front();
                        connection.note_committed(epoch);
                        plan.control.status.epoch_committed.raise(epoch);
                    }
                    Err(error) => return plan.control.fail(error),
                }
            }
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
                if !is_whole || epoch > restored && frontiers[2].less_equal(&epoch) {
                    break;
                }
                let chain = match chains.get(&epoch).copied().map_or_else(|| plan.chain_before_start(epoch), Ok) {
                    Ok(chain) => chain,
                    Err(error) => return plan.control.fail(error),
                };
                let OpenCommit { held, tables } = entry.remove();
                let tables = tables.into_iter().collect();
                assert!(link.send((epoch, chain, tables)).is_ok(), "few checkpoints have intents at a time");
                committing.extend(held);
                chains = chains.split_off(&(epoch + 1));
            }
            // Epochs without intents need no hash.
            if let (None, Some(next)) = (open.keys().next(), frontiers[0].frontier().first()) {
                chains = chains.split_off(next);
            }
        }
    });
    committed_stream
}

struct OpenCommit {
    held: Option<Capability<Epoch>>,
    tables: BTreeMap<String, Vec<Vec<u8>>>,
}

/// An epoch to commit: its hash, and the intents of each table.
type Request = (Epoch, ChainHash, Vec<(String, Vec<Vec<u8>>)>);

fn spawn(plan: &Plan, connection: &Arc<TableConnection>, schemas: &Arc<Schemas>) -> Link<Request, Result<Epoch>> {
    let sink = connection.sink.name().to_owned();
    let last = schemas.keys().map(|table| (table.clone(), connection.restored(table).marker_epoch())).collect();
    let mut commits = Commits {
        connection: connection.clone(),
        committer: connection.sink.committer(schemas),
        last,
        waiting: VecDeque::new(),
        pause: PAUSE_MIN,
    };
    let control = plan.control.clone();
    Link::spawn(&*plan.environment.spawner, &format!("commit {sink}"), usize::MAX, move |requests, replies| {
        commits.waiting.extend(requests);
        while let Some(request) = commits.waiting.front() {
            match commits.commit(&request.clone()) {
                Ok(epoch) => {
                    commits.waiting.pop_front();
                    commits.pause = PAUSE_MIN;
                    replies.send(Ok(epoch));
                }
                Err(error) if error.transient && !control.has_failed() => {
                    tracing::warn!(sink, "{error}; the commit is tried again");
                    let pause = commits.pause;
                    commits.pause = PAUSE_MAX.min(2 * pause);
                    return TaskState::Sleeping(pause);
                }
                Err(error) => {
                    replies.send(Err(error));
                    return TaskState::Done;
                }
            }
        }
        TaskState::Waiting
    })
}

/// The committer's task.
struct Commits {
    connection: Arc<TableConnection>,
    committer: Box<dyn TableCommitter>,
    /// The epoch of each table's last commit.
    last: BTreeMap<String, Epoch>,
    waiting: VecDeque<Request>,
    pause: Duration,
}

impl Commits {
    fn commit(&mut self, (epoch, chain, tables): &Request) -> Result<Epoch, Error> {
        for (table, intents) in tables {
            let last = self.last.entry(table.clone()).or_default();
            if *last >= *epoch {
                continue; // in the table already, by its marker
            }
            let commit = TableCommit {
                table: table.clone(),
                marker: self.connection.identity.marker(*epoch, *chain),
                after: *last,
                intents: intents.clone(),
            };
            self.committer.commit(&commit)?;
            *last = *epoch;
        }
        Ok(*epoch)
    }
}
