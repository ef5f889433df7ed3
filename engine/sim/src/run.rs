//! A run: the lives of one job over one outside world, from the first start until its input is bound as final and delivered, and
//! the check of what came out.

use crate::broker::{BrokerSink, SimBroker};
use crate::check::{Delivered, check, of_local_log, still_there};
use crate::clock::{SimClock, SimRandom, SimTime};
use crate::dice::{Dice, Purpose};
use crate::graph::{self, GEO, Routes, TOPICS};
use crate::life::Life;
use crate::report::{Failure, Report};
use crate::scenario::{LifePlan, OUT, Scenario};
use crate::scheduler::{Aftermath, Ending, Scheduler, Shared, SimSpawner, Slot, said};
use crate::source::OutsideLog;
use crate::storage::{Graveyard, SimStorage};
use crate::trace::Trace;
use crate::traffic::{GEOGRAPHY, Traffic};
use dataflow_connectors::sink::local_log::{LocalLogSettings, LocalLogSink};
use dataflow_core::{Environment, Error, Sink, Storage, TopicId};
use dataflow_runtime::plan::{BINDINGS, JobSetup, TableContent};
use dataflow_runtime::{Plan, prepare, threads};
use dataflow_state::backend::BackendKind;
use dataflow_state::binding_log::{self, Tail};
use dataflow_state::storage::MemoryStorage;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use timely::communication::initialize_from;
use timely::worker::Worker;
use timely::{CommunicationConfig, WorkerConfig};

/// Lives that a run may have beyond those that its scenario ends.
const MORE_LIVES_MAX: usize = 4;

/// Runs a seed.
///
/// # Errors
/// What went wrong, with the seed.
pub fn run(seed: u64) -> Result<Report, Failure> {
    let ran = catch_unwind(|| run_world(seed));
    let ran = ran.unwrap_or_else(|payload| Err(format!("panicked: {}", said(&*payload))));
    ran.map_err(|what| Failure { seed, what })
}

fn run_world(seed: u64) -> Result<Report, String> {
    let scenario = Scenario::new(seed);
    let traffic = Traffic::new(seed, &scenario.traffic);
    let mut world = World::new(seed, scenario.clone(), &traffic);
    let more = std::iter::repeat_n(&scenario.last, MORE_LIVES_MAX);
    let mut is_finished = false;
    for (number, plan) in scenario.lives.iter().chain(more).enumerate() {
        is_finished = world.live(plan).map_err(|what| format!("life {}: {what}", number + 1))?;
        if is_finished {
            break;
        }
    }
    if !is_finished {
        return Err("the job does not come to its end within its lives".to_owned());
    }
    if scenario.once_more {
        world.live(&scenario.last).map_err(|what| format!("the life after the end: {what}"))?;
    }
    let World { shared, disk, graveyard, brokers, mut report, log, .. } = world;
    let verdict = check(&scenario, &traffic, &disk, &graveyard, &brokers)?;
    verdict.note(&shared.trace, &mut report);
    report.deleted = log.deleted.load(SeqCst);
    brokers.values().for_each(|broker| report.add_broker(&broker.counters()));
    (report.trace, report.decisions) = shared.trace.digest();
    Ok(report)
}

/// The world of a run.
struct World {
    scenario: Scenario,
    shared: Arc<Shared>,
    disk: MemoryStorage,
    graveyard: Graveyard,
    log: Arc<OutsideLog>,
    /// By sink name.
    brokers: BTreeMap<&'static str, Arc<SimBroker>>,
    random: Arc<SimRandom>,
    crash_dice: Dice,
    strays: Vec<Slot>,
    workers_before: usize,
    report: Report,
}

impl World {
    fn new(seed: u64, scenario: Scenario, traffic: &Traffic) -> World {
        let (trace, time) = (Arc::new(Trace::new()), Arc::new(SimTime::default()));
        let names = scenario.sinks.iter().filter(|sink| sink.is_broker).map(|sink| sink.name);
        let (percent, faults) = (scenario.broker_fault_percent, scenario.broker_faults);
        let brokers: BTreeMap<_, _> =
            names.map(|name| (name, SimBroker::new(seed, trace.clone(), percent, faults))).collect();
        let shared = Shared {
            time: time.clone(),
            trace,
            dice: Mutex::new(Dice::new(seed, Purpose::Schedule)),
            brokers: brokers.values().cloned().collect(),
            turn_us: scenario.turn_us,
        };
        World {
            log: OutsideLog::new(seed, traffic, time, scenario.retention),
            scenario,
            shared: Arc::new(shared),
            disk: MemoryStorage::new(),
            graveyard: Graveyard::default(),
            brokers,
            random: Arc::new(SimRandom(Mutex::new(Dice::new(seed, Purpose::Identity)))),
            crash_dice: Dice::new(seed, Purpose::Crash),
            strays: Vec::new(),
            workers_before: 0,
            report: Report::default(),
        }
    }

    /// One life, and what its end does to the disk. Whether the input has ended and all of it is delivered.
    fn live(&mut self, plan: &LifePlan) -> Result<bool, String> {
        let life = Life::new(self.shared.trace.clone(), plan.fuse.clone());
        let strays = std::mem::take(&mut self.strays);
        let scheduler = Scheduler::new(self.shared.clone(), life.clone(), plan.workers, plan.ending, strays);
        self.shared.trace.note("life", "", plan.workers as u64);
        self.report.lives += 1;
        self.report.torn_tails += u64::from(self.has_torn_tail());
        let prepared = prepare(self.setup(plan, &life, &scheduler)?);
        let began = prepared.is_ok();
        let mut reached = String::new();
        let (failure, is_finished) = match prepared {
            Ok(job) => {
                self.execute(&job, plan.workers, &scheduler)?;
                let status = job.control.status.snapshot();
                self.report.add_status(&status);
                reached = format!("{status:?}");
                (job.control.take_failure(), job.control.is_finished())
            }
            Err(error) => (Some(error), false),
        };
        let Aftermath { strays, is_stuck, panic, turns } = scheduler.finish();
        self.strays = strays;
        self.report.turns += turns;
        if let Some(panic) = panic {
            return Err(format!("panicked: {panic}"));
        }
        if is_stuck {
            return Err(format!("nothing comes of it in {turns} turns: {reached}; {plan:?}; {:?}", self.scenario));
        }
        let is_cut_short = life.has_ended() || failure.is_some();
        if let Some(error) = failure.filter(|_| !life.has_ended() && !life.is_excused()) {
            return Err(said_in_full(&error));
        }
        self.count(plan, &life, began, is_cut_short);
        self.part(plan, &life)?;
        Ok(!is_cut_short && is_finished)
    }

    /// The end of a process, and perhaps of its machine. What a consumer saw before, it sees after.
    fn part(&mut self, plan: &LifePlan, life: &Life) -> Result<(), String> {
        // Between the write and the sync of a commits line a consumer may be shown what a failing machine would lose.
        let is_between = life.blown_at().is_some_and(|at| at.contains(OUT));
        let seen = if is_between { Delivered::new() } else { self.delivered_locally()? };
        if plan.power_loss {
            let dice = &mut self.crash_dice;
            self.disk.crash(&mut |below| dice.below(below));
        } else {
            self.disk.kill();
        }
        self.shared.time.advance(plan.down_us);
        self.workers_before = plan.workers;
        still_there(&seen, &self.delivered_locally()?)
    }

    fn delivered_locally(&self) -> Result<Delivered, String> {
        let logs = self.scenario.sinks.iter().filter(|sink| !sink.is_broker);
        logs.map(|sink| of_local_log(sink, &self.disk)).try_fold(Delivered::new(), |mut all, one| {
            all.extend(one?);
            Ok(all)
        })
    }

    fn count(&mut self, plan: &LifePlan, life: &Life, began: bool, is_cut_short: bool) {
        let report = &mut self.report;
        report.power_losses += u64::from(is_cut_short && plan.power_loss);
        report.kills += u64::from(is_cut_short && !plan.power_loss);
        report.ended_in_a_call += u64::from(life.blown_at().is_some() && life.has_ended());
        report.failed_calls += u64::from(life.is_excused());
        report.ended_in_recovery += u64::from(!began);
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

    fn setup(&self, plan: &LifePlan, life: &Arc<Life>, scheduler: &Arc<Scheduler>) -> Result<JobSetup, String> {
        let scenario = &self.scenario;
        let storage: Arc<dyn Storage> =
            Arc::new(SimStorage { disk: self.disk.clone(), life: life.clone(), graveyard: self.graveyard.clone() });
        let sink = |sink: &crate::scenario::SinkPlan| -> Result<Box<dyn Sink>, String> {
            if let Some(broker) = self.brokers.get(sink.name) {
                return Ok(Box::new(BrokerSink::new(sink.name, broker.clone(), life.clone())));
            }
            let topics = sink.topics.iter().map(|topic| TOPICS[*topic].to_owned()).collect();
            let settings = LocalLogSettings {
                segment_bytes: scenario.segment_bytes,
                commits_bytes: scenario.commits_bytes,
                ..LocalLogSettings::new(sink.name, OUT, topics)
            };
            Ok(Box::new(LocalLogSink::new(storage.clone(), settings).map_err(|e| e.to_string())?))
        };
        let sinks = scenario.sinks.iter().map(sink).collect::<Result<_, _>>()?;
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(GEOGRAPHY.as_bytes()).as_bytes()[..16]);
        let clock = SimClock { time: self.shared.time.clone(), off_us: plan.off_us };
        Ok(JobSetup {
            name: "simulated".into(),
            fingerprint: "simulated".into(),
            settings: scenario.settings.clone(),
            environment: Environment {
                clock: Arc::new(clock),
                random: self.random.clone(),
                spawner: Arc::new(SimSpawner(scheduler.clone())),
            },
            storage,
            live: PathBuf::from("unused by the heap backend"),
            backend: BackendKind::Heap,
            tables: scenario.tables,
            workers: plan.workers,
            sources: vec![Arc::new(self.log.source(life.clone()))],
            sinks,
            lookups: vec![TableContent { name: GEO.into(), hash, bytes: GEOGRAPHY.as_bytes().into() }],
            recorded: None,
        })
    }

    /// Runs the workers until all are gone.
    fn execute(&self, job: &Arc<Plan>, workers: usize, scheduler: &Arc<Scheduler>) -> Result<(), String> {
        let (emit, routes) = (self.scenario.emit, routes(&self.scenario));
        let build = move |scope: &mut dataflow_runtime::JobScope<'_>| graph::build(scope, emit, &routes);
        let (builders, others) = CommunicationConfig::Process(workers).try_build()?;
        let (plan, turns) = (job.clone(), scheduler.clone());
        let guards = initialize_from(builders, others, move |allocator| {
            let index = allocator.index();
            turns.enter(index);
            let ran = catch_unwind(AssertUnwindSafe(|| {
                let mut worker = Worker::new(WorkerConfig::default(), allocator, None);
                threads::install(&mut worker, &plan, &build);
                while worker.has_dataflows() && turns.step(index) {
                    worker.step();
                }
                for dataflow in worker.installed_dataflows() {
                    worker.drop_dataflow(dataflow);
                }
            }));
            turns.leave(index, ran.err().map(|payload| said(&*payload)));
        })?;
        scheduler.begin(job.control.clone());
        guards.join().into_iter().collect()
    }
}

/// Which sink takes which topic.
fn routes(scenario: &Scenario) -> Routes {
    let of = |sink: &crate::scenario::SinkPlan| {
        let name = sink.name.to_owned();
        let ranked = sink.topics.iter().enumerate();
        ranked.map(move |(rank, topic)| (TOPICS[*topic], (name.clone(), TopicId(rank as u16)))).collect::<Vec<_>>()
    };
    scenario.sinks.iter().flat_map(of).collect()
}

fn said_in_full(error: &Error) -> String {
    format!("{:?}: {error}", error.fault)
}
