//! The lives of one job over one outside world, one after the other: each is prepared, run by the scheduler, ended, and what its end does
//! to the machine is done. What the job is, and what is outside of it, is a [`Subject`]'s.

use crate::clock::{SimClock, SimRandom};
use crate::dice::{Dice, Purpose};
use crate::life::Life;
use crate::report::Report;
use crate::rot::Rot;
use crate::scenario::LifePlan;
use crate::scheduler::{Aftermath, Ending, Scheduler, Service, Shared, SimSpawner, Slot};
use crate::storage::{Graveyard, SimStorage};
use crate::trace::Trace;
use crate::{clock::SimTime, workers};
use dataflow_core::{Environment, Error, Sink, Source, Spawner, Storage, TableSink, Task, Waker};
use dataflow_runtime::plan::{BINDINGS, JobSetup, TableContent};
use dataflow_runtime::{JobScope, Plan, RuntimeSettings, prepare};
use dataflow_state::backend::BackendKind;
use dataflow_state::binding_log::{self, Tail};
use dataflow_state::storage::MemoryStorage;
use dataflow_state::table::TableSettings;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The job's name.
pub(crate) const JOB: &str = "simulated";
/// Lives that a run may have beyond those that its scenario ends, and beyond those that ended because something was away.
const MORE_LIVES_MAX: usize = 4;
/// Lives in a row that may end because something was away.
const AWAY_MAX: u32 = 200;
/// How long whoever watches the process waits before it starts it anew after such an end.
const WATCH_US: u64 = 500_000;

/// How a job builds its graph.
pub(crate) type Build = Box<dyn Fn(&mut JobScope<'_>) -> dataflow_core::Result<()>>;

/// A job wired for one life.
pub(crate) struct Wired {
    pub(crate) sources: Vec<Arc<dyn Source>>,
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) table_sinks: Vec<Arc<dyn TableSink>>,
    pub(crate) lookups: Vec<TableContent>,
    pub(crate) build: Build,
}

/// How a life ended.
enum Lived {
    /// The input has ended, and all of it is delivered.
    Finished,
    /// Early.
    Ended,
    /// Because something outside was away.
    Away,
}

/// A job and what is outside of it.
pub(crate) trait Subject {
    /// Settings of the job.
    fn settings(&self) -> (RuntimeSettings, TableSettings);

    /// The job as one life runs it.
    fn wire(&self, life: &Arc<Life>, storage: &Arc<dyn Storage>, environment: &Environment) -> Result<Wired, String>;

    /// The folders in which a bit may flip between two lives.
    fn rots(&self) -> &'static [&'static str];

    /// A life has come past its recovery.
    fn began(&mut self, _: &Plan) {}

    /// Whether a life may end with this error.
    fn explains(&mut self, error: &Error) -> bool;

    /// All of the input is delivered; there is one more life at most.
    fn is_over(&mut self) {}

    /// A life is about to end, on this disk; `began` says whether it came past its recovery.
    fn before_end(&mut self, disk: &MemoryStorage, plan: &LifePlan, life: &Life, began: bool) -> Result<(), String>;

    /// It has ended.
    fn after_end(&mut self, disk: &MemoryStorage, plan: &LifePlan, dice: &mut Dice) -> Result<(), String>;
}

/// The lives of a job and the machine that they are on.
pub(crate) struct World<S> {
    pub(crate) subject: S,
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: MemoryStorage,
    pub(crate) graveyard: Graveyard,
    pub(crate) report: Report,
    random: Arc<SimRandom>,
    crash_dice: Dice,
    rot_dice: Dice,
    strays: Vec<Slot>,
    workers_before: usize,
}

/// Time, trace and dice of a run.
pub(crate) fn shared(
    seed: u64,
    turn_us: u64,
    services: impl FnOnce(&Arc<Trace>, &Arc<SimTime>) -> Vec<Arc<dyn Service>>,
) -> Arc<Shared> {
    let (trace, time) = (Arc::new(Trace::new()), Arc::new(SimTime::default()));
    let services = services(&trace, &time);
    Arc::new(Shared { time, trace, dice: Mutex::new(Dice::new(seed, Purpose::Schedule)), services, turn_us })
}

/// The environment of whoever looks at the world when all lives are over.
pub(crate) fn calm(shared: &Arc<Shared>) -> Environment {
    struct NoTasks;
    impl Spawner for NoTasks {
        fn spawn(&self, name: &str, _: Box<dyn Task>) -> Waker {
            unreachable!("nobody who only looks starts the task '{name}'")
        }
    }
    let clock = SimClock { time: shared.time.clone(), off_us: 0 };
    let random = SimRandom(Mutex::new(Dice::new(0, Purpose::Identity)));
    Environment { clock: Arc::new(clock), random: Arc::new(random), spawner: Arc::new(NoTasks) }
}

impl<S: Subject> World<S> {
    /// A world in which nothing has happened yet.
    pub(crate) fn new(seed: u64, shared: Arc<Shared>, subject: S) -> World<S> {
        World {
            subject,
            shared,
            disk: MemoryStorage::new(),
            graveyard: Graveyard::default(),
            report: Report::default(),
            random: Arc::new(SimRandom(Mutex::new(Dice::new(seed, Purpose::Identity)))),
            crash_dice: Dice::new(seed, Purpose::Crash),
            rot_dice: Dice::new(seed, Purpose::Rot),
            strays: Vec::new(),
            workers_before: 0,
        }
    }

    /// Lives until the input has ended and all of it is delivered, and one more if asked for.
    pub(crate) fn run(&mut self, lives: &[LifePlan], last: &LifePlan, once_more: bool) -> Result<(), String> {
        let more = std::iter::repeat_n(last, MORE_LIVES_MAX);
        let mut is_finished = false;
        for plan in lives.iter().chain(more) {
            is_finished = self.live_while_away(plan).map_err(|what| format!("life {}: {what}", self.report.lives))?;
            if is_finished {
                break;
            }
        }
        if !is_finished {
            return Err(format!("the job does not come to its end within {} lives", self.report.lives));
        }
        if once_more {
            self.subject.is_over();
            self.live_while_away(last).map_err(|what| format!("the life after the end: {what}"))?;
        }
        Ok(())
    }

    /// One life, and as many before it as end because something outside is away.
    fn live_while_away(&mut self, plan: &LifePlan) -> Result<bool, String> {
        let mut plan = plan.clone();
        for _ in 0..AWAY_MAX {
            match self.live(&plan)? {
                Lived::Away => {
                    self.shared.time.advance(WATCH_US);
                    plan.fuse = None; // burnt: a call that fails once does not fail each time
                }
                Lived::Finished => return Ok(true),
                Lived::Ended => return Ok(false),
            }
        }
        Err(format!("{AWAY_MAX} lives ended because something was away"))
    }

    /// One life, and what its end does to the disk.
    fn live(&mut self, plan: &LifePlan) -> Result<Lived, String> {
        let life = Life::new(self.shared.trace.clone(), plan.fuse.clone(), plan.room);
        let strays = std::mem::take(&mut self.strays);
        let scheduler = Scheduler::new(self.shared.clone(), life.clone(), plan, strays);
        self.shared.trace.note("life", "", plan.workers as u64);
        self.report.lives += 1;
        self.report.torn_tails += u64::from(self.has_torn_tail());
        let rot = if plan.rot { Rot::set_in(&self.disk, self.subject.rots(), &mut self.rot_dice) } else { None };
        let (setup, build) = self.setup(plan, &life, &scheduler)?;
        let prepared = prepare(setup);
        let began = prepared.is_ok();
        let (mut reached, mut passed_over) = (String::new(), 0);
        let (failure, is_finished) = match prepared {
            Ok(job) => {
                self.subject.began(&job);
                workers::run(&job, plan.workers, &scheduler, &*build)?;
                let status = job.control.status.snapshot();
                self.report.add_status(&status);
                (reached, passed_over) = (format!("{status:?}"), status.damaged_checkpoints);
                (job.control.take_failure(), job.control.is_finished())
            }
            Err(error) => (Some(error), false),
        };
        let Aftermath { strays, is_stuck, panic, unbounded, stalled, turns } = scheduler.finish();
        self.strays = strays;
        self.report.turns += turns;
        (self.report.stalls, self.report.stuck) = (self.report.stalls + stalled.0, self.report.stuck + stalled.1);
        if let Some(panic) = panic {
            return Err(format!("panicked: {panic}"));
        }
        if is_stuck {
            return Err(format!("nothing comes of it in {turns} turns: {reached}; {plan:?}"));
        }
        if let Some(unbounded) = unbounded {
            return Err(format!("while a call was stuck {unbounded}: {reached}"));
        }
        let is_cut_short = life.has_ended() || failure.is_some();
        let mut is_away = false;
        if let Some(error) = failure.filter(|_| !life.has_ended() && !life.is_excused()) {
            let is_right = rot.as_ref().is_some_and(|rot| rot.explains(&error, passed_over));
            is_away = self.subject.explains(&error);
            if is_right {
                self.report.flips_refused += 1;
            } else if !is_away {
                let damage = rot.map_or_else(String::new, |rot| format!("; {rot}"));
                return Err(format!("{:?}: {error}{damage}", error.fault));
            }
        }
        self.count(plan, &life, began, is_cut_short);
        self.part(plan, &life, began)?;
        if let Some(rot) = rot {
            self.report.flips += 1;
            rot.turn_back(&self.disk, &self.graveyard);
        }
        Ok(match (is_cut_short, is_finished) {
            _ if is_away => Lived::Away,
            (false, true) => Lived::Finished,
            _ => Lived::Ended,
        })
    }

    /// The end of a process, and perhaps of its machine.
    fn part(&mut self, plan: &LifePlan, life: &Life, began: bool) -> Result<(), String> {
        self.subject.before_end(&self.disk, plan, life, began)?;
        if plan.power_loss {
            let dice = &mut self.crash_dice;
            self.report.torn_sectors += self.disk.crash(&mut |below| dice.below(below));
        } else {
            self.disk.kill();
        }
        self.shared.time.advance(plan.down_us);
        self.workers_before = plan.workers;
        self.subject.after_end(&self.disk, plan, &mut self.crash_dice)
    }

    fn count(&mut self, plan: &LifePlan, life: &Life, began: bool, is_cut_short: bool) {
        let report = &mut self.report;
        report.power_losses += u64::from(is_cut_short && plan.power_loss);
        report.kills += u64::from(is_cut_short && !plan.power_loss);
        report.ended_in_a_call += u64::from(life.blown_at().is_some() && life.has_ended());
        report.failed_calls += u64::from(life.is_excused());
        report.ended_in_recovery += u64::from(!began);
        report.disk_full += life.full();
        report.full_at_start += u64::from(!began && life.full() > 0);
        report.stops += u64::from(!is_cut_short && matches!(plan.ending, Ending::Stop(_)));
        report.strays += self.strays.len() as u64;
        report.rescaled += u64::from(began && self.workers_before > 0 && self.workers_before != plan.workers);
    }

    fn has_torn_tail(&self) -> bool {
        let from = match binding_log::extent(&self.disk, BINDINGS) {
            Ok(extent) => extent.map_or(0, |extent| extent.base),
            Err(_) => return false,
        };
        binding_log::scan(&self.disk, BINDINGS, from).is_ok_and(|scan| scan.tail != Tail::Clean)
    }

    fn setup(
        &self,
        plan: &LifePlan,
        life: &Arc<Life>,
        scheduler: &Arc<Scheduler>,
    ) -> Result<(JobSetup, Build), String> {
        let storage: Arc<dyn Storage> =
            Arc::new(SimStorage { disk: self.disk.clone(), life: life.clone(), graveyard: self.graveyard.clone() });
        let clock = SimClock { time: self.shared.time.clone(), off_us: plan.off_us };
        let environment = Environment {
            clock: Arc::new(clock),
            random: self.random.clone(),
            spawner: Arc::new(SimSpawner(scheduler.clone())),
        };
        let Wired { sources, sinks, table_sinks, lookups, build } = self.subject.wire(life, &storage, &environment)?;
        let (settings, tables) = self.subject.settings();
        let setup = JobSetup {
            name: JOB.into(),
            fingerprint: "simulated".into(),
            settings,
            environment,
            storage,
            live: PathBuf::from("unused by the heap backend"),
            backend: BackendKind::Heap,
            tables,
            workers: plan.workers,
            sources,
            sinks,
            table_sinks,
            lookups,
            recorded: None,
        };
        Ok((setup, build))
    }
}
