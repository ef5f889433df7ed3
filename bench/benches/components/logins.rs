//! The logins that all benches share.

use bytes::Bytes;
use dataflow_core::{Micros, Record, Stamped};
use dataflow_loadgen::logins::{Settings, Traffic};
use dataflow_loadgen::{geography, logins};
use dataflow_operators::anomaly::Login;
use dataflow_operators::enrich::IpTable;

/// How many.
pub(crate) const COUNT: u64 = 20_000;
/// Who logs in.
const USERS: u64 = 2_000;
/// The ids of the two schema versions.
pub(crate) const IDS: [u32; 2] = [1, 2];
/// 2026-01-01T00:00:00Z.
const START: Micros = Micros(1_767_225_600_000_000);

fn traffic(old_writers: f64) -> Traffic {
    let (start, rate) = (START, 100.0);
    let plain =
        Settings { late: 0.0, duplicates: 0.0, poison: 0.0, disorder: 0.0, attacks: 0.0, ..Settings::default() };
    let settings = Settings { users: USERS, partitions: 1, rate, count: Some(COUNT), start, old_writers, ..plain };
    Traffic::new(settings).expect("the settings are within their ranges")
}

/// The logins as a producer frames them, a share of them by writers of the first schema version.
pub(crate) fn framed(old_writers: f64) -> Vec<Record> {
    let framed = |(offset, (_, _, login)): (usize, (u32, u64, logins::Login))| Record {
        offset: offset as u64,
        key: Some(Bytes::from(login.key.clone())),
        value: login.framed(IDS).map(Bytes::from),
    };
    traffic(old_writers).stream().enumerate().map(framed).collect()
}

/// The logins as the job carries them.
pub(crate) fn enriched() -> Vec<Stamped<Login>> {
    let table = IpTable::parse(geography::csv().as_bytes()).expect("the geography is a table");
    let stamped = |(offset, (_, _, login)): (usize, (u32, u64, logins::Login))| {
        let event = serde_json::from_slice(&login.json().expect("no login is poison")).expect("it is a login");
        Login::from_event(&event, &table).at(login.time, 0, offset as u64)
    };
    traffic(0.0).stream().enumerate().map(stamped).collect()
}
