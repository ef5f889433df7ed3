//! The page's numbers as JSON: everything that is measured at one moment, and the newest committed rows of a topic.

use super::{Shown, graph, health};
use crate::status::JobStatus;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dataflow_core::Error;
use dataflow_runtime::measures::histogram::BOUNDS_US;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The counters, as `status.json` in the data folder has them.
pub(super) async fn status(shown: State<Arc<Shown>>) -> impl IntoResponse {
    let plan = &shown.plan;
    Json(json!({
        "job": plan.name,
        "profile": shown.profile,
        "generation": plan.generation.number,
        "workers": plan.workers,
        "status": JobStatus::of(&plan.control),
    }))
}

/// All that is measured.
pub(super) async fn watch(shown: State<Arc<Shown>>) -> impl IntoResponse {
    let (plan, settings) = (&shown.plan, &shown.plan.settings);
    let (control, clock) = (&plan.control, &plan.environment.clock);
    let measures = &control.measures;
    let partition = |(id, measure)| {
        let mut row = serde_json::to_value(measure).expect("a measure is plain data");
        row["name"] = plan.partition_name(id).into();
        row
    };
    let topics: Vec<&String> = shown.topics.keys().collect();
    Json(json!({
        "job": plan.name,
        "profile": shown.profile,
        "generation": plan.generation.number,
        "lineage": plan.lineage.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "workers": plan.workers,
        "state": health::state(control),
        "failure": control.failure(Error::to_string),
        "now": clock.wall(),
        "uptime_ms": clock.monotonic().saturating_sub(shown.began).as_millis() as u64,
        "monotonic_ms": clock.monotonic().as_millis() as u64,
        "status": control.status.snapshot(),
        "watermark": control.watermark(),
        "settings": {
            "lateness_ms": settings.lateness_ms,
            "open_epochs_max": settings.open_epochs_max,
            "checkpoint_interval_ms": settings.checkpoint_interval_ms,
        },
        "graph": graph::shown(&measures.graph.snapshot()),
        "epochs": { "bounds_us": BOUNDS_US, "stages": measures.epochs.snapshot() },
        "partitions": measures.partitions.snapshot().into_iter().map(partition).collect::<Vec<Value>>(),
        "checkpoints": measures.checkpoints.snapshot(),
        "state_of": measures.state.snapshot(),
        "topics": topics,
        "tables": measures.tables.snapshot(),
        "table_sinks": measures.tables.sinks(),
        "restore": measures.restore.snapshot(),
        "memory": measures.memory.snapshot(),
    }))
}

/// Which rows.
#[derive(Deserialize)]
pub(super) struct RowsQuery {
    topic: String,
    /// Rows with a greater number only.
    #[serde(default)]
    after: u64,
}

/// The newest committed rows of a topic, oldest first.
pub(super) async fn rows(shown: State<Arc<Shown>>, asked: Query<RowsQuery>) -> Response {
    let Some((sink, topic)) = shown.topics.get(&asked.topic) else {
        let topics: Vec<&String> = shown.topics.keys().collect();
        return (StatusCode::NOT_FOUND, Json(json!({ "error": "the job writes no such topic", "topics": topics })))
            .into_response();
    };
    let rows = shown.plan.control.measures.rows.after(sink, *topic, asked.after);
    let row = |row: &dataflow_runtime::measures::rows::CommittedRow| {
        let value: Value = serde_json::from_slice(&row.value).unwrap_or(Value::Null);
        json!({ "number": row.number, "epoch": row.epoch, "at": row.at, "row": value })
    };
    Json(rows.iter().map(row).collect::<Vec<Value>>()).into_response()
}
