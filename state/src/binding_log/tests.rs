//! The log against a naive fold, torn at every byte, flipped at every bit, and crashed at random.

use super::frame::{self, Kind};
use super::*;
use crate::storage::{LocalStorage, MemoryStorage};
use dataflow_core::{
    Advance, BindingState, Error, Lineage, Micros, Partition, SchemaBinding, SourceId, Storage, TableBinding,
};
use proptest::prelude::*;
use std::sync::Arc;

const DIR: &str = "bindings";

fn header() -> LogHeader {
    LogHeader { lineage: Lineage(7), sources: vec!["login-events".into(), "users".into()] }
}

fn settings(segment_bytes: u64) -> LogSettings {
    LogSettings { segment_bytes, retain_bytes: 0, retain_us: i64::MAX }
}

fn open(storage: &Arc<dyn Storage>, segment_bytes: u64) -> LocalBindingLog {
    let scan = scan(&**storage, DIR, 0).unwrap();
    LocalBindingLog::open(storage.clone(), DIR, header(), &scan, settings(segment_bytes)).unwrap()
}

/// A row as random numbers make it; [`follow`] turns a list of them into rows that follow each other.
#[derive(Clone, Debug)]
struct Draft {
    gap: u64,
    tick: i64,
    advances: Vec<(u16, u32, u64)>,
    idle: Option<Vec<u32>>,
    extra: u8,
}

fn draft() -> impl Strategy<Value = Draft> {
    let advances = prop::collection::vec((0u16..2, 0u32..3, 0u64..1000), 0..4);
    let idle = prop::option::of(prop::collection::vec(0u32..3, 0..3));
    (1u64..4, 0i64..2_000_000, advances, idle, any::<u8>()).prop_map(|(gap, tick, advances, idle, extra)| Draft {
        gap,
        tick,
        advances,
        idle,
        extra,
    })
}

fn follow(drafts: &[Draft], mut state: BindingState) -> Vec<Binding> {
    let mut rows = Vec::new();
    for draft in drafts {
        let mut row = Binding {
            epoch: state.epoch + draft.gap,
            clock: state.clock.plus(draft.tick),
            watermark: Some(state.clock),
            checkpoint: draft.extra.is_multiple_of(5),
            idle: draft
                .idle
                .as_ref()
                .map(|idle| idle.iter().map(|i| Partition { source: SourceId(0), index: *i }).collect()),
            ..Binding::default()
        };
        for (source, index, records) in &draft.advances {
            let partition = Partition { source: SourceId(*source), index: *index };
            let end = state.partitions.get(&partition).map_or(100, |p| p.end) + records;
            let advance = Advance { end, records: *records, hash: end ^ 0xabcd, newest: Some(Micros(end as i64)) };
            row.advances.insert(partition, advance);
        }
        if draft.extra.is_multiple_of(7) {
            row.schemas.push(SchemaBinding {
                source: SourceId(0),
                id: u32::from(draft.extra),
                hash: Some([draft.extra; 16]),
            });
            row.tables.push(TableBinding { name: "ip".into(), hash: [draft.extra; 16] });
        }
        state.apply(&row);
        rows.push(row);
    }
    rows
}

/// Rows 1..=`count`, each with something in it.
fn simple(count: usize) -> Vec<Binding> {
    let draft = Draft { gap: 1, tick: 5_000, advances: vec![(0, 0, 3), (1, 1, 0)], idle: None, extra: 7 };
    follow(&vec![draft; count], BindingState::default())
}

fn naive(rows: &[Binding], up_to: Epoch) -> (BindingState, ChainHash) {
    let (mut state, mut chain) = (BindingState::default(), ChainHash::default());
    for row in rows.iter().filter(|row| row.epoch <= up_to) {
        state.apply(row);
        chain = chain.next(&postcard::to_stdvec(row).unwrap());
    }
    (state, chain)
}

/// Everything a reader can ask about every epoch is what the rows say.
fn check(storage: &dyn Storage, rows: &[Binding], tail: &Tail) {
    let last = rows.last().map_or(0, |row| row.epoch);
    for from in 0..=last + 1 {
        let scan = scan(storage, DIR, from).unwrap();
        let (base, base_chain) = naive(rows, from);
        assert_eq!((&scan.base, scan.base_chain), (&base, base_chain), "from {from}");
        let after: Vec<Binding> = rows.iter().filter(|row| row.epoch > from).cloned().collect();
        assert_eq!(scan.rows.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>(), after);
        for (row, chain) in &scan.rows {
            assert_eq!(*chain, naive(rows, row.epoch).1);
        }
        assert_eq!((scan.last, scan.first), (last, rows.first().map_or(0, |row| row.epoch)));
        assert_eq!(scan.end(), naive(rows, last));
        assert_eq!(&scan.tail, tail);
        assert_eq!(scan.header, (!rows.is_empty()).then(header));

        let holds = from == 0 || rows.iter().any(|row| row.epoch == from);
        assert_eq!(chain_at(storage, DIR, from).unwrap(), holds.then_some(base_chain), "epoch {from}");
        let some = super::rows(storage, DIR, from, from + 5).unwrap();
        assert_eq!(some.base(), &naive(rows, from.saturating_sub(1)).0);
        let expected: Vec<Binding> =
            rows.iter().filter(|row| (from..=from + 5).contains(&row.epoch)).cloned().collect();
        assert_eq!(some.collect::<Result<Vec<_>>>().unwrap(), expected);
    }
}

fn segments(storage: &dyn Storage) -> Vec<String> {
    storage.list(DIR).unwrap()
}

/// Replaces a file's content, as a disk or a hand would.
fn overwrite(storage: &dyn Storage, path: &str, bytes: &[u8]) {
    storage.remove(path).unwrap();
    storage.append(path).unwrap().write(bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_naive_fold(
        drafts in prop::collection::vec(draft(), 0..40),
        segment_bytes in 1u64..2000,
        batches in prop::collection::vec((1usize..5, any::<bool>()), 40),
    ) {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let rows = follow(&drafts, BindingState::default());
        let mut log = open(&storage, segment_bytes);
        let (mut rest, mut chains) = (&rows[..], Vec::new());
        for (size, reopen) in batches {
            let (batch, after) = rest.split_at(size.min(rest.len()));
            chains.extend(log.append(batch).unwrap());
            rest = after;
            if reopen {
                drop(log);
                log = open(&storage, segment_bytes);
            }
        }
        prop_assert_eq!(&chains, &rows.iter().map(|row| naive(&rows, row.epoch).1).collect::<Vec<_>>());
        let bytes: u64 = segments(&*storage).iter().map(|n| storage.length(&format!("{DIR}/{n}")).unwrap().unwrap()).sum();
        prop_assert_eq!(log.bytes(), bytes);
        check(&*storage, &rows, &Tail::Clean);
    }

    /// Power is lost while a batch is written, again and again: no row whose append returned is ever missing, and what
    /// is there of the interrupted batch is a prefix of it.
    #[test]
    fn a_crash_loses_no_appended_row(
        drafts in prop::collection::vec(draft(), 1..30),
        segment_bytes in 1u64..1000,
        numbers in prop::collection::vec(any::<u64>(), 400),
    ) {
        let mut numbers = numbers.into_iter().cycle();
        let mut rng = move |below: u64| numbers.next().unwrap() % below;
        let memory = MemoryStorage::new();
        let storage: Arc<dyn Storage> = Arc::new(memory.clone());
        let mut durable: Vec<Binding> = Vec::new();
        for life in drafts.chunks(5) {
            let mut log = open(&storage, segment_bytes);
            let state = log.state().clone();
            let rows = follow(life, state);
            let (done, lost) = rows.split_at(rng(rows.len() as u64 + 1) as usize);
            for batch in done.chunks(2) {
                log.append(batch).unwrap();
                durable.extend_from_slice(batch);
            }
            // The rest is written and dies before its sync.
            let mut dying = LocalBindingLog::open(Arc::new(Unsynced(memory.clone())), DIR, header(), &scan(&memory, DIR, 0).unwrap(), settings(segment_bytes)).unwrap();
            if !lost.is_empty() {
                prop_assert!(dying.append(lost).is_err());
                prop_assert!(dying.append(lost).is_err(), "a log that failed stays failed");
            }
            drop(dying);
            if rng(2) == 1 {
                memory.crash(&mut rng); // Else it was only the process that died: what it wrote is still to be read.
            }
            let found = scan(&memory, DIR, 0).unwrap();
            let kept: Vec<Binding> = found.rows.iter().map(|(row, _)| row.clone()).collect();
            prop_assert!(kept.len() >= durable.len(), "{} rows of {}", kept.len(), durable.len());
            let all: Vec<Binding> = durable.iter().chain(lost).cloned().collect();
            prop_assert_eq!(&kept, &all[..kept.len()]);
            // What the start read is durable once the log is open, whoever had synced it or not.
            drop(open(&storage, segment_bytes));
            memory.crash(&mut rng);
            let again = scan(&memory, DIR, 0).unwrap();
            prop_assert_eq!(&again.rows, &found.rows);
            prop_assert_eq!(&again.tail, &Tail::Clean);
            durable = kept;
        }
        check(&memory, &durable, &Tail::Clean);
    }
}

/// A storage whose syncs fail once the log is open: the process dies between its write and its sync.
struct Unsynced(MemoryStorage);

struct UnsyncedFile(Box<dyn dataflow_core::AppendFile>, bool);

impl dataflow_core::AppendFile for UnsyncedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes)
    }
    fn sync(&mut self) -> Result<()> {
        if self.1 { self.0.sync() } else { Err(Error::outside("cannot sync 'it'")) }
    }
    fn length(&self) -> u64 {
        self.0.length()
    }
}

impl Storage for Unsynced {
    fn append(&self, path: &str) -> Result<Box<dyn dataflow_core::AppendFile>> {
        Ok(Box::new(UnsyncedFile(self.0.append(path)?, path.ends_with(".tmp"))))
    }
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.0.read(path)
    }
    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.0.read_range(path, offset, length)
    }
    fn length(&self, path: &str) -> Result<Option<u64>> {
        self.0.length(path)
    }
    fn list(&self, dir: &str) -> Result<Vec<String>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &str) -> Result<()> {
        self.0.create_dir(dir)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &str) -> Result<()> {
        self.0.remove(path)
    }
    fn truncate(&self, path: &str, length: u64) -> Result<()> {
        self.0.truncate(path, length)
    }
    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.0.sync_dir(dir)
    }
    fn import(&self, local: &std::path::Path, path: &str) -> Result<()> {
        self.0.import(local, path)
    }
    fn local_path(&self, path: &str) -> Option<std::path::PathBuf> {
        self.0.local_path(path)
    }
}

/// A log of four rows, each its own batch, in one segment: its storage, the segment's path, its bytes and where each row begins.
fn small() -> (Arc<dyn Storage>, String, Vec<u8>, Vec<usize>) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut log = open(&storage, u64::MAX);
    let mut ends = Vec::new();
    let rows = simple(4);
    for row in &rows {
        log.append(std::slice::from_ref(row)).unwrap();
        ends.push(log.bytes() as usize);
    }
    let path = format!("{DIR}/{}", segments(&*storage)[0]);
    let bytes = storage.read(&path).unwrap();
    (storage, path, bytes, ends)
}

#[test]
fn torn_at_every_byte() {
    let (storage, path, whole, ends) = small();
    let rows = simple(4);
    for cut in 0..whole.len() {
        overwrite(&*storage, &path, &whole[..cut]);
        let kept = ends.iter().filter(|end| **end <= cut).count();
        let begins = if kept == 0 { 0 } else { ends[kept - 1] };
        let segment = path.rsplit_once('/').unwrap().1.to_owned();
        let torn = Tail::Torn { segment, offset: begins as u64, bytes: (cut - begins) as u64 };
        check(&*storage, &rows[..kept], if begins == cut && cut > 0 { &Tail::Clean } else { &torn });
        // Half a page of zeros where data should be is what a file system without ordering leaves.
        let mut zeroed = whole[..cut].to_vec();
        zeroed.resize(whole.len(), 0);
        overwrite(&*storage, &path, &zeroed);
        assert_eq!(scan(&*storage, DIR, 0).unwrap().rows.len(), kept, "zeros from {cut} on");

        let mut log = open(&storage, u64::MAX);
        assert_eq!(log.state(), &naive(&rows, kept as u64).0);
        log.append(&rows[kept..]).unwrap();
        check(&*storage, &rows, &Tail::Clean);
    }
}

#[test]
fn flipped_at_every_bit() {
    let (storage, path, whole, ends) = small();
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        overwrite(&*storage, &path, &bytes);
        match scan(&*storage, DIR, 0) {
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains(&path) && error.contains(" at byte "), "{error}");
            }
            // Only the last row can pass for torn, and then it goes as a whole.
            Ok(scan) => {
                assert!(at / 8 >= ends[2], "bit {at} of byte {} was not noticed", at / 8);
                assert_eq!(scan.rows.len(), 3);
                assert!(matches!(scan.tail, Tail::Torn { offset, .. } if offset == ends[2] as u64));
            }
        }
    }
}

/// Of a batch whose middle did not reach the disk, the rest is torn too: nothing after it was acknowledged.
#[test]
fn a_hole_in_the_last_batch_is_torn() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut log = open(&storage, u64::MAX);
    let rows = simple(6);
    log.append(&rows[..2]).unwrap();
    let synced = log.bytes() as usize;
    log.append(&rows[2..]).unwrap();
    let path = format!("{DIR}/{}", segments(&*storage)[0]);
    let mut bytes = storage.read(&path).unwrap();
    bytes[synced + 20] ^= 1;
    overwrite(&*storage, &path, &bytes);
    let torn = scan(&*storage, DIR, 0).unwrap();
    assert_eq!(
        (torn.last, torn.tail),
        (
            2,
            Tail::Torn {
                segment: segments(&*storage)[0].clone(),
                offset: synced as u64,
                bytes: (bytes.len() - synced) as u64
            }
        )
    );
    // The same damage with another batch behind it was synced: corruption.
    bytes[synced + 20] ^= 1;
    overwrite(&*storage, &path, &bytes);
    open(&storage, u64::MAX)
        .append(&follow(&[Draft { gap: 1, tick: 0, advances: vec![], idle: None, extra: 1 }], naive(&rows, 6).0))
        .unwrap();
    let mut bytes = storage.read(&path).unwrap();
    bytes[synced + 20] ^= 1;
    overwrite(&*storage, &path, &bytes);
    let error = scan(&*storage, DIR, 0).unwrap_err().to_string();
    assert!(error.contains(&format!("at byte {synced}")), "{error}");
}

#[test]
fn damage_before_the_last_segment_is_an_error() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    open(&storage, 1).append(&simple(1)).unwrap();
    let rows = simple(3);
    let mut log = open(&storage, 1);
    log.append(&rows[1..2]).unwrap();
    log.append(&rows[2..]).unwrap();
    let names = segments(&*storage);
    assert_eq!(names.len(), 3);
    for name in &names[..2] {
        let path = format!("{DIR}/{name}");
        let whole = storage.read(&path).unwrap();
        for at in 0..whole.len() {
            overwrite(&*storage, &path, &whole[..at]);
            let error = scan(&*storage, DIR, 0).unwrap_err().to_string();
            assert!(error.contains(name), "cut to {at}: {error}");
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            overwrite(&*storage, &path, &bytes);
            let error = scan(&*storage, DIR, 0).unwrap_err().to_string();
            assert!(error.contains("bindings/0"), "flipped at {at}: {error}");
        }
        overwrite(&*storage, &path, &whole);
    }
    storage.remove(&format!("{DIR}/{}", names[1])).unwrap();
    let error = scan(&*storage, DIR, 0).unwrap_err().to_string();
    assert!(error.contains(&names[2]) && error.contains("add up to"), "{error}");
    // A restart from a checkpoint behind the damage does not read it.
    assert_eq!(scan(&*storage, DIR, 3).unwrap().base, naive(&rows, 3).0);
}

/// A segment whose frames are all whole, but whose chain or full row is another log's.
#[test]
fn a_foreign_row_is_no_torn_tail() {
    let (storage, path, whole, _) = small();
    let rows = simple(5);
    let (_, chain) = naive(&rows, 4);
    let payload = postcard::to_stdvec(&rows[4]).unwrap();
    for (kind, chain, how) in [
        (Kind::Row, ChainHash([9; 16]), "chain hash does not follow"),
        (Kind::Full, chain.next(&payload), "does not decode"),
    ] {
        let mut bytes = whole.clone();
        frame::write_frame(kind, whole.len() as u64, &payload, chain, &mut bytes).unwrap();
        overwrite(&*storage, &path, &bytes);
        let error = scan(&*storage, DIR, 0).unwrap_err().to_string();
        assert!(error.contains(how) && error.contains(&format!("at byte {}", whole.len())), "{error}");
    }
    overwrite(&*storage, &path, b"#!/bin/sh\n");
    assert!(scan(&*storage, DIR, 0).unwrap_err().to_string().contains("does not begin as one"));
    let mut future = Vec::new();
    frame::write_head(&header(), &mut future).unwrap();
    future[8] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&future[8..16]), &future[20..]);
    future[16..20].copy_from_slice(&crc.to_le_bytes());
    overwrite(&*storage, &path, &future);
    assert!(scan(&*storage, DIR, 0).unwrap_err().to_string().contains("its version is 2"));
}

#[test]
fn another_job_and_rows_that_do_not_follow_are_refused() {
    let (storage, ..) = small();
    let found = scan(&*storage, DIR, 0).unwrap();
    for (changed, names) in [
        (LogHeader { lineage: Lineage(8), ..header() }, ["0000000000000007", "0000000000000008"]),
        (
            LogHeader { sources: vec!["users".into(), "login-events".into()], ..header() },
            ["'login-events', 'users'", "'users', 'login-events'"],
        ),
    ] {
        let error =
            LocalBindingLog::open(storage.clone(), DIR, changed, &found, settings(1)).err().unwrap().to_string();
        assert!(names.iter().all(|name| error.contains(name)), "{error}");
    }
    let mut log = open(&storage, u64::MAX);
    let good = Binding { epoch: 5, clock: log.state().clock, ..Binding::default() };
    let partition = Partition { source: SourceId(0), index: 0 };
    let advance = Advance { end: 1, records: 0, hash: 0, newest: None };
    for bad in [
        Binding { epoch: 4, ..good.clone() },
        Binding { clock: good.clock.plus(-1), ..good.clone() },
        Binding { advances: [(partition, advance)].into(), ..good.clone() },
    ] {
        assert!(log.append(&[bad]).is_err());
    }
    log.append(&[good]).unwrap();
    assert_eq!(scan(&*storage, DIR, 0).unwrap().last, 5);
}

#[test]
fn trim_keeps_what_is_needed() {
    let memory = MemoryStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    let rows = simple(10);
    let mut log = open(&storage, 1);
    for pair in rows.chunks(2) {
        log.append(pair).unwrap();
    }
    assert_eq!(segments(&*storage).len(), 5);
    for below in 0..=12 {
        log.trim(below).unwrap();
        memory.crash(&mut |_| 0);
        let held = extent(&*storage, DIR).unwrap().unwrap();
        // The segment of `below` stays; the last one always does.
        let first = if below < 3 { 1 } else { (below - 1) / 2 * 2 + 1 }.min(9);
        assert_eq!((held.first, held.base, &held.header), (first, first - 1, &header()), "below {below}");
        for from in 0..=10 {
            let scan = scan(&*storage, DIR, from);
            if from < held.base {
                let error = scan.unwrap_err().to_string();
                assert!(error.contains(&format!("begins at epoch {first}")), "{error}");
                assert_eq!(chain_at(&*storage, DIR, from).unwrap(), None);
                assert!(super::rows(&*storage, DIR, from, 10).is_err());
            } else {
                let scan = scan.unwrap();
                assert_eq!((scan.base, scan.first), (naive(&rows, from).0, first));
                assert_eq!(chain_at(&*storage, DIR, from).unwrap(), Some(naive(&rows, from).1));
            }
        }
        log = open_trimmed(&storage, held.base);
        assert_eq!(log.state(), &naive(&rows, 10).0);
    }
}

fn open_trimmed(storage: &Arc<dyn Storage>, base: Epoch) -> LocalBindingLog {
    let scan = scan(&**storage, DIR, base).unwrap();
    LocalBindingLog::open(storage.clone(), DIR, header(), &scan, settings(1)).unwrap()
}

/// Rows are ten seconds apart, one a segment; trimming everything leaves what is young and what there is room for.
#[test]
fn retention_by_clock_and_by_size() {
    let draft = Draft { gap: 1, tick: 10_000_000, advances: vec![(0, 0, 1)], idle: None, extra: 1 };
    let rows = follow(&vec![draft; 10], BindingState::default());
    let young = LogSettings { segment_bytes: 1, retain_bytes: u64::MAX, retain_us: 25_000_000 };
    let keep = LogSettings { segment_bytes: 1, ..LogSettings::default() };
    for (settings, left) in [(young, 3), (keep, 10), (LogSettings { retain_bytes: 700, ..keep }, 0)] {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let empty = scan(&*storage, DIR, 0).unwrap();
        let mut log = LocalBindingLog::open(storage.clone(), DIR, header(), &empty, settings).unwrap();
        for row in &rows {
            log.append(std::slice::from_ref(row)).unwrap();
        }
        let oldest = log.bytes() / 10;
        log.trim(Epoch::MAX).unwrap();
        let count = segments(&*storage).len();
        match left {
            0 => assert!(log.bytes() <= 700 && log.bytes() > 700 - 2 * oldest, "{} bytes", log.bytes()),
            left => assert_eq!(count, left),
        }
    }
}

#[test]
fn works_on_real_files() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(folder.path().to_owned()));
    let rows = simple(9);
    for pair in rows.chunks(3) {
        open(&storage, 300).append(pair).unwrap();
    }
    check(&*storage, &rows, &Tail::Clean);
    let last = segments(&*storage).pop().unwrap();
    let path = format!("{DIR}/{last}");
    let length = storage.length(&path).unwrap().unwrap();
    storage.truncate(&path, length - 1).unwrap();
    assert!(matches!(scan(&*storage, DIR, 0).unwrap().tail, Tail::Torn { segment, .. } if segment == last));
    let mut log = open(&storage, 300);
    log.append(&rows[8..]).unwrap();
    check(&*storage, &rows, &Tail::Clean);
}
