//! From a framed record to a login.

use crate::logins::{COUNT, IDS, framed};
use criterion::{Criterion, Throughput};
use dataflow_connectors::decode::avro::AvroDecoder;
use dataflow_connectors::decode::framing;
use dataflow_connectors::decode::registry::{Answer, Ask, Schemas};
use dataflow_core::{Decode, Decoded, Record, Result, SourceId, Waker};
use dataflow_loadgen::logins::{SCHEMA_V1, SCHEMA_V2};
use dataflow_operators::anomaly::{LOGIN_EVENT_SCHEMA, LoginEvent};
use dataflow_runtime::threads;
use dataflow_state::storage::MemoryStorage;
use serde::Deserialize;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// A registry that knows the two versions.
struct Registry;

impl Ask for Registry {
    fn get(&self, id: u32) -> Result<Answer> {
        let at = IDS.iter().position(|known| *known == id);
        Ok(at.map_or(Answer::NotFound, |at| Answer::Text([SCHEMA_V1, SCHEMA_V2][at].to_owned())))
    }
}

/// A login in the plainest type, for readers that know nothing of ours.
#[derive(Deserialize)]
struct Plain {
    user_id: String,
    timestamp: String,
    ip: String,
    device: String,
    platform: String,
    user_agent: String,
    success: bool,
}

/// The same without an allocation.
#[derive(Deserialize)]
struct Borrowed<'a> {
    user_id: &'a str,
    timestamp: &'a str,
    ip: &'a str,
    device: &'a str,
    platform: &'a str,
    user_agent: &'a str,
    success: bool,
}

/// The engine's decoder, knowing both ids.
fn decoder(records: &[Record]) -> AvroDecoder<LoginEvent> {
    let asked: (Box<dyn Ask>, _) = (Box::new(Registry), Duration::ZERO);
    let storage = Arc::new(MemoryStorage::default());
    let schemas = Schemas::asking(SourceId(0), "logins", storage, Some(asked), &threads::environment());
    let this = std::thread::current();
    let wake = Waker::new(move || this.unpark());
    let mut decoder = AvroDecoder::new(LOGIN_EVENT_SCHEMA, schemas, wake).expect("the schema is a record");
    for record in records {
        while matches!(decoder.decode(record), Decoded::Unresolved) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
    decoder
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("avro");
    group.throughput(Throughput::Elements(COUNT));
    for (name, old_writers) in [("engine", 0.0), ("engine, a fifth of version 1", 0.2)] {
        let records = framed(old_writers);
        let mut decoder = decoder(&records);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for record in &records {
                    assert!(matches!(black_box(decoder.decode(record)), Decoded::Value(_)));
                }
            });
        });
    }
    let records = framed(0.0);
    let bodies: Vec<&[u8]> = records
        .iter()
        .map(|record| framing::split(record.value.as_deref().expect("no login is null")).expect("it is framed").1)
        .collect();
    let reader = apache_avro::Schema::parse_str(LOGIN_EVENT_SCHEMA).expect("a schema");
    let writer = apache_avro::Schema::parse_str(SCHEMA_V2).expect("a schema");
    group.bench_function("apache-avro, by its values", |bencher| {
        bencher.iter(|| {
            for body in &bodies {
                let value = apache_avro::from_avro_datum(&writer, &mut &body[..], Some(&reader)).expect("a login");
                let login: Plain = apache_avro::from_value(&value).expect("a login");
                black_box((login.user_id, login.timestamp, login.ip, login.device, login.platform));
                black_box((login.user_agent, login.success));
            }
        });
    });
    let writer: serde_avro_fast::Schema = SCHEMA_V2.parse().expect("a schema");
    group.bench_function("serde_avro_fast, owned", |bencher| {
        bencher.iter(|| {
            for body in &bodies {
                let login: Plain = serde_avro_fast::from_datum_slice(body, &writer).expect("a login");
                black_box((login.user_id, login.timestamp, login.ip, login.device, login.platform));
                black_box((login.user_agent, login.success));
            }
        });
    });
    group.bench_function("serde_avro_fast, borrowed", |bencher| {
        bencher.iter(|| {
            for body in &bodies {
                let login: Borrowed<'_> = serde_avro_fast::from_datum_slice(body, &writer).expect("a login");
                black_box((login.user_id, login.timestamp, login.ip, login.device, login.platform));
                black_box((login.user_agent, login.success));
            }
        });
    });
    group.finish();
}
