//! What the job says, as rows of the sink.

use crate::logins::{COUNT, enriched};
use criterion::{Criterion, Throughput};
use dataflow_core::TopicId;
use dataflow_operators::anomaly::{Detectors, NewCountry, deliver};
use dataflow_operators::window::keyed_history::Said;
use std::hint::black_box;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    let logins = enriched();
    group.throughput(Throughput::Elements(COUNT));
    group.bench_function("enriched logins", |bencher| {
        bencher.iter(|| logins.iter().for_each(|login| drop(black_box(deliver::enriched(TopicId(0), login)))));
    });
    // Of someone new each time: every login is a finding.
    let mut findings = Vec::new();
    logins.iter().for_each(|login| (NewCountry::default(),).step(&mut Default::default(), login, &mut findings));
    let said: Vec<_> = findings.into_iter().map(|finding| Said { epoch: 1, withdrawn: false, finding }).collect();
    group.throughput(Throughput::Elements(said.len() as u64));
    group.bench_function("findings", |bencher| {
        bencher.iter(|| {
            said.iter().for_each(|said| drop(black_box(deliver::anomaly(TopicId(0), said, "login-events"))));
        });
    });
    group.finish();
}
