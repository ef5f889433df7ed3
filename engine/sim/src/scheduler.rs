//! The scheduler: one thing runs at a time, and the dice say which.
//!
//! A turn is a worker's step, a task's run, or the arrival of a call that was on its way to a broker; all of them on one thread. Between
//! two turns time moves, mostly by little, now and then by a lot. A life gives every actor a weight of its own, so that
//! in one life the binding log is slow, in another a worker, in a third a sink. A call of a task may take long, or never
//! return; what the job holds meanwhile stays bounded.

use crate::clock::SimTime;
use crate::dice::Dice;
use crate::life::Life;
use crate::scenario::{LifePlan, Stall};
use crate::trace::Trace;
use dataflow_core::{OutputRow, Spawner, Task, TaskState, Waker};
use dataflow_runtime::{Plan, UNDURABLE_EPOCHS_MAX};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Turns of a life after which it counts as stuck: several times what the longest takes.
const TURNS_MAX: u64 = 200_000;
/// Turns that an ending waits for a moment that suits it.
const PATIENCE: u64 = 3_000;
/// Turns without a task's run after which the job waits for time to pass, and time passes faster, so that half a minute of silence does
/// not take a hundred thousand turns.
const QUIET: u64 = 30;
/// How much faster at most.
const HASTE: u64 = 50;
/// Turns that a process is left alone after one of its calls got stuck for ever, until whoever watches it kills it.
const WATCH: u64 = 1_000;
/// Turns between two looks at what a job with a stuck call holds.
const LOOK: u64 = 16;
/// What the names of the tasks begin with that may outlive their process: what they send is on the network.
const STRAYS: [&str; 2] = ["sink broker", "commit lake"];

fn may_stray(slot: &Slot) -> bool {
    STRAYS.iter().any(|stray| slot.name.starts_with(stray))
}

/// A service that calls may be on their way to, whoever made them.
pub(crate) trait Service: Send + Sync {
    /// Whether one is.
    fn has_in_flight(&self) -> bool;
    /// One arrives.
    fn deliver(&self);
}

/// How a life ends, if not by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its input ends, or the fuse ends it.
    Natural,
    /// A clean stop is asked for at this turn.
    Stop(u64),
    /// The process is killed at this turn.
    Kill(u64),
    /// At this turn, or soon after, while a sink has something to commit: the disk is lost and what is on the network is not.
    Strand(u64),
}

/// What all lives of a run share.
pub(crate) struct Shared {
    pub(crate) time: Arc<SimTime>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) dice: Mutex<Dice>,
    pub(crate) services: Vec<Arc<dyn Service>>,
    /// What a turn lasts, roughly.
    pub(crate) turn_us: u64,
}

/// A task with what is known of it.
pub(crate) struct Slot {
    name: String,
    task: Option<Box<dyn Task>>,
    woken: Arc<AtomicBool>,
    /// Simulated time at which it wants to run again.
    due_us: Option<u64>,
    /// Simulated time until which its call does not return.
    stuck_until_us: u64,
    weight: u64,
}

/// The scheduler of one life.
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    life: Arc<Life>,
    state: Mutex<State>,
}

struct State {
    running: Vec<bool>,
    worker_weights: Vec<u64>,
    tasks: Vec<Slot>,
    /// Tasks of earlier lives that are still about.
    strays: Vec<Slot>,
    job: Option<Arc<Plan>>,
    ending: Ending,
    /// A call that takes long, and has not been made yet.
    stall: Option<Stall>,
    /// Calls that took long, and how many of them for ever.
    stalled: (u64, u64),
    /// What was not bounded meanwhile.
    unbounded: Option<String>,
    turns: u64,
    /// The last turn that was not a worker's.
    busy: u64,
    is_over: bool,
    is_stuck: bool,
    panic: Option<String>,
    /// Who may run, with the weight of each; kept for its memory.
    options: Vec<(u64, Chosen)>,
}

#[derive(Clone, Copy)]
enum Chosen {
    Worker(usize),
    Task(usize),
    Stray(usize),
    Deliver(usize),
}

/// What the scheduler knows when a life is over.
pub(crate) struct Aftermath {
    /// Tasks that outlive it.
    pub(crate) strays: Vec<Slot>,
    /// It did not come to an end.
    pub(crate) is_stuck: bool,
    /// What a worker or a task panicked with.
    pub(crate) panic: Option<String>,
    /// What should have been bounded and was not.
    pub(crate) unbounded: Option<String>,
    /// Calls that took long, and how many of them for ever.
    pub(crate) stalled: (u64, u64),
    /// Turns taken.
    pub(crate) turns: u64,
}

impl Scheduler {
    /// The scheduler of a life that shall go so.
    pub(crate) fn new(shared: Arc<Shared>, life: Arc<Life>, plan: &LifePlan, strays: Vec<Slot>) -> Arc<Scheduler> {
        let workers = plan.workers;
        let worker_weights = (0..workers).map(|_| shared.weight()).collect();
        let state = State {
            running: vec![true; workers],
            worker_weights,
            tasks: Vec::new(),
            strays,
            job: None,
            ending: plan.ending,
            stall: plan.stall.clone(),
            stalled: (0, 0),
            unbounded: None,
            turns: 0,
            busy: 0,
            is_over: false,
            is_stuck: false,
            panic: None,
            options: Vec::new(),
        };
        Arc::new(Scheduler { shared, life, state: Mutex::new(state) })
    }

    /// The job has recovered; its workers begin.
    pub(crate) fn begin(&self, job: Arc<Plan>) {
        self.state().job = Some(job);
    }

    /// Runs what is not a worker's until a worker's turn comes: which one. `None` when the life is over.
    pub(crate) fn next_worker(&self) -> Option<usize> {
        loop {
            let mut state = self.state();
            if self.has_ended(&mut state) {
                return None;
            }
            let quiet = (state.turns - state.busy) / QUIET;
            self.shared.pass_time(1 + quiet.min(HASTE));
            let chosen = self.choose(&mut state);
            if !matches!(chosen, Chosen::Worker(_)) {
                state.busy = state.turns;
            }
            match chosen {
                Chosen::Worker(next) => return Some(next),
                Chosen::Task(at) if self.stalls(&mut state, at) => {}
                Chosen::Task(at) => self.run(state, at, |state| &mut state.tasks),
                Chosen::Stray(at) => self.run(state, at, |state| &mut state.strays),
                Chosen::Deliver(at) => self.shared.services[at].deliver(),
            }
        }
    }

    /// The worker has come to its end.
    pub(crate) fn leave(&self, worker: usize) {
        self.state().running[worker] = false;
    }

    /// A worker panicked: the life is over.
    pub(crate) fn panicked(&self, what: String) {
        let mut state = self.state();
        state.is_over = true;
        state.panic = state.panic.take().or(Some(what));
    }

    /// Takes the scheduler apart once all workers are gone.
    pub(crate) fn finish(&self) -> Aftermath {
        let mut state = self.state();
        // It holds the spawner, and so this scheduler: neither would ever go, nor what the job has opened.
        state.job = None;
        let tasks = std::mem::take(&mut state.tasks);
        let mut strays = std::mem::take(&mut state.strays);
        if self.life.has_ended() && matches!(state.ending, Ending::Strand(_)) {
            strays.extend(tasks.into_iter().filter(|slot| may_stray(slot) && slot.task.is_some()));
        }
        let State { is_stuck, stalled, turns, .. } = *state;
        Aftermath { strays, is_stuck, panic: state.panic.take(), unbounded: state.unbounded.take(), stalled, turns }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the life when its time has come.
    fn has_ended(&self, state: &mut State) -> bool {
        state.turns += 1;
        let turns = state.turns;
        let wants_to_commit = |slot: &Slot| may_stray(slot) && slot.woken.load(SeqCst);
        let suits = |at: u64, tasks: &[Slot]| turns > at + PATIENCE || tasks.iter().any(wants_to_commit);
        match state.ending {
            Ending::Kill(at) if turns >= at => self.life.end(),
            Ending::Strand(at) if turns >= at && suits(at, &state.tasks) => self.life.strand(),
            Ending::Stop(at) if turns == at => {
                if let Some(job) = &state.job {
                    job.control.stop();
                }
            }
            _ => {}
        }
        state.is_stuck |= turns > TURNS_MAX;
        let failed = state.job.as_ref().is_some_and(|job| job.control.has_failed());
        if let Some(job) = state.job.as_ref().filter(|_| state.stalled.0 > 0 && turns.is_multiple_of(LOOK)) {
            state.unbounded = state.unbounded.take().or_else(|| unbounded(job));
        }
        let is_idle = state.running.iter().all(|running| !running);
        state.is_over |= is_idle || state.is_stuck || failed || self.life.has_ended();
        state.is_over
    }

    /// Whether the task's call takes long from here on.
    fn stalls(&self, state: &mut State, at: usize) -> bool {
        let turns = state.turns;
        let slot = &mut state.tasks[at];
        let Some(stall) = state.stall.take_if(|stall| turns >= stall.at && slot.name.starts_with(stall.task)) else {
            return false;
        };
        slot.stuck_until_us = stall.lasts_us.map_or(u64::MAX, |lasts| self.shared.time.now_us() + lasts);
        state.stalled.0 += 1;
        if stall.lasts_us.is_none() {
            state.stalled.1 += 1;
            state.ending = Ending::Kill(turns + WATCH);
        }
        true
    }

    fn choose(&self, state: &mut State) -> Chosen {
        let now = self.shared.time.now_us();
        let mut dice = self.shared.dice();
        // Now and then a task is run that nobody woke: a park may always end early.
        let spurious = dice.below(1_000) == 0;
        let ready = |slot: &Slot| {
            let wants = spurious || slot.woken.load(SeqCst) || slot.due_us.is_some_and(|due| due <= now);
            slot.task.is_some() && wants && slot.stuck_until_us <= now
        };
        let mut options = std::mem::take(&mut state.options);
        options.clear();
        let workers = state.running.iter().zip(&state.worker_weights).enumerate().filter(|(_, (running, _))| **running);
        options.extend(workers.map(|(at, (_, weight))| (*weight * 4, Chosen::Worker(at))));
        let tasks = state.tasks.iter().enumerate().filter(|(_, slot)| ready(slot));
        options.extend(tasks.map(|(at, slot)| (slot.weight * 4, Chosen::Task(at))));
        let strays = state.strays.iter().enumerate().filter(|(_, slot)| ready(slot));
        options.extend(strays.map(|(at, _)| (1, Chosen::Stray(at))));
        options.extend(
            self.shared
                .services
                .iter()
                .enumerate()
                .filter(|(_, service)| service.has_in_flight())
                .map(|(at, _)| (1, Chosen::Deliver(at))),
        );
        let mut at = dice.below(options.iter().map(|(weight, _)| weight).sum());
        drop(dice);
        let mut chosen = None;
        for (weight, option) in &options {
            if at < *weight {
                chosen = Some(*option);
                break;
            }
            at -= weight;
        }
        state.options = options;
        let chosen = chosen.expect("the weights add up");
        let (what, number) = match chosen {
            Chosen::Worker(n) => ("worker", n),
            Chosen::Task(n) => ("task", n),
            Chosen::Stray(n) => ("stray", n),
            Chosen::Deliver(n) => ("service", n),
        };
        self.shared.trace.note(what, "", number as u64);
        chosen
    }

    /// Runs a task without the lock: it may wake, and spawn.
    fn run(&self, mut state: MutexGuard<'_, State>, at: usize, of: fn(&mut State) -> &mut Vec<Slot>) {
        let slot = &mut of(&mut state)[at];
        let mut task = slot.task.take().expect("only tasks that are there are chosen");
        slot.woken.store(false, SeqCst);
        slot.due_us = None;
        drop(state);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task.run()));
        let mut state = self.state();
        match ran {
            Ok(TaskState::Done) => {}
            Ok(wants) => {
                let now = self.shared.time.now_us();
                let slot = &mut of(&mut state)[at];
                slot.task = Some(task);
                if let TaskState::Sleeping(most) = wants {
                    slot.due_us = Some(now + most.as_micros() as u64);
                }
            }
            Err(payload) => {
                state.is_over = true;
                state.panic = Some(said(&*payload));
                self.life.end();
            }
        }
    }
}

impl Shared {
    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn weight(&self) -> u64 {
        *self.dice().pick(&[1, 4, 4, 4, 16])
    }

    fn pass_time(&self, haste: u64) {
        let mut dice = self.dice();
        let turn = self.turn_us * haste;
        let micros = match dice.below(200) {
            0 => dice.below(60 * self.turn_us),
            1..60 => dice.below(2 * turn),
            _ => dice.below(turn / 2 + 1),
        };
        drop(dice);
        self.time.advance(micros);
    }
}

/// What the job holds more of than its settings allow, whoever it waits for.
fn unbounded(job: &Plan) -> Option<String> {
    let (status, settings) = (&job.control.status, &job.settings);
    let durable = status.epoch_durable.get().max(status.restored_epoch.get());
    let open = status.epoch_opened.get().saturating_sub(durable);
    if open > UNDURABLE_EPOCHS_MAX as u64 {
        return Some(format!("{open} epochs are not durable, and {UNDURABLE_EPOCHS_MAX} may be"));
    }
    // An epoch is staged as long as the ones before it do not fill the buffer, and has one row at least.
    let most = settings.staged_bytes_max / size_of::<OutputRow>() + 1;
    let sinks = job.control.measures.epochs.snapshot().sinks;
    let (name, sink) = sinks.iter().find(|(_, sink)| sink.progress.epochs_waiting > most)?;
    Some(format!("sink '{name}' holds {} epochs, and {most} may be", sink.progress.epochs_waiting))
}

/// What a panic said.
pub(crate) fn said(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "a panic".to_owned())
}

/// Hands tasks to the scheduler.
pub(crate) struct SimSpawner(pub(crate) Arc<Scheduler>);

impl Spawner for SimSpawner {
    fn spawn(&self, name: &str, task: Box<dyn Task>) -> Waker {
        let woken = Arc::new(AtomicBool::new(true));
        let (name, weight) = (name.to_owned(), self.0.shared.weight());
        let slot = Slot { name, task: Some(task), woken: woken.clone(), due_us: None, stuck_until_us: 0, weight };
        self.0.state().tasks.push(slot);
        Waker::new(move || woken.store(true, SeqCst))
    }
}
