//! Each planted bug is caught: some seed comes out wrong with it, and none without. A simulation that does not notice them
//! proves nothing.
//!
//! Runs with `--features planted-bugs`. A bug is planted in the whole process, so the tests take turns.

use dataflow_core::planted::{Bug, plant};
use dataflow_sim::{Graph, run_seeds};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static TURN: Mutex<()> = Mutex::new(());

/// The seeds come out right as long as nothing is planted.
fn sound_without(graph: Graph, seeds: &Range<u64>) {
    static SOUND: Mutex<Vec<(usize, Range<u64>)>> = Mutex::new(Vec::new());
    let mut sound = SOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let these = (graph as usize, seeds.clone());
    if !sound.contains(&these) {
        plant(None);
        let failures: Vec<String> =
            run_seeds(graph, seeds.clone(), 2, false).1.iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "without a bug: {}", failures.join("\n"));
        sound.push(these);
    }
}

/// One of the seeds, all of which are right without it, shows the bug.
fn caught(graph: Graph, seeds: Range<u64>, bug: Bug) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    sound_without(graph, &seeds);
    plant(Some(bug));
    let (_, failures) = run_seeds(graph, seeds.clone(), 2, true);
    plant(None);
    let failure = failures.first().unwrap_or_else(|| panic!("{bug:?} is not caught by the seeds {seeds:?}"));
    println!("{bug:?}: {}", failure.to_string().lines().take(3).collect::<Vec<_>>().join(" | "));
}

macro_rules! planted {
    ($graph:ident, $seeds:expr; $($name:ident: $bug:ident,)+) => {
        $(
            #[test]
            fn $name() {
                caught(Graph::$graph, $seeds, Bug::$bug);
            }
        )+
    };
}

planted! {
    Logins, 0..200;
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

planted! {
    Lake, 0..400;
    commit_before_manifest: CommitBeforeManifest,
    intents_dropped: IntentsDropped,
    unknown_outcome_repeated: UnknownOutcomeRepeated,
    table_marker_ignored: TableMarkerIgnored,
    table_files_not_synced: TableFilesNotSynced,
    others_not_shut_out: OthersNotShutOut,
}

// It takes a stray process that commits just when another one has taken over.
planted! {
    Lake, 1_100..1_200;
    fenced_committer_goes_on: FencedCommitterGoesOn,
}

// It takes a table that is ahead, and changes of the same keys after that.
planted! {
    Lake, 800..900;
    index_not_rebuilt: IndexNotRebuilt,
}
