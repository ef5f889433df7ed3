//! `/metrics`: what is measured, under names that stay.
//!
//! The engine counts for itself and once an epoch; only when someone asks are the counts put into the `metrics` recorder, whose
//! exporter writes the text. Histograms alone are recorded as they happen, once an epoch and sink. [`METRICS`] is the list of names:
//! `ARCHITECTURE.md` shows it, nothing else is served, and a test holds the three together.

use crate::page;
use crate::wiring::ConnectorCounters;
use dataflow_core::time::SECOND;
use dataflow_core::{Error, Result};
use dataflow_runtime::Plan;
use dataflow_runtime::measures::epochs::{COMMIT_SECONDS, EPOCH_SECONDS};
use dataflow_runtime::measures::histogram::BOUNDS_US;
use dataflow_runtime::measures::keys::StateMeasure;
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::collections::BTreeMap;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// Every metric: name, kind, labels, meaning.
const METRICS: [(&str, Kind, &str, &str); 69] = [
    ("dataflow_job_info", Gauge, "job, profile, generation, lineage, version", "1: which job this is"),
    ("dataflow_ready", Gauge, "", "1 when the job reads its input live"),
    ("dataflow_records_total", Counter, "worker", "records read"),
    ("dataflow_accepted_total", Counter, "", "records accepted"),
    ("dataflow_late_total", Counter, "", "records below the watermark"),
    (
        "dataflow_duplicates_total",
        Counter,
        "operator, worker",
        "events that an operator dropped because they came twice",
    ),
    ("dataflow_dead_letters_total", Counter, "reason", "records that cannot be used"),
    (
        "dataflow_changes_total",
        Counter,
        "table, what",
        "changes of tables that were stale, incomplete, a delete_of_unknown key, a changed_key",
    ),
    ("dataflow_source_transactions_total", Counter, "released", "source transactions applied whole, or begun in_parts"),
    ("dataflow_memory_bytes", Gauge, "", "resident memory of the process"),
    ("dataflow_memory_limit_bytes", Gauge, "", "resident memory at which the job stops"),
    ("dataflow_restore_rows", Gauge, "of", "rows of durable collections and of views that the start has rebuilt"),
    (
        "dataflow_restore_rows_total",
        Gauge,
        "of",
        "how many it rebuilds: an estimate of the stores until a collection is read to its end",
    ),
    ("dataflow_restore_seconds", Gauge, "", "time until the views had caught up with the restored epoch, or so far"),
    ("dataflow_rows", Gauge, "view", "rows of a durable collection, or of a view that the job counts"),
    ("dataflow_findings_raised_total", Counter, "detector", "findings raised"),
    ("dataflow_findings_withdrawn_total", Counter, "detector", "findings withdrawn"),
    ("dataflow_epoch", Gauge, "stage", "newest epoch opened, durable, committed, checkpointed, restored"),
    ("dataflow_replayed_epochs_total", Counter, "", "epochs replayed from their bindings"),
    ("dataflow_epochs_dropped_by_marker_total", Counter, "", "replayed epochs that a sink had already"),
    (EPOCH_SECONDS, Histogram, "stage, sink", "first record of an epoch to bound, durable, staged, committed"),
    ("dataflow_backpressure_total", Counter, "", "times an epoch was held back because too many were not staged"),
    ("dataflow_backpressure_microseconds_total", Counter, "", "time in which one was held back"),
    ("dataflow_full_epochs_total", Counter, "", "epochs closed early because they were full"),
    ("dataflow_partition_records_total", Counter, "partition", "records read of a source partition"),
    (
        "dataflow_partition_lag_records",
        Gauge,
        "partition",
        "records that are there and not read (where the connector knows)",
    ),
    (
        "dataflow_partition_watermark_seconds",
        Gauge,
        "partition",
        "event time up to which a partition is complete, Unix time",
    ),
    ("dataflow_partition_idle", Gauge, "partition", "1 when the watermark does not wait for the partition"),
    ("dataflow_partition_ahead", Gauge, "partition", "1 when the partition waits for slower ones"),
    ("dataflow_lost_records_total", Counter, "", "records lost to retention and passed over (`on_lost = \"skip\"`)"),
    (
        "dataflow_skipped_records_total",
        Counter,
        "",
        "records of a topic created anew below the bound offsets (`on_recreated = \"skip\"`)",
    ),
    ("dataflow_recreated_topics_total", Counter, "", "times that a source topic was found gone or created anew"),
    ("dataflow_objects_total", Counter, "state", "source objects read, changed (refused), gone, damaged"),
    ("dataflow_watermark_seconds", Gauge, "", "the job's watermark, Unix time"),
    ("dataflow_operator_busy_microseconds_total", Counter, "operator, worker", "time in which an operator ran"),
    ("dataflow_operator_activations_total", Counter, "operator, worker", "times an operator ran"),
    ("dataflow_operator_records_total", Counter, "operator, worker", "records an operator took in"),
    ("dataflow_operator_queued_records", Gauge, "operator, worker", "records sent to an operator and not taken in"),
    ("dataflow_worker_alive_microseconds_total", Counter, "worker", "time since a worker's start"),
    ("dataflow_worker_parked_microseconds_total", Counter, "worker", "time in which a worker had nothing to do"),
    ("dataflow_sink_epoch", Gauge, "sink, stage", "newest epoch with output a sink has staged, committed"),
    ("dataflow_sink_epochs_waiting", Gauge, "sink", "epochs staged and not committed"),
    ("dataflow_sink_staged_bytes", Gauge, "sink", "bytes staged and not committed"),
    ("dataflow_sink_rows_total", Counter, "sink", "rows committed"),
    ("dataflow_sink_bytes_total", Counter, "sink", "bytes of committed values"),
    ("dataflow_sink_transactions_total", Counter, "sink", "transactions committed"),
    (COMMIT_SECONDS, Histogram, "sink", "duration of a commit"),
    ("dataflow_table_rows", Gauge, "table", "rows of a table after its last commit"),
    ("dataflow_table_epoch", Gauge, "table", "newest epoch committed to a table"),
    ("dataflow_table_commits_total", Counter, "table", "snapshots made of a table"),
    ("dataflow_table_rows_added_total", Counter, "table", "rows that these commits added"),
    ("dataflow_table_rows_deleted_total", Counter, "table", "rows that these commits took away"),
    ("dataflow_table_commit_seconds", Gauge, "table", "duration of a table's last commit"),
    ("dataflow_table_intents", Gauge, "sink", "checkpoint epochs with files that are not committed"),
    ("dataflow_table_retries_total", Counter, "sink", "errors after which files or a commit were tried again"),
    ("dataflow_table_retrying", Gauge, "sink", "1 while files or a commit are tried again"),
    ("dataflow_aborted_transactions_total", Counter, "", "transactions aborted or of unknown outcome and resolved"),
    ("dataflow_checkpoints_total", Counter, "", "checkpoints completed"),
    ("dataflow_checkpoint_bytes", Gauge, "", "bytes that a restore of the last checkpoint reads"),
    ("dataflow_checkpoint_added_bytes", Gauge, "", "bytes that were stored for the last checkpoint"),
    ("dataflow_checkpoint_files", Gauge, "", "files of the last checkpoint"),
    ("dataflow_checkpoint_seconds", Gauge, "", "opening of the last checkpoint's epoch to its durable manifest"),
    ("dataflow_checkpoint_cut_seconds", Gauge, "", "time for which the last cut held the slowest worker"),
    ("dataflow_damaged_checkpoints", Gauge, "", "damaged checkpoints that were passed over on start"),
    ("dataflow_state_keys", Gauge, "operator, worker", "keys of an operator's state, estimated"),
    ("dataflow_state_bytes", Gauge, "operator, worker", "bytes of an operator's state, estimated"),
    (
        "dataflow_state_cache_loads_total",
        Counter,
        "operator, worker, found",
        "keys loaded from the cache (true) or the store (false)",
    ),
    ("dataflow_state_shard_bytes", Gauge, "operator, shard", "bytes of a shard in the last checkpoint"),
    ("dataflow_state_shard_records_total", Counter, "operator, shard", "records of a shard"),
];

/// Owns the process's recorder.
pub(crate) struct Exporter {
    handle: PrometheusHandle,
    connectors: ConnectorCounters,
}

impl Exporter {
    /// Makes the recorder of the process, once and before the job is prepared: what is measured asks for it.
    ///
    /// # Errors
    /// When the process has one already.
    pub(crate) fn install(connectors: ConnectorCounters) -> Result<Exporter> {
        let failed = |cause: metrics_exporter_prometheus::BuildError| Error::us("starting the metrics").because(cause);
        let bounds: Vec<f64> = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).collect();
        let suffix = Matcher::Suffix("_seconds".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(suffix, &bounds).map_err(failed)?;
        let handle = builder.install_recorder().map_err(failed)?;
        for (name, kind, _, meaning) in METRICS {
            match kind {
                Counter => metrics::describe_counter!(name, meaning),
                Gauge => metrics::describe_gauge!(name, meaning),
                Histogram => metrics::describe_histogram!(name, meaning),
            }
        }
        Ok(Exporter { handle, connectors })
    }

    /// Keeps the recorder's memory bounded when nobody asks: what histograms recorded is put into their buckets.
    pub(crate) fn keep_up(&self) {
        self.handle.run_upkeep();
    }

    /// The text, as of now.
    pub(crate) fn render(&self, plan: &Plan, profile: &str) -> String {
        crate::wiring::gather_counters(plan, &self.connectors);
        let info = [
            ("job", plan.name.clone()),
            ("profile", profile.to_owned()),
            ("generation", plan.generation.number.to_string()),
            ("lineage", plan.lineage.to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        gauge!("dataflow_job_info", &info).set(1.0);
        process(plan);
        records(plan);
        partitions(plan);
        operators(plan);
        sinks(plan);
        tables(plan);
        checkpoints(plan);
        state(&plan.control.measures.state.snapshot());
        self.handle.render()
    }
}

fn process(plan: &Plan) {
    let measures = &plan.control.measures;
    let memory = measures.memory.snapshot();
    gauge!("dataflow_memory_bytes").set(memory.bytes as f64);
    gauge!("dataflow_memory_limit_bytes").set(memory.limit_bytes as f64);
    let restore = measures.restore.snapshot();
    let (collections, views) = restore.as_ref().map(|of| (of.collections, of.views)).unwrap_or_default();
    for (of, progress) in [("collections", collections), ("views", views)] {
        gauge!("dataflow_restore_rows", "of" => of).set(progress.rows as f64);
        gauge!("dataflow_restore_rows_total", "of" => of).set(progress.rows_total as f64);
    }
    gauge!("dataflow_restore_seconds").set(restore.map_or(0.0, |restore| restore.seconds));
}

fn records(plan: &Plan) {
    let control = &plan.control;
    let status = control.status.snapshot();
    gauge!("dataflow_ready").set(flag(page::is_ready(control)));
    for (worker, records) in &status.records_by_worker {
        counter!("dataflow_records_total", "worker" => worker.to_string()).absolute(*records);
    }
    counter!("dataflow_accepted_total").absolute(status.accepted);
    counter!("dataflow_late_total").absolute(status.late);
    for (label, count) in &status.labelled {
        let (label, count) = (label.split_once('.'), *count);
        match label.map(|(kind, of)| (kind, of.to_owned())) {
            Some(("dead_letters", reason)) => {
                counter!("dataflow_dead_letters_total", "reason" => reason).absolute(count)
            }
            Some(("changes", change)) => {
                let (what, table) = change.split_once('.').unwrap_or((&change, ""));
                let labels = [("table", table.to_owned()), ("what", what.to_owned())];
                counter!("dataflow_changes_total", &labels).absolute(count);
            }
            Some(("transactions", released)) => {
                counter!("dataflow_source_transactions_total", "released" => released).absolute(count);
            }
            Some(("raised", detector)) => {
                counter!("dataflow_findings_raised_total", "detector" => detector).absolute(count)
            }
            Some(("withdrawn", detector)) => {
                counter!("dataflow_findings_withdrawn_total", "detector" => detector).absolute(count);
            }
            _ => {}
        }
    }
    for (view, rows) in &status.rows {
        gauge!("dataflow_rows", "view" => view.clone()).set(*rows as f64);
    }
    for (stage, epoch) in [
        ("opened", status.epoch_opened),
        ("durable", status.epoch_durable),
        ("committed", status.epoch_committed),
        ("checkpointed", status.epoch_checkpointed),
        ("restored", status.restored_epoch),
    ] {
        gauge!("dataflow_epoch", "stage" => stage).set(epoch as f64);
    }
    counter!("dataflow_replayed_epochs_total").absolute(status.replayed_epochs);
    counter!("dataflow_epochs_dropped_by_marker_total").absolute(status.epochs_dropped_by_marker);
    counter!("dataflow_backpressure_total").absolute(status.backpressure);
    counter!("dataflow_backpressure_microseconds_total").absolute(status.backpressure_us);
    counter!("dataflow_full_epochs_total").absolute(status.full_epochs);
    counter!("dataflow_aborted_transactions_total").absolute(status.aborted_transactions);
    counter!("dataflow_lost_records_total").absolute(status.lost_records);
    counter!("dataflow_skipped_records_total").absolute(status.skipped_records);
    counter!("dataflow_recreated_topics_total").absolute(status.recreated_topics);
    for (state, objects) in [
        ("read", status.objects_read),
        ("changed", status.objects_changed),
        ("gone", status.objects_gone),
        ("damaged", status.objects_damaged),
    ] {
        counter!("dataflow_objects_total", "state" => state).absolute(objects);
    }
    if let Some(watermark) = control.watermark() {
        gauge!("dataflow_watermark_seconds").set(seconds(watermark.0));
    }
}

fn partitions(plan: &Plan) {
    let lateness_us = plan.settings.lateness_ms as i64 * 1_000;
    for (id, measure) in plan.control.measures.partitions.snapshot() {
        let partition = [("partition", plan.partition_name(id))];
        counter!("dataflow_partition_records_total", &partition).absolute(measure.records);
        gauge!("dataflow_partition_idle", &partition).set(flag(measure.is_idle));
        gauge!("dataflow_partition_ahead", &partition).set(flag(measure.is_ahead));
        if let Some(lag) = measure.lag {
            gauge!("dataflow_partition_lag_records", &partition).set(lag as f64);
        }
        if let Some(newest) = measure.newest {
            gauge!("dataflow_partition_watermark_seconds", &partition).set(seconds(newest.0 - lateness_us));
        }
    }
}

fn operators(plan: &Plan) {
    let workers = plan.control.measures.graph.snapshot();
    for (index, worker) in &workers {
        let worker_label = [("worker", index.to_string())];
        counter!("dataflow_worker_alive_microseconds_total", &worker_label).absolute(worker.alive_ns / 1_000);
        counter!("dataflow_worker_parked_microseconds_total", &worker_label).absolute(worker.parked_ns / 1_000);
    }
    // Operators of one name are one series: plumbing has no name of its own.
    let mut by_name: BTreeMap<(String, usize), [u64; 4]> = BTreeMap::new();
    for node in page::nodes(&workers) {
        for worker in 0..workers.len() {
            let sums = by_name.entry((node.name.clone(), worker)).or_default();
            let new =
                [node.busy_ns[worker] / 1_000, node.activations[worker], node.received[worker], node.queued[worker]];
            sums.iter_mut().zip(new).for_each(|(sum, new)| *sum += new);
        }
    }
    for ((operator, worker), [busy, activations, records, queued]) in by_name {
        let labels = [("operator", operator), ("worker", worker.to_string())];
        counter!("dataflow_operator_busy_microseconds_total", &labels).absolute(busy);
        counter!("dataflow_operator_activations_total", &labels).absolute(activations);
        counter!("dataflow_operator_records_total", &labels).absolute(records);
        gauge!("dataflow_operator_queued_records", &labels).set(queued as f64);
    }
}

fn sinks(plan: &Plan) {
    for (sink, snapshot) in plan.control.measures.epochs.snapshot().sinks {
        let progress = snapshot.progress;
        for (stage, epoch) in [("staged", progress.epoch_staged), ("committed", progress.epoch_committed)] {
            gauge!("dataflow_sink_epoch", "sink" => sink.clone(), "stage" => stage).set(epoch as f64);
        }
        let sink = [("sink", sink)];
        gauge!("dataflow_sink_epochs_waiting", &sink).set(progress.epochs_waiting as f64);
        gauge!("dataflow_sink_staged_bytes", &sink).set(progress.staged_bytes as f64);
        counter!("dataflow_sink_rows_total", &sink).absolute(progress.rows);
        counter!("dataflow_sink_bytes_total", &sink).absolute(progress.bytes);
        counter!("dataflow_sink_transactions_total", &sink).absolute(progress.transactions);
    }
}

fn tables(plan: &Plan) {
    let measures = &plan.control.measures.tables;
    for (table, measure) in measures.snapshot() {
        let table = [("table", table)];
        if let Some(rows) = measure.rows {
            gauge!("dataflow_table_rows", &table).set(rows as f64);
        }
        gauge!("dataflow_table_epoch", &table).set(measure.epoch as f64);
        gauge!("dataflow_table_commit_seconds", &table).set(measure.took_us as f64 / 1e6);
        counter!("dataflow_table_commits_total", &table).absolute(measure.commits);
        counter!("dataflow_table_rows_added_total", &table).absolute(measure.added);
        counter!("dataflow_table_rows_deleted_total", &table).absolute(measure.deleted);
    }
    for (sink, measure) in measures.sinks() {
        let sink = [("sink", sink)];
        gauge!("dataflow_table_intents", &sink).set(measure.intents as f64);
        gauge!("dataflow_table_retrying", &sink).set(flag(!measure.retrying.is_empty()));
        counter!("dataflow_table_retries_total", &sink).absolute(measure.retries);
    }
}

fn checkpoints(plan: &Plan) {
    let status = &plan.control.status;
    counter!("dataflow_checkpoints_total").absolute(status.checkpoints.get());
    gauge!("dataflow_damaged_checkpoints").set(status.damaged_checkpoints.get() as f64);
    if let Some(last) = plan.control.measures.checkpoints.snapshot().last() {
        gauge!("dataflow_checkpoint_bytes").set(last.bytes as f64);
        gauge!("dataflow_checkpoint_added_bytes").set(last.bytes_added as f64);
        gauge!("dataflow_checkpoint_files").set(last.files as f64);
        gauge!("dataflow_checkpoint_seconds").set(last.took_us as f64 / 1e6);
        gauge!("dataflow_checkpoint_cut_seconds").set(last.cut_us as f64 / 1e6);
    }
}

fn state(instances: &[StateMeasure]) {
    let mut shards: BTreeMap<(&str, usize), (u64, u64)> = BTreeMap::new();
    for measure in instances {
        let labels = [("operator", measure.operator.clone()), ("worker", measure.worker.to_string())];
        counter!("dataflow_duplicates_total", &labels).absolute(measure.duplicates_total);
        gauge!("dataflow_state_keys", &labels).set(measure.keys as f64);
        gauge!("dataflow_state_bytes", &labels).set((measure.live_bytes + measure.dirty_bytes) as f64);
        for (found, loads) in [("true", measure.hits), ("false", measure.misses)] {
            let [operator, worker] = labels.clone();
            let found = ("found", found.to_owned());
            counter!("dataflow_state_cache_loads_total", &[operator, worker, found]).absolute(loads);
        }
        // A shard belongs to one worker, so these sums have one part that is not zero.
        for (shard, bytes) in measure.shard_bytes.iter().enumerate() {
            shards.entry((&measure.operator, shard)).or_default().0 += bytes;
        }
        for (shard, records) in measure.shard_records.iter().enumerate() {
            shards.entry((&measure.operator, shard)).or_default().1 += records;
        }
    }
    for ((operator, shard), (bytes, records)) in shards {
        let labels = [("operator", operator.to_owned()), ("shard", shard.to_string())];
        gauge!("dataflow_state_shard_bytes", &labels).set(bytes as f64);
        counter!("dataflow_state_shard_records_total", &labels).absolute(records);
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn seconds(us: i64) -> f64 {
    us as f64 / SECOND as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    fn file(path: &str) -> String {
        let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..");
        std::fs::read_to_string(root.join(path)).unwrap()
    }

    #[test]
    fn the_documented_table_is_the_list() {
        let architecture = file("ARCHITECTURE.md");
        let documented: Vec<&str> = architecture.lines().filter(|line| line.starts_with("| `dataflow_")).collect();
        let listed: Vec<String> = METRICS
            .iter()
            .map(|(name, kind, labels, meaning)| {
                let kind = format!("{kind:?}").to_lowercase();
                format!("| `{name}` | {kind} | {labels} | {meaning} |").replace("|  |", "| |")
            })
            .collect();
        assert_eq!(
            documented,
            listed,
            "the table of ARCHITECTURE.md, section Metrics, should be:\n{}",
            listed.join("\n")
        );
    }

    #[test]
    fn the_board_asks_for_nothing_that_is_not_served() {
        let board = file("compose/grafana/dataflow.json");
        let served: BTreeSet<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut asked = BTreeSet::new();
        for word in board.split(|c| !is_name(c)).filter(|word| word.starts_with("dataflow_")) {
            let parts = ["_bucket", "_sum", "_count"];
            let base = parts.iter().find_map(|part| word.strip_suffix(part)).filter(|base| served.contains(base));
            let name = base.unwrap_or(word);
            assert!(served.contains(name), "the board asks for '{word}'");
            asked.insert(name);
        }
        assert!(asked.len() > served.len() / 2, "the board shows {} of {} metrics only", asked.len(), served.len());
    }
}
