//! What a job is written with: one file that holds logic and names, wired by the TOML beside it.
//!
//! ```text
//!  jobs/NAME.rs   ── build(&mut Job) ──┐
//!  jobs/NAME.toml ── profile::Profile ─┴─ wiring ─► dataflow_runtime::prepare ─► threads::run
//! ```
//!
//! A job file calls [`main`] and so is a whole program with the verbs of [`command`]; `dataflow run jobs/NAME.rs` builds it and
//! hands its command line over.

pub mod bronze;
pub mod command;
pub mod daily;
pub mod job;
pub mod launch;
mod logs;
mod memory;
mod metrics;
mod page;
pub mod profile;
mod rehearsal;
mod restoring;
mod status;
mod terminal;
mod verbs;
mod wiring;

pub use daily::CountedBy;
pub use job::{Job, JobFile};

use clap::Parser;
use command::Cli;
use dataflow_runtime::threads::end_process;
use std::io::Write as _;

/// What a job file begins with.
pub mod prelude {
    pub use crate::{CountedBy, Job, JobFile};
    pub use dataflow_core::{Error, Result, Stamped};
    pub use dataflow_operators::anomaly::{
        BruteForce, Burst, ByAddress, ByUser, CredentialStuffing, ImpossibleTravel, LOGIN_EVENT_SCHEMA, Login,
        LoginEvent, NewCountry, NewDevice, UnresolvedAddress, deliver,
    };
    pub use dataflow_operators::enrich::enrich;
    pub use dataflow_operators::table_row;
    pub use dataflow_operators::transactions::{OnLarge, TransactionSettings};
    pub use dataflow_operators::view::{TableRow, View, shop};
    pub use dataflow_operators::window::keyed_history::{Emit, keyed_findings, keyed_history};
}

/// Records are made on one thread and dropped on another, which glibc's allocator pays for with locks: a fifth of the CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The program of a job file: reads the command line and does what it says. Exit codes are those of [`dataflow_core::Fault`].
pub fn main(job: &'static JobFile) -> ! {
    let cli = Cli::parse();
    logs::start(cli.log_format);
    report(verbs::dispatch(job, &cli), cli.output)
}

/// Prints an error as the command line asked for it, and ends the process with its exit code.
pub fn report(result: dataflow_core::Result<()>, output: command::Output) -> ! {
    let exit_code = result.err().map_or(0, |error| say(&error, output));
    // A reader that has gone away wants nothing more.
    let _ = std::io::stdout().flush();
    end_process(exit_code)
}

/// Prints an error as the command line asked for it; its exit code.
fn say(error: &dataflow_core::Error, output: command::Output) -> u8 {
    let code = error.fault.exit_code();
    match output {
        command::Output::Text => eprintln!("dataflow: {error}"),
        command::Output::Json => {
            let fault = status::fault(error);
            eprintln!("{}", serde_json::json!({"error": error.to_string(), "fault": fault, "exit_code": code}));
        }
    }
    code
}
