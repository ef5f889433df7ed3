//! Event time: splits an epoch's records into accepted and late, by the watermark in force before the epoch.
//!
//! `t < W(e-1)` is late (SEMANTICS "Login records"): a function of the bindings alone. A record waits here for the facts
//! of its epoch, which come as soon as every source has closed it.

use crate::facts::EpochFacts;
use crate::plan::Plan;
use dataflow_core::{Epoch, Micros, Stamped};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

/// A late record with the watermark that made it late.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Late<T> {
    /// The record.
    pub record: Stamped<T>,
    /// The epoch that read it.
    pub epoch: Epoch,
    /// W(epoch - 1).
    pub watermark: Micros,
}

/// Accepted and late records, on the worker that read them.
pub(crate) fn split_late<'s, T: Clone + Serialize + DeserializeOwned + Send + 'static>(
    records: StreamVec<'s, Epoch, Stamped<T>>,
    facts: StreamVec<'s, Epoch, EpochFacts>,
    plan: &Arc<Plan>,
) -> (StreamVec<'s, Epoch, Stamped<T>>, StreamVec<'s, Epoch, Late<T>>) {
    let mut builder = OperatorBuilder::new("SplitLate".to_owned(), records.scope());
    let mut records = builder.new_input(records, Pipeline);
    let mut facts = builder.new_input(facts, Pipeline);
    let (accepted, accepted_stream) = builder.new_output();
    let (late, late_stream) = builder.new_output();
    let (mut accepted, mut late) = (OutputBuilder::from(accepted), OutputBuilder::from(late));
    let plan = plan.clone();
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut waiting: BTreeMap<Epoch, Vec<Stamped<T>>> = BTreeMap::new();
        let mut fixed = BTreeMap::new();
        move |frontiers| {
            records.for_each(|stamp, batch| {
                waiting.entry(*stamp.least().expect("records are stamped with their epoch")).or_default().append(batch);
            });
            facts.for_each(|stamp, batch| {
                for facts in batch.drain(..) {
                    let held = [0, 1].map(|port| stamp.delayed(&facts.epoch, port));
                    fixed.insert(facts.epoch, (facts, held));
                }
            });
            let (mut accepted, mut late) = (accepted.activate(), late.activate());
            // The facts of e come after every source has closed e, but on another channel: wait for the records' frontier.
            while let Some(entry) = fixed.first_entry().filter(|e| !frontiers[0].less_equal(e.key())) {
                let (epoch, (facts, [accept, reject])) = entry.remove_entry();
                let mut taken = waiting.remove(&epoch).unwrap_or_default();
                if let Some(watermark) = facts.watermark_before {
                    let too_late: Vec<_> = taken.extract_if(.., |r| r.time < watermark).collect();
                    plan.control.status.late.add(too_late.len() as u64);
                    let row = |record| Late { record, epoch, watermark };
                    late.session(&reject).give_iterator(too_late.into_iter().map(row));
                }
                plan.control.status.accepted.add(taken.len() as u64);
                accepted.session(&accept).give_container(&mut taken);
            }
        }
    });
    (accepted_stream, late_stream)
}
