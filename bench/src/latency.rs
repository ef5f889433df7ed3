//! From the producer's timestamp in the input to the arrival at a `read_committed` consumer of the output.
//!
//! A record is known by its user and event time. The broker keeps the producer's clock (`CreateTime`) in whole milliseconds, rounded
//! down: every latency is up to 1 ms too long, never too short. What is missing, double or foreign is counted, so that a job that loses
//! slow records does not look fast.

use crate::follow::Arrival;
use crate::topics;
use anyhow::Result;
use dataflow_core::Micros;

use rdkafka::message::Message;
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes of Confluent's framing before the Avro body.
const FRAMING: usize = 5;

/// A login is known by its user and its event time in microseconds.
type Login = (String, i64);

/// What a run came to. Times in milliseconds.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Latency {
    /// Records that count: produced after the warm-up.
    produced: usize,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    /// Produced and never seen.
    missing: usize,
    /// Seen more than once.
    double: usize,
    /// Seen and never produced.
    foreign: usize,
}

/// When each login of the input was produced, in microseconds; of those that decode, the first of equal ones.
pub(crate) fn produced(brokers: &str, topic: &str, from: &[i64]) -> Result<BTreeMap<Login, i64>> {
    let mut made = BTreeMap::new();
    topics::read(brokers, topic, from, "read_uncommitted", |message| {
        let at_us = message.timestamp().to_millis().unwrap_or(0) * 1000;
        if let Some(login) = message.payload().and_then(login) {
            made.entry(login).or_insert(at_us);
        }
    })?;
    Ok(made)
}

/// The first two fields of the Avro record, `user_id` and `timestamp`.
fn login(value: &[u8]) -> Option<Login> {
    let mut rest = value.get(FRAMING..)?;
    let user = text(&mut rest)?.to_owned();
    Some((user, Micros::parse(text(&mut rest)?)?.0))
}

/// An Avro string: a zigzag varint for its length, then its bytes.
fn text<'v>(rest: &mut &'v [u8]) -> Option<&'v str> {
    let (mut length, mut shift) = (0u64, 0);
    loop {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        length |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (text, after) = rest.split_at_checked(usize::try_from(length >> 1).ok()?)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

/// Compares. The warm-up counts from the first record produced.
pub(crate) fn compare(made: BTreeMap<Login, i64>, arrivals: &[Arrival], warm_up_ms: i64) -> Latency {
    let begin = made.values().min().copied().unwrap_or(0) + warm_up_ms * 1000;
    let produced = made.values().filter(|at| **at >= begin).count();
    let mut seen: BTreeMap<Login, u32> = BTreeMap::new();
    let (mut took_us, mut double, mut foreign) = (Vec::with_capacity(arrivals.len()), 0, 0);
    for arrival in arrivals {
        let login = (arrival.user.clone(), arrival.time_us);
        let Some(made_us) = made.get(&login) else {
            foreign += 1;
            continue;
        };
        let times = seen.entry(login).or_default();
        *times += 1;
        match *times {
            1 if *made_us >= begin => took_us.push(arrival.at_us - made_us),
            1 => {}
            _ => double += 1,
        }
    }
    took_us.sort_unstable();
    let quantile = |q: f64| {
        let at = ((took_us.len() as f64 * q).ceil() as usize).clamp(1, took_us.len().max(1)) - 1;
        took_us.get(at).map_or(f64::NAN, |us| *us as f64 / 1000.0)
    };
    Latency {
        produced,
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        max_ms: quantile(1.0),
        missing: made.len() - seen.len(),
        double,
        foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(at_us: i64, user: &str) -> Arrival {
        Arrival { at_us, partition: 0, user: user.into(), time_us: 1 }
    }

    #[test]
    fn quantiles_and_what_does_not_match() {
        let made = (1..=100).map(|n| ((n.to_string(), 1), 1_000_000 + n * 1000)).collect();
        // The n-th takes n ms; 7 comes twice, 99 never, and one is not ours. The first 10 ms are warm-up: 1 to 10 do not count.
        let mut arrivals: Vec<Arrival> =
            (1..=100).filter(|n| *n != 99).map(|n| arrival(1_000_000 + 2 * n * 1000, &n.to_string())).collect();
        arrivals.extend([arrival(9_000_000, "7"), arrival(9_000_000, "nobody")]);
        let latency = compare(made, &arrivals, 10);
        assert_eq!((latency.produced, latency.missing, latency.double, latency.foreign), (90, 1, 1, 1));
        assert_eq!((latency.p50_ms, latency.p99_ms, latency.max_ms), (55.0, 100.0, 100.0));
    }

    #[test]
    fn the_first_two_fields_of_a_framed_record() {
        let time = "1970-01-01T00:00:01Z";
        let mut value = vec![0, 0, 0, 0, 1, 4, b'u', b'1', (time.len() * 2) as u8];
        value.extend_from_slice(time.as_bytes());
        assert_eq!(login(&value), Some(("u1".into(), 1_000_000)));
        value.truncate(20);
        assert_eq!(login(&value), None);
        assert_eq!(login(&[0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
