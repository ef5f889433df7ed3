//! The simulation as CI runs it: `DATAFLOW_SIM_SEEDS` seeds of the logins' graph (default 500) and `DATAFLOW_SIM_LAKE_SEEDS` of the lake's
//! (default 200) on two threads, and what they must have met.

use dataflow_sim::{Graph, Report, run_seeds};

/// Half of a run's time is spent on small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Files that the tests beside each other have open, at most. A warehouse has four.
const OPEN_FILES_MAX: usize = 200;

/// Runs the seeds of a graph, none of which may fail.
#[allow(clippy::disallowed_methods, reason = "measures the machine, not the job")]
fn every_seed(graph: Graph, count: u64) -> Report {
    let first = number("DATAFLOW_SIM_FIRST", 0);
    let began = std::time::Instant::now();
    let (report, failures) = run_seeds(graph, first..first + count, 2, false);
    let seconds = began.elapsed().as_secs_f64();
    println!("{graph:?}: {count} runs in {seconds:.1} s, {:.1} a second: {report:#?}", count as f64 / seconds);
    let told: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{} of {count} seeds failed\n{}", told.len(), told.join("\n"));
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    assert!(
        open < OPEN_FILES_MAX,
        "{open} files are open after {count} runs: a job of a run that is over is still there"
    );
    report
}

#[test]
fn every_seed_equals_the_oracle() {
    let count = number("DATAFLOW_SIM_SEEDS", 500);
    let report = every_seed(Graph::Logins, count);
    if count >= 500 {
        met_what_it_is_about(&report);
    }
}

#[test]
fn every_lake_seed_equals_the_oracle() {
    let count = number("DATAFLOW_SIM_LAKE_SEEDS", 200);
    let report = every_seed(Graph::Lake, count);
    if count >= 200 {
        the_lake_met_what_it_is_about(&report);
    }
}

fn met_what_it_is_about(report: &Report) {
    for (what, times) in [
        ("power losses", report.power_losses),
        ("kills", report.kills),
        ("ends within a call", report.ended_in_a_call),
        ("ends within the recovery", report.ended_in_recovery),
        ("failed calls", report.failed_calls),
        ("clean stops", report.stops),
        ("stray sinks", report.strays),
        ("torn tails", report.torn_tails),
        ("sectors that were not written", report.torn_sectors),
        ("calls that took long", report.stalls),
        ("calls that were stuck until their process was killed", report.stuck),
        ("fetches during an outage of the source", report.source_away),
        ("questions to a registry that is away", report.registry_away),
        ("schemas registered after they were asked for", report.schemas_too_early),
        ("questions about an id without a sensible schema", report.schemas_senseless),
        ("partitions added", report.partitions_added),
        ("calls that found the disk full", report.disk_full),
        ("starts that ended at a full disk", report.full_at_start),
        ("flipped bits", report.flips),
        ("flipped bits that were refused", report.flips_refused),
        ("damaged checkpoints passed over", report.passed_over),
        ("starts from a checkpoint", report.restored),
        ("changes of the number of workers", report.rescaled),
        ("replayed epochs", report.replayed),
        ("epochs dropped by marker", report.dropped_by_marker),
        ("withdrawals", report.withdrawn),
        ("duplicates", report.duplicates),
        ("late records", report.late),
        ("dead letters", report.dead_letters),
        ("backpressure", report.backpressure),
        ("unknown outcomes", report.unknown_outcomes),
        ("unknown outcomes that were applied", report.applied_unseen),
        ("refused records", report.refused),
        ("fenced producers", report.fenced),
        ("aborted transactions", report.aborted),
        ("transactions that timed out", report.timed_out),
        ("calls during the completion of a transaction", report.concurrent),
        ("commits that came too late", report.stale),
        ("requests with records that came too late", report.late_refused),
        ("records deleted behind a checkpoint", report.deleted),
        ("anomalies", report.anomalies),
    ] {
        assert!(times > 0, "no {what} in all these runs");
    }
}

fn the_lake_met_what_it_is_about(report: &Report) {
    for (what, times) in [
        ("power losses", report.power_losses),
        ("kills", report.kills),
        ("ends within a call", report.ended_in_a_call),
        ("ends within the recovery", report.ended_in_recovery),
        ("clean stops", report.stops),
        ("stray committers", report.strays),
        ("torn tails", report.torn_tails),
        ("sectors that were not written", report.torn_sectors),
        ("calls that took long", report.stalls),
        ("calls that were stuck until their process was killed", report.stuck),
        ("fetches during an outage of a source", report.source_away),
        ("calls that found the disk full", report.disk_full),
        ("flipped bits that were refused", report.flips_refused),
        ("damaged checkpoints passed over", report.passed_over),
        ("starts from a checkpoint", report.restored),
        ("changes of the number of workers", report.rescaled),
        ("replayed epochs", report.replayed),
        ("dead letters", report.dead_letters),
        ("stale changes", report.stale_changes),
        ("backpressure", report.backpressure),
        ("records deleted behind a checkpoint", report.deleted),
        ("snapshots that delete rows", report.deleting),
        ("snapshots with deletion vectors", report.vectors),
        ("vectors in the place of position deletes", report.upgrades),
        ("snapshots that take a dead file away", report.dead_files),
        ("intents committed by a restart", report.intents_restored),
        ("rewritten files", report.rewrites),
        ("rewrites committed by a restart", report.rewrites_restored),
        ("expired snapshots", report.expired),
        ("tables ahead of the checkpoint", report.tables_ahead),
        ("replays of epochs that a table has", report.table_replays_dropped),
        ("calls of a catalog that is away", report.catalog_away),
        ("commits of unknown outcome", report.table_unknown_outcomes),
        ("commits of unknown outcome that were made", report.table_applied_unseen),
        ("commits that came late and were made", report.table_late_applied),
        ("commits that came late and were refused", report.table_late_refused),
        ("commits of somebody else", report.table_foreign),
        ("lives that ended by a commit of somebody else", report.ended_by_others),
        ("writes that found the warehouse's disk full", report.lake_disk_full),
        ("starts that ended by an outage", report.ended_by_outage),
        ("days that closed", report.days_closed),
    ] {
        assert!(times > 0, "no {what} in all these runs");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for graph in [Graph::Logins, Graph::Lake] {
        for seed in 0..12 {
            let (one, two) = (graph.run(seed).unwrap(), graph.run(seed).unwrap());
            assert_eq!(one, two, "{graph:?}, seed {seed}");
        }
        assert_ne!(graph.run(1).unwrap().trace, graph.run(2).unwrap().trace);
    }
}

fn one(graph: Graph) {
    let seed = number("DATAFLOW_SIM_SEED", 0);
    match graph.run(seed) {
        Ok(report) => println!("seed {seed}: {report:#?}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn one_seed() {
    one(Graph::Logins);
}

#[test]
fn one_lake_seed() {
    one(Graph::Lake);
}
