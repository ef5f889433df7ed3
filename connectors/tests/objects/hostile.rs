//! Objects that change, go, are damaged, or unpack to more than there is room for; and lists that do not fit.

use crate::world::{Packed, World, lines, packed, put, texts};
use dataflow_connectors::source::objects::LINE_BYTES_MAX;
use dataflow_core::{Fault, Result};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

const LIST: &str = "objects/pageviews.list";

fn world() -> (tempfile::TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    let world = World::of_folder(folder.path());
    (folder, world)
}

fn refused<T>(result: Result<T>, fault: Fault, parts: &[&str]) {
    let error = result.err().expect("it is refused");
    let said = error.to_string();
    assert!(error.fault == fault && parts.iter().all(|part| said.contains(part)), "{said}");
}

/// Three objects of two lines each, in one order.
fn of_three(folder: &Path) {
    for key in ["a", "b", "c"] {
        put(folder, key, format!("{key}1\n{key}2\n").as_bytes());
    }
}

#[test]
fn lines_of_every_kind() {
    let (folder, world) = world();
    let long = "x".repeat(LINE_BYTES_MAX);
    put(folder.path(), "1", format!("one\n\n{long}\n{long}x\nlast").as_bytes());
    put(folder.path(), "2", b"");
    put(folder.path(), "3", &packed(Packed::Gzip, b""));
    put(folder.path(), "4", b"four");
    put(folder.path(), "_unfinished", b"no");
    put(folder.path(), ".hidden/5", b"no");
    let records = world.begin(0).unwrap().read(None, 100).unwrap();
    let mut expected = texts(&["one", "", &long, "last", "four"]);
    expected.insert(3, None);
    assert!(lines(&records) == expected, "{:?}", records.iter().map(|r| &r.key).collect::<Vec<_>>());
    assert_eq!((records[3].offset, records[3].key.as_deref()), (3, Some(&b"1"[..])));
}

#[test]
fn what_appears_later_is_read_later_wherever_its_key_sorts() {
    let (folder, world) = world();
    let mut life = world.begin(0).unwrap();
    assert_eq!(life.read(None, 10).unwrap(), []);
    for key in ["m", "z", "a", "n"] {
        put(folder.path(), key, key.as_bytes());
        assert_eq!(lines(&life.read(None, 10).unwrap()), texts(&[key]));
    }
    let again = world.begin(0).unwrap().read(Some(4), 10).unwrap();
    assert_eq!(lines(&again), texts(&["m", "z", "a", "n"]));
}

#[test]
fn a_changed_object_is_refused_and_told_once() {
    let (folder, world) = world();
    of_three(folder.path());
    let mut life = world.begin(0).unwrap();
    assert_eq!(life.read(None, 10).unwrap().len(), 6);
    put(folder.path(), "b", b"b1\nb2\nb3\n");
    let changed = |life: &crate::world::Life| life.counters.changed.load(Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(life.read(None, 10).unwrap(), []);
        assert_eq!(changed(&life), 1);
    }
    // The next life knows of it, and goes on after it.
    let mut life = world.begin(6).unwrap();
    put(folder.path(), "d", b"d1");
    assert_eq!((lines(&life.read(None, 10).unwrap()), changed(&life)), (texts(&["d1"]), 1));
    put(folder.path(), "b", b"another");
    assert_eq!((life.read(None, 10).unwrap().len(), changed(&life)), (0, 2));
    // A replay that needs it stops and names it.
    refused(world.begin(0).unwrap().read(Some(6), 10), Fault::Outside, &["'b'", "changed"]);
    refused(world.begin(3).unwrap().read(Some(6), 10), Fault::Outside, &["'b'", "changed"]);
}

#[test]
fn an_object_that_is_gone_stops_a_replay_that_needs_it() {
    let (folder, world) = world();
    of_three(folder.path());
    assert_eq!(world.begin(0).unwrap().read(None, 10).unwrap().len(), 6);
    fs::remove_file(folder.path().join("b")).unwrap();
    refused(world.begin(0).unwrap().read(Some(6), 10), Fault::Outside, &["'b'", "gone", "line 6"]);
    refused(world.begin(3).unwrap().read(Some(6), 10), Fault::Outside, &["'b'", "gone"]);
    // What is before and after it does not need it.
    assert_eq!(lines(&world.begin(0).unwrap().read(Some(2), 10).unwrap()), texts(&["a1", "a2"]));
    assert_eq!(lines(&world.begin(4).unwrap().read(None, 10).unwrap()), texts(&["c1", "c2"]));
    // All of them may go once they are read.
    fs::remove_file(folder.path().join("c")).unwrap();
    put(folder.path(), "d", b"d1");
    assert_eq!(lines(&world.begin(6).unwrap().read(None, 10).unwrap()), texts(&["d1"]));
}

#[test]
fn what_is_gone_before_a_line_of_it_is_bound_is_passed_over() {
    let (folder, world) = world();
    of_three(folder.path());
    assert_eq!(world.begin(0).unwrap().read_some(10).unwrap().len(), 6);
    // Killed: nothing of b and c is bound, and both are in the list.
    fs::remove_file(folder.path().join("b")).unwrap();
    let mut life = world.begin(2).unwrap();
    assert_eq!(lines(&life.read(None, 10).unwrap()), texts(&["c1", "c2"]));
    assert_eq!(life.counters.gone.load(Ordering::Relaxed), 1);
    // And the list says so from now on.
    assert_eq!(lines(&world.begin(0).unwrap().read(Some(4), 10).unwrap()), texts(&["a1", "a2", "c1", "c2"]));
}

#[test]
fn what_changed_before_a_line_of_it_was_bound_is_read_as_it_is() {
    let (folder, world) = world();
    of_three(folder.path());
    assert_eq!(world.begin(0).unwrap().read_some(10).unwrap().len(), 6);
    put(folder.path(), "b", b"new");
    let mut life = world.begin(2).unwrap();
    assert_eq!(lines(&life.read(None, 10).unwrap()), texts(&["new", "c1", "c2"]));
    assert_eq!(life.counters.changed.load(Ordering::Relaxed), 0);
}

#[test]
fn a_damaged_object_gives_what_it_has_and_one_dead_letter() {
    let text: String = (0..50_000).map(|n| format!("line {n} {}\n", n * 7_919 % 1_000_003)).collect();
    for how in [Packed::Gzip, Packed::Zstd] {
        let (folder, world) = world();
        let whole = packed(how, text.as_bytes());
        put(folder.path(), "a", &whole[..whole.len() / 2]);
        put(folder.path(), "b", b"b1");
        let mut life = world.begin(0).unwrap();
        let read = life.read(None, 10_000).unwrap();
        let (last, first) = read.split_last().unwrap();
        let (dead, first) = first.split_last().unwrap();
        assert_eq!((&last.value, &dead.value), (&Some("b1".into()), &None), "{how:?}");
        assert!(first.len() > 1_000, "{how:?}: {}", first.len());
        let expected = text.lines().take(first.len()).map(|line| Some(bytes::Bytes::copy_from_slice(line.as_bytes())));
        assert!(lines(first).into_iter().eq(expected), "{how:?}");
        assert_eq!(life.counters.damaged.load(Ordering::Relaxed), 1);
        let end = read.len() as u64;
        assert!(world.begin(0).unwrap().read(Some(end), 999).unwrap() == read, "{how:?}: the same again");
    }
}

/// Bytes that this process has in memory at most so far.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_small_object_that_unpacks_to_much_takes_no_room() {
    use std::io::Write;
    let (folder, world) = world();
    // A gigabyte of one line in about a megabyte.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    (0..1_024).for_each(|_| encoder.write_all(&[b'x'; 1 << 20]).unwrap());
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    put(folder.path(), "a", &bomb);
    put(folder.path(), "b", b"b1");
    let before = peak_bytes();
    let read = world.begin(0).unwrap().read(None, 100).unwrap();
    assert_eq!(lines(&read), [None, Some("b1".into())]);
    let grown = peak_bytes() - before;
    assert!(grown < 128 << 20, "{grown} bytes for a bomb of {} (other tests run beside)", bomb.len());
}

#[test]
fn a_window_of_zstd_is_bounded() {
    use std::io::Write;
    let (folder, world) = world();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&vec![b'x'; 64 << 20]).unwrap();
    put(folder.path(), "a", &encoder.finish().unwrap());
    let read = world.begin(0).unwrap().read(None, 100).unwrap();
    assert_eq!(lines(&read), [None], "it is one dead letter");
}

#[test]
fn a_list_that_does_not_fit_is_refused() {
    use dataflow_core::Storage;
    let (folder, world) = world();
    of_three(folder.path());
    assert_eq!(world.begin(0).unwrap().read(None, 10).unwrap().len(), 6);
    refused(world.begin(7), Fault::Doubt, &[LIST, "line 6"]);
    // Another object in its place, of the same version by chance: its lines do not end where the list says.
    let list = String::from_utf8(world.storage.read(LIST).unwrap()).unwrap();
    let first_two: Vec<&str> = list.lines().take(2).collect();
    world.storage.truncate(LIST, 0).unwrap();
    let json = r#"{"end":{"lines":1}}"#;
    let wrong = format!("{}\n{:08x} {json}\n{}\n", first_two[0], crc32c::crc32c(json.as_bytes()), first_two[0]);
    world.storage.append(LIST).unwrap().write(wrong.as_bytes()).unwrap();
    refused(world.begin(0).unwrap().read(Some(2), 10), Fault::Doubt, &["'a'", "2 lines"]);
    world.storage.remove(LIST).unwrap();
    refused(world.begin(6), Fault::Doubt, &[LIST]);
    refused(World::of_folder(&folder.path().join("none")).begin(0), Fault::User, &["none"]);
}
