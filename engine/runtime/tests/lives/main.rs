//! Whole lives of small jobs, on a disk in memory with the production's threads: what a start refuses, how a restart reads, what is bounded.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod world;

use dataflow_core::time::SECOND;
use dataflow_core::{ChainHash, Micros, Partition, Result, SourceId, Storage, TableBinding};
use dataflow_runtime::plan::{CHECKPOINTS, TABLES};
use dataflow_runtime::{JobScope, Plan, RuntimeSettings};
use dataflow_state::table::StateValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use timely::dataflow::operators::vec::Map;
use world::{End, World};

/// Whether all records up to now are read and durable, and an epoch after them.
fn has_read(plan: &Plan, records: u64) -> bool {
    let status = &plan.control.status;
    status.records.get() >= records && status.epoch_durable.get() >= 3 && plan.control.watermark().is_some()
}

#[test]
fn changed_code_is_noticed_before_there_is_a_checkpoint() {
    let mut world = World::new(&[&[1, 2, 3]]);
    world.live(End::Kill, |plan| has_read(plan, 3)).unwrap();
    world.fingerprint = "g";
    let said = world.prepare().map(drop).unwrap_err().to_string();
    assert!(said.contains("code or parameters changed") && said.contains("bound after epoch 0"), "{said}");
    // The program of before goes on, and so does one that is told to; from then on it is the one that replays.
    world.fingerprint = "f";
    world.live(End::Kill, |plan| has_read(plan, 3)).unwrap();
    world.fingerprint = "g";
    world.settings.replay_with_new_code = true;
    world.live(End::Kill, |plan| has_read(plan, 3)).unwrap();
    world.settings.replay_with_new_code = false;
    world.live(End::Stop, |plan| has_read(plan, 3)).unwrap();
    // After a clean stop any program goes on, and what it binds is its own.
    world.fingerprint = "h";
    world.live(End::Kill, |plan| plan.control.status.epoch_durable.get() > plan.start.bound.epoch + 2).unwrap();
    world.fingerprint = "g";
    assert!(world.prepare().is_err(), "the checkpoint is g's, the epochs after it are h's");
    world.fingerprint = "h";
    world.live(End::Stop, |plan| plan.control.status.epoch_durable.get() > plan.start.bound.epoch).unwrap();
}

#[test]
fn a_source_is_resumed_from_what_was_bound_though_there_is_no_checkpoint() {
    let world = World::new(&[&[1, 2, 3]]);
    world.live(End::Kill, |plan| has_read(plan, 3)).unwrap();
    assert_eq!(world.log.take_calls(), ["assign 0 0"]);
    world.live(End::Kill, |plan| has_read(plan, 3)).unwrap();
    assert_eq!(world.log.take_calls(), ["resume", "assign 0 0"]);
}

#[test]
fn a_rotten_table_is_refused_by_name_unless_its_content_is_at_hand() {
    let mut world = World::new(&[&[1, 2, 3]]);
    world.table = Some("as it was");
    world.live(End::Kill, |plan| has_read(plan, 3)).unwrap();
    let path = format!("{TABLES}/{}", ChainHash(TableBinding::hash_of(b"as it was")));
    world.disk.rot(&path);
    world.table = Some("as it is");
    let said = world.prepare().map(drop).unwrap_err().to_string();
    assert!(said.contains(&format!("kept lookup table '{path}'")), "{said}");
    world.table = Some("as it was");
    world.live(End::Kill, |plan| has_read(plan, 3)).unwrap();
    assert_eq!(world.disk.read(&path).unwrap(), b"as it was");
}

#[test]
fn an_epoch_holds_as_many_records_and_bytes_as_it_may_and_a_larger_record_alone() {
    let mut world = World::new(&[&[0; 50], &[0; 9]]);
    world.settings.epoch_max_records = 7;
    world.live(End::Stop, |plan| has_read(plan, 59)).unwrap();
    let epochs: Vec<u64> = world.bound().iter().map(|(_, records, _)| records.iter().sum()).collect();
    assert_eq!((epochs.iter().sum::<u64>(), epochs.iter().max()), (59, Some(&7)), "{epochs:?}");

    let mut world = World::new(&[]);
    for longer in [92, 92, 92, 992, 92, 92, 92] {
        world.log.push(0, 0, longer);
    }
    world.settings.epoch_max_bytes = 250;
    world.live(End::Stop, |plan| has_read(plan, 7)).unwrap();
    let epochs: Vec<u64> = world.bound().iter().flat_map(|(_, records, _)| records.clone()).collect();
    assert_eq!(epochs, [2, 1, 1, 2, 1]);
}

/// A partition that waits for the slower ones has records that nobody has seen: it is not at its end.
#[test]
fn a_partition_that_is_held_back_with_unread_records_is_not_idle() {
    let mut world = World::new(&[&[0, 10 * SECOND], &[0]]);
    let quick = RuntimeSettings { lateness_ms: 0, max_drift_ms: 1_000, idle_timeout_ms: 200, ..world.settings.clone() };
    world.settings = quick;
    let (log, appended_in, mut looks) = (world.log.clone(), Arc::new(AtomicU64::new(0)), 0);
    let appended = appended_in.clone();
    let plan = world.live(End::Stop, move |plan| {
        if !has_read(plan, 3) {
            return false;
        }
        if looks == 0 {
            log.push(0, 11 * SECOND, 0);
            appended.store(plan.control.status.epoch_opened.get(), SeqCst);
        }
        looks += 1;
        // The slower one lives on, and catches up in the end.
        log.push(1, if looks < 150 { 0 } else { 20 * SECOND }, 0);
        looks > 150 && plan.control.watermark() > Some(Micros(10 * SECOND))
    });
    drop(plan.unwrap());
    let fast = Partition { source: SourceId(0), index: 0 };
    let bound = world.bound();
    let after: Vec<_> = bound.iter().filter(|(state, ..)| state.epoch > appended_in.load(SeqCst) + 1).collect();
    let is_waiting = |state: &dataflow_core::BindingState| state.partitions[&fast].end == 2;
    assert!(after.iter().filter(|(state, ..)| is_waiting(state)).count() > 10, "it was not held back");
    assert!(
        after.iter().all(|(state, ..)| !(is_waiting(state) && state.idle.contains(&fast))),
        "idle with a record unread"
    );
    assert_eq!(bound.last().unwrap().0.partitions[&fast].end, 3, "it is read in the end");
}

#[test]
fn a_log_that_does_not_answer_is_backpressure() {
    let mut world = World::new(&[&[0]]);
    world.settings.tick_idle_ms = 1;
    let disk = world.disk.clone();
    let (mut stalled_at, mut looks, mut released_at) = (None, 0, u64::MAX);
    let plan = world.live(End::Stop, move |plan| {
        let status = &plan.control.status;
        let Some(from) = stalled_at else {
            if has_read(plan, 1) {
                disk.stall(Some("bindings"));
                stalled_at = Some(status.backpressure.get());
            }
            return false;
        };
        if status.backpressure.get() == from {
            return false;
        }
        looks += 1;
        let waiting = status.epoch_opened.get() - status.epoch_durable.get();
        assert!(waiting <= 256, "{waiting} epochs are not durable");
        if looks == 20 {
            disk.stall(None);
            released_at = status.epoch_opened.get();
        }
        status.epoch_durable.get() > released_at
    });
    assert!(plan.unwrap().control.status.backpressure_us.get() > 0);
}

#[test]
fn a_store_that_does_not_keep_up_makes_checkpoints_rarer() {
    let mut world = World::new(&[&[0]]);
    (world.settings.tick_idle_ms, world.settings.checkpoint_interval_ms) = (1, 1);
    let disk = world.disk.clone();
    let mut stalled = None;
    let plan = world.live(End::Stop, move |plan| {
        let status = &plan.control.status;
        let now = status.epoch_opened.get();
        let from = *stalled.get_or_insert_with(|| {
            disk.stall(Some(CHECKPOINTS));
            now
        });
        if now > from + 300 {
            disk.stall(None);
        }
        status.checkpoints.get() > 5
    });
    let last = plan.unwrap().control.status.epoch_opened.get();
    let rows: Vec<bool> = world.bound().into_iter().map(|(.., checkpoint)| checkpoint).collect();
    assert_eq!(rows.len() as u64, last);
    let cuts = rows[..300].iter().filter(|checkpoint| **checkpoint).count();
    assert!(cuts <= 2, "{cuts} checkpoints were open while none could be stored");
    assert!(rows[300..].iter().filter(|checkpoint| **checkpoint).count() > 3);
}

/// State that nothing is ever put into; its version, and the oldest it reads.
#[derive(Default)]
struct Empty<const VERSION: u16, const READS_FROM: u16>;

impl<const VERSION: u16, const READS_FROM: u16> StateValue for Empty<VERSION, READS_FROM> {
    const VERSION: u16 = VERSION;
    const READS_FROM: u16 = READS_FROM;

    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(_: &[u8]) -> Result<Self> {
        Ok(Self)
    }
    fn migrate(_: u16, _: &[u8]) -> Result<Self> {
        Ok(Self)
    }
    fn expires(&self) -> Micros {
        Micros(i64::MAX)
    }
    fn weight(&self) -> usize {
        0
    }
    fn is_default(&self) -> bool {
        true
    }
}

/// An operator with state that is cut when it should be.
fn stateful<V: StateValue + 'static>(job: &mut JobScope<'_>, operator: &str) -> Result<()> {
    let mut state = job.state::<V>(operator)?;
    let parts = job.facts().map(move |facts| {
        if facts.checkpoint {
            state.cut(facts.epoch, facts.watermark).unwrap();
        }
    });
    job.parts(parts);
    Ok(())
}

#[test]
fn state_that_the_job_can_not_take_up_is_refused_before_an_epoch_is_bound() {
    let mut world = World::new(&[&[0]]);
    let two =
        |job: &mut JobScope<'_>| stateful::<Empty<2, 2>>(job, "a").and_then(|()| stateful::<Empty<2, 2>>(job, "b"));
    world.live_with(two, End::Stop, |plan| has_read(plan, 1)).unwrap();
    let bound = world.bound().len();
    let refused = |build: fn(&mut JobScope<'_>) -> Result<()>, part: &str| {
        let said = world.live_with(build, End::Kill, |_| false).map(drop).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
        assert_eq!(world.bound().len(), bound, "{part}: an epoch was bound");
    };
    refused(
        |job| stateful::<Empty<3, 3>>(job, "a").and_then(|()| stateful::<Empty<2, 2>>(job, "b")),
        "operator 'a' in the checkpoint of epoch",
    );
    refused(|job| stateful::<Empty<1, 1>>(job, "a"), "has version 2, the job reads version 1");
    refused(
        |job| stateful::<Empty<2, 2>>(job, "a").and_then(|()| stateful::<Empty<2, 2>>(job, "renamed")),
        "holds state of 'b', which the job does not have",
    );
    // A migration, and an operator more.
    let more = |job: &mut JobScope<'_>| {
        stateful::<Empty<3, 2>>(job, "a")?;
        stateful::<Empty<2, 2>>(job, "b")?;
        stateful::<Empty<1, 1>>(job, "more")
    };
    let goes_on = |plan: &Plan| plan.control.status.epoch_durable.get() > plan.start.bound.epoch;
    world.live_with(more, End::Stop, goes_on).unwrap();
    // An operator less, as told.
    world.settings.drop_unknown_state = true;
    world.live_with(|job| stateful::<Empty<3, 3>>(job, "a"), End::Stop, goes_on).unwrap();
    world.settings.drop_unknown_state = false;
    world.live_with(|job| stateful::<Empty<3, 3>>(job, "a"), End::Stop, goes_on).unwrap();
}
