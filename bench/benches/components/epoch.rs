//! Epochs without a record through a whole job: ticker, source, binder and its log (in memory), a keyed history, a sink.

use criterion::{BenchmarkId, Criterion, Throughput};
use dataflow_core::{
    Decode, Decoded, Discovered, EpochOutput, Marker, Micros, Poll, Record, Result, Sink, SinkIdentity, Source,
    SourceReader, Stamped, TopicId, Waker,
};
use dataflow_loadgen::geography;
use dataflow_operators::anomaly::{ByUser, Login, LoginEvent, NewCountry, UnresolvedAddress, deliver};
use dataflow_operators::enrich::IpTable;
use dataflow_operators::window::keyed_history::{Emit, keyed_history};
use dataflow_runtime::{JobSetup, RuntimeSettings, prepare, threads};
use dataflow_state::backend::BackendKind;
use dataflow_state::binding_log::export::RecordedEpoch;
use dataflow_state::storage::MemoryStorage;
use dataflow_state::table::TableSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use timely::dataflow::operators::vec::Map;

/// Of a life of the job.
const EPOCHS: u64 = 2_000;
const SOURCE: &str = "logins";
const SINK: &str = "out";

/// Two partitions without a record.
struct Empty;

impl Source for Empty {
    fn name(&self) -> &str {
        SOURCE
    }

    fn open(&self, worker: usize, peers: usize, _: Waker) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(EmptyReader((0..2).filter(|index| *index as usize % peers == worker).collect())))
    }
}

struct EmptyReader(Vec<u32>);

impl SourceReader for EmptyReader {
    fn discover(&mut self) -> Result<Vec<Discovered>> {
        Ok(self.0.drain(..).map(|index| Discovered { index, start: 0 }).collect())
    }

    fn assign(&mut self, _: u32, _: u64) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self, _: u32, _: Option<u64>, _: usize, _: &mut Vec<Record>) -> Result<Poll> {
        Ok(Poll::AtEnd)
    }
}

/// Never has anything to read.
struct NoDecoder;

impl Decode<LoginEvent> for NoDecoder {
    fn decode(&mut self, _: &Record) -> Decoded<LoginEvent> {
        Decoded::Dead("undecodable")
    }
}

/// Never has anything to take.
struct NoSink;

impl Sink for NoSink {
    fn name(&self) -> &str {
        SINK
    }

    fn open(&mut self, _: &SinkIdentity) -> Result<Option<Marker>> {
        Ok(None)
    }

    fn commit(&mut self, epochs: &[EpochOutput]) -> Result<()> {
        assert!(epochs.is_empty(), "an epoch without a record has a row");
        Ok(())
    }
}

/// A life of the job from its first epoch to its last.
fn run(workers: usize) {
    let ends: BTreeMap<String, u64> = (0..2).map(|index| (format!("{SOURCE}/{index}"), 0)).collect();
    let row = |epoch| RecordedEpoch {
        epoch,
        clock: Micros(epoch as i64 * 1_000),
        ends: ends.clone(),
        idle: BTreeSet::new(),
        watermark: None,
        is_final: epoch == EPOCHS,
    };
    let plan = prepare(JobSetup {
        name: "empty".to_owned(),
        fingerprint: "bench".to_owned(),
        settings: RuntimeSettings::default(),
        environment: threads::environment(),
        storage: Arc::new(MemoryStorage::default()),
        live: PathBuf::from("unused by the heap backend"),
        backend: BackendKind::Heap,
        tables: TableSettings::default(),
        workers,
        sources: vec![Arc::new(Empty)],
        sinks: vec![Box::new(NoSink)],
        table_sinks: Vec::new(),
        lookups: Vec::new(),
        recorded: Some((1..=EPOCHS).map(row).collect()),
    })
    .expect("the job can start");
    threads::run(plan, |job| {
        let (records, _) = job.source::<LoginEvent>(SOURCE, Box::new(NoDecoder))?;
        let table = IpTable::parse(geography::csv().as_bytes())?;
        let place = move |event: Stamped<LoginEvent>| Stamped {
            time: event.time,
            position: event.position,
            data: Login::from_event(&event.data, &table),
        };
        let (accepted, _) = job.accept(records.map(place));
        let rules = ByUser((NewCountry::default(), UnresolvedAddress::default()));
        let (distinct, _) = keyed_history(job, "by-user", rules, Emit::Eager, accepted)?;
        job.write(SINK, distinct.map(|login| deliver::enriched(TopicId(0), &login)))
    })
    .expect("the job ends by itself");
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("epoch");
    group.throughput(Throughput::Elements(EPOCHS)).sample_size(10);
    for workers in [1, 2] {
        group.bench_with_input(BenchmarkId::new("empty, workers", workers), &workers, |bencher, workers| {
            bencher.iter(|| run(*workers));
        });
    }
    group.finish();
}
