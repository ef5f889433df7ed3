//! The checkpoint operator: a cut becomes a checkpoint when all parts are stored and every sink has committed through it.
//!
//! Stateful operators cut alone, each in the moment when it has applied epoch c and nothing of c+1, and hand the cut over
//! ([`Plan::add_part`]). Their `parts` frontier passing c says that all parts are there; the `settled` frontier (all sinks
//! committed, the binding durable) passing c says that nothing before c can be lost (DESIGN section 5: views
//! re-emit their contents at c on a restart, and sinks drop them). Then one request goes to the writer task: copy, hash, manifest.
//! Nothing on the dataflow waits for it; the operator holds the epoch's capability until the manifest is durable.

use crate::checkpoint_writer::CheckpointRequest;
use crate::link::waker;
use crate::plan::Plan;
use dataflow_core::Epoch;
use dataflow_core::planted::{Bug, is_planted};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

use crate::facts::EpochFacts;

/// Builds the operator. `parts` and `settled` carry nothing but their frontiers.
pub(crate) fn checkpoints<'s>(
    facts: StreamVec<'s, Epoch, EpochFacts>,
    parts: StreamVec<'s, Epoch, ()>,
    settled: StreamVec<'s, Epoch, ()>,
    plan: &Arc<Plan>,
) -> StreamVec<'s, Epoch, ()> {
    let scope = facts.scope();
    let mut builder = OperatorBuilder::new("Checkpoints".to_owned(), scope);
    let mut facts = builder.new_input(facts, Pipeline);
    let mut parts = builder.new_input(parts, Pipeline);
    let mut settled = builder.new_input(settled, Pipeline);
    let (done, done_stream) = builder.new_output::<Vec<()>>();
    let done = OutputBuilder::<_, CapacityContainerBuilder<Vec<()>>>::from(done);
    let is_writer = scope.index() == 0;
    if is_writer {
        let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
        plan.checkpoints.attach(waker(wake));
    }
    let plan = plan.clone();
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut open = BTreeMap::new();
        let mut writing = BTreeMap::new();
        move |frontiers| {
            let _keep = &done;
            facts.for_each(|stamp, batch| {
                for facts in batch.drain(..).filter(|f| f.checkpoint && is_writer) {
                    open.insert(facts.epoch, stamp.delayed(&facts.epoch, 0));
                }
            });
            parts.for_each(|_, batch| batch.clear());
            settled.for_each(|_, batch| batch.clear());
            if plan.control.has_failed() {
                open.clear();
                writing.clear();
                return;
            }
            // The other workers share the link and must leave the writer's replies alone.
            let replies = if is_writer { plan.checkpoints.replies() } else { Vec::new() };
            for reply in replies {
                match reply {
                    Ok(epoch) => drop(writing.remove(&epoch)),
                    Err(error) => return plan.control.fail(error),
                }
            }
            while let Some(entry) = open.first_entry() {
                let epoch = *entry.key();
                let is_settled = !frontiers[2].less_equal(&epoch) || is_planted(Bug::ManifestBeforeSinks);
                if frontiers[1].less_equal(&epoch) || !is_settled {
                    break;
                }
                let request = match plan.checkpoint_request(epoch) {
                    Some(request) => request,
                    None => break, // only with a planted bug: the binding is not durable yet
                };
                let capability = entry.remove();
                let sent: Result<(), CheckpointRequest> = plan.checkpoints.send(request);
                assert!(sent.is_ok(), "the writer's queue holds all checkpoints that may be open");
                writing.insert(epoch, capability);
            }
        }
    });
    done_stream
}
