//! The ticker: worker 0 opens each epoch with its clock; every source takes both from it.
//!
//! First come the epochs whose extent is known (a replay, then a bindings file), one after the other as fast as they are staged;
//! then live ones, when `Pace` says so, with the clock of `JobClock`. Epochs are held back while too many are not staged or not
//! durable: that is the backpressure (invariant 6).

use crate::alarm::Alarm;
use crate::clock::JobClock;
use crate::facts::{Bound, Tick};
use crate::link::waker;
use crate::pace::{self, HELD_BACK, Pace, Signs};
use crate::plan::Plan;
use dataflow_core::time::SECOND;
use dataflow_core::{Epoch, Micros};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::{ProbeHandle, Scope, StreamVec};

/// The ticks as they leave worker 0 (for the binder), and broadcast (for the sources).
pub(crate) fn ticker<'s>(
    scope: Scope<'s, Epoch>,
    plan: &Arc<Plan>,
    probes: Probes,
) -> (StreamVec<'s, Epoch, Tick>, StreamVec<'s, Epoch, Tick>) {
    let mut builder = OperatorBuilder::new("Ticker".to_owned(), scope);
    let (output, ticks) = builder.new_output::<Vec<Tick>>();
    let mut output = OutputBuilder::from(output);
    let address = builder.operator_info().address;
    let mut alarm = Alarm::new(scope, &address);
    if scope.index() == 0 {
        let wake = scope.worker().sync_activator_for(address.to_vec());
        plan.control.attach_ticker(waker(wake));
    }
    let mut state = (scope.index() == 0).then(|| TickerState::new(plan.clone(), probes));
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
                    Next::Wait(delay) => return alarm.within(delay),
                    Next::End => break,
                }
            }
            held = None;
        }
    });
    (ticks.clone(), ticks.broadcast())
}

/// How far the epochs are that were opened: what of them is staged, durable, checkpointed.
#[derive(Clone, Default)]
pub(crate) struct Probes {
    pub(crate) staged: ProbeHandle<Epoch>,
    pub(crate) durable: ProbeHandle<Epoch>,
    pub(crate) checkpointed: ProbeHandle<Epoch>,
}

enum Next {
    Open(Tick),
    /// Look again after this long, or when woken.
    Wait(Duration),
    End,
}

struct TickerState {
    plan: Arc<Plan>,
    probes: Probes,
    /// Epochs decided beforehand.
    known: VecDeque<(Epoch, Micros, bool, Arc<Bound>)>,
    live: bool,
    last: Epoch,
    last_clock: Micros,
    pace: Pace,
    clock: JobClock,
    /// Opened and not yet staged.
    unstaged: VecDeque<Epoch>,
    /// Opened and not yet durable.
    undurable: VecDeque<Epoch>,
    /// Opened with a checkpoint that is not complete.
    checkpoints: VecDeque<Epoch>,
    /// Monotonic time since which an epoch is held back, as far as it is not counted yet.
    held_back: Option<Duration>,
}

impl TickerState {
    fn new(plan: Arc<Plan>, probes: Probes) -> TickerState {
        let known = plan.known_epochs();
        let now = plan.environment.clock.monotonic();
        let (last, last_clock) = (plan.start.state.epoch, plan.start.state.clock);
        let live = plan.recorded.is_none();
        let clock = JobClock::new(plan.start.clock_floor);
        TickerState {
            plan,
            probes,
            known,
            live,
            last,
            last_clock,
            pace: Pace::new(now),
            clock,
            unstaged: VecDeque::new(),
            undurable: VecDeque::new(),
            checkpoints: VecDeque::new(),
            held_back: None,
        }
    }

    fn next(&mut self) -> Next {
        if self.plan.control.has_failed() {
            return Next::Wait(HELD_BACK);
        }
        let signs = self.signs();
        let is_held_back = Pace::is_held_back(&signs, &self.plan.settings);
        self.count_held_back(is_held_back, signs.now);
        if is_held_back {
            return Next::Wait(HELD_BACK);
        }
        if let Some((epoch, clock, checkpoint, bound)) = self.known.pop_front() {
            let last = !self.live && self.known.is_empty();
            return self.open(epoch, clock, checkpoint || last, last, Some(bound));
        }
        if !self.live {
            return Next::End;
        }
        match self.pace.next(&signs, &self.plan.settings) {
            pace::Next::Open { checkpoint, last } => {
                let clock = self.live_clock(signs.now);
                self.plan.control.epoch_opened();
                self.open(self.last + 1, clock, checkpoint, last, None)
            }
            pace::Next::Wait(delay) => Next::Wait(delay),
            pace::Next::End => Next::End,
        }
    }

    fn signs(&mut self) -> Signs {
        let control = &self.plan.control;
        Signs {
            now: self.plan.environment.clock.monotonic(),
            has_input: control.has_input(),
            is_full: control.is_epoch_full(),
            is_stopping: control.is_stopping() || control.is_finished(),
            unstaged: count_open(&mut self.unstaged, &self.probes.staged),
            uncommitted: self.plan.sinks.values().map(|sink| sink.waiting()).max().unwrap_or(0),
            undurable: count_open(&mut self.undurable, &self.probes.durable),
            checkpoints: count_open(&mut self.checkpoints, &self.probes.checkpointed),
        }
    }

    /// Counts the times and the time in which an epoch is held back; also while it lasts, so that a stuck job shows.
    fn count_held_back(&mut self, is_held: bool, now: Duration) {
        let status = &self.plan.control.status;
        if !is_held && self.held_back.is_none() {
            return;
        }
        match self.held_back {
            Some(since) => status.backpressure_us.add(now.saturating_sub(since).as_micros() as u64),
            None => status.backpressure.add(1),
        }
        self.held_back = is_held.then_some(now);
    }

    fn live_clock(&mut self, now: Duration) -> Micros {
        let wall = self.plan.environment.clock.wall();
        let clock = self.clock.read(self.last_clock, wall, now);
        if let Some(ahead) = self.clock.apart(clock, wall, now) {
            tracing::warn!(
                %wall,
                job = %clock,
                apart_s = ahead / SECOND,
                "the machine's clock and the job's are more than a minute apart: the machine's was set, or was behind the last binding; the job's goes on evenly until the next start"
            );
        }
        clock
    }

    fn open(&mut self, epoch: Epoch, clock: Micros, checkpoint: bool, last: bool, bound: Option<Arc<Bound>>) -> Next {
        (self.last, self.last_clock) = (epoch, clock);
        self.unstaged.push_back(epoch);
        self.undurable.push_back(epoch);
        self.plan.control.status.epoch_opened.set(epoch);
        if checkpoint {
            self.checkpoints.push_back(epoch);
            let opened = self.plan.environment.clock.monotonic();
            let mut cuts = self.plan.control.cuts();
            let cut = cuts.entry(epoch).or_default();
            (cut.clean, cut.opened) = (last, opened);
        }
        Next::Open(Tick { epoch, clock, checkpoint, last, bound })
    }
}

/// Forgets the epochs that the probe has passed; how many are left.
fn count_open(epochs: &mut VecDeque<Epoch>, probe: &ProbeHandle<Epoch>) -> usize {
    let oldest = probe.with_frontier(|f| f.first().copied()).unwrap_or(Epoch::MAX);
    while epochs.front().is_some_and(|e| *e < oldest) {
        epochs.pop_front();
    }
    epochs.len()
}
