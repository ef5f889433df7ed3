//! A run of the login job: its traffic, registry, brokers and logs around its lives, and the check of what came out.

use crate::broker::{SimBroker, SimCluster};
use crate::check::{Delivered, check, of_local_log, still_there};
use crate::dice::{Dice, Purpose};
use crate::graph::{self, GEO, Routes, SOURCE, TOPICS};
use crate::life::Life;
use crate::lives::{self, Subject, Wired, World};
use crate::registry::{GRACE, SimRegistry, SimRegistryClient};
use crate::report::Report;
use crate::scenario::{LifePlan, OUT, Scenario, SinkPlan};
use crate::scheduler::Service;
use crate::source::OutsideLog;
use crate::traffic::{GEOGRAPHY, Traffic};
use dataflow_connectors::decode::registry::Schemas;
use dataflow_connectors::kafka_settings::Delivery;
use dataflow_connectors::sink::kafka::{KafkaSink, Protocol};
use dataflow_connectors::sink::local_log::{LocalLogSettings, LocalLogSink};
use dataflow_core::{Environment, Error, Sink, SourceId, Storage, TopicId};
use dataflow_runtime::RuntimeSettings;
use dataflow_runtime::plan::{BINDINGS, CHECKPOINTS, TableContent};
use dataflow_state::storage::MemoryStorage;
use dataflow_state::table::TableSettings;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// The folder of the schema store.
const SCHEMAS: &str = "schemas";

/// Runs a seed.
pub(crate) fn run(seed: u64) -> Result<Report, String> {
    let scenario = Scenario::new(seed);
    let traffic = Traffic::new(seed, &scenario.traffic);
    let mut brokers = Brokers::new();
    let shared = lives::shared(seed, scenario.turn_us, |trace, time| {
        let names = scenario.sinks.iter().filter(|sink| sink.is_broker).map(|sink| sink.name);
        let (percent, faults) = (scenario.broker_fault_percent, scenario.broker_faults);
        brokers.extend(names.map(|name| (name, SimBroker::new(seed, trace.clone(), time.clone(), percent, faults))));
        brokers.values().map(|broker| broker.clone() as Arc<dyn Service>).collect()
    });
    let time = shared.time.clone();
    let logins = Logins {
        registry: SimRegistry::new(seed, time.clone(), &scenario),
        log: OutsideLog::new(
            SOURCE,
            Dice::new(seed, Purpose::Source),
            traffic.partitions.clone(),
            time,
            scenario.retention,
            scenario.outages.clone(),
        ),
        scenario: scenario.clone(),
        brokers,
        is_unproven: false,
        seen: Delivered::new(),
    };
    let mut world = World::new(seed, shared, logins);
    world.run(&scenario.lives, &scenario.last, scenario.once_more)?;
    let World { subject: Logins { log, registry, brokers, .. }, shared, disk, graveyard, mut report, .. } = world;
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

/// Brokers by the name of their sink.
type Brokers = BTreeMap<&'static str, Arc<SimBroker>>;

/// The login job and what is outside of it.
struct Logins {
    scenario: Scenario,
    log: Arc<OutsideLog>,
    registry: Arc<SimRegistry>,
    brokers: Brokers,
    /// What the local log shows may not be on the disk: a life ended within a call, and none has begun since.
    is_unproven: bool,
    /// What a consumer of the local log saw before the life's end.
    seen: Delivered,
}

impl Logins {
    fn sink(&self, sink: &SinkPlan, life: &Arc<Life>, storage: &Arc<dyn Storage>) -> Result<Box<dyn Sink>, String> {
        let scenario = &self.scenario;
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
    }

    fn delivered_locally(&self, disk: &MemoryStorage) -> Result<Delivered, String> {
        let logs = self.scenario.sinks.iter().filter(|sink| !sink.is_broker);
        logs.map(|sink| of_local_log(sink, disk)).try_fold(Delivered::new(), |mut all, one| {
            all.extend(one?);
            Ok(all)
        })
    }
}

impl Subject for Logins {
    fn settings(&self) -> (RuntimeSettings, TableSettings) {
        (self.scenario.settings.clone(), self.scenario.tables)
    }

    fn wire(&self, life: &Arc<Life>, storage: &Arc<dyn Storage>, environment: &Environment) -> Result<Wired, String> {
        let sinks = self.scenario.sinks.iter().map(|sink| self.sink(sink, life, storage)).collect::<Result<_, _>>()?;
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(GEOGRAPHY.as_bytes()).as_bytes()[..16]);
        let schemas = self.scenario.traffic.avro.then(|| {
            let client = SimRegistryClient { registry: self.registry.clone(), life: life.clone() };
            Schemas::asking(SourceId(0), SOURCE, storage.clone(), Some((Box::new(client), GRACE)), environment)
        });
        let (emit, routes) = (self.scenario.emit, routes(&self.scenario));
        Ok(Wired {
            sources: vec![Arc::new(self.log.source(life.clone()))],
            sinks,
            table_sinks: Vec::new(),
            lookups: vec![TableContent { name: GEO.into(), hash, bytes: GEOGRAPHY.as_bytes().into() }],
            build: Box::new(move |job| graph::build(job, emit, &routes, schemas.as_ref())),
        })
    }

    fn rots(&self) -> &'static [&'static str] {
        &[BINDINGS, BINDINGS, CHECKPOINTS, CHECKPOINTS, SCHEMAS]
    }

    fn explains(&mut self, _: &Error) -> bool {
        false
    }

    fn before_end(&mut self, disk: &MemoryStorage, plan: &LifePlan, life: &Life, began: bool) -> Result<(), String> {
        // Between the write and the sync of a commits line a consumer may be shown what a failing machine would lose.
        let is_between = life.blown_at().is_some_and(|at| at.contains(OUT)) || self.is_unproven && !began;
        self.is_unproven = is_between && !plan.power_loss;
        self.seen = if is_between { Delivered::new() } else { self.delivered_locally(disk)? };
        Ok(())
    }

    /// What a consumer saw before, it sees after.
    fn after_end(&mut self, disk: &MemoryStorage, _: &LifePlan, _: &mut Dice) -> Result<(), String> {
        still_there(&self.seen, &self.delivered_locally(disk)?)
    }
}

/// Which sink takes which topic.
fn routes(scenario: &Scenario) -> Routes {
    let of = |sink: &SinkPlan| {
        let name = sink.name.to_owned();
        let ranked = sink.topics.iter().enumerate();
        ranked.map(move |(rank, topic)| (TOPICS[*topic], (name.clone(), TopicId(rank as u16)))).collect::<Vec<_>>()
    };
    scenario.sinks.iter().flat_map(of).collect()
}
