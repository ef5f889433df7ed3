//! What a seed stands for: traffic, settings, sinks, and the lives of the job with the way in which each ends.

use crate::broker::PATH;
use crate::dice::{Dice, Purpose};
use crate::life::{Blow, Fuse};
use crate::scheduler::Ending;
use crate::traffic::TrafficShape;
use dataflow_operators::window::keyed_history::Emit;
use dataflow_runtime::RuntimeSettings;
use dataflow_state::table::TableSettings;

/// Folder of the local log in the job's storage.
pub(crate) const OUT: &str = "out";

/// A sink of the job.
#[derive(Clone, Debug)]
pub(crate) struct SinkPlan {
    /// Its name.
    pub(crate) name: &'static str,
    /// Which of [`crate::graph::TOPICS`] it takes.
    pub(crate) topics: &'static [usize],
    /// Whether it is a broker; else a local log.
    pub(crate) is_broker: bool,
}

/// A life of the job.
#[derive(Clone, Debug)]
pub(crate) struct LifePlan {
    pub(crate) workers: usize,
    pub(crate) ending: Ending,
    pub(crate) fuse: Option<Fuse>,
    /// Whether its end takes the machine along, or only the process.
    pub(crate) power_loss: bool,
    /// How long nothing runs afterwards.
    pub(crate) down_us: u64,
    /// How far its wall clock is off.
    pub(crate) off_us: i64,
    /// A call that takes long.
    pub(crate) stall: Option<Stall>,
    /// Bytes that the disk still takes.
    pub(crate) room: Option<u64>,
    /// Whether a bit of what lies on the disk has flipped before it began.
    pub(crate) rot: bool,
}

/// A call that a task makes and that does not return for long.
#[derive(Clone, Debug)]
pub(crate) struct Stall {
    /// What the names of the tasks begin with.
    pub(crate) task: &'static str,
    /// It is the first one from this turn on.
    pub(crate) at: u64,
    /// For how long; `None`: until the process is killed for it.
    pub(crate) lasts_us: Option<u64>,
}

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) traffic: TrafficShape,
    pub(crate) settings: RuntimeSettings,
    pub(crate) emit: Emit,
    pub(crate) sinks: Vec<SinkPlan>,
    pub(crate) segment_bytes: u64,
    pub(crate) commits_bytes: u64,
    pub(crate) tables: TableSettings,
    pub(crate) retention: bool,
    pub(crate) broker_fault_percent: u64,
    /// Fewer than the attempts of a sink to settle one commit.
    pub(crate) broker_faults: u32,
    /// Producers that take turns.
    pub(crate) slots: u32,
    pub(crate) turn_us: u64,
    /// Lives that may end early; the one after them runs to the end.
    pub(crate) lives: Vec<LifePlan>,
    pub(crate) last: LifePlan,
    /// Microseconds of the simulation from and to which the source brings nothing.
    pub(crate) outages: Vec<(u64, u64)>,
    /// Whether the job is started once more after its input has ended.
    pub(crate) once_more: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn new(seed: u64) -> Scenario {
        let dice = &mut Dice::new(seed, Purpose::Scenario);
        let backlog = dice.percent(60);
        let long = dice.percent(20);
        let span_us = match (backlog, long) {
            (_, true) => dice.range(60_000_000, 120_000_000),
            (true, _) => dice.range(500_000, 8_000_000),
            (false, _) => dice.range(8_000_000, 40_000_000),
        };
        let turns = dice.range(1_000, 3_000);
        let trouble = &mut Dice::new(seed, Purpose::Trouble);
        let traffic = TrafficShape {
            partitions: dice.range(1, 5) as u32,
            logins: dice.range(30, 160) as usize,
            backlog,
            span_us,
            grain_us: *dice.pick(&[1, 1_000, 500_000, 1_000_000]),
            late: *dice.pick(&[0, 3, 10]),
            twice: *dice.pick(&[0, 5, 15]),
            poison: *dice.pick(&[0, 3, 10]),
            silent: dice.percent(20),
            appearing: dice.percent(40),
            avro: trouble.percent(50),
        };
        let faulty = *dice.pick(&[0, 1, 2, 2, 3, 4, 6]);
        let mut lives: Vec<LifePlan> = (0..faulty).map(|_| life(dice, turns, faulty, &PATHS)).collect();
        let mut last = LifePlan { ending: Ending::Natural, fuse: None, ..life(dice, turns, 1, &PATHS) };
        lives.iter_mut().for_each(|life| troubled(life, trouble, turns, &TASKS));
        last.stall = trouble.percent(20).then(|| stall(trouble, turns, false, &TASKS));
        let settings = settings(dice, span_us / 1_000);
        Scenario {
            settings,
            emit: if dice.percent(70) { Emit::Eager } else { Emit::Final },
            sinks: sinks(dice),
            segment_bytes: *dice.pick(&[600, 5_000, 1 << 26]),
            commits_bytes: *dice.pick(&[700, 4_000, 1 << 18]),
            tables: *dice.pick(&[
                TableSettings { cache_bytes: 0, dirty_bytes: 0 },
                TableSettings { cache_bytes: 4_000, dirty_bytes: 2_000 },
                TableSettings { cache_bytes: 1 << 26, dirty_bytes: 1 << 24 },
            ]),
            retention: dice.percent(50),
            broker_fault_percent: *dice.pick(&[0, 3, 10, 25]),
            broker_faults: dice.range(0, 7) as u32,
            slots: trouble.range(1, 4) as u32,
            turn_us: span_us / turns + 1,
            outages: outages(trouble, span_us),
            traffic,
            lives,
            last,
            once_more: dice.percent(20),
        }
    }
}

/// Settings for traffic of `span_ms`: what a long one has more of than a short one is records, not empty epochs and checkpoints.
pub(crate) fn settings(dice: &mut Dice, span_ms: u64) -> RuntimeSettings {
    RuntimeSettings {
        tick_min_ms: *dice.pick(&[1, 5, 20, 50]),
        tick_max_ms: *dice.pick(&[20, 100, 300]),
        tick_idle_ms: *dice.pick(&[200, 1_000, 3_000]).max(&(span_ms / 60)),
        epoch_max_records: *dice.pick(&[1, 5, 20, 50_000, 50_000]),
        open_epochs_max: *dice.pick(&[2, 3, 6, 16]),
        max_drift_ms: *dice.pick(&[1_000, 60_000, 1 << 40]),
        checkpoint_interval_ms: *dice.pick(&[50, 300, 2_000, 10_000]).max(&(span_ms / 50)),
        checkpoints_kept: *dice.pick(&[1, 2, 3]),
        staged_bytes_max: *dice.pick(&[2_000, 1 << 26]),
        bindings_segment_bytes: *dice.pick(&[300, 2_000, 1 << 26]),
        bindings_retain_bytes: *dice.pick(&[1_000, 1 << 33]),
        bindings_retain_hours: *dice.pick(&[0, 720]),
        ..RuntimeSettings::default()
    }
}

fn sinks(dice: &mut Dice) -> Vec<SinkPlan> {
    let sink = |name, topics, is_broker| SinkPlan { name, topics, is_broker };
    match dice.below(4) {
        0 => vec![sink("alerts", &[0, 1, 2, 3], false)],
        1 | 2 => vec![sink("broker", &[0, 1, 2, 3], true)],
        _ => vec![sink("broker", &[1, 0], true), sink("rest", &[2, 3], false)],
    }
}

/// A life, one of so many; `paths` are those at whose calls it may end.
pub(crate) fn life(dice: &mut Dice, turns: u64, lives: u64, paths: &[&'static str]) -> LifePlan {
    let at = dice.below(3 * turns / (lives + 1) + 1);
    let (ending, fuse) = match dice.below(10) {
        0 => (Ending::Stop(at), None),
        1..=3 => (Ending::Kill(at), None),
        4 => (Ending::Strand(at), None),
        _ => (Ending::Natural, Some(fuse(dice, paths))),
    };
    LifePlan {
        workers: dice.range(1, 3) as usize,
        ending,
        fuse,
        power_loss: dice.percent(60),
        down_us: *dice.pick(&[0, 100_000, 2_000_000]),
        off_us: dice.below(20_000_000) as i64 - 10_000_000,
        stall: None,
        room: None,
        rot: false,
    }
}

/// Troubles of a life that may end early; `tasks` are those whose calls may take long.
pub(crate) fn troubled(life: &mut LifePlan, dice: &mut Dice, turns: u64, tasks: &[&'static str]) {
    life.stall = dice.percent(20).then(|| stall(dice, turns, true, tasks));
    // Little enough that the next life may find the disk full still, and end before it has begun.
    let most = *dice.pick(&[300, 5_000, 60_000]);
    life.room = dice.percent(12).then(|| dice.below(most));
    life.rot = dice.percent(15);
}

/// The tasks whose calls may take long.
const TASKS: [&str; 3] = ["bindings", "checkpoints", "sink"];

/// A call of one of `tasks` that takes long.
pub(crate) fn stall(dice: &mut Dice, turns: u64, may_last: bool, tasks: &[&'static str]) -> Stall {
    Stall {
        task: tasks[dice.below(tasks.len() as u64) as usize],
        at: dice.below(turns / 2),
        lasts_us: (!may_last || dice.percent(60)).then(|| dice.range(100_000, 60_000_000)),
    }
}

/// Times in which something is away.
pub(crate) fn outages(dice: &mut Dice, span_us: u64) -> Vec<(u64, u64)> {
    let count = *dice.pick(&[0, 0, 0, 1, 2]);
    let mut outage = || {
        let from = dice.below(span_us);
        (from, from + dice.range(1_000, span_us / 3))
    };
    (0..count).map(|_| outage()).collect()
}

/// The paths at whose calls a life may end.
const PATHS: [&str; 7] = ["", "bindings", "bindings", "checkpoints", OUT, OUT, PATH];

fn fuse(dice: &mut Dice, paths: &[&'static str]) -> Fuse {
    let path = *dice.pick(paths);
    let most = *dice.pick(&[15, 100, 600]);
    Fuse {
        path,
        left: dice.below(most),
        blow: *dice.pick(&[Blow::Before, Blow::Before, Blow::After, Blow::After, Blow::Fail]),
    }
}
