//! Files whose name and content are functions of what was bound: written once their epoch is durable, and again by every replay.
//!
//! ```text
//!  files of e ─► held until e is over and durable ─► task: put ─► committed (frontier)
//! ```
//!
//! On worker 0. A repeat writes the same bytes under the same name, so there is no marker. A checkpoint waits for the frontier: what a
//! checkpoint has behind it is never made again, so by then it must be written. What may succeed later is tried again.

use crate::backoff::Backoff;
use crate::link::{Link, waker};
use crate::plan::Plan;
use dataflow_core::{ChainHash, Epoch, FileSink, OutputFile, Result, TaskState};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

/// Files of an epoch.
type Request = (Epoch, Vec<OutputFile>);

/// Builds the operator; its output's frontier is what is written. Files come on worker 0.
pub(crate) fn files<'s>(
    files: StreamVec<'s, Epoch, OutputFile>,
    durable: StreamVec<'s, Epoch, (Epoch, ChainHash)>,
    plan: &Arc<Plan>,
    sink: &Arc<dyn FileSink>,
) -> StreamVec<'s, Epoch, ()> {
    let scope = files.scope();
    let mut builder = OperatorBuilder::new(format!("Files {}", sink.name()), scope);
    let mut files = builder.new_input(files, Pipeline);
    let mut durable = builder.new_input(durable, Pipeline);
    let (written, written_stream) = builder.new_output::<Vec<()>>();
    let written = OutputBuilder::<_, CapacityContainerBuilder<Vec<()>>>::from(written);
    let link = (scope.index() == 0).then(|| {
        let link = spawn(plan, sink);
        link.attach(waker(scope.worker().sync_activator_for(builder.operator_info().address.to_vec())));
        link
    });
    let plan = plan.clone();
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut open: BTreeMap<Epoch, (Capability<Epoch>, Vec<OutputFile>)> = BTreeMap::new();
        let mut writing: VecDeque<Capability<Epoch>> = VecDeque::new();
        move |frontiers| {
            let _keep = &written;
            files.for_each(|stamp, batch| {
                let epoch = *stamp.least().expect("files are stamped with their epoch");
                open.entry(epoch).or_insert_with(|| (stamp.delayed(&epoch, 0), Vec::new())).1.append(batch);
            });
            durable.for_each(|_, batch| batch.clear());
            let Some(link) = link.as_ref().filter(|_| !plan.control.has_failed()) else {
                open.clear();
                writing.clear();
                return;
            };
            for reply in link.replies() {
                match reply {
                    Ok(()) => drop(writing.pop_front()),
                    Err(error) => return plan.control.fail(error),
                }
            }
            while let Some(entry) = open.first_entry() {
                let epoch = *entry.key();
                if frontiers.iter().any(|frontier| frontier.less_equal(&epoch)) {
                    break;
                }
                let (held, files) = entry.remove();
                assert!(link.send((epoch, files)).is_ok(), "few days close at a time");
                writing.push_back(held);
            }
        }
    });
    written_stream
}

fn spawn(plan: &Plan, sink: &Arc<dyn FileSink>) -> Link<Request, Result<()>> {
    let (sink, control, clock) = (sink.clone(), plan.control.clone(), plan.environment.clock.clone());
    let (mut waiting, mut backoff): (VecDeque<Request>, _) = (VecDeque::new(), Backoff::default());
    let task = format!("files {}", sink.name());
    Link::spawn(&*plan.environment.spawner, &task, usize::MAX, move |requests, replies| {
        waiting.extend(requests);
        while let Some((epoch, files)) = waiting.front() {
            match files.iter().try_for_each(|file| sink.put(&file.name, &file.bytes)) {
                Ok(()) => {
                    tracing::info!(sink = sink.name(), epoch, files = files.len(), "files written");
                    control.measures.tables.succeeded(sink.name(), "put");
                    waiting.pop_front();
                    backoff.reset();
                    replies.send(Ok(()));
                }
                Err(error) if error.transient && !control.has_failed() => {
                    tracing::warn!(sink = sink.name(), "{error}; it is tried again");
                    control.measures.tables.failed(sink.name(), "put", &error, clock.wall());
                    return TaskState::Sleeping(backoff.pause());
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
