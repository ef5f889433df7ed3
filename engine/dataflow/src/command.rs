//! The command line, shared by the `dataflow` program and by every job's own: `dataflow VERB JOB ...` and `JOB VERB JOB ...` are one.

use clap::{Args, Parser, Subcommand, ValueEnum};
use dataflow_core::Epoch;
use std::path::PathBuf;

/// They hold for every verb, also when the command line itself is wrong.
const EXIT_CODES: &str = "Exit codes: 0 done; 2 the command line, a settings file or a job file is wrong; 3 something outside failed \
(broker, registry, disk); 4 log, checkpoint and sinks contradict each other, nothing was written; 5 another generation of the job has taken \
over; 70 a defect of the engine; 130 stopped at once by a second Ctrl-C.";

/// What stands below a verb's options.
fn help(example: &str) -> String {
    format!("{example}\n\n{EXIT_CODES}")
}

/// A stream-first dataflow engine: exactly-once jobs in one file.
#[derive(Debug, Parser)]
#[command(name = "dataflow", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// How results and errors are printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// How the log on standard error is written; DATAFLOW_LOG says how much of it (warn; info, debug).
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// How results and errors are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line an event.
    #[default]
    Text,
    /// One JSON object a line, with job, generation and epoch.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a job in this process until its input ends or Ctrl-C: the first ends it at a checkpoint, the second at once.
    #[command(after_help = help("Example: dataflow run jobs/login_anomalies.rs --profile local --workers 2 --set emit=final"))]
    Run(RunArgs),
    /// Check a job's settings, that its graph builds from them, and that it can go on from its state. Touches nothing.
    #[command(after_help = help("Example: dataflow check jobs/login_anomalies.rs --profile local"))]
    Check(JobArgs),
    /// Print committed rows of a local log, one JSON object a line.
    #[command(after_help = help("Example: dataflow tail jobs/login_anomalies.rs login-anomalies --follow | jq .reason"))]
    Tail(TailArgs),
    /// Name the tables as they were at one epoch: an Iceberg tag on the snapshot of each. The job may run meanwhile.
    #[command(after_help = help("Example: dataflow tag jobs/lakehouse.rs before-migration; then SELECT ... FOR VERSION AS OF 'before-migration'"))]
    Tag(TagArgs),
    /// The binding log: what each epoch is.
    #[command(subcommand, after_help = EXIT_CODES)]
    Bindings(BindingsVerb),
    /// The checkpoints of a job.
    #[command(subcommand, after_help = EXIT_CODES)]
    Checkpoints(CheckpointsVerb),
}

/// What every verb says of the job.
#[derive(Clone, Debug, Args)]
pub struct JobArgs {
    /// The job file, such as jobs/login_anomalies.rs. Its settings lie beside it in a .toml of the same name.
    pub job: PathBuf,
    /// A profile of the settings; the file names the default.
    #[arg(long, short)]
    pub profile: Option<String>,
    /// Set a variable, a parameter or a setting by its path: emit=final, runtime.tick_min_ms=1. A part with a dot stands in quotes:
    /// 'sinks.alerts.client."sasl.username"=me'. A relative path starts here, one in the settings file at that file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The data folder: bindings, checkpoints, schemas, live state.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// Worker threads.
    #[arg(long, short)]
    pub workers: Option<usize>,
    /// End when every partition was read to its end.
    #[arg(long)]
    pub until_end: bool,
    /// End at a checkpoint after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
    /// Serve the live page, /metrics, /healthz and /readyz on this port of 127.0.0.1 (0: any free one).
    #[arg(long, value_name = "PORT")]
    pub page: Option<u16>,
}

/// `tail`.
#[derive(Clone, Debug, Args)]
pub struct TailArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// The output topic, such as login-anomalies.
    pub topic: String,
    /// Go on with what is committed from now on, until Ctrl-C.
    #[arg(long, short)]
    pub follow: bool,
}

/// `tag`.
#[derive(Clone, Debug, Args)]
pub struct TagArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// The tag.
    pub name: String,
    /// An epoch of the table of epochs (dataflow.epochs), by default the newest.
    #[arg(long)]
    pub epoch: Option<Epoch>,
}

/// `bindings`.
#[derive(Clone, Debug, Subcommand)]
pub enum BindingsVerb {
    /// Print the epochs as a bindings file: what each one read, its clock, idle partitions, watermark.
    #[command(after_help = help("Example: dataflow bindings export jobs/login_anomalies.rs --from 100 > bindings.ndjson"))]
    Export {
        /// The job.
        #[command(flatten)]
        job: JobArgs,
        /// The first epoch.
        #[arg(long, default_value_t = 1)]
        from: Epoch,
        /// The last epoch.
        #[arg(long, default_value_t = Epoch::MAX)]
        to: Epoch,
    },
}

/// `checkpoints`.
#[derive(Clone, Debug, Subcommand)]
pub enum CheckpointsVerb {
    /// List them, newest first.
    #[command(after_help = help("Example: dataflow checkpoints list jobs/login_anomalies.rs"))]
    List(JobArgs),
    /// Read every file of every checkpoint and compare its hash.
    #[command(after_help = help("Example: dataflow checkpoints verify jobs/login_anomalies.rs --output json"))]
    Verify(JobArgs),
}

impl Verb {
    /// The job that the verb is about.
    pub fn job(&self) -> &JobArgs {
        match self {
            Verb::Run(run) => &run.job,
            Verb::Tail(tail) => &tail.job,
            Verb::Tag(tag) => &tag.job,
            Verb::Check(job) | Verb::Checkpoints(CheckpointsVerb::List(job) | CheckpointsVerb::Verify(job)) => job,
            Verb::Bindings(BindingsVerb::Export { job, .. }) => job,
        }
    }
}
