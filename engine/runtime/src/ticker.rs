//! The ticker: worker 0 opens each epoch with its clock; every source takes both from it.
//!
//! First come the epochs whose extent is known (a replay, then a bindings file), one after the other as fast as they are staged;
//! then live ones. A live epoch with input is closed, by opening the next, after `tick_min` when the epochs before it are
//! staged, at the latest after `tick_max` or when it is full; without input after `tick_idle`. At most
//! `open_epochs_max` epochs are open: that is the backpressure (invariant 6).
//!
//! The clock is bound here: monotonic time on top of the greater of the wall clock and the last binding, so it always moves.

use crate::facts::{Bound, Tick};
use crate::link::waker;
use crate::plan::Plan;
use dataflow_core::{Epoch, Micros};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::{ProbeHandle, Scope, StreamVec};
use timely::scheduling::Activator;

/// How soon a held-back ticker looks again: a probe wakes nobody.
const HELD_BACK: Duration = Duration::from_millis(1);

/// The ticks as they leave worker 0 (for the binder), and broadcast (for the sources).
pub(crate) fn ticker<'s>(
    scope: Scope<'s, Epoch>,
    plan: &Arc<Plan>,
    staged: ProbeHandle<Epoch>,
) -> (StreamVec<'s, Epoch, Tick>, StreamVec<'s, Epoch, Tick>) {
    let mut builder = OperatorBuilder::new("Ticker".to_owned(), scope);
    let (output, ticks) = builder.new_output::<Vec<Tick>>();
    let mut output = OutputBuilder::from(output);
    let address = builder.operator_info().address;
    let activator = scope.activator_for(address.clone());
    if scope.index() == 0 {
        let wake = scope.worker().sync_activator_for(address.to_vec());
        plan.control.attach_ticker(waker(wake));
    }
    let mut state = (scope.index() == 0).then(|| TickerState::new(plan.clone(), staged, activator));
    builder.build(move |mut capabilities| {
        let mut held = state.is_some().then(|| capabilities.pop().expect("one output"));
        move |_| {
            let (Some(state), Some(capability)) = (state.as_mut(), held.as_mut()) else { return };
            let mut output = output.activate();
            loop {
                match state.next() {
                    Next::Open(tick) => {
                        capability.downgrade(&tick.epoch);
                        let (last, after) = (tick.last, tick.epoch + 1);
                        output.session(&*capability).give(tick);
                        capability.downgrade(&after);
                        if last {
                            break;
                        }
                    }
                    Next::Wait(Some(delay)) => return state.activator.activate_after(delay),
                    Next::Wait(None) => return,
                    Next::End => break,
                }
            }
            held = None;
        }
    });
    (ticks.clone(), ticks.broadcast())
}

enum Next {
    Open(Tick),
    /// Look again after this long, or when woken.
    Wait(Option<Duration>),
    End,
}

struct TickerState {
    plan: Arc<Plan>,
    staged: ProbeHandle<Epoch>,
    activator: Activator,
    /// Epochs decided beforehand.
    known: VecDeque<(Epoch, Micros, bool, Arc<Bound>)>,
    live: bool,
    last: Epoch,
    last_clock: Micros,
    /// Monotonic time when the open epoch was opened.
    opened: Duration,
    /// Monotonic time of the last checkpoint epoch.
    checkpointed: Duration,
    /// Emitted and not yet staged.
    open: VecDeque<Epoch>,
    /// Clock and monotonic time at which the live clock began.
    base: Option<(Micros, Duration)>,
    /// Monotonic time since which an epoch is held back, as far as it is not counted yet.
    held_back: Option<Duration>,
    /// An epoch that holds a checkpoint was opened after the input had ended.
    closing: bool,
}

impl TickerState {
    fn new(plan: Arc<Plan>, staged: ProbeHandle<Epoch>, activator: Activator) -> TickerState {
        let known = plan.known_epochs();
        let now = plan.environment.clock.monotonic();
        let (last, last_clock) = (plan.start.state.epoch, plan.start.state.clock);
        let live = plan.recorded.is_none();
        let fields = (VecDeque::new(), now);
        TickerState {
            plan,
            staged,
            activator,
            known,
            live,
            last,
            last_clock,
            opened: fields.1,
            checkpointed: fields.1,
            open: fields.0,
            base: None,
            held_back: None,
            closing: false,
        }
    }

    fn next(&mut self) -> Next {
        if self.plan.control.has_failed() {
            return Next::Wait(Some(HELD_BACK));
        }
        let oldest = self.staged.with_frontier(|f| f.first().copied()).unwrap_or(Epoch::MAX);
        while self.open.front().is_some_and(|e| *e < oldest) {
            self.open.pop_front();
        }
        if self.open.len() >= self.plan.settings.open_epochs_max {
            self.count_held_back(true);
            return Next::Wait(Some(HELD_BACK));
        }
        self.count_held_back(false);
        if let Some((epoch, clock, checkpoint, bound)) = self.known.pop_front() {
            let last = !self.live && self.known.is_empty();
            return self.open(epoch, clock, checkpoint || last, last, Some(bound));
        }
        if !self.live { Next::End } else { self.next_live() }
    }

    /// Counts the times and the time in which an epoch is held back; also while it lasts, so that a stuck job shows.
    fn count_held_back(&mut self, is_held: bool) {
        let status = &self.plan.control.status;
        if !is_held && self.held_back.is_none() {
            return;
        }
        let now = self.plan.environment.clock.monotonic();
        match self.held_back {
            Some(since) => status.backpressure_us.add(now.saturating_sub(since).as_micros() as u64),
            None => status.backpressure.add(1),
        }
        self.held_back = is_held.then_some(now);
    }

    fn next_live(&mut self) -> Next {
        let (settings, control) = (&self.plan.settings, &self.plan.control);
        let now = self.plan.environment.clock.monotonic();
        let age = now.saturating_sub(self.opened);
        let ms = Duration::from_millis;
        if self.closing {
            return Next::End;
        }
        let stopping = control.is_stopping() || control.is_finished();
        let first = self.base.is_none();
        let congested = self.open.len() > 2;
        let due_after = if first || stopping || control.is_epoch_full() {
            Duration::ZERO
        } else if control.has_input() {
            if congested { ms(settings.tick_max_ms) } else { ms(settings.tick_min_ms) }
        } else {
            ms(settings.tick_idle_ms)
        };
        if age < due_after {
            // A congested epoch is looked at again soon: it may be closed as soon as the ones before it are staged.
            return Next::Wait(Some(if congested && control.has_input() { HELD_BACK } else { due_after - age }));
        }
        let interval = ms(settings.checkpoint_interval_ms);
        let checkpoint = stopping || (!first && now.saturating_sub(self.checkpointed) >= interval);
        self.closing = stopping;
        let clock = self.live_clock(now);
        self.plan.control.epoch_opened();
        (self.opened, self.checkpointed) = (now, if checkpoint { now } else { self.checkpointed });
        self.open(self.last + 1, clock, checkpoint, stopping, None)
    }

    fn live_clock(&mut self, now: Duration) -> Micros {
        let start = self.last_clock.plus(1).max(self.plan.start.clock_floor);
        let wall = self.plan.environment.clock.wall();
        let (base, began) = *self.base.get_or_insert((start.max(wall), now));
        base.plus(now.saturating_sub(began).as_micros() as i64).max(start)
    }

    fn open(&mut self, epoch: Epoch, clock: Micros, checkpoint: bool, last: bool, bound: Option<Arc<Bound>>) -> Next {
        (self.last, self.last_clock) = (epoch, clock);
        self.open.push_back(epoch);
        self.plan.control.status.epoch_opened.set(epoch);
        if checkpoint {
            let opened = self.plan.environment.clock.monotonic();
            let mut cuts = self.plan.control.cuts();
            let cut = cuts.entry(epoch).or_default();
            (cut.clean, cut.opened) = (last, opened);
        }
        Next::Open(Tick { epoch, clock, checkpoint, last, bound })
    }
}
