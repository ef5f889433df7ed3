//! Files whose name and content are functions of what was bound: written once their epoch is durable, and again by every replay.
//!
//! ```text
//!  files of e ─► held until e is over and durable ─► task: put, post the mail ─► try to send it ─► committed (frontier)
//! ```
//!
//! On worker 0. A repeat writes the same bytes under the same name, so there is no marker. A checkpoint waits for the frontier: what a
//! checkpoint has behind it is never made again, so by then it must be written, and the mail about it posted. What may succeed later is
//! tried again; a mail, for which nothing waits longer than one attempt, beside what follows.

use crate::backoff::Backoff;
use crate::link::{Link, waker};
use crate::outbox::{Delivered, Outbox};
use crate::plan::Plan;
use dataflow_core::{ChainHash, Epoch, Error, FileSink, Mailer, OutputFile, Result, TaskState};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

/// What is tried again, as the measures name it.
const PUT: &str = "put";
const MAIL: &str = "mail";

/// Where files go, and who is told.
#[derive(Clone)]
pub struct FileOutput {
    /// The place.
    pub sink: Arc<dyn FileSink>,
    /// Sends a mail about each file.
    pub mailer: Option<Arc<dyn Mailer>>,
}

/// Files of an epoch.
type Request = (Epoch, Vec<OutputFile>);

/// Builds the operator; its output's frontier is what is written. Files come on worker 0.
pub(crate) fn files<'s>(
    files: StreamVec<'s, Epoch, OutputFile>,
    durable: StreamVec<'s, Epoch, (Epoch, ChainHash)>,
    plan: &Arc<Plan>,
    output: &FileOutput,
) -> StreamVec<'s, Epoch, ()> {
    let scope = files.scope();
    let link = (scope.index() == 0).then(|| spawn(plan, output));
    let mut builder = OperatorBuilder::new(format!("Files {}", output.sink.name()), scope);
    let mut files = builder.new_input(files, Pipeline);
    let mut durable = builder.new_input(durable, Pipeline);
    let (written, written_stream) = builder.new_output::<Vec<()>>();
    let written = OutputBuilder::<_, CapacityContainerBuilder<Vec<()>>>::from(written);
    if let Some(link) = &link {
        link.attach(waker(scope.worker().sync_activator_for(builder.operator_info().address.to_vec())));
    }
    let plan = plan.clone();
    // Mails that an earlier process left: a job does not end, nor make a checkpoint, before it has tried to send them.
    let has_mails = link.as_ref().is_some_and(|link| output.mailer.is_some() && link.send((0, Vec::new())).is_ok());
    builder.build(move |mut capabilities| {
        let mut open: BTreeMap<Epoch, (Capability<Epoch>, Vec<OutputFile>)> = BTreeMap::new();
        let mut writing: VecDeque<Capability<Epoch>> = capabilities.drain(..).filter(|_| has_mails).collect();
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

fn spawn(plan: &Plan, output: &FileOutput) -> Link<Request, Result<()>> {
    let FileOutput { sink, mailer } = output.clone();
    let (control, clock) = (plan.control.clone(), plan.environment.clock.clone());
    let mut outbox = mailer.map(|mailer| Outbox::new(plan.storage.clone(), sink.name(), mailer));
    let (mut waiting, mut backoff): (VecDeque<Request>, _) = (VecDeque::new(), Backoff::default());
    let task = format!("files {}", sink.name());
    Link::spawn(&*plan.environment.spawner, &task, usize::MAX, move |requests, replies| {
        waiting.extend(requests);
        let is_tried_again = |what, error: &Error| {
            tracing::warn!(sink = sink.name(), "{error}; it is tried again");
            control.measures.tables.failed(sink.name(), what, error, clock.wall());
        };
        let (mut written, mut next) = (0, TaskState::Waiting);
        while let Some((epoch, files)) = waiting.front() {
            match files.iter().try_for_each(|file| write(&*sink, outbox.as_ref(), file)) {
                Ok(()) => {
                    if !files.is_empty() {
                        tracing::info!(sink = sink.name(), epoch, files = files.len(), "files written");
                    }
                    control.measures.tables.succeeded(sink.name(), PUT);
                    waiting.pop_front();
                    backoff.reset();
                    written += 1;
                }
                Err(error) if error.transient && !control.has_failed() => {
                    is_tried_again(PUT, &error);
                    next = TaskState::Sleeping(backoff.pause());
                    break;
                }
                Err(error) => {
                    replies.send(Err(error));
                    return TaskState::Done;
                }
            }
        }
        // Before the replies: a job that ends with its input has then tried to send all its mails.
        match outbox.as_mut().map_or(Ok(Delivered::All), Outbox::deliver) {
            Ok(Delivered::All) => control.measures.tables.succeeded(sink.name(), MAIL),
            Ok(Delivered::Later(pause, error)) => {
                is_tried_again(MAIL, &error);
                next = match next {
                    TaskState::Sleeping(other) => TaskState::Sleeping(pause.min(other)),
                    _ => TaskState::Sleeping(pause),
                };
            }
            Err(error) => {
                replies.send(Err(error));
                return TaskState::Done;
            }
        }
        (0..written).for_each(|_| replies.send(Ok(())));
        next
    })
}

/// Writes a file; a mail about it waits from then on.
fn write(sink: &dyn FileSink, outbox: Option<&Outbox>, file: &OutputFile) -> Result<()> {
    sink.put(&file.name, &file.bytes)?;
    outbox.map_or(Ok(()), |outbox| outbox.post(&file.letter))
}
