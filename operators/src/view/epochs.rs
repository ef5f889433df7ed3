//! Work that is done epoch by epoch, in order, once an epoch is closed: the one place of this folder that handles frontiers.
//!
//! Two shapes. [`with_clock`]: an epoch's changes with its clock, each worker for its own rows. [`gather`]: all that an epoch brought, on
//! one worker. A message of a collection may hold several epochs, so what belongs to which is told by the data and never by the stamp.
//!
//! Nothing is held back: capabilities are held for epochs that are under way only. What waits for a later clock waits under none, and
//! takes the capability of the epoch whose clock brings it.

use dataflow_core::{Epoch, Micros};
use differential_dataflow::consolidation::consolidate;
use differential_dataflow::{ExchangeData, VecCollection};
use std::collections::BTreeMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::{Capability, Operator};

/// Each epoch's clock: every worker gets each epoch's once, and it never falls.
pub type EpochClock<'s> = StreamVec<'s, Epoch, (Epoch, Micros)>;

/// Calls `work` with each epoch, its clock and its net changes, sorted, on the worker that `route` names for a row; what it appends goes
/// out at the epoch. Called for epochs without changes too.
pub(super) fn with_clock<'s, D: ExchangeData, O: Clone + 'static>(
    rows: VecCollection<'s, Epoch, D>,
    clock: EpochClock<'s>,
    name: &str,
    route: impl Fn(&D) -> u64 + 'static,
    mut work: impl FnMut(Epoch, Micros, Vec<(D, isize)>, &mut Vec<O>) + 'static,
) -> StreamVec<'s, Epoch, O> {
    let by_row = Exchange::new(move |(row, _, _): &(D, Epoch, isize)| route(row));
    type Builder<O> = CapacityContainerBuilder<Vec<O>>;
    rows.inner.binary_frontier::<_, Builder<O>, _, _, _, _>(clock, by_row, Pipeline, name, move |capability, _| {
        drop(capability);
        let mut arrived: BTreeMap<Epoch, Vec<(D, isize)>> = BTreeMap::new();
        let mut ticks: BTreeMap<Epoch, (Capability<Epoch>, Micros)> = BTreeMap::new();
        let mut made = Vec::new();
        move |(rows, rows_frontier), (clock, clock_frontier), output| {
            rows.for_each(|_, updates| {
                for (row, epoch, diff) in updates.drain(..) {
                    arrived.entry(epoch).or_default().push((row, diff));
                }
            });
            let port = output.output_index();
            clock.for_each(|stamp, batch| {
                for (epoch, now) in batch.drain(..) {
                    let earlier = ticks.insert(epoch, (stamp.delayed(&epoch, port), now));
                    assert!(earlier.is_none(), "epoch {epoch} has one clock");
                }
            });
            let is_open = |epoch: &Epoch| rows_frontier.less_equal(epoch) || clock_frontier.less_equal(epoch);
            while let Some(entry) = ticks.first_entry().filter(|entry| !is_open(entry.key())) {
                let (epoch, (capability, now)) = entry.remove_entry();
                let mut changes = arrived.remove(&epoch).unwrap_or_default();
                consolidate(&mut changes);
                work(epoch, now, changes, &mut made);
                output.session(&capability).give_iterator(made.drain(..));
            }
            let lost = arrived.keys().find(|epoch| !is_open(epoch));
            assert!(lost.is_none(), "epoch {lost:?} brought rows and no clock");
        }
    })
}

/// Brings each epoch's items to worker 0 and sends out what `finish` makes of them, as one batch, once the epoch is closed. Epochs
/// without items, or of which nothing is left, send none.
pub(super) fn gather<'s, D: ExchangeData, O: Clone + 'static>(
    items: StreamVec<'s, Epoch, (Epoch, D)>,
    name: &str,
    mut finish: impl FnMut(Vec<D>) -> Vec<O> + 'static,
) -> StreamVec<'s, Epoch, O> {
    type Builder<O> = CapacityContainerBuilder<Vec<O>>;
    let to_one = Exchange::new(|_: &(Epoch, D)| 0);
    items.unary_frontier::<Builder<O>, _, _, _>(to_one, name, move |capability, _| {
        drop(capability);
        let mut open: BTreeMap<Epoch, (Capability<Epoch>, Vec<D>)> = BTreeMap::new();
        move |(items, frontier), output| {
            let port = output.output_index();
            items.for_each(|stamp, batch| {
                for (epoch, item) in batch.drain(..) {
                    open.entry(epoch).or_insert_with(|| (stamp.delayed(&epoch, port), Vec::new())).1.push(item);
                }
            });
            while let Some(entry) = open.first_entry().filter(|entry| !frontier.less_equal(entry.key())) {
                let (capability, items) = entry.remove();
                let mut batch = finish(items);
                if !batch.is_empty() {
                    output.session(&capability).give_container(&mut batch);
                }
            }
        }
    })
}
