//! The scheduler: one thing runs at a time, and the dice say which.
//!
//! Each worker lives on a thread of its own (timely wants that) and runs only while it holds the turn. Whoever ends a turn rolls the dice
//! under the lock: a worker's step, a task, a call that was on its way to a broker. Tasks run on the thread that rolled them. Between
//! two turns time moves, mostly by little, now and then by a lot. A life gives every actor a weight of its own, so that
//! in one life the binding log is slow, in another a worker, in a third a sink.

use crate::broker::SimBroker;
use crate::clock::SimTime;
use crate::dice::Dice;
use crate::life::Life;
use crate::trace::Trace;
use dataflow_core::{Spawner, Task, TaskState, Waker};
use dataflow_runtime::Control;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Turns of a life after which it counts as stuck: several times what the longest takes.
const TURNS_MAX: u64 = 200_000;
/// Turns that an ending waits for a moment that suits it.
const PATIENCE: u64 = 3_000;
/// Turns without a task's run after which the job waits for time to pass, and time passes faster, so that half a minute of silence does
/// not take a hundred thousand turns.
const QUIET: u64 = 80;
/// How much faster at most.
const HASTE: u64 = 30;
/// Name of the tasks that may outlive their process: what they send is on the network.
pub(crate) const STRAY: &str = "sink broker";

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
    pub(crate) brokers: Vec<Arc<SimBroker>>,
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
    weight: u64,
}

/// The scheduler of one life.
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    life: Arc<Life>,
    state: Mutex<State>,
    /// One for each worker.
    changed: Vec<Condvar>,
}

struct State {
    /// Which worker has the turn.
    turn: Option<usize>,
    running: Vec<bool>,
    worker_weights: Vec<u64>,
    tasks: Vec<Slot>,
    /// Tasks of earlier lives that are still about.
    strays: Vec<Slot>,
    control: Option<Arc<Control>>,
    ending: Ending,
    turns: u64,
    /// The last turn that was not a worker's.
    busy: u64,
    is_over: bool,
    is_stuck: bool,
    panic: Option<String>,
}

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
    /// Turns taken.
    pub(crate) turns: u64,
}

impl Scheduler {
    /// A scheduler for `workers` workers.
    pub(crate) fn new(
        shared: Arc<Shared>,
        life: Arc<Life>,
        workers: usize,
        ending: Ending,
        strays: Vec<Slot>,
    ) -> Arc<Scheduler> {
        let worker_weights = (0..workers).map(|_| shared.weight()).collect();
        let state = State {
            turn: None,
            running: vec![true; workers],
            worker_weights,
            tasks: Vec::new(),
            strays,
            control: None,
            ending,
            turns: 0,
            busy: 0,
            is_over: false,
            is_stuck: false,
            panic: None,
        };
        let changed = (0..workers).map(|_| Condvar::new()).collect();
        Arc::new(Scheduler { shared, life, state: Mutex::new(state), changed })
    }

    /// Lets the workers begin.
    pub(crate) fn begin(&self, control: Arc<Control>) {
        let mut state = self.state();
        state.control = Some(control);
        let first = self.shared.roll(state.running.len() as u64) as usize;
        state.turn = Some(first);
        self.changed[first].notify_all();
    }

    /// Waits for the worker's first turn.
    pub(crate) fn enter(&self, worker: usize) {
        drop(self.wait(self.state(), worker));
    }

    /// Ends the worker's turn; comes back when it has the turn again. Whether it shall go on.
    pub(crate) fn step(&self, worker: usize) -> bool {
        loop {
            let mut state = self.state();
            if self.has_ended(&mut state) {
                return false;
            }
            let quiet = (state.turns - state.busy) / QUIET;
            self.shared.pass_time(1 + quiet.min(HASTE));
            let chosen = self.choose(&mut state);
            if !matches!(chosen, Chosen::Worker(_)) {
                state.busy = state.turns;
            }
            match chosen {
                Chosen::Worker(next) if next == worker => return true,
                Chosen::Worker(next) => {
                    state.turn = Some(next);
                    self.changed[next].notify_all();
                    return !self.wait(state, worker).is_over;
                }
                Chosen::Task(at) => self.run(state, at, |state| &mut state.tasks),
                Chosen::Stray(at) => self.run(state, at, |state| &mut state.strays),
                Chosen::Deliver(at) => drop(self.shared.brokers[at].deliver()),
            }
        }
    }

    /// The worker is gone; the turn goes to another.
    pub(crate) fn leave(&self, worker: usize, panic: Option<String>) {
        let mut state = self.state();
        state.running[worker] = false;
        if panic.is_some() {
            state.is_over = true;
            state.panic = state.panic.take().or(panic);
        }
        let Some(next) = state.running.iter().position(|running| *running) else { return };
        state.turn = Some(next);
        self.changed[next].notify_all();
    }

    /// Takes the scheduler apart once all workers are gone.
    pub(crate) fn finish(&self) -> Aftermath {
        let mut state = self.state();
        let tasks = std::mem::take(&mut state.tasks);
        let mut strays = std::mem::take(&mut state.strays);
        if self.life.has_ended() && matches!(state.ending, Ending::Strand(_)) {
            strays.extend(tasks.into_iter().filter(|slot| slot.name.starts_with(STRAY) && slot.task.is_some()));
        }
        Aftermath { strays, is_stuck: state.is_stuck, panic: state.panic.take(), turns: state.turns }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, worker: usize) -> MutexGuard<'a, State> {
        self.changed[worker]
            .wait_while(state, |state| state.turn != Some(worker))
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the life when its time has come.
    fn has_ended(&self, state: &mut State) -> bool {
        state.turns += 1;
        let turns = state.turns;
        let wants_to_commit = |slot: &Slot| slot.name.starts_with(STRAY) && slot.woken.load(SeqCst);
        let suits = |at: u64, tasks: &[Slot]| turns > at + PATIENCE || tasks.iter().any(wants_to_commit);
        match state.ending {
            Ending::Kill(at) if turns >= at => self.life.end(),
            Ending::Strand(at) if turns >= at && suits(at, &state.tasks) => self.life.strand(),
            Ending::Stop(at) if turns == at => {
                if let Some(control) = &state.control {
                    control.stop();
                }
            }
            _ => {}
        }
        state.is_stuck |= turns > TURNS_MAX;
        let failed = state.control.as_ref().is_some_and(|control| control.has_failed());
        state.is_over |= state.is_stuck || failed || self.life.has_ended();
        state.is_over
    }

    fn choose(&self, state: &mut State) -> Chosen {
        let now = self.shared.time.now_us();
        let mut dice = self.shared.dice();
        // Now and then a task is run that nobody woke: a park may always end early.
        let spurious = dice.below(1_000) == 0;
        let ready = |slot: &Slot| {
            slot.task.is_some() && (spurious || slot.woken.load(SeqCst) || slot.due_us.is_some_and(|due| due <= now))
        };
        let mut options: Vec<(u64, Chosen)> = Vec::new();
        let workers = state.running.iter().zip(&state.worker_weights).enumerate().filter(|(_, (running, _))| **running);
        options.extend(workers.map(|(at, (_, weight))| (*weight * 4, Chosen::Worker(at))));
        let tasks = state.tasks.iter().enumerate().filter(|(_, slot)| ready(slot));
        options.extend(tasks.map(|(at, slot)| (slot.weight * 4, Chosen::Task(at))));
        let strays = state.strays.iter().enumerate().filter(|(_, slot)| ready(slot));
        options.extend(strays.map(|(at, _)| (1, Chosen::Stray(at))));
        options.extend(
            self.shared
                .brokers
                .iter()
                .enumerate()
                .filter(|(_, b)| b.has_in_flight())
                .map(|(at, _)| (1, Chosen::Deliver(at))),
        );
        let mut at = dice.below(options.iter().map(|(weight, _)| weight).sum());
        drop(dice);
        for (weight, chosen) in options {
            if at < weight {
                let (what, number) = match &chosen {
                    Chosen::Worker(n) => ("worker", *n),
                    Chosen::Task(n) => ("task", *n),
                    Chosen::Stray(n) => ("stray", *n),
                    Chosen::Deliver(n) => ("broker", *n),
                };
                self.shared.trace.note(what, "", number as u64);
                return chosen;
            }
            at -= weight;
        }
        unreachable!("the weights add up")
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
    /// Rolls below `n`.
    pub(crate) fn roll(&self, n: u64) -> u64 {
        self.dice().below(n)
    }

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
        let slot = Slot { name, task: Some(task), woken: woken.clone(), due_us: None, weight };
        self.0.state().tasks.push(slot);
        Waker::new(move || woken.store(true, SeqCst))
    }
}
