//! Noting when records become visible to a `read_committed` consumer.
//!
//! A record is stamped when `poll` hands it out, and kept as it is; keys are parsed after the end. What one run brings is held
//! in memory: about 200 bytes a record.

use crate::topics;
use anyhow::{Context, Result, ensure};
use dataflow_core::Micros;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message;
use serde::Deserialize;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the wish to stop is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(50);
/// The broker answers a fetch at the latest after so long, also when what it has is not committed yet.
const FETCH_WAIT_MS: &str = "5";

/// A record that became visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When, in microseconds since 1970.
    pub(crate) at_us: i64,
    /// The partition.
    pub(crate) partition: i32,
    /// The user.
    pub(crate) user: String,
    /// The event's time, in microseconds since 1970.
    pub(crate) time_us: i64,
}

#[derive(Deserialize)]
struct Key {
    user_id: String,
    timestamp: String,
}

/// Follows until SIGTERM; then writes the arrivals to `out`. Returns how many there are.
pub(crate) fn follow(brokers: &str, topic: &str, out: &Path) -> Result<usize> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, stop.clone()).context("listen for SIGTERM")?;
    let consumer: BaseConsumer = topics::consumer(brokers, "read_committed", &[("fetch.wait.max.ms", FETCH_WAIT_MS)])?;
    let ends = topics::assign(&consumer, topic, None)?;
    ensure!(!ends.is_empty(), "follow topic '{topic}': it does not exist");
    println!("following");
    let mut seen: Vec<(i64, i32, Vec<u8>)> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match consumer.poll(LOOK) {
            Some(Ok(message)) => seen.push((wall_us(), message.partition(), message.key().unwrap_or_default().into())),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(cause)) => return Err(cause).with_context(|| format!("follow topic '{topic}'")),
        }
    }
    let failed = || format!("write '{}'", out.display());
    let mut file = BufWriter::new(std::fs::File::create(out).with_context(failed)?);
    for (at_us, partition, key) in &seen {
        let key: Key = serde_json::from_slice(key).with_context(|| format!("read a key of topic '{topic}'"))?;
        let time = Micros::parse(&key.timestamp).with_context(|| format!("read the time '{}'", key.timestamp))?;
        writeln!(file, "{at_us},{partition},{},{}", key.user_id, time.0).with_context(failed)?;
    }
    file.flush().with_context(failed)?;
    Ok(seen.len())
}

/// The arrivals that a file holds.
pub(crate) fn read(path: &Path) -> Result<Vec<Arrival>> {
    let file = std::fs::File::open(path).with_context(|| format!("read '{}'", path.display()))?;
    let line = |line: std::io::Result<String>| arrival(&line?);
    BufReader::new(file).lines().map(line).collect()
}

fn arrival(line: &str) -> Result<Arrival> {
    let bad = || format!("read the arrival '{line}'");
    let [at_us, partition, user, time_us] = line.split(',').collect::<Vec<_>>()[..] else { anyhow::bail!(bad()) };
    Ok(Arrival {
        at_us: at_us.parse().with_context(bad)?,
        partition: partition.parse().with_context(bad)?,
        user: user.to_owned(),
        time_us: time_us.parse().with_context(bad)?,
    })
}

/// The wall clock: the one that producers on this machine stamp records with.
#[allow(clippy::disallowed_methods, reason = "a measuring program, outside of every job")]
fn wall_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_read_as_written() {
        let expected = Arrival { at_us: 17, partition: 2, user: "u-1".into(), time_us: -5 };
        assert_eq!(arrival("17,2,u-1,-5").unwrap(), expected);
        assert!(arrival("17,2,u-1").is_err());
        assert!(arrival("17,x,u-1,5").is_err());
    }
}
