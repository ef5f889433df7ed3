//! Behind everything that an epoch must have reached: says when the views have caught up with the restored epoch.

use crate::plan::Plan;
use dataflow_core::Epoch;
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

/// `staged` carries nothing; its frontier is that of the slowest sink and the slowest operator with state.
pub(crate) fn restored(staged: StreamVec<'_, Epoch, ()>, plan: &Arc<Plan>) {
    let (epoch, control) = (plan.start.state.epoch, plan.control.clone());
    staged.sink(Pipeline, "Restored", move |(input, frontier)| {
        input.for_each(|_, _| ());
        // After a failure operators let go of epochs that they have not finished.
        if !frontier.less_equal(&epoch) && !control.has_failed() {
            control.measures.restore.end();
        }
    });
}
