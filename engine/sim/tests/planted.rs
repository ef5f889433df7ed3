//! Each planted bug is caught: some seed comes out wrong with it, and none without. A simulation that does not notice them
//! proves nothing.
//!
//! Runs with `--features planted-bugs`. A bug is planted in the whole process, so the tests take turns.

use dataflow_core::planted::{Bug, plant};
use dataflow_sim::run_seeds;
use std::sync::{Mutex, OnceLock, PoisonError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds that a bug may take to show itself, and that are right without it.
const SEEDS: u64 = 200;

static TURN: Mutex<()> = Mutex::new(());

/// The seeds come out right as long as nothing is planted.
fn sound_without() {
    static SOUND: OnceLock<Vec<String>> = OnceLock::new();
    let failures = SOUND.get_or_init(|| {
        plant(None);
        run_seeds(0..SEEDS, 2, false).1.iter().map(ToString::to_string).collect()
    });
    assert!(failures.is_empty(), "without a bug: {}", failures.join("\n"));
}

fn caught(bug: Bug) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    sound_without();
    plant(Some(bug));
    let (_, failures) = run_seeds(0..SEEDS, 2, true);
    plant(None);
    let failure = failures.first().unwrap_or_else(|| panic!("{bug:?} is not caught by {SEEDS} seeds"));
    println!("{bug:?}: {}", failure.to_string().lines().take(3).collect::<Vec<_>>().join(" | "));
}

macro_rules! planted {
    ($($name:ident: $bug:ident,)+) => {
        $(
            #[test]
            fn $name() {
                caught(Bug::$bug);
            }
        )+
    };
}

planted! {
    marker_outside_transaction: MarkerOutsideTransaction,
    output_before_binding: OutputBeforeBinding,
    no_fsync: NoFsync,
    no_folder_fsync: NoFolderFsync,
    checkpoint_with_next_epoch: CheckpointWithNextEpoch,
    replay_off_by_one: ReplayOffByOne,
    watermark_from_wall_clock: WatermarkFromWallClock,
    hash_order_output: HashOrderOutput,
    swallowed_produce_error: SwallowedProduceError,
    slot_left_unfenced: SlotLeftUnfenced,
    fenced_producer_initialises: FencedProducerInitialises,
    said_not_in_state: SaidNotInState,
    marker_ignored_on_recovery: MarkerIgnoredOnRecovery,
    manifest_before_sinks: ManifestBeforeSinks,
}
