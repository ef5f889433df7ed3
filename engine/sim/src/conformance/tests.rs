//! The suite on what needs no service.

use super::{clock, cluster, spawner, storage, warehouse};
use crate::broker::{SimBroker, SimCluster};
use crate::clock::{SimClock, SimTime};
use crate::dice::{Dice, Purpose};
use crate::life::Life;
use crate::scenario::{LifePlan, Scenario};
use crate::scheduler::{Scheduler, Shared, SimSpawner};
use crate::storage::SimStorage;
use crate::trace::Trace;
use crate::{lake, lives};
use dataflow_iceberg::{CatalogSettings, StorageSettings, Warehouse, WarehouseSettings};
use dataflow_runtime::threads;
use dataflow_state::storage::{LocalStorage, MemoryStorage};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A life in which nothing goes wrong.
fn life() -> Arc<Life> {
    Life::new(Arc::new(Trace::new()), None, None)
}

#[test]
fn storages() {
    let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    storage(&LocalStorage::new(folder.path().to_owned()), scratch.path());
    storage(&MemoryStorage::new(), scratch.path());
    let disk = MemoryStorage::new();
    storage(&SimStorage { disk, life: life(), graveyard: Arc::default() }, scratch.path());
}

#[test]
fn the_simulated_broker() {
    for seed in 0..20 {
        let broker = SimBroker::new(seed, Arc::new(Trace::new()), Arc::new(SimTime::default()), 0, 0);
        cluster(&SimCluster { broker, life: life() }, "job");
    }
}

#[test]
fn warehouses() {
    let folder = tempfile::tempdir().unwrap();
    let settings = WarehouseSettings {
        catalog: CatalogSettings::Sqlite { file: folder.path().join("catalog.db"), name: "conformance".to_owned() },
        storage: StorageSettings::Folder { path: folder.path().join("files") },
    };
    warehouse(&|| Warehouse::open(&settings, threads::environment()).unwrap());
    for seed in 0..20 {
        let shared = lives::shared(seed, 1, |_, _| Vec::new());
        let simulated = lake::simulated(seed, &shared);
        warehouse(&|| simulated(&life()).unwrap());
    }
}

#[test]
fn clocks() {
    let time = Arc::new(SimTime::default());
    clock(&SimClock { time: time.clone(), off_us: -3 }, |step| time.advance(step.as_micros() as u64));
    let wait = |step| std::thread::park_timeout(step);
    let real = threads::environment().clock;
    clock(&*real, |step| {
        let until = real.monotonic() + step;
        while real.monotonic() < until {
            wait(Duration::from_millis(1));
        }
    });
}

#[test]
fn spawners() {
    const TURNS: usize = 20_000;
    for seed in 0..20 {
        let shared = Shared {
            time: Arc::new(SimTime::default()),
            trace: Arc::new(Trace::new()),
            dice: Mutex::new(Dice::new(seed, Purpose::Schedule)),
            services: Vec::new(),
            turn_us: 300,
        };
        let calm = LifePlan { stall: None, ..Scenario::new(seed).last };
        let scheduler = Scheduler::new(Arc::new(shared), life(), &calm, Vec::new());
        let turn = || scheduler.next_worker().expect("nothing ends this life");
        let until = |holds: &dyn Fn() -> bool| (0..TURNS).any(|_| holds() || (turn(), holds()).1);
        spawner(&SimSpawner(scheduler.clone()), until);
    }
    let patience = Duration::from_secs(30);
    let real = threads::environment();
    spawner(&*real.spawner, |holds| {
        let began = real.clock.monotonic();
        while !holds() && real.clock.monotonic() < began + patience {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        holds()
    });
}
