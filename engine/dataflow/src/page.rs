//! The live page: one HTML file in the binary, and the status and newest rows it asks for, on loopback only.

use crate::profile::Profile;
use crate::wiring::LOGS;
use axum::extract::State;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use dataflow_connectors::sink::local_log::Tail;
use dataflow_core::{Error, Result, Storage, Task, TaskState};
use dataflow_runtime::Plan;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// Newest alerts that the page can show.
const ALERTS_MAX: usize = 200;
/// The topic whose rows are shown.
const TOPIC: &str = "login-anomalies";

struct Shown {
    plan: Arc<Plan>,
    profile: String,
    alerts: Mutex<Alerts>,
}

/// The newest committed rows, when they lie in a local log.
struct Alerts {
    tail: Option<Tail>,
    newest: VecDeque<Value>,
}

/// Serves the page until the process ends. Port 0 takes any free one.
pub(crate) fn serve(port: u16, plan: Arc<Plan>, storage: Arc<dyn Storage>, profile: &Profile) -> Result<SocketAddr> {
    let failed = |cause: std::io::Error| {
        Error::user(format!("serving the live page on port {port}"))
            .because(cause)
            .hint("choose another with --page, 0 for any free one")
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let tail = local_log_of(profile)?.map(|sink| Tail::new(storage, &format!("{LOGS}/{sink}"), TOPIC, None));
    let alerts = Mutex::new(Alerts { tail, newest: VecDeque::new() });
    let spawner = plan.environment.spawner.clone();
    let shown = Arc::new(Shown { plan, profile: profile.name.clone(), alerts });
    spawner.spawn("page", Box::new(Server { listener: Some(listener), shown }));
    Ok(address)
}

fn local_log_of(profile: &Profile) -> Result<Option<String>> {
    for name in profile.names("sinks") {
        let table = profile.table(&["sinks", &name])?;
        let topics: Vec<String> = table.get("topics").cloned().and_then(|v| v.try_into().ok()).unwrap_or_default();
        if table.get("connector").and_then(|v| v.as_str()) == Some("local-log") && topics.iter().any(|t| t == TOPIC) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Its thread belongs to the server until the process ends.
struct Server {
    listener: Option<TcpListener>,
    shown: Arc<Shown>,
}

impl Task for Server {
    fn run(&mut self) -> TaskState {
        let Some(listener) = self.listener.take() else { return TaskState::Done };
        let app = Router::new()
            .route("/", get(|| async { Html(include_str!("page.html")) }))
            .route("/status.json", get(status))
            .route("/alerts.json", get(alerts))
            .with_state(self.shown.clone());
        let served = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
            runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await })
        });
        if let Err(error) = served {
            tracing::warn!(%error, "the live page has ended");
        }
        TaskState::Done
    }
}

async fn status(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    let plan = &shown.plan;
    Json(json!({
        "job": plan.name,
        "profile": shown.profile,
        "generation": plan.generation.number,
        "workers": plan.workers,
        "status": plan.control.status.snapshot(),
    }))
}

async fn alerts(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    let mut alerts = shown.alerts.lock().expect("no holder of this lock can panic");
    let lines = alerts.tail.as_mut().map_or(Ok(Vec::new()), Tail::read).unwrap_or_default();
    for row in lines.iter().filter_map(|line| serde_json::from_slice(line).ok()) {
        if alerts.newest.len() == ALERTS_MAX {
            alerts.newest.pop_front();
        }
        alerts.newest.push_back(row);
    }
    Json(alerts.newest.iter().rev().cloned().collect::<Vec<Value>>())
}
