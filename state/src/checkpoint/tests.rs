//! Checkpoints end to end: store, restore, rescale, damage, collection, on real files and on the simulation's storage.

use super::*;
use crate::backend::{
    BackendKind, Cut, CutFormat, KeyedBackend, PartContent, PartFile, RocksMemory, RocksMemorySettings, RocksSettings,
    state_key,
};
use crate::storage::{LocalStorage, MemoryStorage};
use dataflow_core::binding::PartitionState;
use dataflow_core::{BindingState, ChainHash, Epoch, Generation, Lineage, Micros, Partition, Shard, SourceId, Storage};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

struct Fixture {
    folder: tempfile::TempDir,
    storage: Arc<dyn Storage>,
}

impl Fixture {
    fn local() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let storage = Arc::new(LocalStorage::new(folder.path().join("data")));
        Fixture { folder, storage }
    }

    fn memory() -> Fixture {
        Fixture { folder: tempfile::tempdir().unwrap(), storage: Arc::new(MemoryStorage::new()) }
    }

    fn open(&self, keep: usize) -> CheckpointStore {
        CheckpointStore::open(self.storage.clone(), "checkpoints", keep).unwrap()
    }

    fn live(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a stored file's content, as a failing disk would.
    fn overwrite(&self, path: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut bytes = self.storage.read(path).unwrap();
        change(&mut bytes);
        self.storage.remove(path).unwrap();
        self.storage.append(path).unwrap().write(&bytes).unwrap();
    }

    fn stored(&self, folder: &str) -> Vec<String> {
        self.storage.list(&format!("checkpoints/{folder}")).unwrap()
    }
}

fn rocks() -> BackendKind {
    let memory = RocksMemorySettings { block_cache_bytes: 8 << 20, write_buffers_bytes: 4 << 20 };
    BackendKind::Rocks { settings: RocksSettings::default(), memory: RocksMemory::new(&memory) }
}

fn fixtures() -> Vec<(Fixture, BackendKind)> {
    vec![
        (Fixture::local(), rocks()),
        (Fixture::local(), BackendKind::Heap),
        (Fixture::memory(), rocks()),
        (Fixture::memory(), BackendKind::Heap),
    ]
}

fn value(text: &str) -> Vec<u8> {
    [&i64::MAX.to_be_bytes()[..], text.as_bytes()].concat()
}

fn contents(backend: &dyn KeyedBackend) -> Contents {
    let mut found = Contents::new();
    backend
        .scan(&mut |key, value| {
            found.insert(key.to_vec(), value.to_vec());
            Ok(())
        })
        .unwrap();
    found
}

fn entries(range: std::ops::Range<u32>, text: &str) -> Contents {
    range.map(|i| (state_key(&i.to_be_bytes()), value(text))).collect()
}

/// The entries of those that a worker owns.
fn owned(all: &Contents, worker: usize, peers: usize) -> Contents {
    let mine = |key: &[u8]| Shard(u16::from_be_bytes([key[0], key[1]])).worker(peers) == worker;
    all.iter().filter(|(key, _)| mine(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn write(backend: &mut dyn KeyedBackend, entries: &Contents) {
    let puts: Vec<_> = entries.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect();
    backend.write(&puts).unwrap();
}

fn manifest(epoch: Epoch, generation: u64, workers: usize, parts: Vec<PartRef>) -> Manifest {
    let partition = |index| Partition { source: SourceId(1), index };
    let state = BindingState {
        epoch,
        clock: Micros(i64::MAX - 1),
        partitions: [
            (partition(0), PartitionState { end: 7, newest: Some(Micros(5)) }),
            (partition(1), PartitionState { end: u64::MAX, newest: None }),
        ]
        .into(),
        idle: [partition(1)].into(),
        watermark: Some(Micros(-3)),
        is_final: false,
        schemas: [((SourceId(1), 4), Some([7; 16])), ((SourceId(1), 5), None)].into(),
        tables: [("ip".to_string(), [9; 16])].into(),
    };
    Manifest {
        version: MANIFEST_VERSION,
        job: "job".to_string(),
        fingerprint: "f".to_string(),
        lineage: Lineage(u64::MAX),
        generation: Generation { number: generation, nonce: u64::MAX - 1 },
        epoch,
        chain: ChainHash([0xAB; 16]),
        state,
        sources: vec!["a".to_string(), "b".to_string()],
        workers,
        parts,
        sinks: [("kafka".to_string(), SinkPosition { last_output: 3, committed: 5, chain: Some(ChainHash([3; 16])) })]
            .into(),
        clean: true,
        clock: Micros(i64::MAX - 1),
    }
}

/// A checkpoint of `all`, spread over `workers` stores of operator `op`.
fn checkpoint(
    store: &CheckpointStore,
    fixture: &Fixture,
    kind: &BackendKind,
    all: &Contents,
    workers: usize,
    epoch: Epoch,
) -> Manifest {
    let part = |worker| {
        let mut backend = kind.create(&fixture.live(&format!("live-{epoch}-{worker}"))).unwrap();
        write(backend.as_mut(), &owned(all, worker, workers));
        let cut = backend.cut("c").unwrap().finish().unwrap();
        store.store_part("op", worker, 1, 3, &cut).unwrap()
    };
    let manifest = manifest(epoch, 1, workers, (0..workers).map(part).collect());
    store.complete(&manifest).unwrap();
    manifest
}

/// A cut of files with these contents, for what does not depend on a backend.
fn bytes_cut(texts: &[&str]) -> Cut {
    let file = |(i, text): (usize, &&str)| PartFile {
        name: format!("shard-00000-{i:05}"),
        content: PartContent::Bytes(text.as_bytes().into()),
    };
    Cut { format: CutFormat::Heap, files: texts.iter().enumerate().map(file).collect(), shard_bytes: Vec::new() }
}

fn bytes_checkpoint(store: &CheckpointStore, epoch: Epoch, generation: u64, texts: &[&str]) -> Manifest {
    let part = store.store_part("op", 0, generation, 1, &bytes_cut(texts)).unwrap();
    let manifest = manifest(epoch, generation, 1, vec![part]);
    store.complete(&manifest).unwrap();
    manifest
}

#[test]
fn restored_as_it_was_and_rescaled_two_to_three_to_one() {
    for (fixture, kind) in fixtures() {
        let store = fixture.open(3);
        let mut all = entries(0..2000, "first");
        let mut workers = 2;
        for (epoch, next) in [(1, 2), (2, 3), (3, 1)] {
            checkpoint(&store, &fixture, &kind, &all, workers, epoch);
            // A new process: nothing but what is in the storage.
            let store = fixture.open(3);
            let (manifest, damages) = store.newest_intact().unwrap();
            let manifest = manifest.expect("the checkpoint is whole");
            assert_eq!((manifest.epoch, damages), (epoch, Vec::new()));
            for worker in 0..next {
                let live = fixture.live(&format!("again-{epoch}-{worker}"));
                let mut backend = store.restore_backend(&manifest, "op", worker, next, &kind, &live).unwrap();
                assert_eq!(contents(backend.as_ref()), owned(&all, worker, next), "worker {worker} of {next}");
                write(backend.as_mut(), &owned(&entries(0..10, "later"), worker, next));
                let part =
                    store.store_part("op", worker, 2, 3, &backend.cut("later").unwrap().finish().unwrap()).unwrap();
                assert_eq!(store.verify(&self::manifest(epoch, 2, 1, vec![part])), Ok(()), "no hash is a stale one");
            }
            assert_eq!(store.verify(&manifest), Ok(()), "a live store does not write to stored files");
            all.extend(entries(2000..2000 + 10 * epoch as u32, "more"));
            workers = next;
        }
    }
}

#[test]
fn files_of_many_pieces_come_back_whole() {
    // Not to be compressed: files of several pieces, and several chunks of a shard.
    let noise = |seed: u32| {
        let mut out = vec![0; 1 << 20];
        blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
        [&i64::MAX.to_be_bytes()[..], &out].concat()
    };
    let own = |n: &u32| Shard::of(&n.to_be_bytes()) == Shard(3);
    let all: Contents = (0..).filter(own).take(12).map(|n| (state_key(&n.to_be_bytes()), noise(n))).collect();
    for (fixture, kind) in fixtures() {
        let store = fixture.open(1);
        let manifest = checkpoint(&store, &fixture, &kind, &all, 1, 1);
        let largest = manifest.files().map(|file| file.bytes).max();
        assert!(
            largest > Some(2 << 20) && (kind.format() == CutFormat::Rocks || largest <= Some(4 << 20)),
            "{largest:?}"
        );
        for (worker, peers) in [(0, 1), (Shard(3).worker(2), 2)] {
            let live = fixture.live(&format!("again-{peers}"));
            let again = store.restore_backend(&manifest, "op", worker, peers, &kind, &live).unwrap();
            assert_eq!(contents(again.as_ref()), all, "worker {worker} of {peers}");
        }
    }
}

#[test]
fn state_moves_between_backends() {
    let fixture = Fixture::local();
    let store = fixture.open(1);
    let all = entries(0..300, "x");
    for (epoch, from, to) in [(1, rocks(), BackendKind::Heap), (2, BackendKind::Heap, rocks())] {
        let manifest = checkpoint(&store, &fixture, &from, &all, 2, epoch);
        for worker in 0..2 {
            let live = fixture.live(&format!("moved-{epoch}-{worker}"));
            let backend = store.restore_backend(&manifest, "op", worker, 2, &to, &live).unwrap();
            assert_eq!(contents(backend.as_ref()), owned(&all, worker, 2));
        }
    }
}

#[test]
fn an_unknown_operator_is_empty_and_an_incomplete_one_refused() {
    let fixture = Fixture::memory();
    let store = fixture.open(1);
    let mut manifest = checkpoint(&store, &fixture, &BackendKind::Heap, &entries(0..50, "x"), 2, 1);
    let live = fixture.live("live");
    let restore = |manifest: &Manifest, operator| {
        store.restore_backend(manifest, operator, 0, 1, &BackendKind::Heap, &live).map(|b| contents(b.as_ref()).len())
    };
    assert_eq!(restore(&manifest, "other").unwrap(), 0);
    assert_eq!(restore(&manifest, "op").unwrap(), 50);
    manifest.parts.pop();
    assert!(restore(&manifest, "op").unwrap_err().to_string().contains("'op'"));
}

#[test]
fn a_second_checkpoint_stores_only_new_files() {
    for kind in [rocks(), BackendKind::Heap] {
        let fixture = Fixture::local();
        let store = fixture.open(5);
        let mut backend = kind.create(&fixture.live("live")).unwrap();
        write(backend.as_mut(), &entries(0..5000, "first"));
        let store_cut = |backend: &mut dyn KeyedBackend, label: &str| -> PartRef {
            let cut = backend.cut(label).unwrap().finish().unwrap();
            let part = store.store_part("op", 0, 1, 1, &cut).unwrap();
            backend.release(label).unwrap();
            part
        };
        let first = store_cut(backend.as_mut(), "1");
        let before = fixture.stored("files");
        // One key of one shard.
        write(backend.as_mut(), &entries(0..1, "second"));
        let second = store_cut(backend.as_mut(), "2");
        let new: Vec<String> = fixture.stored("files").into_iter().filter(|name| !before.contains(name)).collect();
        let data = |part: &PartRef| {
            part.files.iter().filter(|f| f.name.starts_with("shard") || f.name.ends_with("sst")).count()
        };
        let is_new = |f: &&FileRef| new.contains(&format!("{}-{}", f.hash, f.generation));
        let new_data =
            second.files.iter().filter(is_new).filter(|f| f.name.starts_with("shard") || f.name.ends_with("sst"));
        assert_eq!(new_data.count(), 1, "{new:?}");
        assert!(data(&second) > 1);
        let all = manifest(2, 1, 1, vec![first, second]);
        assert_eq!(store.verify(&all), Ok(()));
        let mut expected = entries(0..5000, "first");
        expected.extend(entries(0..1, "second"));
        let only_second = manifest(2, 1, 1, vec![all.parts[1].clone()]);
        store.complete(&only_second).unwrap();
        let again = store.restore_backend(&only_second, "op", 0, 1, &kind, &fixture.live("again")).unwrap();
        assert_eq!(contents(again.as_ref()), expected);
    }
}

#[test]
fn a_manifest_reads_back_and_is_written_once() {
    let fixture = Fixture::memory();
    let store = fixture.open(2);
    let written = bytes_checkpoint(&store, 7, 2, &["a", "b"]);
    let list = store.list().unwrap();
    assert_eq!(list.iter().map(|m| (m.epoch, m.generation)).collect::<Vec<_>>(), [(7, 2)]);
    assert_eq!(store.read(&list[0]).unwrap(), written);
    assert!(store.complete(&written).unwrap_err().to_string().contains("there already"));
    let unstored = FileRef { name: "x".to_string(), hash: "0".repeat(64), bytes: 1, generation: 2 };
    let mut other = manifest(8, 2, 1, written.parts.clone());
    other.parts[0].files.push(unstored);
    assert!(store.complete(&other).is_err(), "a file is missing");
}

/// The three newest checkpoints, of which `damage` breaks the newest; the one before is taken.
fn check_passed_over(damage: impl Fn(&Fixture, &CheckpointStore, &Manifest), reason: &str) {
    for fixture in [Fixture::local(), Fixture::memory()] {
        let store = fixture.open(3);
        bytes_checkpoint(&store, 1, 1, &["a", "one"]);
        let second = bytes_checkpoint(&store, 2, 1, &["a", "two"]);
        let third = bytes_checkpoint(&store, 3, 1, &["a", "three"]);
        damage(&fixture, &store, &third);
        let (found, damages) = fixture.open(3).newest_intact().unwrap();
        assert_eq!(found.as_ref(), Some(&second));
        assert_eq!(damages.len(), 1);
        assert!(damages[0].manifest.ends_with("00000000000000000003-1.json"), "{damages:?}");
        assert!(damages[0].to_string().contains(reason), "{damages:?}");
    }
}

#[test]
fn damage_is_found_and_the_checkpoint_before_is_taken() {
    let own_file = |store: &CheckpointStore, m: &Manifest| store.file_path(&m.parts[0].files[1]);
    check_passed_over(|f, s, m| f.overwrite(&own_file(s, m), |bytes| bytes[2] ^= 1), "hash");
    check_passed_over(|f, s, m| f.overwrite(&own_file(s, m), |bytes| bytes.push(0)), "6 bytes, not 5");
    check_passed_over(|f, s, m| f.storage.remove(&own_file(s, m)).unwrap(), "missing");
}

#[test]
fn a_manifest_damaged_at_any_byte_is_passed_over() {
    let fixture = Fixture::memory();
    let store = fixture.open(3);
    let first = bytes_checkpoint(&store, 1, 1, &["a"]);
    bytes_checkpoint(&store, 2, 1, &["b"]);
    let path = store.list().unwrap()[0].path.clone();
    let whole = fixture.storage.read(&path).unwrap();
    for at in 0..whole.len() {
        for change in
            [&|b: &mut Vec<u8>| b.truncate(at) as (), &|b: &mut Vec<u8>| b[at] ^= 1] as [&dyn Fn(&mut Vec<u8>); 2]
        {
            fixture.overwrite(&path, change);
            let (found, damages) = store.newest_intact().unwrap();
            assert_eq!((found.as_ref(), damages.len()), (Some(&first), 1), "byte {at}");
            assert_eq!(damages[0].file, path);
            fixture.overwrite(&path, |bytes| bytes.clone_from(&whole));
        }
    }
    assert_eq!(store.newest_intact().unwrap().0.map(|m| m.epoch), Some(2));
}

#[test]
fn a_manifest_of_a_newer_engine_stops_instead_of_falling_back() {
    let fixture = Fixture::memory();
    let store = fixture.open(3);
    bytes_checkpoint(&store, 1, 1, &["a"]);
    let part = store.store_part("op", 0, 1, 1, &bytes_cut(&["b"])).unwrap();
    let newer = Manifest { version: MANIFEST_VERSION + 1, ..manifest(2, 1, 1, vec![part]) };
    let path = "checkpoints/manifests/00000000000000000002-1.json";
    fixture.storage.append(path).unwrap().write(&newer.encode()).unwrap();
    assert!(store.newest_intact().unwrap_err().to_string().contains("version 2"));
}

#[test]
fn the_collector_keeps_what_kept_and_open_checkpoints_name() {
    for fixture in [Fixture::local(), Fixture::memory()] {
        let store = fixture.open(2);
        let manifests: Vec<Manifest> =
            (1..=4).map(|epoch| bytes_checkpoint(&store, epoch, 1, &["shared", &format!("of {epoch}")])).collect();
        let open = store.store_part("op", 0, 1, 1, &bytes_cut(&["of 1", "under way"])).unwrap();
        let collected = store.collect(&open.files, 1).unwrap();
        assert_eq!(collected, Collected { manifests: 2, files: 1, bytes: 4 }, "only 'of 2' is nobody's");
        assert_eq!(store.list().unwrap().iter().map(|m| m.epoch).collect::<Vec<_>>(), [4, 3]);
        for kept in &manifests[2..] {
            assert_eq!(store.verify(kept), Ok(()));
        }
        let fifth = manifest(5, 1, 1, vec![open]);
        store.complete(&fifth).unwrap();
        assert_eq!(store.verify(&fifth), Ok(()));
        store.collect(&[], 1).unwrap();
        assert_eq!(store.verify(&fifth), Ok(()));
        assert_eq!(fixture.stored("files").len(), 4, "shared, of 4, of 1, under way");
        // What was collected can be stored again.
        bytes_checkpoint(&store, 6, 1, &["of 2"]);
        assert_eq!(fixture.open(2).newest_intact().unwrap().0.map(|m| m.epoch), Some(6));
    }
}

#[test]
fn the_collector_never_takes_the_newest_intact_checkpoint() {
    let fixture = Fixture::memory();
    let store = fixture.open(1);
    let first = bytes_checkpoint(&store, 1, 1, &["one"]);
    let second = bytes_checkpoint(&store, 2, 1, &["two"]);
    fixture.overwrite(&store.file_path(&second.parts[0].files[0]), |bytes| bytes[0] ^= 1);
    // A new process, which knows nothing: it has to look.
    let store = fixture.open(1);
    store.collect(&[], 2).unwrap();
    assert_eq!(store.verify(&first), Ok(()));
    assert_eq!(store.newest_intact().unwrap().0, Some(first));
}

#[test]
fn the_collector_takes_uploads_of_ended_generations_only() {
    let fixture = Fixture::memory();
    let store = fixture.open(1);
    bytes_checkpoint(&store, 1, 1, &["kept"]);
    for (generation, text) in [(1, "ended"), (2, "running")] {
        // Stored by processes that die before their manifest.
        fixture.open(1).store_part("op", 0, generation, 1, &bytes_cut(&[text])).unwrap();
    }
    fixture.storage.append(&format!("checkpoints/files/{}-1.tmp", "0".repeat(64))).unwrap().write(b"half").unwrap();
    fixture.storage.append("checkpoints/files/README").unwrap().write(b"not ours").unwrap();
    let store = fixture.open(1);
    assert_eq!(store.collect(&[], 2).unwrap(), Collected { manifests: 0, files: 2, bytes: 9 });
    let generations: Vec<String> =
        fixture.stored("files").iter().map(|name| name.split_once('-').map_or("", |n| n.1).to_string()).collect();
    assert_eq!(generations.iter().filter(|g| *g == "1").count(), 1);
    assert_eq!(generations.iter().filter(|g| *g == "2").count(), 1);
    assert_eq!(store.collect(&[], 3).unwrap().files, 1);
    assert!(fixture.stored("files").contains(&"README".to_string()));
}

#[test]
fn a_completed_checkpoint_survives_a_crash_and_an_incomplete_one_is_not_seen() {
    let mut state = 1u64;
    let mut rng = move |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound.max(1)
    };
    for round in 0..100 {
        let memory = MemoryStorage::new();
        let open = || CheckpointStore::open(Arc::new(memory.clone()), "checkpoints", 2).unwrap();
        let store = open();
        let first = bytes_checkpoint(&store, 1, 1, &["a", "b"]);
        store.store_part("op", 0, 1, 1, &bytes_cut(&["c", "a"])).unwrap();
        store.collect(&[], 1).unwrap();
        memory.crash(&mut rng);
        assert_eq!(open().newest_intact().unwrap(), (Some(first), Vec::new()), "round {round}");
    }
}

#[test]
fn a_store_that_keeps_nothing_is_refused() {
    let fixture = Fixture::memory();
    assert!(CheckpointStore::open(fixture.storage.clone(), "checkpoints", 0).is_err());
    fn is_shared<T: Send + Sync>() {}
    is_shared::<CheckpointStore>();
}
