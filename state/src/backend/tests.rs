//! Both backends against the same expectations.

use super::*;
use std::collections::BTreeMap;
use std::sync::Arc;

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn memory() -> RocksMemory {
    RocksMemory::new(&RocksMemorySettings { block_cache_bytes: 8 << 20, write_buffers_bytes: 4 << 20 })
}

/// Runs `check` on an empty backend of each kind.
fn on_each(check: impl Fn(&mut dyn KeyedBackend)) {
    let folder = tempfile::tempdir().unwrap();
    check(&mut HeapBackend::new());
    let settings = RocksSettings::default();
    check(&mut RocksBackend::create(&folder.path().join("live"), &settings, &memory()).unwrap());
}

fn value(expires: i64, text: &str) -> Vec<u8> {
    [&expires.to_be_bytes()[..], text.as_bytes()].concat()
}

fn contents(backend: &dyn KeyedBackend) -> Contents {
    let (mut found, mut last) = (Contents::new(), None);
    backend
        .scan(&mut |key, value| {
            assert!(last.as_deref() < Some(key), "the scan is not in key order");
            last = Some(key.to_vec());
            found.insert(key.to_vec(), value.to_vec());
            Ok(())
        })
        .unwrap();
    found
}

/// Opens the files of a cut as a store of their own.
fn reopen(cut: &Cut, folder: &Path) -> Box<dyn KeyedBackend> {
    match cut.format {
        CutFormat::Heap => {
            let mut backend = HeapBackend::new();
            for file in &cut.files {
                let PartContent::Bytes(bytes) = &file.content else { panic!("a heap cut has no files") };
                backend.add_chunk(&file.name, bytes).unwrap();
            }
            Box::new(backend)
        }
        CutFormat::Rocks => {
            RocksBackend::wipe(folder).unwrap();
            for file in &cut.files {
                let PartContent::File(path) = &file.content else { panic!("a rocks cut has only files") };
                std::fs::copy(path, folder.join(&file.name)).unwrap();
            }
            Box::new(RocksBackend::open_restored(folder, &RocksSettings::default(), &memory()).unwrap())
        }
    }
}

#[test]
fn reads_what_was_written_in_any_order() {
    on_each(|backend| {
        let keys: Vec<Vec<u8>> = (0..500u32).map(|i| state_key(&i.to_be_bytes())).collect();
        let puts: Vec<_> = keys.iter().map(|key| (key.clone(), Some(value(i64::MAX, "x")))).collect();
        backend.write(&puts).unwrap();
        backend.write(&[(keys[3].clone(), None), (keys[4].clone(), Some(value(7, "four")))]).unwrap();
        let absent = state_key(b"absent");
        let asked: Vec<&[u8]> = vec![&keys[4], &absent, &keys[3], &keys[499]];
        let expected = vec![Some(value(7, "four")), None, None, Some(value(i64::MAX, "x"))];
        assert_eq!(backend.multi_get(&asked).unwrap(), expected);
        assert_eq!(contents(backend).len(), 499);
        assert!(backend.stats().keys_estimate >= 499);
        assert!(backend.stats().live_bytes >= 499 * 10);
    });
}

#[test]
fn a_cut_is_not_changed_by_later_writes() {
    let folder = tempfile::tempdir().unwrap();
    on_each(|backend| {
        let (a, b) = (state_key(b"a"), state_key(b"b"));
        backend.write(&[(a.clone(), Some(value(1, "old"))), (b.clone(), Some(value(2, "stays")))]).unwrap();
        let before = contents(backend);
        let cut = backend.cut("1").unwrap();
        backend.set_watermark(Micros(2));
        backend.write(&[(a, Some(value(3, "new"))), (b, None)]).unwrap();
        backend.cut("2").unwrap();
        let cut = cut.finish().unwrap();
        assert_eq!(contents(reopen(&cut, &folder.path().join("again")).as_ref()), before);
        assert!(backend.cut("1").is_err(), "the label is taken");
        backend.release("1").unwrap();
        backend.release("1").unwrap();
        backend.cut("1").unwrap();
        for label in ["", "../1", "a/b"] {
            assert!(backend.cut(label).is_err(), "{label}");
        }
    });
}

#[test]
fn only_expired_entries_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let mut rocks = RocksBackend::create(&folder.path().join("live"), &RocksSettings::default(), &memory()).unwrap();
    let mut heap = HeapBackend::new();
    // Enough keys that each shard holds some of every expiry around the watermark.
    let puts: Vec<_> = (0..10_000i64).map(|i| (state_key(&i.to_be_bytes()), Some(value(i / 100, "v")))).collect();
    // A key with an older value that lives longer than the newer one: the older must not come back.
    let twice = state_key(b"twice");
    for (watermark, left) in [(None, 10_001), (Some(40), 6000), (Some(40), 6000), (Some(1000), 0)] {
        for backend in [&mut rocks as &mut dyn KeyedBackend, &mut heap] {
            if watermark.is_none() {
                backend.write(&puts).unwrap();
                backend.write(&[(twice.clone(), Some(value(i64::MAX, "older")))]).unwrap();
                backend.cut("first").unwrap();
                backend.write(&[(twice.clone(), Some(value(5, "newer")))]).unwrap();
            }
            if let Some(watermark) = watermark {
                backend.set_watermark(Micros(watermark));
            }
        }
        rocks.compact();
        heap.cut("drop").unwrap();
        heap.release("drop").unwrap();
        for backend in [&rocks as &dyn KeyedBackend, &heap] {
            assert_eq!(contents(backend).len(), left, "watermark {watermark:?}");
            assert!(contents(backend).values().all(|v| watermark.is_none_or(|w| expires_of(v) >= Micros(w))));
        }
    }
}

#[test]
fn unchanged_shards_give_the_same_chunks_and_large_ones_several() {
    let mut heap = HeapBackend::new();
    let key = |i: u32| state_key(&i.to_be_bytes());
    let big = "x".repeat(1 << 20);
    heap.write(&(0..400).map(|i| (key(i), Some(value(9, &big)))).collect::<Vec<_>>()).unwrap();
    let bytes = |cut: Cut| -> BTreeMap<String, Arc<[u8]>> {
        let content = |file: PartFile| match file.content {
            PartContent::Bytes(bytes) => (file.name, bytes),
            PartContent::File(path) => panic!("a heap cut has no files: {}", path.display()),
        };
        cut.files.into_iter().map(content).collect()
    };
    let first = bytes(heap.cut("1").unwrap().finish().unwrap());
    assert!(first.values().all(|chunk| chunk.len() <= 4 << 20));
    assert!(first.len() > 64, "400 MiB in shards of 6 MiB need more than one chunk each");
    heap.write(&[(key(0), Some(value(9, "small"))), (key(1), Some(value(9, &big)))]).unwrap();
    let second = bytes(heap.cut("2").unwrap().finish().unwrap());
    let changed: Vec<&String> = first.keys().filter(|name| second.get(*name) != first.get(*name)).collect();
    let shard = format!("shard-{:05}-", Shard::of(&0u32.to_be_bytes()).0);
    assert!(!changed.is_empty() && changed.iter().all(|name| name.starts_with(&shard)), "{changed:?}");
}

#[test]
fn damaged_chunks_are_refused() {
    let mut heap = HeapBackend::new();
    heap.write(&[(state_key(b"k"), Some(value(1, "v")))]).unwrap();
    let cut = heap.cut("1").unwrap().finish().unwrap();
    let PartContent::Bytes(chunk) = &cut.files[0].content else { panic!("a heap cut has no files") };
    for end in (0..chunk.len()).filter(|end| *end != 4) {
        assert!(HeapBackend::new().add_chunk("c", &chunk[..end]).is_err(), "cut at {end}");
    }
}
