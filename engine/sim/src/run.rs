//! A run: the lives of one job over one outside world, from the first start until its input is bound as final and delivered, and
//! the check of what came out.

use crate::broker::{SimBroker, SimCluster};
use crate::check::{Delivered, check, of_local_log, still_there};
use crate::clock::{SimClock, SimRandom, SimTime};
use crate::dice::{Dice, Purpose};
use crate::graph::{self, GEO, Routes, TOPICS};
use crate::life::Life;
use crate::registry::{GRACE, SimRegistry, SimRegistryClient};
use crate::report::{Failure, Report};
use crate::rot::Rot;
use crate::scenario::{LifePlan, OUT, Scenario};
use crate::scheduler::{Aftermath, Ending, Scheduler, Shared, SimSpawner, Slot, said};
use crate::source::{OutsideLog, SOURCE};
use crate::storage::{Graveyard, SimStorage};
use crate::trace::Trace;
use crate::traffic::{GEOGRAPHY, Traffic};
use crate::workers;
use dataflow_connectors::decode::registry::Schemas;
use dataflow_connectors::kafka_settings::Delivery;
use dataflow_connectors::sink::kafka::{KafkaSink, Protocol};
use dataflow_connectors::sink::local_log::{LocalLogSettings, LocalLogSink};
use dataflow_core::{Environment, Error, Sink, SourceId, Storage, TopicId};
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

/// The job's name.
pub(crate) const JOB: &str = "simulated";
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
    let World { shared, disk, graveyard, brokers, mut report, log, registry, .. } = world;
    let verdict = check(&scenario, &traffic, &disk, &graveyard, &brokers)?;
    verdict.note(&shared.trace, &mut report);
    report.deleted = log.deleted.load(SeqCst);
    report.source_away = log.away.load(SeqCst);
    report.partitions_added = log.added.load(SeqCst);
    report.schemas_asked = registry.asked.load(SeqCst);
    report.registry_away = registry.away.load(SeqCst);
    report.schemas_too_early = registry.too_early.load(SeqCst);
    report.schemas_senseless = registry.senseless.load(SeqCst);
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
    registry: Arc<SimRegistry>,
    /// By sink name.
    brokers: BTreeMap<&'static str, Arc<SimBroker>>,
    random: Arc<SimRandom>,
    crash_dice: Dice,
    rot_dice: Dice,
    strays: Vec<Slot>,
    workers_before: usize,
    /// What the local log shows may not be on the disk: a life ended within a call, and none has begun since.
    is_unproven: bool,
    report: Report,
}

impl World {
    fn new(seed: u64, scenario: Scenario, traffic: &Traffic) -> World {
        let (trace, time) = (Arc::new(Trace::new()), Arc::new(SimTime::default()));
        let names = scenario.sinks.iter().filter(|sink| sink.is_broker).map(|sink| sink.name);
        let (percent, faults) = (scenario.broker_fault_percent, scenario.broker_faults);
        let brokers: BTreeMap<_, _> =
            names.map(|name| (name, SimBroker::new(seed, trace.clone(), time.clone(), percent, faults))).collect();
        let shared = Shared {
            time: time.clone(),
            trace,
            dice: Mutex::new(Dice::new(seed, Purpose::Schedule)),
            brokers: brokers.values().cloned().collect(),
            turn_us: scenario.turn_us,
        };
        World {
            registry: SimRegistry::new(seed, time.clone(), &scenario),
            log: OutsideLog::new(seed, traffic, time, &scenario),
            scenario,
            shared: Arc::new(shared),
            disk: MemoryStorage::new(),
            graveyard: Graveyard::default(),
            brokers,
            random: Arc::new(SimRandom(Mutex::new(Dice::new(seed, Purpose::Identity)))),
            crash_dice: Dice::new(seed, Purpose::Crash),
            rot_dice: Dice::new(seed, Purpose::Rot),
            strays: Vec::new(),
            workers_before: 0,
            is_unproven: false,
            report: Report::default(),
        }
    }

    /// One life, and what its end does to the disk. Whether the input has ended and all of it is delivered.
    fn live(&mut self, plan: &LifePlan) -> Result<bool, String> {
        let life = Life::new(self.shared.trace.clone(), plan.fuse.clone(), plan.room);
        let strays = std::mem::take(&mut self.strays);
        let scheduler = Scheduler::new(self.shared.clone(), life.clone(), plan, strays);
        self.shared.trace.note("life", "", plan.workers as u64);
        self.report.lives += 1;
        self.report.torn_tails += u64::from(self.has_torn_tail());
        let rot = if plan.rot { Rot::set_in(&self.disk, &mut self.rot_dice) } else { None };
        let (setup, schemas) = self.setup(plan, &life, &scheduler)?;
        let prepared = prepare(setup);
        let began = prepared.is_ok();
        let (mut reached, mut passed_over) = (String::new(), 0);
        let (failure, is_finished) = match prepared {
            Ok(job) => {
                self.execute(&job, plan.workers, &scheduler, schemas.as_ref())?;
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
            return Err(format!("nothing comes of it in {turns} turns: {reached}; {plan:?}; {:?}", self.scenario));
        }
        if let Some(unbounded) = unbounded {
            return Err(format!("while a call was stuck {unbounded}: {reached}"));
        }
        let is_cut_short = life.has_ended() || failure.is_some();
        if let Some(error) = failure.filter(|_| !life.has_ended() && !life.is_excused()) {
            let is_right = rot.as_ref().is_some_and(|rot| rot.explains(&error, passed_over));
            if !is_right {
                let damage = rot.map_or_else(String::new, |rot| format!("; {rot}"));
                return Err(format!("{}{damage}", said_in_full(&error)));
            }
            self.report.flips_refused += 1;
        }
        self.count(plan, &life, began, is_cut_short);
        self.part(plan, &life, began)?;
        if let Some(rot) = rot {
            self.report.flips += 1;
            rot.turn_back(&self.disk, &self.graveyard);
        }
        Ok(!is_cut_short && is_finished)
    }

    /// The end of a process, and perhaps of its machine. What a consumer saw before, it sees after.
    fn part(&mut self, plan: &LifePlan, life: &Life, began: bool) -> Result<(), String> {
        // Between the write and the sync of a commits line a consumer may be shown what a failing machine would lose.
        let is_between = life.blown_at().is_some_and(|at| at.contains(OUT)) || self.is_unproven && !began;
        self.is_unproven = is_between && !plan.power_loss;
        let seen = if is_between { Delivered::new() } else { self.delivered_locally()? };
        if plan.power_loss {
            let dice = &mut self.crash_dice;
            self.report.torn_sectors += self.disk.crash(&mut |below| dice.below(below));
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
    ) -> Result<(JobSetup, Option<Arc<Schemas>>), String> {
        let scenario = &self.scenario;
        let storage: Arc<dyn Storage> =
            Arc::new(SimStorage { disk: self.disk.clone(), life: life.clone(), graveyard: self.graveyard.clone() });
        let sink = |sink: &crate::scenario::SinkPlan| -> Result<Box<dyn Sink>, String> {
            let topics = sink.topics.iter().map(|topic| TOPICS[*topic].to_owned()).collect();
            if let Some(broker) = self.brokers.get(sink.name) {
                let cluster = SimCluster { broker: broker.clone(), life: life.clone() };
                let protocol = Protocol { delivery: Delivery::ExactlyOnce, slots: scenario.slots, start_over: false };
                let sink = KafkaSink::over(sink.name, cluster, protocol, topics).map_err(|e| e.to_string())?;
                return Ok(Box::new(sink));
            }
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
        let environment = Environment {
            clock: Arc::new(clock),
            random: self.random.clone(),
            spawner: Arc::new(SimSpawner(scheduler.clone())),
        };
        let schemas = scenario.traffic.avro.then(|| {
            let client = SimRegistryClient { registry: self.registry.clone(), life: life.clone() };
            Schemas::asking(SourceId(0), SOURCE, storage.clone(), Some((Box::new(client), GRACE)), &environment)
        });
        let setup = JobSetup {
            name: JOB.into(),
            fingerprint: "simulated".into(),
            settings: scenario.settings.clone(),
            environment,
            storage,
            live: PathBuf::from("unused by the heap backend"),
            backend: BackendKind::Heap,
            tables: scenario.tables,
            workers: plan.workers,
            sources: vec![Arc::new(self.log.source(life.clone()))],
            sinks,
            table_sinks: Vec::new(),
            lookups: vec![TableContent { name: GEO.into(), hash, bytes: GEOGRAPHY.as_bytes().into() }],
            recorded: None,
        };
        Ok((setup, schemas))
    }

    /// Runs the workers until all have ended or the life is over.
    fn execute(
        &self,
        job: &Arc<Plan>,
        workers: usize,
        scheduler: &Arc<Scheduler>,
        schemas: Option<&Arc<Schemas>>,
    ) -> Result<(), String> {
        let (emit, routes) = (self.scenario.emit, routes(&self.scenario));
        let build = move |scope: &mut dataflow_runtime::JobScope<'_>| graph::build(scope, emit, &routes, schemas);
        scheduler.begin(job.clone());
        let mut workers = workers::connected(workers)?;
        let mut begun = vec![false; workers.len()];
        while let Some(next) = scheduler.next_worker() {
            let worker = &mut workers[next];
            let ran = catch_unwind(AssertUnwindSafe(|| {
                if !std::mem::replace(&mut begun[next], true) {
                    threads::install(worker, job, &build);
                } else {
                    worker.step();
                }
            }));
            match ran {
                Ok(()) if worker.has_dataflows() => {}
                Ok(()) => scheduler.leave(next),
                Err(payload) => scheduler.panicked(said(&*payload)),
            }
        }
        // What a panic left behind may panic again; the first one is told.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            for worker in &mut workers {
                worker.installed_dataflows().into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
            }
        }));
        Ok(())
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
