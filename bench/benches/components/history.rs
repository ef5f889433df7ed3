//! A login through the keyed history: put in its place, judged, released when the watermark has passed it.

use crate::logins::{COUNT, enriched};
use criterion::{BatchSize, Criterion, Throughput};
use dataflow_core::{Micros, Stamped, stable_hash};
use dataflow_operators::anomaly::{
    BruteForce, Burst, ByUser, ImpossibleTravel, Login, NewCountry, NewDevice, UnresolvedAddress,
};
use dataflow_operators::window::key_state::{KeyState, Rules};
use std::hint::black_box;

/// How far the watermark is behind.
const LATENESS_US: i64 = 5_000_000;
/// More than there are users.
const KEYS: u64 = 1 << 14;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history");
    group.throughput(Throughput::Elements(COUNT));
    let logins = enriched();
    let two = ByUser((NewCountry::default(), UnresolvedAddress::default()));
    let six = ByUser((
        NewCountry::default(),
        UnresolvedAddress::default(),
        ImpossibleTravel::default(),
        BruteForce::default(),
        NewDevice::default(),
        Burst::default(),
    ));
    group.bench_function("two detectors", |bencher| {
        bencher.iter_batched(|| logins.clone(), |logins| black_box(run(&two, logins)), BatchSize::LargeInput);
    });
    group.bench_function("six detectors", |bencher| {
        bencher.iter_batched(|| logins.clone(), |logins| black_box(run(&six, logins)), BatchSize::LargeInput);
    });
    group.finish();
}

/// All logins, each an epoch of its own; how many findings.
fn run<R: Rules<Event = Login>>(rules: &R, logins: Vec<Stamped<Login>>) -> usize {
    let mut states: Vec<KeyState<R>> = (0..KEYS).map(|_| KeyState::default()).collect();
    let (mut withdrawn, mut raised, mut key) = (Vec::new(), Vec::new(), Vec::new());
    for login in logins {
        let watermark = Some(Micros(login.time.0 - LATENESS_US));
        key.clear();
        assert!(rules.key(&login.data, &mut key), "every login has a user");
        let state = &mut states[(stable_hash(&key) % KEYS) as usize];
        state.release(rules, watermark, |login, _| drop(black_box(login)));
        let (_, first) = state.insert(rules, login);
        state.judge(rules, first, &mut withdrawn, &mut raised);
        state.seal(rules, true);
    }
    raised.len()
}
