//! A table with a tiny cache against a plain map: epochs, expiry, cuts and restores in any order, on both backends.

use super::*;
use crate::backend::{
    BackendKind, CutFormat, HeapBackend, PartContent, RocksBackend, RocksMemory, RocksMemorySettings, RocksSettings,
    state_key,
};
use dataflow_core::Fault;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// A sum and the greatest event time in it: worth nothing once the watermark is past that.
#[derive(Clone, Debug, PartialEq)]
struct Tally {
    sum: i64,
    newest: i64,
}

impl Default for Tally {
    fn default() -> Self {
        Tally { sum: 0, newest: i64::MIN }
    }
}

impl StateValue for Tally {
    const VERSION: u16 = 3;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sum.to_le_bytes());
        out.extend_from_slice(&self.newest.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let number = |range| bytes.get(range).and_then(|b: &[u8]| b.try_into().ok()).map(i64::from_le_bytes);
        match (number(0..8), number(8..16)) {
            (Some(sum), Some(newest)) => Ok(Tally { sum, newest }),
            _ => Err(Error::outside("decode a tally")),
        }
    }

    /// Version 2 had no time.
    fn migrate(version: u16, bytes: &[u8]) -> Result<Self> {
        match (version, bytes.try_into().map(i64::from_le_bytes)) {
            (2, Ok(sum)) => Ok(Tally { sum, newest: 0 }),
            _ => Err(Error::user(format!("read state of version {version} with code for version {}", Self::VERSION))),
        }
    }

    fn expires(&self) -> Micros {
        Micros(self.newest)
    }

    fn weight(&self) -> usize {
        16
    }

    fn is_default(&self) -> bool {
        *self == Tally::default()
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// Adds (key, amount, time), then the watermark advances by this. Amount 0 resets the key.
    Epoch(Vec<(u8, i64, i64)>, i64),
    Cut,
    Restore,
    Scan,
}

fn op() -> impl Strategy<Value = Op> {
    let add = (0..30u8, -3..4i64, 0..40i64);
    prop_oneof![
        8 => (prop::collection::vec(add, 1..8), 0..6i64).prop_map(|(adds, step)| Op::Epoch(adds, step)),
        2 => Just(Op::Cut),
        1 => Just(Op::Restore),
        1 => Just(Op::Scan),
    ]
}

type Model = BTreeMap<Vec<u8>, Tally>;

struct Run<'a> {
    kind: &'a BackendKind,
    folder: &'a Path,
    settings: TableSettings,
    table: KeyedTable<Tally>,
    model: Model,
    watermark: Option<Micros>,
    lives: usize,
    cuts: usize,
    saved: Option<(PendingCut, Model, Option<Micros>)>,
}

impl Run<'_> {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Epoch(adds, step) => self.epoch(adds, *step),
            Op::Cut => {
                self.cuts += 1;
                let cut = self.table.cut(&format!("c{}", self.cuts), self.watermark).unwrap();
                assert_eq!(self.table.stats().dirty_bytes, 0);
                self.saved = Some((cut, self.model.clone(), self.watermark));
            }
            Op::Restore => self.restore(),
            Op::Scan => {
                let mut found = Model::new();
                let mut add = |key: &[u8], value| {
                    assert!(found.insert(key.to_vec(), value).is_none(), "a key comes once");
                    Ok(())
                };
                self.table.scan(&mut add).unwrap();
                let watermark = self.watermark;
                self.model.retain(|_, v| Some(v.expires()) >= watermark && !v.is_default());
                assert_eq!(found, self.model);
            }
        }
    }

    fn epoch(&mut self, adds: &[(u8, i64, i64)], step: i64) {
        let names: Vec<Vec<u8>> = adds.iter().map(|(key, ..)| format!("key-{key}").into_bytes()).collect();
        let slots = self.table.load(&names.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        for (name, slot) in names.iter().zip(&slots) {
            let expected = self.model.entry(name.clone()).or_default();
            if Some(expected.expires()) < self.watermark {
                *expected = Tally::default();
            }
            assert_eq!(self.table.get(*slot), expected);
        }
        for ((name, slot), (_, amount, time)) in names.iter().zip(&slots).zip(adds) {
            for tally in [self.table.get_mut(*slot), self.model.get_mut(name).unwrap()] {
                match amount {
                    0 => *tally = Tally::default(),
                    _ => *tally = Tally { sum: tally.sum + amount, newest: tally.newest.max(*time) },
                }
            }
        }
        self.watermark = Some(self.watermark.unwrap_or(Micros(0)).plus(step));
        self.table.end_epoch(self.watermark).unwrap();
        let stats = self.table.stats();
        assert!(stats.dirty_bytes <= self.settings.dirty_bytes && stats.cached_bytes <= self.settings.cache_bytes);
    }

    fn restore(&mut self) {
        let Some((cut, model, watermark)) = self.saved.clone() else { return };
        let cut = cut.finish().unwrap();
        self.lives += 1;
        let live = self.folder.join(format!("live-{}", self.lives));
        let backend: Box<dyn KeyedBackend> = match (cut.format, self.kind) {
            (CutFormat::Rocks, BackendKind::Rocks { settings, memory }) => {
                RocksBackend::wipe(&live).unwrap();
                for file in &cut.files {
                    let PartContent::File(path) = &file.content else { panic!("a rocks cut has only files") };
                    std::fs::copy(path, live.join(&file.name)).unwrap();
                }
                Box::new(RocksBackend::open_restored(&live, settings, memory).unwrap())
            }
            _ => {
                let mut backend = HeapBackend::new();
                for file in &cut.files {
                    let PartContent::Bytes(bytes) = &file.content else { panic!("a heap cut has no files") };
                    backend.add_chunk(&file.name, bytes).unwrap();
                }
                Box::new(backend)
            }
        };
        self.table = KeyedTable::new(backend, self.settings, watermark);
        (self.model, self.watermark) = (model, watermark);
    }
}

fn run(kind: &BackendKind, ops: &[Op], cache_bytes: usize, dirty_bytes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let settings = TableSettings { cache_bytes, dirty_bytes };
    let table = KeyedTable::new(kind.create(&folder.path().join("live-0")).unwrap(), settings, None);
    let (model, watermark) = (Model::new(), None);
    let path = folder.path();
    let mut run = Run { kind, folder: path, settings, table, model, watermark, lives: 0, cuts: 0, saved: None };
    ops.iter().for_each(|op| run.apply(op));
    run.apply(&Op::Cut);
    run.apply(&Op::Restore);
    run.apply(&Op::Scan);
}

fn rocks() -> BackendKind {
    let memory = RocksMemorySettings { block_cache_bytes: 8 << 20, write_buffers_bytes: 4 << 20 };
    BackendKind::Rocks { settings: RocksSettings::default(), memory: RocksMemory::new(&memory) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn on_the_heap(ops in prop::collection::vec(op(), 1..60), cache in 0..2000usize, dirty in 0..1000usize) {
        run(&BackendKind::Heap, &ops, cache, dirty);
    }
}

proptest! {
    // A case opens several databases.
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn in_rocksdb(ops in prop::collection::vec(op(), 1..60), cache in 0..2000usize, dirty in 0..1000usize) {
        run(&rocks(), &ops, cache, dirty);
    }
}

fn stored(version: u16, bytes: &[u8]) -> KeyedTable<Tally> {
    let mut backend = HeapBackend::new();
    let value = [&i64::MAX.to_be_bytes()[..], &version.to_be_bytes(), bytes].concat();
    backend.write(&[(state_key(b"k"), Some(value))]).unwrap();
    KeyedTable::new(Box::new(backend), TableSettings::default(), None)
}

#[test]
fn older_values_are_migrated_and_others_refused_by_name() {
    let mut table = stored(2, &5i64.to_le_bytes());
    let slot = table.load(&[b"k"]).unwrap()[0];
    assert_eq!(table.get(slot), &Tally { sum: 5, newest: 0 });
    for (version, bytes) in [(4u16, &[0u8; 16][..]), (1, &[0; 16])] {
        let error = stored(version, bytes).load(&[b"k"]).unwrap_err();
        assert_eq!(error.fault, Fault::User);
        let text = error.to_string();
        assert!(text.contains(&format!("version {version}")) && text.contains("version 3"), "{text}");
    }
    let error = stored(3, &[1, 2, 3]).load(&[b"k"]).unwrap_err();
    assert!(error.to_string().contains("'k'"), "{error}");
}

#[test]
fn a_hot_key_is_read_once_and_default_values_are_not_stored() {
    let mut table: KeyedTable<Tally> =
        KeyedTable::new(Box::new(HeapBackend::new()), TableSettings { cache_bytes: 1 << 20, dirty_bytes: 0 }, None);
    for epoch in 0..10 {
        let slots = table.load(&[b"hot", b"default"]).unwrap();
        table.get_mut(slots[0]).sum = epoch + 1;
        table.get_mut(slots[1]);
        table.end_epoch(None).unwrap();
    }
    let stats = table.stats();
    assert_eq!((stats.misses, stats.hits), (2, 18));
    assert_eq!(stats.backend.keys_estimate, 1, "only the hot one");
}

#[test]
fn changed_values_are_written_when_they_are_old_or_too_many() {
    let table = |dirty_bytes| -> KeyedTable<Tally> {
        KeyedTable::new(Box::new(HeapBackend::new()), TableSettings { cache_bytes: 1 << 20, dirty_bytes }, None)
    };
    let change = |table: &mut KeyedTable<Tally>, keys: &[&[u8]]| {
        for slot in table.load(keys).unwrap() {
            table.get_mut(slot).sum += 1;
        }
        table.end_epoch(None).unwrap();
    };
    let mut few = table(1 << 20);
    change(&mut few, &[b"old"]);
    for _ in 0..DIRTY_EPOCHS_MAX {
        assert_eq!(few.stats().backend.keys_estimate, 0);
        change(&mut few, &[b"new"]);
    }
    assert_eq!(few.stats().backend.keys_estimate, 1, "the old one");
    assert!(few.stats().dirty_bytes > 0);

    let mut many = table(1_000);
    let keys: Vec<[u8; 2]> = (0..100u16).map(u16::to_be_bytes).collect();
    let keys: Vec<&[u8]> = keys.iter().map(<[u8; 2]>::as_slice).collect();
    change(&mut many, &keys);
    let stats = many.stats();
    assert!((500..=1_000).contains(&stats.dirty_bytes), "{stats:?}");
    assert!((80..100).contains(&stats.backend.keys_estimate), "{stats:?}");
}
