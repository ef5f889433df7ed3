//! `probe`: what the benchmarks see of a job from outside, as a consumer of its topics.
//!
//! ```text
//! loadgen ─► login-events ─► the job ─► login-events-enriched ─► probe follow ─► arrivals, a line a record
//!                │                                                                   │
//!                └───────────────────── probe latency (afterwards) ◄─────────────────┘
//! ```
//!
//! It reads records as any client does and knows nothing of the engine. While a run lasts it only notes what came when;
//! parsing comes after, so that on a small machine it takes little from what is measured. It never writes to Kafka.
//! Apart from that stands `probe ingest`, in which the engine's source reads a topic beside bare clients.

mod follow;
mod ingest;
mod latency;
mod topics;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "probe", version, about = "What a read_committed consumer sees of a job's topics, and when.")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// A topic of a cluster.
#[derive(Args)]
struct Topic {
    /// The brokers, host:port.
    #[arg(long)]
    brokers: String,
    /// The topic.
    #[arg(long)]
    topic: String,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the end offset of each partition as a JSON array; an absent topic has none.
    Ends(Topic),
    /// Count the committed records, and their different keys, between these offsets and the end: a JSON object.
    Count {
        #[command(flatten)]
        topic: Topic,
        /// The offsets to begin at, as `ends` prints them.
        #[arg(long, default_value = "[]", value_parser = offsets)]
        from: Offsets,
    },
    /// Note when each committed record becomes visible, from the topic's end on, until SIGTERM.
    Follow {
        #[command(flatten)]
        topic: Topic,
        /// The file for the arrivals, as CSV: microseconds since 1970, partition, user, event time in microseconds.
        #[arg(long)]
        out: PathBuf,
    },
    /// Compare arrivals that `follow` noted with the input's own timestamps.
    Latency {
        #[command(flatten)]
        topic: Topic,
        /// The input's offsets to begin at, as `ends` prints them.
        #[arg(long, default_value = "[]", value_parser = offsets)]
        from: Offsets,
        /// The file of `follow`.
        #[arg(long)]
        arrivals: PathBuf,
        /// Leave out what was produced in the first so many milliseconds.
        #[arg(long, default_value_t = 0)]
        warm_up_ms: i64,
    },
    /// Read the topic to its end as fast as it goes: records, bytes and seconds as a JSON object.
    Ingest {
        #[command(flatten)]
        topic: Topic,
        /// Who reads.
        #[arg(long)]
        reader: ingest::Reader,
    },
}

/// Offsets by partition.
#[derive(Clone)]
struct Offsets(Vec<i64>);

fn offsets(text: &str) -> Result<Offsets, String> {
    serde_json::from_str(text).map(Offsets).map_err(|e| e.to_string())
}

fn run(verb: Verb) -> Result<()> {
    let text = match verb {
        Verb::Ends(topic) => serde_json::to_string(&topics::ends(&topic.brokers, &topic.topic)?)?,
        Verb::Count { topic, from } => serde_json::to_string(&topics::count(&topic.brokers, &topic.topic, &from.0)?)?,
        Verb::Follow { topic, out } => follow::follow(&topic.brokers, &topic.topic, &out)?.to_string(),
        Verb::Latency { topic, from, arrivals, warm_up_ms } => {
            let made = latency::produced(&topic.brokers, &topic.topic, &from.0)?;
            serde_json::to_string(&latency::compare(made, &follow::read(&arrivals)?, warm_up_ms))?
        }
        Verb::Ingest { topic, reader } => {
            serde_json::to_string(&ingest::ingest(&topic.brokers, &topic.topic, reader)?)?
        }
    };
    println!("{text}");
    Ok(())
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}
