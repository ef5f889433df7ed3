//! What a seed stands for in the lake's graph: traffic, settings, outages, and the lives of the job.

use super::catalog;
use super::disk::FOLDER;
use super::traffic::{LakeShape, clock_off_us};
use crate::dice::{Dice, Purpose};
use crate::scenario::{LifePlan, life, outages, settings, stall, troubled};
use crate::scheduler::Ending;
use dataflow_iceberg::{CompactionSettings, MaintenanceSettings};
use dataflow_runtime::RuntimeSettings;
use dataflow_state::table::TableSettings;
use std::time::Duration;

/// The paths at whose calls a life may end.
const PATHS: [&str; 8] = ["", "bindings", "checkpoints", "checkpoints", FOLDER, FOLDER, catalog::PATH, catalog::PATH];
/// The tasks whose calls may take long.
const TASKS: [&str; 6] = ["bindings", "checkpoints", "files lake", "commit lake", "commit lake", "rewrite lake"];

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct LakeScenario {
    pub(crate) shape: LakeShape,
    pub(crate) settings: RuntimeSettings,
    pub(crate) tables: TableSettings,
    pub(crate) retention: bool,
    pub(crate) catalog_fault_percent: u64,
    pub(crate) turn_us: u64,
    pub(crate) lives: Vec<LifePlan>,
    pub(crate) last: LifePlan,
    /// Times in which the sources, the catalog and the disk of the warehouse are away.
    pub(crate) outages: [Vec<(u64, u64)>; 3],
    pub(crate) once_more: bool,
    pub(crate) maintenance: MaintenanceSettings,
    /// The life from which on files are rewritten, if they are.
    pub(crate) compacts_from: u64,
    /// The life from which on tables are of format 3.
    pub(crate) format_3_from: u64,
    /// So many commits of somebody else; the job makes the tables what their views are.
    pub(crate) meddling: u64,
    /// Whether some tables are divided into partitions.
    pub(crate) has_partitions: bool,
}

impl LakeScenario {
    /// The scenario of a seed.
    pub(crate) fn new(seed: u64) -> LakeScenario {
        let dice = &mut Dice::new(seed, Purpose::Scenario);
        let trouble = &mut Dice::new(seed, Purpose::Trouble);
        let span_us = dice.range(1_000_000, 20_000_000);
        let turns = dice.range(1_000, 2_500);
        let shape = LakeShape {
            changes: dice.range(15, 70) as usize,
            views: dice.range(3, 30) as usize,
            partitions: [dice.range(1, 2) as u32, dice.range(1, 2) as u32, dice.range(1, 3) as u32],
            span_us,
            keys: dice.range(3, 12),
            twice: *dice.pick(&[0, 5, 20]),
            poison: *dice.pick(&[0, 3, 10]),
            truncates: *dice.pick(&[0, 0, 2, 5]),
            ends_empty: dice.percent(40),
        };
        let faulty = *dice.pick(&[0, 1, 2, 2, 3, 4, 6]);
        let midnight_us = clock_off_us(dice.range(1, 2 * span_us));
        let mut lives: Vec<LifePlan> = (0..faulty).map(|_| life(dice, turns, faulty, &PATHS)).collect();
        let mut last = LifePlan { ending: Ending::Natural, fuse: None, ..life(dice, turns, 1, &PATHS) };
        lives.iter_mut().for_each(|life| troubled(life, trouble, turns, &TASKS));
        last.stall = trouble.percent(20).then(|| stall(trouble, turns, false, &TASKS));
        for life in lives.iter_mut().chain([&mut last]) {
            life.off_us = life.off_us / 10 + midnight_us;
        }
        let mut settings = settings(dice, span_us / 1_000);
        settings.checkpoint_interval_ms = *trouble.pick(&[30, 15, 8, 3]) * span_us / 100_000;
        let mut scenario = LakeScenario {
            shape,
            settings,
            tables: *dice.pick(&[
                TableSettings { cache_bytes: 0, dirty_bytes: 0 },
                TableSettings { cache_bytes: 4_000, dirty_bytes: 2_000 },
                TableSettings { cache_bytes: 1 << 26, dirty_bytes: 1 << 24 },
            ]),
            retention: dice.percent(50),
            catalog_fault_percent: *dice.pick(&[0, 3, 10, 25]),
            turn_us: span_us / turns + 1,
            lives,
            last,
            outages: [outages(trouble, span_us), outages(trouble, span_us), outages(trouble, span_us)],
            once_more: dice.percent(20),
            maintenance: maintenance(trouble),
            format_3_from: *trouble.pick(&[0, 0, 1, 2, u64::MAX, u64::MAX]),
            compacts_from: *trouble.pick(&[0, 0, 1, 2]),
            meddling: *trouble.pick(&[0, 0, 0, 1, 2, 5]),
            has_partitions: trouble.percent(50),
        };
        scenario.settings.table_step_rows = *trouble.pick(&[1, 3, 128]);
        scenario
    }
}

/// Tables that are left as they were written, such as are compacted, and such whose snapshots expire as well; whenever there is a chance.
/// Where files with dead rows stay, their delete files are merged.
fn maintenance(dice: &mut Dice) -> MaintenanceSettings {
    let (compacts, expires) = *dice.pick(&[(false, false), (true, false), (true, true)]);
    let dead_percent = *dice.pick(&[1, 100]);
    MaintenanceSettings {
        interval: Duration::ZERO,
        keep_snapshots: if expires { 1 } else { usize::MAX },
        keep: Duration::ZERO,
        keep_epochs: 2,
        compaction: compacts.then_some(CompactionSettings { small_files: 2, dead_percent }),
    }
}
