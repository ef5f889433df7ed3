//! A key of state loaded, changed, and its epoch ended.

use criterion::{Criterion, Throughput};
use dataflow_core::{Error, Micros, Result};
use dataflow_state::backend::{BackendKind, RocksMemory, RocksMemorySettings, RocksSettings};
use dataflow_state::table::{KeyedTable, StateValue, TableSettings};

/// Keys of an epoch.
const EPOCH: u64 = 1_000;
/// Keys in all: with the cache below, one in ten is cached when it is asked for at random.
const KEYS: u64 = 200_000;
/// Bytes of a value.
const VALUE: usize = 100;
/// A key takes some 250 bytes of the cache.
const CACHE_BYTES: usize = 5 << 20;

/// Bytes that are changed at one end.
#[derive(Clone)]
struct Value(Vec<u8>);

impl Default for Value {
    fn default() -> Self {
        Value(vec![0; VALUE])
    }
}

impl StateValue for Value {
    const VERSION: u16 = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() == VALUE {
            Ok(Value(bytes.to_vec()))
        } else {
            Err(Error::us("decoding a value of another length"))
        }
    }

    fn expires(&self) -> Micros {
        Micros(i64::MAX)
    }

    fn weight(&self) -> usize {
        VALUE
    }

    fn is_default(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state");
    group.throughput(Throughput::Elements(EPOCH));
    let memory = RocksMemory::new(&RocksMemorySettings { block_cache_bytes: 64 << 20, write_buffers_bytes: 32 << 20 });
    let rocks = BackendKind::Rocks { settings: RocksSettings::default(), memory };
    let all_cached = TableSettings { cache_bytes: 1 << 30, dirty_bytes: 16 << 20 };
    let few_cached = TableSettings { cache_bytes: CACHE_BYTES, dirty_bytes: CACHE_BYTES / 2 };
    for (name, backend, settings) in [
        ("heap, cached", BackendKind::Heap, all_cached),
        ("rocksdb, cached", rocks.clone(), all_cached),
        ("heap, one in ten cached", BackendKind::Heap, few_cached),
        ("rocksdb, one in ten cached", rocks, few_cached),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let backend = backend.create(&folder.path().join("live")).expect("a store");
        let mut table: KeyedTable<Value> = KeyedTable::new(backend, settings, None);
        let mut turn = 0;
        // Each key once, so that later ones are found.
        for _ in 0..KEYS / EPOCH {
            epoch(&mut table, &mut turn, 1);
        }
        // A stride that has no divisor in common with the number of keys goes through all of them, in no order.
        group.bench_function(name, |bencher| bencher.iter(|| epoch(&mut table, &mut turn, 77_773)));
    }
    group.finish();
}

/// Changes the next keys.
fn epoch(table: &mut KeyedTable<Value>, turn: &mut u64, stride: u64) {
    let keys: Vec<[u8; 8]> = (0..EPOCH).map(|n| ((*turn + n).wrapping_mul(stride) % KEYS).to_be_bytes()).collect();
    *turn += EPOCH;
    let keys: Vec<&[u8]> = keys.iter().map(<[u8; 8]>::as_slice).collect();
    for slot in table.load(&keys).expect("the store reads") {
        let value = table.get_mut(slot);
        value.0[0] = value.0[0].wrapping_add(1) | 1;
    }
    table.end_epoch(None).expect("the store writes");
}
