//! The tables of a job as JSON: the committed rows of the small ones, with the names of their columns.

use super::Shown;
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use dataflow_connectors::sink::case_files::json_cell;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// By table: its columns and rows.
pub(super) async fn tables(shown: State<Arc<Shown>>) -> impl IntoResponse {
    let schemas = shown.asked.lock().expect("no holder panics").tables.clone();
    let small = shown.plan.control.measures.tables.rows().into_iter();
    let content = small.filter_map(|(table, rows)| {
        let columns = &schemas.get(&table)?.columns;
        let cells = |row: &dataflow_core::Row| -> Vec<Value> {
            columns.iter().zip(row.0.iter()).map(|(column, datum)| json_cell(column.kind, datum)).collect()
        };
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        Some((table, json!({ "columns": names, "rows": rows.iter().map(cells).collect::<Vec<_>>() })))
    });
    Json(content.collect::<Map<String, Value>>())
}
