//! Waking an operator after a while, once for all the whiles that overlap.
//!
//! timely keeps every delayed activation. An operator that asks for one each time it runs, and is run by others too, would start a chain of
//! them with each of these runs: none ever ends, and the worker comes to spin.

use dataflow_core::Epoch;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use timely::dataflow::Scope;
use timely::scheduling::Activator;

/// One operator's.
pub(crate) struct Alarm {
    activator: Activator,
    /// The worker's, which its delayed activations are counted on. None in the simulation, where whoever waits runs in the next step.
    timer: Option<Instant>,
    due: Due,
}

impl Alarm {
    /// For the operator at `address` of `scope`.
    pub(crate) fn new(scope: Scope<'_, Epoch>, address: &[usize]) -> Alarm {
        let timer = scope.worker().timer();
        Alarm { activator: scope.activator_for(address.into()), timer, due: Due::default() }
    }

    /// Has the operator run in this step once more.
    pub(crate) fn now(&self) {
        self.activator.activate();
    }

    /// Has the operator run within `delay`.
    pub(crate) fn within(&mut self, delay: Duration) {
        let is_set = self.timer.is_some_and(|timer| !self.due.set(timer.elapsed(), delay));
        if !is_set {
            self.activator.activate_after(delay);
        }
    }
}

/// The moments at which an operator will be run.
#[derive(Default)]
struct Due(BTreeSet<Duration>);

impl Due {
    /// Adds the moment `now + delay`, unless there is an earlier one yet to come. Whether it did.
    fn set(&mut self, now: Duration, delay: Duration) -> bool {
        self.0 = self.0.split_off(&now);
        let moment = now + delay;
        if self.0.first().is_some_and(|next| *next <= moment) {
            return false;
        }
        self.0.insert(moment);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiles_that_overlap_are_one() {
        let ms = Duration::from_millis;
        let (mut due, mut set) = (Due::default(), 0);
        // Run by others each millisecond for a second, and waiting for 5 ms each time.
        for now in 0..1_000 {
            set += usize::from(due.set(ms(now), ms(5)));
        }
        assert!((150..=200).contains(&set), "{set}");
        // A nearer moment counts at once, and the farther one is kept.
        let mut due = Due::default();
        assert_eq!([due.set(ms(0), ms(1_000)), due.set(ms(1), ms(5)), due.set(ms(2), ms(5))], [true, true, false]);
        assert_eq!([due.set(ms(7), ms(1_000)), due.set(ms(1_001), ms(1_000))], [false, true]);
    }
}
