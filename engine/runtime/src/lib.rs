//! The dataflow that drives every job: epochs are opened, bound, computed, delivered and checkpointed here.
//!
//! ```text
//!            ticks (broadcast)
//!  ticker ──────────────┬──────────────► source ──records──► [time] ──accepted──► operators ──rows──► sink
//!    │                  │                  │ facts             ▲ facts(e)             ▲ │ parts        │ │
//!    │ ticks            ▼                  ▼                   │ (broadcast)          │ │              │ │ committed
//!    └──────────────► binder ◄─────────────┘                   │                      │ ▼              │ ▼
//!                       ├── facts(e) ──────────────────────────┴──────────────────────┘ checkpoints ◄──┘
//!                       └── durable(e) ────────────────────────────────────────────────────────────► sink
//! ```
//!
//! One file a role. What blocks (the binding log's fsync, a sink's commit, a checkpoint's copy) runs as a
//! [`dataflow_core::Task`] behind a [`link::Link`]; worker threads never wait. A failure anywhere ends the
//! generation through [`control::Control::fail`]: timely is fail-stop and is used so (DESIGN section 8).

mod alarm;
mod backoff;
pub mod binder;
pub mod checkpoint;
pub mod checkpoint_writer;
mod clock;
mod committer;
pub mod control;
pub mod facts;
mod files;
pub mod job;
pub mod link;
pub mod measures;
mod outbox;
mod outputs;
mod pace;
pub mod plan;
mod restored;
pub mod settings;
pub mod sink;
pub mod source;
pub mod start;
mod tables;
pub mod threads;
pub mod ticker;
pub mod time;

pub use control::{Control, Status};
pub use facts::{EpochFacts, SourceFacts, Tick};
pub use files::FileOutput;
pub use job::{JobScope, Stateful};
pub use measures::Measures;
pub use pace::UNDURABLE_EPOCHS_MAX;
pub use plan::{JobSetup, Plan, prepare, rehearse};
pub use settings::RuntimeSettings;
pub use tables::{Changes, TableMode};
