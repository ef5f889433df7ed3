//! `loadgen`: writes the made-up logins to a folder or to Kafka, and their geography; the made-up shop to a folder, a database, objects;
//! and takes resources from whoever runs beside it.

mod pressure_verb;
mod shop_verb;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dataflow_core::{Clock, Error, Micros, Result};
use dataflow_loadgen::geography;
use dataflow_loadgen::logins::{Kind, Settings, Traffic};
use dataflow_loadgen::output::kafka::KafkaSettings;
use dataflow_loadgen::output::{Summary, case_folder, kafka, write_labels};
use serde::Serialize;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const EXIT_CODES: &str = "Exit codes: 0 done, or stopped by a first Ctrl-C with everything written; 2 the command line is wrong; 3 something \
outside failed (broker, registry, disk); 70 a defect; 130 stopped at once by a second Ctrl-C.";

/// Seeded, realistic traffic for the login job and the lakehouse job.
#[derive(Parser)]
#[command(name = "loadgen", version, about, after_help = EXIT_CODES)]
struct Arguments {
    /// How the closing summary and errors are printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

/// How the closing summary and errors are printed.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// What a shell reports for a process that ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

#[derive(Subcommand)]
enum Verb {
    /// Login events with attacks among them, to a folder or to Kafka. Without --count or --seconds, to Kafka until Ctrl-C.
    #[command(after_help = "Examples:\n  loadgen logins --count 1000 --out /tmp/case\n  \
        loadgen logins --rate 5000 --seconds 60 --kafka localhost:9092 --registry http://localhost:8081 --labels labels.ndjson\n\n\
        Exit codes: see loadgen --help.")]
    Logins(Box<Logins>),
    /// A shop's database changes and pageviews, to a folder, Postgres, objects. Without --events or --seconds until Ctrl-C.
    #[command(after_help = shop_verb::EXAMPLES)]
    Shop(Box<shop_verb::ShopArgs>),
    /// Processors, memory, disk that others then lack. Without --seconds until Ctrl-C.
    #[command(after_help = pressure_verb::EXAMPLES)]
    Pressure(pressure_verb::PressureArgs),
    /// The IP geography of the made-up addresses, as CSV.
    #[command(after_help = "Example:\n  loadgen geo --out ip_geo.csv\n\nExit codes: see loadgen --help.")]
    Geo {
        /// The file; standard output without.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Logins {
    /// Write a case folder: login_events.ndjson, ip_geo.csv, labels.ndjson, bindings_one_epoch.ndjson.
    #[arg(long, required_unless_present = "kafka", conflicts_with = "kafka")]
    out: Option<PathBuf>,
    /// Write to Kafka: the brokers' addresses.
    #[arg(long, requires = "registry")]
    kafka: Option<String>,
    /// The schema registry's address.
    #[arg(long)]
    registry: Option<String>,
    /// The topic.
    #[arg(long, default_value = "login-events")]
    topic: String,
    /// To Kafka: as fast as it goes instead of at --rate.
    #[arg(long)]
    bulk: bool,
    /// To Kafka: further client properties, such as security.protocol=SSL.
    #[arg(long, value_name = "KEY=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// To Kafka: the file for the labels of the attacks.
    #[arg(long)]
    labels: Option<PathBuf>,
    /// Another seed, other traffic.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many people log in.
    #[arg(long, default_value_t = 10_000)]
    users: u64,
    /// The number of the first of them; with another one, other people.
    #[arg(long, default_value_t = 0)]
    first_user: u64,
    /// Partitions of the stream.
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// Records a second of event time [default: 1000, or count / seconds].
    #[arg(long)]
    rate: Option<f64>,
    /// Records in all.
    #[arg(long)]
    count: Option<u64>,
    /// Seconds of event time in all.
    #[arg(long)]
    seconds: Option<f64>,
    /// Event time of the first record [default: 2026-03-02T08:00:00Z; now when paced to Kafka].
    #[arg(long, value_parser = instant)]
    start: Option<Micros>,
    /// Share of records out of order.
    #[arg(long, default_value_t = Settings::default().disorder)]
    disorder: f64,
    /// By how many milliseconds at most.
    #[arg(long, default_value_t = Settings::default().disorder_ms_max)]
    disorder_ms_max: u64,
    /// Share of late records.
    #[arg(long, default_value_t = Settings::default().late)]
    late: f64,
    /// Share of records that are sent twice.
    #[arg(long, default_value_t = Settings::default().duplicates)]
    duplicates: f64,
    /// Share of records for the dead letters.
    #[arg(long, default_value_t = Settings::default().poison)]
    poison: f64,
    /// Share of all records that are of one user.
    #[arg(long, default_value_t = 0.0)]
    skew: f64,
    /// Users take turns: as many records as users hold each of them once.
    #[arg(long)]
    in_turn: bool,
    /// How many times the usual rate the first 3 s of each minute have.
    #[arg(long, default_value_t = 1.0)]
    burst: f64,
    /// Share of successful logins from writers of the first schema version.
    #[arg(long, default_value_t = Settings::default().old_writers)]
    old_writers: f64,
    /// Attacks a minute of event time.
    #[arg(long, default_value_t = Settings::default().attacks)]
    attacks: f64,
    /// Kinds of attack, such as credential_stuffing,brute_force [default: all].
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    kinds: Vec<Kind>,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("there is no '='")?;
    Ok((key.into(), value.into()))
}

fn instant(text: &str) -> Result<Micros, String> {
    Micros::parse(text).ok_or_else(|| "no timestamp such as 2026-03-02T08:00:00Z".into())
}

fn kind(text: &str) -> Result<Kind, String> {
    serde_json::from_value(serde_json::Value::String(text.into())).map_err(|e| e.to_string())
}

impl Logins {
    fn settings(&self, clock: &dyn Clock) -> Settings {
        let usual = Settings::default();
        let rate = match (self.rate, self.count, self.seconds) {
            (Some(rate), ..) => rate,
            (None, Some(count), Some(seconds)) => count as f64 / seconds,
            _ => usual.rate,
        };
        let count = self.count.or(self.seconds.map(|seconds| (seconds * rate) as u64));
        let start = if self.kafka.is_some() && !self.bulk { clock.wall() } else { usual.start };
        Settings {
            seed: self.seed,
            users: self.users,
            first_user: self.first_user,
            partitions: self.partitions,
            rate,
            count,
            start: self.start.unwrap_or(start),
            disorder: self.disorder,
            disorder_ms_max: self.disorder_ms_max,
            late: self.late,
            duplicates: self.duplicates,
            poison: self.poison,
            skew: self.skew,
            in_turn: self.in_turn,
            burst: self.burst,
            old_writers: self.old_writers,
            attacks: self.attacks,
            kinds: if self.kinds.is_empty() { usual.kinds } else { self.kinds.clone() },
        }
    }
}

/// The machine's clocks.
struct Machine(Instant);

// This is where the clock trait of this program is implemented.
#[allow(clippy::disallowed_methods)]
impl Machine {
    fn new() -> Machine {
        Machine(Instant::now())
    }
}

#[allow(clippy::disallowed_methods)]
impl Clock for Machine {
    fn wall(&self) -> Micros {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Micros(since.as_micros() as i64)
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Set by the first Ctrl-C; the second ends the process at once.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: a signal that finds the wish to stop there already ends the process.
        let listening = signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()));
        listening.map_err(|cause| Error::us("listen for signals").because(cause))?;
    }
    Ok(stop)
}

fn logins(arguments: &Logins, output: Output) -> Result<()> {
    let clock = Machine::new();
    let traffic = Traffic::new(arguments.settings(&clock))?;
    let summary = match (&arguments.out, &arguments.kafka) {
        (Some(out), _) => case_folder::write(&traffic, out)?,
        (None, Some(brokers)) => {
            let settings = KafkaSettings {
                brokers: brokers.clone(),
                registry: arguments.registry.clone().expect("the command line asks for it with --kafka"),
                topic: arguments.topic.clone(),
                paced: !arguments.bulk,
                properties: arguments.property.iter().cloned().collect(),
            };
            let mut said = Duration::ZERO;
            let stop = stop_on_signals()?;
            kafka::produce(&traffic, &settings, &clock, &stop, |records| {
                if clock.monotonic() >= said + Duration::from_secs(5) {
                    said = clock.monotonic();
                    eprintln!("{records} records after {:.0} s", said.as_secs_f64());
                }
            })?
        }
        (None, None) => return Err(Error::user("write logins nowhere").hint("say --out or --kafka")),
    };
    if let Some(path) = &arguments.labels {
        write_labels(&summary.labels, path)?;
    }
    report(&summary, clock.monotonic(), output);
    Ok(())
}

fn report(summary: &Summary, took: Duration, output: Output) {
    let records: u64 = summary.records.iter().sum();
    let mut attacks: BTreeMap<&str, Attacks> = BTreeMap::new();
    for label in &summary.labels {
        let of_detector = attacks.entry(&label.detector).or_default();
        of_detector.all += 1;
        of_detector.complete += u64::from(label.complete);
    }
    if output == Output::Json {
        let seconds = took.as_secs_f64();
        let of_partitions = &summary.records;
        println!(
            "{}",
            json!({"records": records, "of_partitions": of_partitions, "seconds": seconds, "attacks": attacks})
        );
        return;
    }
    println!("{records} records in {:.1} s", took.as_secs_f64());
    for (detector, Attacks { all, complete }) in attacks {
        println!("{all} attacks for {detector}, {complete} of them complete");
    }
}

/// Attacks that a detector is to catch.
#[derive(Default, Serialize)]
struct Attacks {
    all: u64,
    /// Those of which every event was written.
    complete: u64,
}

fn main() -> ExitCode {
    let Arguments { output, verb } = Arguments::parse();
    let result = match verb {
        Verb::Logins(arguments) => logins(&arguments, output),
        Verb::Shop(arguments) => shop_verb::run(&arguments, output),
        Verb::Pressure(arguments) => pressure_verb::run(&arguments, output),
        Verb::Geo { out: Some(out) } => std::fs::write(&out, geography::csv())
            .map_err(|cause| Error::outside(format!("write '{}'", out.display())).because(cause)),
        Verb::Geo { out: None } => std::io::stdout()
            .write_all(geography::csv().as_bytes())
            .map_err(|cause| Error::outside("write to standard output").because(cause)),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    let code = error.fault.exit_code();
    match output {
        Output::Text => eprintln!("error: {error}"),
        Output::Json => {
            let fault = format!("{:?}", error.fault).to_lowercase();
            eprintln!("{}", json!({"error": error.to_string(), "fault": fault, "exit_code": code}));
        }
    }
    ExitCode::from(code)
}
