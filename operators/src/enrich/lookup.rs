//! The enrichment operator: adds to each login where its address lies, once, in the epoch that reads it.
//!
//! The table is bound: an epoch sees the version that was in force when it was bound, whatever lies in the file now
//! (invariant 1). What is added travels with the login into state and is never looked up again.

use super::IpTable;
use crate::anomaly::{Login, LoginEvent};
use dataflow_core::{Epoch, Result, Stamped};
use dataflow_runtime::job::JobScope;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

/// Looks the address of each login up in the table `table` of the plan.
///
/// # Errors
/// When the profile does not wire the table, or a version of it can not be read.
pub fn enrich<'s>(
    job: &JobScope<'s>,
    table: &str,
    events: StreamVec<'s, Epoch, Stamped<LoginEvent>>,
) -> Result<StreamVec<'s, Epoch, Stamped<Login>>> {
    let read = |(from, bytes): (Epoch, Arc<[u8]>)| IpTable::parse(&bytes).map(|table| (from, table));
    let versions: Vec<(Epoch, IpTable)> =
        job.plan().lookup_versions(table)?.into_iter().map(read).collect::<Result<_>>()?;
    Ok(events.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, "Enrich", move |_, _| {
        move |input, output| {
            input.for_each(|stamp, batch| {
                let epoch = *stamp.least().expect("events are stamped with their epoch");
                let in_force = versions.partition_point(|(from, _)| *from <= epoch);
                let (_, table) = &versions[in_force.checked_sub(1).expect("a table is bound with the first epoch")];
                let place = |event: Stamped<LoginEvent>| Stamped {
                    time: event.time,
                    position: event.position,
                    data: Login::from_event(&event.data, table),
                };
                output.session(&stamp).give_iterator(batch.drain(..).map(place));
            });
        }
    }))
}
