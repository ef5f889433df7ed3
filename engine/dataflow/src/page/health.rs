//! What machines ask: `/healthz` (alive, nothing failed), `/readyz` (reads its input live), `/metrics`.

use super::Shown;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use dataflow_runtime::Control;
use serde_json::json;
use std::sync::Arc;

/// The Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a job is doing, in one word.
pub(crate) fn state(control: &Control) -> &'static str {
    if control.has_failed() {
        "failed"
    } else if control.is_stopping() || control.is_finished() {
        "stopping"
    } else if control.measures.restore.is_under_way() {
        "restoring"
    } else if control.measures.is_caught_up() {
        "running"
    } else if control.status.epoch_opened.get() > 0 {
        "replaying"
    } else {
        "starting"
    }
}

/// Whether it reads its input live.
pub(crate) fn is_ready(control: &Control) -> bool {
    state(control) == "running"
}

/// The process answers and its generation has not failed.
pub(super) async fn healthz(shown: State<Arc<Shown>>) -> impl IntoResponse {
    let state = state(&shown.plan.control);
    let code = if state == "failed" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(json!({ "state": state })))
}

/// Its sources are open, its views are rebuilt, the replay is behind it, and it is not on its way out.
pub(super) async fn readyz(shown: State<Arc<Shown>>) -> impl IntoResponse {
    let state = state(&shown.plan.control);
    let code = if is_ready(&shown.plan.control) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "state": state })))
}

pub(super) async fn metrics(shown: State<Arc<Shown>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, PROMETHEUS_TEXT)], shown.exporter.render(&shown.plan, &shown.profile))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::Error;
    use std::time::Duration;

    #[test]
    fn a_job_s_states() {
        let control = Control::new();
        assert_eq!(state(&control), "starting");
        control.measures.restore.begin(&dataflow_runtime::threads::environment().clock, Duration::ZERO);
        assert_eq!(state(&control), "restoring");
        control.status.epoch_opened.set(1);
        assert_eq!(state(&control), "restoring", "epochs are open before the views are there");
        control.measures.restore.end();
        assert_eq!(state(&control), "replaying");
        control.stop();
        assert_eq!(state(&control), "stopping");
        control.fail(Error::us("testing"));
        assert_eq!(state(&control), "failed");
    }
}
