//! Each planted bug is caught: some seed comes out wrong with it, and none without. A simulation that does not notice them
//! proves nothing.
//!
//! Runs with `--features planted-bugs`. A bug is planted in the whole process, so the tests take turns.

use dataflow_core::planted::{Bug, plant};
use dataflow_sim::{Graph, run_seeds};
use std::sync::{Mutex, OnceLock, PoisonError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds of a graph that a bug may take to show itself, and that are right without it.
fn seeds(graph: Graph) -> std::ops::Range<u64> {
    match graph {
        Graph::Logins => 0..200,
        Graph::Lake => 0..400,
    }
}

static TURN: Mutex<()> = Mutex::new(());

/// The seeds come out right as long as nothing is planted.
fn sound_without(graph: Graph) {
    static SOUND: [OnceLock<Vec<String>>; 2] = [const { OnceLock::new() }; 2];
    let failures = SOUND[graph as usize].get_or_init(|| {
        plant(None);
        run_seeds(graph, seeds(graph), 2, false).1.iter().map(ToString::to_string).collect()
    });
    assert!(failures.is_empty(), "without a bug: {}", failures.join("\n"));
}

fn caught(graph: Graph, bug: Bug) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    sound_without(graph);
    plant(Some(bug));
    let (_, failures) = run_seeds(graph, seeds(graph), 2, true);
    plant(None);
    let failure = failures.first().unwrap_or_else(|| panic!("{bug:?} is not caught by the seeds {:?}", seeds(graph)));
    println!("{bug:?}: {}", failure.to_string().lines().take(3).collect::<Vec<_>>().join(" | "));
}

macro_rules! planted {
    ($graph:ident: $($name:ident: $bug:ident,)+) => {
        $(
            #[test]
            fn $name() {
                caught(Graph::$graph, Bug::$bug);
            }
        )+
    };
}

planted! {
    Logins:
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
    Lake:
    commit_before_manifest: CommitBeforeManifest,
    intents_dropped: IntentsDropped,
    unknown_outcome_repeated: UnknownOutcomeRepeated,
    table_marker_ignored: TableMarkerIgnored,
    table_files_not_synced: TableFilesNotSynced,
    fenced_committer_goes_on: FencedCommitterGoesOn,
    others_not_shut_out: OthersNotShutOut,
}
