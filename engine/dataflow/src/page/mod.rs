//! The live page and what machines ask a running job: its assets in the binary, its numbers as JSON, `/metrics`, `/healthz`, `/readyz`.
//!
//! Loopback only: whoever may look is whoever may log in to the machine. It shows committed rows, which hold what the job's
//! outputs hold, and never a setting or a secret. It only reads; nothing here can change what the job does.

mod assets;
mod graph;
mod health;
mod tables;
mod watch;

pub(crate) use graph::nodes;
pub(crate) use health::{is_ready, state};

use crate::job::{Asked, JobWiring};
use crate::metrics::Exporter;
use crate::wiring::Topics;
use axum::Router;
use axum::routing::get;
use dataflow_core::{Error, Result, Task, TaskState};
use dataflow_runtime::Plan;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the handlers read.
struct Shown {
    plan: Arc<Plan>,
    profile: String,
    topics: Topics,
    /// What the job asked for: the shapes of its tables.
    asked: Arc<Mutex<Asked>>,
    exporter: Arc<Exporter>,
    /// Monotonic time when the page was first served.
    began: Duration,
}

/// Takes the port that the page is to be served on, before anything else is touched. Port 0 takes any free one.
pub(crate) fn listen(port: u16) -> Result<(TcpListener, SocketAddr)> {
    let listening = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listening().map_err(|cause: std::io::Error| {
        Error::user(format!("serving the live page on port {port}"))
            .because(cause)
            .hint("choose another with --page, 0 for any free one")
    })
}

/// Serves the page until the process ends.
pub(crate) fn serve(listener: TcpListener, plan: Arc<Plan>, profile: String, job: &JobWiring, exporter: Arc<Exporter>) {
    let spawner = plan.environment.spawner.clone();
    plan.control.measures.rows.watch();
    plan.control.measures.tables.watch();
    let began = plan.environment.clock.monotonic();
    let shown =
        Arc::new(Shown { plan, profile, topics: job.topics.clone(), asked: job.asked.clone(), exporter, began });
    spawner.spawn("page", Box::new(Server { listener: Some(listener), shown }));
}

/// Its thread belongs to the server until the process ends.
struct Server {
    listener: Option<TcpListener>,
    shown: Arc<Shown>,
}

impl Task for Server {
    fn run(&mut self) -> TaskState {
        let Some(listener) = self.listener.take() else { return TaskState::Done };
        let app = assets::routes(Router::new())
            .route("/status.json", get(watch::status))
            .route("/watch.json", get(watch::watch))
            .route("/rows.json", get(watch::rows))
            .route("/tables.json", get(tables::tables))
            .route("/metrics", get(health::metrics))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
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
