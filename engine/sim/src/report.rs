//! What a run met, so that a suite can assert that it met what it is about; and how a failed one says how to run it again.

use crate::Graph;
use crate::broker::BrokerCounters;
use dataflow_runtime::control::StatusSnapshot;
use std::fmt;

macro_rules! report {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a run, or several, met.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Report {
            /// The hash over all decisions, calls and rows, in order; of several runs the sum.
            pub trace: u64,
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Report {
            /// Adds another one.
            pub fn add(&mut self, other: &Report) {
                self.trace = self.trace.wrapping_add(other.trace);
                $(self.$name += other.$name;)+
            }
        }
    };
}

report! {
    /// Entries of the trace.
    decisions,
    /// Turns of the scheduler.
    turns,
    /// Lives of the job.
    lives,
    /// Lives that ended with the machine.
    power_losses,
    /// Lives that ended with the process alone.
    kills,
    /// Lives that ended within a call of storage or broker.
    ended_in_a_call,
    /// Lives that ended because a call failed.
    failed_calls,
    /// Lives that ended before they could begin.
    ended_in_recovery,
    /// Clean stops.
    stops,
    /// Sinks that went on without their process.
    strays,
    /// Starts that found a torn tail in the binding log.
    torn_tails,
    /// Sectors that were not written though later ones were.
    torn_sectors,
    /// Calls that took long.
    stalls,
    /// Of those, the ones that got a process killed.
    stuck,
    /// Fetches that an outage of the source left without an answer.
    source_away,
    /// Partitions found while the job ran.
    partitions_added,
    /// Questions to the schema registry.
    schemas_asked,
    /// Of those, the ones that an outage left without an answer.
    registry_away,
    /// Of those, the ones that came before the schema did.
    schemas_too_early,
    /// Of those, the ones about an id without a sensible schema.
    schemas_senseless,
    /// Calls that found the disk full.
    disk_full,
    /// Starts that ended at a full disk.
    full_at_start,
    /// Bits that flipped on the disk.
    flips,
    /// Flipped bits that a start refused, naming the file.
    flips_refused,
    /// Damaged checkpoints that were passed over.
    passed_over,
    /// Starts from a checkpoint.
    restored,
    /// Starts with another number of workers than the life before.
    rescaled,
    /// Epochs replayed.
    replayed,
    /// Epochs that a sink had already.
    dropped_by_marker,
    /// Checkpoints completed.
    checkpoints,
    /// Findings withdrawn.
    withdrawn,
    /// Duplicates dropped.
    duplicates,
    /// Late records.
    late,
    /// Dead letters.
    dead_letters,
    /// Times that an epoch was held back.
    backpressure,
    /// Commits whose answer did not come.
    unknown_outcomes,
    /// Of those, the ones that had been applied.
    applied_unseen,
    /// Records that the broker refused.
    refused,
    /// Calls of fenced producers.
    fenced,
    /// Transactions ended by an initialisation.
    aborted,
    /// Transactions ended because they took too long.
    timed_out,
    /// Calls that met a transaction which was decided and not yet complete.
    concurrent,
    /// Commits that arrived when they had nothing to commit any more.
    stale,
    /// Requests with records that arrived late, and into a transaction.
    produced_late,
    /// Requests with records that arrived late, and were refused.
    late_refused,
    /// Records deleted behind a checkpoint.
    deleted,
    /// Snapshots of tables.
    snapshots,
    /// Of those, the ones that delete rows of earlier ones.
    deleting,
    /// Of those, the ones that do so by deletion vectors.
    vectors,
    /// Of those, the ones where a vector has taken the place of position deletes of format 2.
    upgrades,
    /// Of those that delete rows, the ones that take a data file away with its last row.
    dead_files,
    /// Snapshots that a restart made of an intent in its checkpoint.
    intents_restored,
    /// Snapshots that hold the rows of others in other files.
    rewrites,
    /// Of those, the ones that a restart made, or found, of an intent in its checkpoint.
    rewrites_restored,
    /// Snapshots of tables that expired.
    expired,
    /// Starts that found a table ahead of the checkpoint, whose index was made anew.
    tables_ahead,
    /// Of those, the ones whose replay had epochs that the table has.
    table_replays_dropped,
    /// Calls of a catalog that is away.
    catalog_away,
    /// Commits of tables whose answer did not come.
    table_unknown_outcomes,
    /// Of those, the ones that were made.
    table_applied_unseen,
    /// Commits of tables that came late, and were made.
    table_late_applied,
    /// Commits of tables that came late, and were refused.
    table_late_refused,
    /// Commits of somebody else to tables of the sink.
    table_foreign,
    /// Lives that ended because of such a commit.
    ended_by_others,
    /// Writes that found the warehouse's disk full or failing.
    lake_disk_full,
    /// Starts that ended at an outage of catalog or disk.
    ended_by_outage,
    /// Days that were over and stood.
    days_closed,
    /// Changes that were stale: of a replay, or of an old snapshot.
    stale_changes,
    /// Epochs bound.
    epochs,
    /// Rows delivered.
    rows,
    /// Anomalies among them.
    anomalies,
}

impl Report {
    pub(crate) fn add_status(&mut self, status: &StatusSnapshot) {
        self.restored += u64::from(status.restored_epoch > 0);
        self.replayed += status.replayed_epochs;
        self.dropped_by_marker += status.epochs_dropped_by_marker;
        self.checkpoints += status.checkpoints;
        self.passed_over += status.damaged_checkpoints;
        self.withdrawn += status.withdrawn;
        self.duplicates += status.duplicates;
        self.late += status.late;
        self.dead_letters += status.dead_letters;
        self.backpressure += status.backpressure;
        let stale = status.labelled.iter().filter(|(label, _)| label.starts_with("changes.stale."));
        self.stale_changes += stale.map(|(_, count)| count).sum::<u64>();
    }

    pub(crate) fn add_broker(&mut self, broker: &BrokerCounters) {
        self.unknown_outcomes += broker.unknown;
        self.applied_unseen += broker.applied_unseen;
        self.refused += broker.refused;
        self.fenced += broker.fenced;
        self.aborted += broker.aborted;
        self.timed_out += broker.timed_out;
        self.concurrent += broker.concurrent;
        self.stale += broker.stale;
        self.produced_late += broker.produced_late;
        self.late_refused += broker.late_refused;
    }
}

/// A seed that did not come out right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was simulated.
    pub graph: Graph,
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { graph, seed, what } = self;
        let test = match graph {
            Graph::Logins => "one_seed",
            Graph::Lake => "one_lake_seed",
        };
        write!(
            f,
            "seed {seed}: {what}\n  run it again: DATAFLOW_SIM_SEED={seed} cargo test -p dataflow-sim --test seeds -- --nocapture {test}"
        )
    }
}

impl std::error::Error for Failure {}
