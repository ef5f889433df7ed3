//! The traffic: login events made up from the seed, as the outside log holds them and as the oracle reads them.
//!
//! Few users and few addresses, so that everything that detectors ask about happens within some hundred records: brute force,
//! stuffing from one address, journeys, new devices, bursts over a history of sessions. Events tie, come twice, out of order
//! within the allowed lateness and beyond it, and some are poison. *Live* traffic happens now; a *backlog* spans weeks of event time and
//! is read within seconds.

use crate::dice::{Dice, Purpose};
use crate::registry;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use dataflow_core::Micros;
use dataflow_core::time::{DAY, HOUR, MINUTE, SECOND};
use dataflow_oracle::{Event, EventLine, Record};

/// What lies where. One prefix nests in another, one row has no country, and 192.0.2 is in none.
pub(crate) const GEOGRAPHY: &str = "ip_prefix,country,city,lat,lon\n\
    198.51.100,GB,London,51.5074,-0.1278\n\
    203.0.113.0/24,US,New York,40.7128,-74.0060\n\
    203.0.113.128/25,JP,Tokyo,35.6762,139.6503\n\
    198.18.0.0/16,FR,Paris,48.8566,2.3522\n\
    198.19,,Nowhere,,\n\
    2001:db8::/32,AU,Sydney,-33.8688,151.2093\n";

const ADDRESSES: [&str; 10] = [
    "198.51.100.7",
    "198.51.100.7",
    "198.51.100.8",
    "203.0.113.5",
    "203.0.113.200",
    "198.18.3.4",
    "198.19.0.1",
    "2001:db8::5",
    "192.0.2.77",
    "not an address",
];
const DEVICES: [&str; 3] = ["iPhone 15", "Pixel 8 Android", "ThinkPad"];
const PLATFORMS: [&str; 2] = ["web", "app"];

/// The wall clock when a simulation begins: 2026-03-01T09:00:00Z.
pub(crate) const BEGINNING: Micros = Micros(1_772_355_600_000_000);

/// How the traffic of a run is shaped.
#[derive(Clone, Debug)]
pub(crate) struct TrafficShape {
    /// Partitions of the outside log.
    pub(crate) partitions: u32,
    /// Login events; poison comes on top.
    pub(crate) logins: usize,
    /// Weeks of event time in seconds of the run, instead of traffic that happens now.
    pub(crate) backlog: bool,
    /// How long it takes until the last record is there, in microseconds.
    pub(crate) span_us: u64,
    /// Event times are whole multiples of this.
    pub(crate) grain_us: i64,
    /// Percent of the logins that come long after others of their time.
    pub(crate) late: u64,
    /// Percent of the logins that come twice.
    pub(crate) twice: u64,
    /// Percent of records that cannot be used.
    pub(crate) poison: u64,
    /// One partition gets no record at all.
    pub(crate) silent: bool,
    /// Partitions but the first appear while the job runs.
    pub(crate) appearing: bool,
    /// Events are framed Avro; else JSON.
    pub(crate) avro: bool,
}

/// A record of the outside log.
#[derive(Clone, Debug)]
pub(crate) struct LogRecord {
    /// Microseconds of the simulation after which it is there.
    pub(crate) visible_us: u64,
    /// Its key.
    pub(crate) key: Option<Bytes>,
    /// Its value.
    pub(crate) value: Option<Bytes>,
}

/// A partition of the outside log.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogPartition {
    /// Microseconds of the simulation after which it is listed.
    pub(crate) appears_us: u64,
    /// Its records; the index is the offset.
    pub(crate) records: Vec<LogRecord>,
}

/// Everything that will ever be in the outside log.
pub(crate) struct Traffic {
    /// By partition.
    pub(crate) partitions: Vec<LogPartition>,
    /// The same for the oracle.
    pub(crate) events: Vec<EventLine>,
}

/// An event on its way into a partition: (arrival in event time, what).
struct Arrival {
    at: i64,
    record: Record,
}

impl Traffic {
    /// The traffic of a seed.
    pub(crate) fn new(seed: u64, shape: &TrafficShape) -> Traffic {
        let mut dice = Dice::new(seed, Purpose::Traffic);
        let mut arrivals = arrivals(shape, &mut dice);
        arrivals.sort_by_key(|arrival| arrival.at);
        let mut partitions = vec![LogPartition::default(); shape.partitions as usize];
        for partition in partitions.iter_mut().skip(1).filter(|_| shape.appearing) {
            partition.appears_us = dice.below(shape.span_us / 2);
        }
        let lags: Vec<u64> = partitions.iter().map(|_| dice.below(3) * dice.below(2_000_000)).collect();
        let writable = partitions.len() - usize::from(shape.silent && partitions.len() > 1);
        let mut events = Vec::with_capacity(arrivals.len());
        let (count, first) = (arrivals.len() as u64, arrivals.first().map_or(0, |a| a.at));
        for (rank, arrival) in arrivals.into_iter().enumerate() {
            let index = dice.below(writable as u64) as usize;
            let partition = &mut partitions[index];
            let due = match shape.backlog {
                true => shape.span_us * rank as u64 / count,
                false => (arrival.at - first).max(0) as u64,
            };
            let before = partition.records.last().map_or(partition.appears_us, |r| r.visible_us);
            let (key, value) = bytes_of(&arrival.record, shape.avro);
            let offset = partition.records.len() as u64;
            partition.records.push(LogRecord { visible_us: before.max(due + lags[index]), key, value });
            events.push(EventLine { partition: index as u32, offset, record: arrival.record });
        }
        Traffic { partitions, events }
    }
}

/// All events with the event time at which they arrive.
fn arrivals(shape: &TrafficShape, dice: &mut Dice) -> Vec<Arrival> {
    let mut at = if shape.backlog { BEGINNING.0 - 40 * DAY } else { BEGINNING.0 };
    let mean_gap = if shape.backlog { 0 } else { shape.span_us as i64 * 4 / shape.logins.max(1) as i64 };
    let mut logins: Vec<(i64, Event)> = Vec::new();
    while logins.len() < shape.logins {
        cluster(at, dice, &mut logins);
        at = match shape.backlog {
            // Sessions of a day, some of a minute, now and then a month of silence.
            true => at + *dice.pick(&[40 * SECOND, MINUTE, 3 * MINUTE, HOUR, 9 * HOUR, 25 * HOUR]),
            false => at + dice.below(2 * mean_gap.max(1) as u64) as i64,
        };
    }
    let mut out = Vec::new();
    for (time, mut event) in logins {
        let time = time - time.rem_euclid(shape.grain_us);
        event.timestamp = spelled(time, dice);
        let copies = if dice.percent(shape.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = match dice.below(100) {
                n if n < shape.late => dice.range(5_000_000, 60_000_000),
                n if n < 50 => 0,
                _ => dice.below(4_500_000),
            };
            let schema_version = if event.success.is_some() { 2 } else { 1 };
            let record = Record::Event { schema_version, event: event.clone() };
            out.push(Arrival { at: time + delay as i64, record });
        }
        if dice.percent(shape.poison) {
            out.push(Arrival { at: time, record: poison(time, &event, dice) });
        }
    }
    out
}

/// Some logins that belong together, from `at` on.
fn cluster(at: i64, dice: &mut Dice, out: &mut Vec<(i64, Event)>) {
    let user = dice.below(5);
    let ip = *dice.pick(&ADDRESSES);
    match dice.below(10) {
        0 => {
            // Guesses at a password, and perhaps the right one.
            let guesses = dice.range(4, 7) as i64;
            (0..guesses).for_each(|n| out.push((at + n * 3 * SECOND, login(user, ip, Some(false), dice))));
            if dice.percent(60) {
                out.push((at + 30 * SECOND, login(user, ip, Some(true), dice)));
            }
        }
        1 => {
            // Many users from one address.
            let users = dice.range(9, 12);
            (0..users).for_each(|n| out.push((at + n as i64 * 2 * SECOND, login(n, ip, Some(n % 3 == 0), dice))));
        }
        2 => {
            // Two continents within minutes.
            out.push((at, login(user, "198.51.100.9", Some(true), dice)));
            out.push((at + 2 * MINUTE, login(user, "203.0.113.201", Some(true), dice)));
        }
        3 => {
            // One user, again and again.
            let logins = dice.range(10, 14) as i64;
            (0..logins).for_each(|n| out.push((at + n * SECOND, login(user, ip, Some(true), dice))));
        }
        _ => {
            let success = *dice.pick(&[Some(true), Some(true), Some(false), None]);
            out.push((at, login(user, ip, success, dice)));
        }
    }
}

fn login(user: u64, ip: &str, success: Option<bool>, dice: &mut Dice) -> Event {
    Event {
        user_id: format!("u{user:02}"),
        timestamp: String::new(),
        ip: ip.to_owned(),
        device: (*dice.pick(&DEVICES)).to_owned(),
        platform: (*dice.pick(&PLATFORMS)).to_owned(),
        user_agent: if dice.percent(10) { "агент \"7\"".to_owned() } else { "agent".to_owned() },
        success,
    }
}

/// A time in one of the spellings that mean it.
fn spelled(time: i64, dice: &mut Dice) -> String {
    let text = Micros(time).to_string();
    match dice.below(4) {
        0 => format!("{}+00:00", &text[..26]),
        1 if text.ends_with("000000Z") => format!("{}Z", &text[..19]),
        _ => text,
    }
}

/// A record that cannot be used, or that is all but.
fn poison(time: i64, like: &Event, dice: &mut Dice) -> Record {
    let raw = |bytes: &[u8]| Record::Raw { raw: Some(BASE64_STANDARD.encode(bytes)) };
    let event = |event: Event| Record::Event { schema_version: if event.success.is_some() { 2 } else { 1 }, event };
    match dice.below(8) {
        0 => Record::Raw { raw: None },
        1 => raw(b"{\"user_id\":\"u01\""),
        2 => raw(&[0, 0, 0, 0, 7, 255, 254]),
        3 => raw(b"[]"),
        4 => event(Event { user_id: String::new(), ..like.clone() }),
        5 => event(Event { timestamp: "2026-02-30T00:00:00Z".into(), ..like.clone() }),
        6 => event(Event { timestamp: "2099-01-01T00:00:00Z".into(), ..like.clone() }),
        // Within a minute of the present, for live traffic: newest, and so the watermark, leaps ahead.
        _ => event(Event { timestamp: Micros(time + 20 * SECOND).to_string(), ..like.clone() }),
    }
}

fn bytes_of(record: &Record, avro: bool) -> (Option<Bytes>, Option<Bytes>) {
    match record {
        Record::Event { event, .. } => {
            let json = || serde_json::to_vec(event).expect("an event is plain text and a boolean");
            let value = if avro { registry::framed(event) } else { json() };
            (Some(Bytes::from(event.user_id.clone().into_bytes())), Some(value.into()))
        }
        Record::Raw { raw } => {
            let decoded = raw.as_ref().map(|raw| BASE64_STANDARD.decode(raw).expect("it was encoded here"));
            (None, decoded.map(Bytes::from))
        }
    }
}
