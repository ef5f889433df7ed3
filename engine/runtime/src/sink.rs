//! The sink operator: gathers the rows of an epoch on one worker, orders them, and has them committed once the epoch is durable.
//!
//! Two frontiers. *Staged*: the epoch's rows lie, ordered, in the bounded buffer; the input's capability is released and
//! backpressure looks no further. *Committed*: rows and marker are in the outside system; checkpoints and status watch this
//! one. Epochs up to the marker found on start are dropped (invariant 3); no epoch is handed over before the
//! durable frontier has passed it (invariant 2). Consecutive epochs that are ready together share one transaction.

use crate::link::waker;
use crate::plan::Plan;
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{ChainHash, Epoch, EpochOutput, OutputRow};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

/// The staged and the committed frontier, as streams that carry nothing.
pub(crate) type SinkStreams<'s> = (StreamVec<'s, Epoch, ()>, StreamVec<'s, Epoch, ()>);

/// Builds the operator for the sink `name` of the plan.
pub(crate) fn sink<'s>(
    rows: StreamVec<'s, Epoch, OutputRow>,
    durable: StreamVec<'s, Epoch, (Epoch, ChainHash)>,
    plan: &Arc<Plan>,
    name: &str,
) -> SinkStreams<'s> {
    let scope = rows.scope();
    let mut builder = OperatorBuilder::new(format!("Sink {name}"), scope);
    let mut rows = builder.new_input(rows, Exchange::new(|_: &OutputRow| 0));
    let mut durable = builder.new_input(durable, Pipeline);
    let (staged, staged_stream) = builder.new_output::<Vec<()>>();
    let (committed, committed_stream) = builder.new_output::<Vec<()>>();
    let _outputs = (OutputBuilder::<_, timely::container::CapacityContainerBuilder<Vec<()>>>::from(staged), committed);
    let connection = plan.sinks.get(name).expect("the job declared this sink to the plan").clone();
    // All rows and durable epochs come here; the other workers share the link and must leave its replies alone.
    let is_committer = scope.index() == 0;
    if is_committer {
        let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
        connection.link.attach(waker(wake));
    }
    let (plan, name) = (plan.clone(), name.to_owned());
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut buffer = Buffer::default();
        let mut chains: BTreeMap<Epoch, ChainHash> = BTreeMap::new();
        move |frontiers| {
            let _keep = &_outputs;
            rows.for_each(|stamp, batch| {
                let epoch = *stamp.least().expect("rows are stamped with their epoch");
                let open = buffer.open.entry(epoch).or_insert_with(|| OpenEpoch {
                    staged: stamp.retain_least(0),
                    committed: stamp.retain_least(1),
                    rows: Vec::new(),
                });
                open.rows.append(batch);
            });
            durable.for_each(|_, batch| chains.extend(batch.drain(..)));
            if plan.control.has_failed() {
                buffer = Buffer::default();
                return;
            }
            let measures = &plan.control.measures.epochs;
            let replies = if is_committer { connection.link.replies() } else { Vec::new() };
            let has_committed = !replies.is_empty();
            for reply in replies {
                match reply {
                    Ok(last) => {
                        buffer.committed(last);
                        measures.committed(&name, last, plan.environment.clock.monotonic());
                        plan.control.status.epoch_committed.raise(last);
                        plan.control.status.transactions.add(1);
                    }
                    Err(error) => return plan.control.fail(error),
                }
            }
            // Ordered, and out of the open epochs: staged.
            while let Some(entry) = buffer.open.first_entry().filter(|e| !frontiers[0].less_equal(e.key())) {
                if buffer.bytes >= plan.settings.staged_bytes_max {
                    break; // a commit wakes us
                }
                let (epoch, mut open) = entry.remove_entry();
                connection.note_output(epoch);
                let marker = if is_planted(Bug::MarkerIgnoredOnRecovery) { 0 } else { connection.marker_epoch };
                if epoch <= marker {
                    plan.control.status.epochs_dropped_by_marker.add(1);
                    continue;
                }
                if !is_planted(Bug::HashOrderOutput) {
                    open.rows.sort_unstable_by(|a, b| (a.topic, &a.order).cmp(&(b.topic, &b.order)));
                }
                buffer.bytes += weight(&open.rows);
                measures.staged(&name, epoch, plan.environment.clock.monotonic());
                drop(open.staged.take());
                buffer.staged.insert(epoch, open);
            }
            // Durable: handed to the committer, in order.
            while let Some(entry) = buffer.staged.first_entry() {
                let epoch = *entry.key();
                let is_durable = !frontiers[1].less_equal(&epoch) || is_planted(Bug::OutputBeforeBinding);
                if !is_durable {
                    break;
                }
                let chain = match chains.get(&epoch) {
                    Some(chain) => *chain,
                    None if is_planted(Bug::OutputBeforeBinding) => ChainHash::default(),
                    None => unreachable!("epoch {epoch} of sink '{name}' is durable without a chain hash"),
                };
                let mut open = entry.remove();
                let rows = std::mem::take(&mut open.rows);
                let bytes = weight(&rows);
                connection.note_chain(epoch, chain);
                if let Err(back) = connection.link.send(EpochOutput { epoch, chain, rows }) {
                    open.rows = back.rows;
                    buffer.staged.insert(epoch, open);
                    break;
                }
                buffer.committing.insert(epoch, (open, bytes));
            }
            if is_committer {
                let waiting = buffer.staged.len() + buffer.committing.len();
                measures.buffered(&name, waiting, buffer.bytes, plan.settings.staged_bytes_max);
                connection.note_waiting(waiting);
                if has_committed {
                    plan.control.wake_ticker();
                }
            }
            let open = frontiers[0].frontier().first().copied();
            match buffer.oldest().into_iter().chain(open).min() {
                Some(needed) => chains = chains.split_off(&needed),
                None => chains.clear(),
            }
        }
    });
    (staged_stream, committed_stream)
}

#[derive(Default)]
struct Buffer {
    open: BTreeMap<Epoch, OpenEpoch>,
    staged: BTreeMap<Epoch, OpenEpoch>,
    committing: BTreeMap<Epoch, (OpenEpoch, usize)>,
    /// Bytes staged or being committed.
    bytes: usize,
}

struct OpenEpoch {
    staged: Option<Capability<Epoch>>,
    committed: Option<Capability<Epoch>>,
    rows: Vec<OutputRow>,
}

impl Buffer {
    fn committed(&mut self, last: Epoch) {
        let rest = self.committing.split_off(&(last + 1));
        for (_, (mut open, bytes)) in std::mem::replace(&mut self.committing, rest) {
            self.bytes -= bytes;
            drop(open.committed.take());
        }
    }

    fn oldest(&self) -> Option<Epoch> {
        let first = |epoch: Option<(&Epoch, &OpenEpoch)>| epoch.map(|(e, _)| *e);
        let committing = self.committing.first_key_value().map(|(e, _)| *e);
        [first(self.open.first_key_value()), first(self.staged.first_key_value()), committing]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Bytes that rows hold in memory, roughly: their content and a fixed part each.
fn weight(rows: &[OutputRow]) -> usize {
    rows.iter().map(|row| row.value.len() + row.key.as_ref().map_or(0, Vec::len) + size_of::<OutputRow>()).sum()
}
