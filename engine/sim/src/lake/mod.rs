//! The lakehouse's graph under the scheduler: durable collections and views to a sink of Iceberg tables.
//!
//! ```text
//!  changes, pageviews ─► collections ─► views ─► table writers ─► files on a disk that forgets what was not synced
//!                                                    └─ intents ─► committer ─► a catalog whose answers may not come
//! ```
//!
//! The sink is the Iceberg sink as shipped: its files, manifests, snapshots and the search of a table's history. Simulated are the catalog
//! ([`catalog`], as a REST server answers), somebody else who commits to it ([`meddler`]), the disk below its folder ([`disk`]) and its pauses.

mod catalog;
mod check;
mod disk;
mod graph;
mod meddler;
mod oracle;
mod outage;
mod scenario;
mod traffic;

use crate::dice::{Dice, Purpose};
use crate::life::Life;
use crate::lives::{self, Subject, Wired, World};
use crate::report::Report;
use crate::scenario::LifePlan;
use crate::scheduler::{Ending, Service};
use crate::source::OutsideLog;
use catalog::{CatalogServer, LifeCatalog};
use dataflow_core::{Environment, Epoch, Error, OnForeignCommit, Source, Storage};
use dataflow_iceberg::{FileSettings, Ground, IcebergSink, SinkSettings, TableFormat, TableLayout, Warehouse};
use dataflow_runtime::plan::{BINDINGS, CHECKPOINTS};
use dataflow_runtime::{Plan, RuntimeSettings};
use dataflow_state::storage::MemoryStorage;
use dataflow_state::table::TableSettings;
use disk::{LakeDisk, LifeDisk};
use graph::{SINK, SOURCES};
use meddler::Meddler;
use outage::Outages;
use scenario::LakeScenario;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use traffic::LakeTraffic;

/// The folder of the checkpoints' manifests.
const MANIFESTS: &str = "checkpoints/manifests";

/// Of so many runs one reads every snapshot.
const THOROUGH: u64 = 4;

/// Runs a seed.
pub(crate) fn run(seed: u64) -> Result<Report, String> {
    let scenario = LakeScenario::new(seed);
    let traffic = LakeTraffic::new(seed, &scenario.shape);
    let mut server = None;
    let shared = lives::shared(seed, scenario.turn_us, |trace, time| {
        let outages = Outages { time: time.clone(), spans: scenario.outages[1].clone() };
        let dice = Dice::new(seed, Purpose::Catalog);
        let meddler = Meddler {
            dice: Dice::new(seed, Purpose::Meddler),
            tables: graph::VIEWS.map(check::name_of).into(),
            times: scenario.meddling,
        };
        let made = CatalogServer::new(dice, meddler, trace.clone(), outages, scenario.catalog_fault_percent);
        server = Some(made.clone());
        vec![made as Arc<dyn Service>]
    });
    let time = shared.time.clone();
    let outages = Outages { time: time.clone(), spans: scenario.outages[2].clone() };
    let logs = (0..SOURCES.len()).map(|source| {
        let dice = Dice::new(seed, [Purpose::Source, Purpose::SecondSource, Purpose::ThirdSource][source]);
        let (retention, away) = (scenario.retention, scenario.outages[0].clone());
        OutsideLog::new(SOURCES[source], dice, traffic.logs[source].clone(), time.clone(), retention, away)
    });
    let lake = Lake {
        logs: logs.collect(),
        scenario: scenario.clone(),
        server: server.expect("made with what lives share"),
        disk: Arc::new(LakeDisk { memory: MemoryStorage::new(), outages, full: Default::default() }),
        restored: BTreeMap::new(),
        met: Report::default(),
        torn_sectors: 0,
        wired: AtomicU64::new(0),
    };
    let mut world = World::new(seed, shared, lake);
    world.run(&scenario.lives, &scenario.last, scenario.once_more || scenario.meddling > 0)?;
    let World { subject: lake, shared, disk, graveyard, mut report, .. } = world;
    lake.server.calm();
    let life = Life::new(shared.trace.clone(), None, None);
    let warehouse = lake.warehouse(&life, &lives::calm(&shared)).map_err(|e| e.to_string())?;
    let mut left = check::Left {
        traffic: &traffic,
        disk: &disk,
        graveyard: &graveyard,
        tables: &lake.server.tables(),
        warehouse: &warehouse,
        layouts: &lake.layouts(TableFormat::V2),
        restored: &lake.restored,
        dice: (!seed.is_multiple_of(THOROUGH)).then(|| Dice::new(seed, Purpose::Check)),
    };
    check::check(&mut left, &shared.trace, &mut report)?;
    lake.count(&mut report);
    (report.trace, report.decisions) = shared.trace.digest();
    Ok(report)
}

/// The job and what is outside of it.
struct Lake {
    scenario: LakeScenario,
    logs: Vec<Arc<OutsideLog>>,
    server: Arc<CatalogServer>,
    disk: Arc<LakeDisk>,
    /// From which epoch each generation began.
    restored: BTreeMap<u64, Epoch>,
    /// What the lives met that the runtime does not count.
    met: Report,
    torn_sectors: u64,
    /// Lives so far.
    wired: AtomicU64,
}

impl Lake {
    fn warehouse(&self, life: &Arc<Life>, environment: &Environment) -> dataflow_core::Result<Warehouse> {
        open(&self.server, &self.disk, life, environment)
    }

    /// How the tables are laid out, some of them in parts if the scenario says so.
    fn layouts(&self, format: TableFormat) -> BTreeMap<String, TableLayout> {
        let layout = |table: &'static str| {
            let partition = graph::PARTITIONS.iter().filter(|(of, _)| self.scenario.has_partitions && *of == table);
            let partition = partition.map(|(_, by)| by.parse().expect("it is written so")).collect();
            let files = FileSettings { format, ..FileSettings::default() };
            (table.to_owned(), TableLayout { partition, files, ..TableLayout::default() })
        };
        graph::tables().into_keys().map(layout).collect()
    }

    fn count(&self, report: &mut Report) {
        report.add(&self.met);
        report.torn_sectors += self.torn_sectors;
        for log in &self.logs {
            report.deleted += log.deleted.load(SeqCst);
            report.source_away += log.away.load(SeqCst);
        }
        let catalog = self.server.counters();
        report.catalog_away += catalog.away;
        report.table_unknown_outcomes += catalog.unknown;
        report.table_applied_unseen += catalog.applied_unseen;
        report.table_late_applied += catalog.late_applied;
        report.table_late_refused += catalog.late_refused;
        report.table_foreign += catalog.foreign;
        report.lake_disk_full += self.disk.full.load(SeqCst);
    }
}

/// A warehouse to which nothing happens, as each life opens it.
#[cfg(test)]
pub(crate) fn simulated(
    seed: u64,
    shared: &Arc<crate::scheduler::Shared>,
) -> impl Fn(&Arc<Life>) -> dataflow_core::Result<Warehouse> + use<> {
    let outages = || Outages { time: shared.time.clone(), spans: Vec::new() };
    let meddler = Meddler { dice: Dice::new(seed, Purpose::Meddler), tables: Default::default(), times: 0 };
    let server = CatalogServer::new(Dice::new(seed, Purpose::Catalog), meddler, shared.trace.clone(), outages(), 0);
    let disk = Arc::new(LakeDisk { memory: MemoryStorage::new(), outages: outages(), full: Default::default() });
    let environment = lives::calm(shared);
    move |life| open(&server, &disk, life, &environment)
}

/// The warehouse as one life has it.
fn open(
    server: &Arc<CatalogServer>,
    disk: &Arc<LakeDisk>,
    life: &Arc<Life>,
    environment: &Environment,
) -> dataflow_core::Result<Warehouse> {
    let time = disk.outages.time.clone();
    let ground = Ground {
        catalog: Arc::new(LifeCatalog { server: server.clone(), life: life.clone() }),
        disk: Arc::new(LifeDisk { disk: disk.clone(), life: life.clone() }),
        sleep: Box::new(move |pause| time.advance(pause.as_micros() as u64)),
    };
    Warehouse::over(ground, environment.clone())
}

impl Subject for Lake {
    fn settings(&self) -> (RuntimeSettings, TableSettings) {
        (self.scenario.settings.clone(), self.scenario.tables)
    }

    fn wire(&self, life: &Arc<Life>, _: &Arc<dyn Storage>, environment: &Environment) -> Result<Wired, String> {
        let (server, disk, of_life) = (self.server.clone(), self.disk.clone(), life.clone());
        let environment = environment.clone();
        let tables = graph::tables().into_keys().map(str::to_owned).collect();
        let number = self.wired.fetch_add(1, SeqCst);
        let format = if number >= self.scenario.format_3_from { TableFormat::V3 } else { TableFormat::V2 };
        let mut maintenance = self.scenario.maintenance.clone();
        maintenance.compaction = maintenance.compaction.filter(|_| number >= self.scenario.compacts_from);
        let settings = SinkSettings {
            maintenance,
            layouts: self.layouts(format),
            on_foreign_commit: if self.scenario.meddling > 0 {
                OnForeignCommit::Rebuild
            } else {
                OnForeignCommit::Stop
            },
            ..SinkSettings::default()
        };
        let sink = IcebergSink::over(SINK, tables, settings, move || open(&server, &disk, &of_life, &environment));
        Ok(Wired {
            sources: self.logs.iter().map(|log| Arc::new(log.source(life.clone())) as Arc<dyn Source>).collect(),
            sinks: Vec::new(),
            table_sinks: vec![Arc::new(sink.map_err(|e| e.to_string())?)],
            lookups: Vec::new(),
            build: Box::new(graph::build),
        })
    }

    /// Mostly manifests: without the newest one a table is ahead of the checkpoint that is restored.
    fn rots(&self) -> &'static [&'static str] {
        &[BINDINGS, CHECKPOINTS, MANIFESTS, MANIFESTS, MANIFESTS]
    }

    fn began(&mut self, job: &Plan) {
        let (restored, bound) = (job.start.state.epoch, job.start.bound.epoch);
        self.restored.insert(job.generation.number, restored);
        let newest = self.server.tables().values().filter_map(catalog::newest_epoch).max().unwrap_or(0);
        self.met.tables_ahead += u64::from(newest > restored);
        self.met.table_replays_dropped += u64::from(newest > restored && bound >= newest);
    }

    fn explains(&mut self, error: &Error) -> bool {
        let is_outage = outage::explains(error);
        let is_foreign = self.server.counters().foreign > 0 && error.to_string().contains("somebody else's snapshot");
        self.met.ended_by_outage += u64::from(is_outage);
        self.met.ended_by_others += u64::from(is_foreign);
        is_outage || is_foreign
    }

    fn is_over(&mut self) {
        self.server.leave_alone();
    }

    fn before_end(&mut self, _: &MemoryStorage, _: &LifePlan, _: &Life, _: bool) -> Result<(), String> {
        Ok(())
    }

    /// The warehouse's disk is in the same machine, unless its process strays.
    fn after_end(&mut self, _: &MemoryStorage, plan: &LifePlan, dice: &mut Dice) -> Result<(), String> {
        if plan.power_loss && !matches!(plan.ending, Ending::Strand(_)) {
            self.torn_sectors += self.disk.memory.crash(&mut |below| dice.below(below));
        } else {
            self.disk.memory.kill();
        }
        Ok(())
    }
}
