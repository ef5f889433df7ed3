//! Whole jobs under one seeded scheduler, with crashes, lost writes and unknown outcomes: the login job, and the lakehouse's tables
//! (`lake`, which draws its own graph).
//!
//! ```text
//!   seed ─► scenario: traffic, settings, sinks, and how each life of the job ends
//!             │
//!             ▼            one life: prepare ─► workers + tasks, one runs at a time
//!   outside log ──records──► the job: runtime, operators, state as shipped ──rows──► local log | simulated broker
//!             ▲                      │ every call through the life's fuse                 │
//!             │ time, by the scheduler's dice             disk that forgets what was not synced
//!             └───────────────────── next life ◄── crash, kill, failed call, stop, stray sink
//!             ▼
//!   oracle on the exported bindings = what consumers see, row for row and in order
//! ```
//!
//! The product's code runs unchanged: ticker, sources, binder, keyed histories, collections and views, sinks (Kafka's and Iceberg's among
//! them), checkpoints, recovery, the binding log, the checkpoint store, the local log. Simulated are time, randomness, the spawner, the
//! disk, the input, a broker with its connector, and a catalog of tables.
//!
//! What it does not show: interleavings within a step or a task, lost wake-ups (without timely's timer every operator that
//! wants to look again is run at its worker's next step), RocksDB, real brokers and catalogs. The same seed is the same run.

mod broker;
mod check;
mod clock;
pub mod conformance;
mod dice;
mod graph;
mod lake;
mod life;
mod lives;
mod registry;
mod report;
mod rot;
mod run;
mod scenario;
mod scheduler;
mod source;
mod storage;
mod suite;
mod trace;
mod traffic;
mod workers;

pub use broker::BrokerCounters;
pub use report::{Failure, Report};
pub use suite::{Graph, run_seeds};
