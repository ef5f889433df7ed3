//! What nobody should send: schemas, records, lines and answers of a registry that are made to hurt. Memory stays within named bounds,
//! nothing panics through, and what follows is read as if nothing had been.
//!
//! A process of its own, because every allocation is counted; so its tests take turns.

#![allow(clippy::unwrap_used)] // All of this file is a test.

use dataflow_connectors::decode::avro::AvroDecoder;
use dataflow_connectors::decode::framing::join;
use dataflow_connectors::decode::json::JsonDecoder;
use dataflow_connectors::decode::registry::{
    Lookup, RegistrySettings, SCHEMA_BYTES_MAX, SCHEMAS_BYTES_MAX, SchemaStore, Schemas, UNKNOWN_MAX,
};
use dataflow_connectors::decode::{RECORD_BYTES_MAX, UNDECODABLE};
use dataflow_connectors::envelope::debezium::DebeziumJsonDecoder;
use dataflow_connectors::envelope::{BareJson, NOT_A_CHANGE};
use dataflow_connectors::source::ndjson::NdjsonSource;
use dataflow_core::{
    Clock, Column, ColumnType, Decode, Decoded, Environment, Micros, Poll, Random, Record, SchemaBinding, Source,
    SourceId, Spawner, TableSchema, Task, TaskState, Waker,
};
use dataflow_state::storage::MemoryStorage;
use serde::Deserialize;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the system's allocator as they come; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(HELD.fetch_add(layout.size(), SeqCst) + layout.size(), SeqCst);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), SeqCst);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;

/// The turn of one test.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that `call` held at most, beside what was held before.
fn within<R>(what: &str, most: usize, call: impl FnOnce() -> R) -> R {
    let before = HELD.load(SeqCst);
    PEAK.store(before, SeqCst);
    let result = call();
    let peak = PEAK.load(SeqCst) - before;
    println!("{what}: {} KiB of {}", peak >> 10, most >> 10);
    assert!(peak <= most, "{what}: {peak} bytes where {most} are allowed");
    result
}

/// What one record may unfold into on its way to the job's type, which the bound of values within a record sets.
const RECORD_PEAK_MAX: usize = 160 * MIB;

/// What one schema's text may unfold into while it is compiled, and what is kept of it.
const SCHEMA_PEAK_MAX: usize = 64 * MIB;

#[derive(Debug, PartialEq, Deserialize)]
struct Login {
    user_id: String,
}

const READER: &str = r#"{"type":"record","name":"Login","fields":[{"name":"user_id","type":"string"}]}"#;

/// A world where time stands unless it is moved, and tasks run when they are told to.
#[derive(Default)]
struct World {
    now_ms: AtomicU64,
    tasks: Mutex<Vec<Box<dyn Task>>>,
}

impl Clock for World {
    fn wall(&self) -> Micros {
        Micros(0)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(SeqCst))
    }
}

impl Random for World {
    fn next_u64(&self) -> u64 {
        4
    }
}

impl Spawner for World {
    fn spawn(&self, _: &str, task: Box<dyn Task>) -> Waker {
        self.tasks.lock().unwrap().push(task);
        Waker::none()
    }
}

struct Reading {
    world: Arc<World>,
    store: SchemaStore,
    schemas: Arc<Schemas>,
    decoder: AvroDecoder<Login>,
}

fn reading(registry: Option<&RegistrySettings>) -> Reading {
    let (world, storage) = (Arc::new(World::default()), Arc::new(MemoryStorage::new()));
    let environment = Environment { clock: world.clone(), random: world.clone(), spawner: world.clone() };
    let schemas = Schemas::start(SourceId(0), "s", storage.clone(), registry, &environment);
    let decoder = AvroDecoder::new(READER, schemas.clone(), Waker::none()).unwrap();
    Reading { world, store: SchemaStore::new(storage, "s"), schemas, decoder }
}

fn framed(id: u32, body: &[u8]) -> Record {
    Record { offset: 0, key: None, value: Some(join(id, body).into()) }
}

impl Reading {
    fn bind(&mut self, id: u32, schema: &str) {
        let hash = Some(self.store.put(schema).unwrap());
        self.decoder.bind(&[SchemaBinding { source: SourceId(0), id, hash }]).unwrap();
    }
}

const DEAD: Decoded<Login> = Decoded::Dead(UNDECODABLE);

fn user(name: &str) -> Decoded<Login> {
    Decoded::Value(Login { user_id: name.to_owned() })
}

/// A record of `schema`, whose first field is the user and of a type that only the general path reads, and `rest` of its body.
fn record_of(field: &str, rest: &[u8]) -> (String, Vec<u8>) {
    let schema = format!(
        r#"{{"type":"record","name":"W","fields":[{{"name":"user_id","type":["null","string"]}},{{"name":"x","type":{field}}}]}}"#
    );
    (schema, [&[2, 2, b'a'], rest].concat())
}

/// Decodes a body under a schema, each within its bound, and then something good.
fn check(what: &str, schema: &str, body: &[u8], expected: &Decoded<Login>) {
    let mut r = reading(None);
    r.bind(1, schema);
    r.bind(2, READER);
    let record = framed(1, body);
    within(what, SCHEMA_PEAK_MAX + RECORD_PEAK_MAX, || assert_eq!(r.decoder.decode(&framed(1, &[])), DEAD));
    let decoded = within(what, RECORD_PEAK_MAX, || r.decoder.decode(&record));
    assert_eq!(&decoded, expected, "{what}");
    assert_eq!(r.decoder.decode(&framed(2, &[2, b'b'])), user("b"));
}

fn zigzag(n: u64) -> Vec<u8> {
    let (mut n, mut out) = (n << 1, Vec::new());
    while n > 0x7f {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn array(items: &str) -> String {
    format!(r#"{{"type":"array","items":{items}}}"#)
}

/// One block of so many items without bytes.
fn block(count: u64) -> Vec<u8> {
    [zigzag(count), vec![0]].concat()
}

#[test]
fn records_that_unfold() {
    let _turn = turn();
    let check_field = |what: &str, field: &str, rest: &[u8], is_read: bool| {
        let (schema, body) = record_of(field, rest);
        check(what, &schema, &body, &if is_read { user("a") } else { DEAD });
    };
    // As many values as a record may have, of each kind that takes no bytes, and one more.
    let empty = r#"{"type":"record","name":"E","fields":[]}"#;
    let fixed = r#"{"type":"fixed","name":"F","size":0}"#;
    for (what, item) in [("nulls", r#""null""#), ("empty records", empty), ("empty fixed", fixed)] {
        check_field(what, &array(item), &block((1 << 20) - 10), true);
        check_field(what, &array(item), &block(1 << 20), false);
        check_field(what, &array(item), &block(1 << 60), false);
    }
    // Blocks that say they are negative, of the smallest count there is.
    check_field("the smallest count", &array(r#""null""#), &[[0xff; 9].as_slice(), &[1, 0, 0]].concat(), false);
    // Long names, which the library copies for each value.
    let name = "n".repeat(500_000);
    let field = array(&format!(r#"{{"type":"record","name":"R","fields":[{{"name":"{name}","type":"null"}}]}}"#));
    let symbol = array(&format!(r#"{{"type":"enum","name":"R","symbols":["{name}"]}}"#));
    let record = array(&format!(r#"{{"type":"record","name":"{name}","fields":[]}}"#));
    let million = 1_000_000;
    let short = field.replace(&name, &name[..63]);
    check_field("names that are not long", &short, &block((1 << 19) - 10), true);
    check_field("a long field name", &field, &block(million), false);
    check_field("a long record name", &record, &block(million), false);
    let symbols = [zigzag(million), vec![0; million as usize], vec![0]].concat();
    check_field("a long symbol", &symbol, &symbols, false);
    check_field("a long field name, few times", &field, &block(50), true);
    let unions = [zigzag(500_000), vec![0; 500_000], vec![0]].concat();
    check_field("unions", &array(r#"["null","string"]"#), &unions, true);
    // Arrays in arrays: each level opens ten times as many.
    let nested = (0..6).fold(r#""int""#.to_owned(), |inner, _| array(&inner));
    let mut body = vec![0];
    for _ in 0..5 {
        body = [zigzag(10), body.repeat(10), vec![0]].concat();
    }
    check_field("nested arrays", &nested, &body, true);
    // A list within itself, deeper than a stack.
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    check_field("a deep list", list, &[vec![2; 100_000], vec![0]].concat(), false);
    check_field("a list", list, &[vec![2; 20], vec![0]].concat(), true);
    // Strings that are long, and strings that only say so.
    check_field("a string that is not there", r#""string""#, &zigzag(100 * MIB as u64), false);
    let long = [zigzag(7 * MIB as u64), vec![b'x'; 7 * MIB]].concat();
    check_field("a long string", r#""string""#, &long, true);
}

#[test]
fn records_that_are_large() {
    let _turn = turn();
    let mut r = reading(None);
    r.bind(1, READER);
    let length = 100 * MIB;
    let large = framed(1, &[zigzag(length as u64), vec![b'x'; length]].concat());
    within("100 MiB of Avro", MIB, || assert_eq!(r.decoder.decode(&large), DEAD));
    let json = format!(r#"{{"user_id":"{}"}}"#, "x".repeat(length));
    let json = Record { offset: 0, key: None, value: Some(json.into()) };
    within("100 MiB of JSON", MIB, || assert_eq!(JsonDecoder::<Login>::default().decode(&json), DEAD));
    let nested = Record { offset: 0, key: None, value: Some("{\"a\":[".repeat(RECORD_BYTES_MAX / 6).into()) };
    within("nested JSON", 2 * RECORD_BYTES_MAX, || assert_eq!(JsonDecoder::<Login>::default().decode(&nested), DEAD));
}

#[test]
fn changes_that_unfold() {
    let _turn = turn();
    let column = Column { name: "id".to_owned(), kind: ColumnType::Int, is_nullable: false };
    let table = TableSchema { columns: vec![column], key: vec![0] };
    let mut decoder = DebeziumJsonDecoder::new(table, BareJson::default()).unwrap();
    let mut check = |what: &str, text: String, most: usize, reason: Option<&'static str>| {
        let record = Record { offset: 0, key: None, value: Some(text.into()) };
        match within(what, most, || decoder.decode(&record)) {
            Decoded::Value(_) => assert_eq!(None, reason, "{what}"),
            Decoded::Dead(dead) => assert_eq!(Some(dead), reason, "{what}"),
            Decoded::Unresolved => panic!("{what}: there is nobody to ask"),
        }
    };
    let change = |rest: &str| format!(r#"{{"__op":"c","id":1{rest}}}"#);
    check("a million members", change(&r#","a":1"#.repeat(1_000_000)), MIB, None);
    check("a member a million times", change(&r#","id":1"#.repeat(1_000_000)), MIB, None);
    check("nested members", change(&format!(r#","a":{}1"#, r#"{"a":"#.repeat(1_000_000))), 16 * MIB, Some(UNDECODABLE));
    let with_schema = |zeros: usize, payload: &str| {
        format!(r#"{{"schema":{{"fields":[0{}]}},"payload":{payload}}}"#, ",0".repeat(zeros))
    };
    check("a schema of zeros", with_schema(SCHEMA_BYTES_MAX / 2 - 100, &change("")), RECORD_PEAK_MAX, None);
    check("a larger schema", with_schema(SCHEMA_BYTES_MAX, &change("")), MIB, Some(UNDECODABLE));
    check("a schema of nothing", with_schema(SCHEMA_BYTES_MAX, r#"{"id":1}"#), MIB, Some(NOT_A_CHANGE));
}

#[test]
fn schemas_that_unfold() {
    let _turn = turn();
    let mut fields: Vec<String> = (0..30_000).map(|n| format!(r#"{{"name":"f{n}","type":"null"}}"#)).collect();
    fields.push(r#"{"name":"user_id","type":["null","string"]}"#.to_owned());
    let wide = format!(r#"{{"type":"record","name":"W","fields":[{}]}}"#, fields.join(","));
    assert!(wide.len() < SCHEMA_BYTES_MAX);
    check("a wide record", &wide, &[2, 2, b'a'], &user("a"));
    let (deep, body) = record_of(&(0..60).fold(r#""int""#.to_owned(), |inner, _| array(&inner)), &[0]);
    check("a deep schema", &deep, &body, &user("a"));
    let (deeper, body) = record_of(&(0..5_000).fold(r#""int""#.to_owned(), |inner, _| array(&inner)), &[0]);
    check("a schema too deep", &deeper, &body, &DEAD);
    let symbols: Vec<String> = (0..100_000).map(|n| format!(r#""S{n}""#)).collect();
    let (symbols, body) =
        record_of(&format!(r#"{{"type":"enum","name":"E","symbols":[{}]}}"#, symbols.join(",")), &[0]);
    assert!(symbols.len() < SCHEMA_BYTES_MAX);
    check("many symbols", &symbols, &body, &user("a"));
    for text in ["", "{", "[]", "\"W\"", "null", r#"{"type":"record","name":"","fields":[]}"#, r#"{"type":"array"}"#] {
        check("no schema", text, &[0], &DEAD);
    }

    // As many of the widest as are known at a time, all compiled by one worker.
    let mut r = reading(None);
    let mut known = 0;
    while (known + 1) * wide.len() <= SCHEMAS_BYTES_MAX {
        known += 1;
        r.bind(known as u32, &wide.replace(r#""W""#, &format!(r#""W{known}""#)));
    }
    within("all schemas there may be", 20 * SCHEMAS_BYTES_MAX + SCHEMA_PEAK_MAX, || {
        (1..=known as u32).for_each(|id| assert_eq!(r.decoder.decode(&framed(id, &[2, 2, b'a'])), user("a")));
    });
}

#[test]
fn a_million_ids() {
    let _turn = turn();
    let mut r = reading(None);
    within("a million ids without a registry", 4 * MIB, || {
        let dead = (0..1_000_000).filter(|id| r.decoder.decode(&framed(*id, &[0])) == DEAD).count();
        assert_eq!(dead, 1_000_000);
        assert_eq!(r.decoder.resolved().len(), UNKNOWN_MAX);
    });
    r.bind(2_000_000, READER);
    assert_eq!(r.decoder.decode(&framed(2_000_000, &[2, b'b'])), user("b"), "a good id has room of its own");
    let settings = settings("http://127.0.0.1:1", 100);
    let mut r = reading(Some(&settings));
    within("a million ids that are asked for", 4 * MIB, || {
        for id in 0..1_000_000 {
            let record = framed(id, &[0]);
            r.decoder.foresee(&record);
            assert_eq!(r.decoder.decode(&record), Decoded::Unresolved);
        }
    });
}

fn settings(url: &str, timeout_ms: u64) -> RegistrySettings {
    serde_json::from_str(&format!(r#"{{"url":"{url}","request_timeout_ms":{timeout_ms},"grace_ms":1000}}"#)).unwrap()
}

/// How a registry misbehaves once it has read a request.
type Answer = fn(&mut TcpStream) -> std::io::Result<()>;

fn head(stream: &mut TcpStream, status: u32, length: usize) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
}

fn serve(listener: &TcpListener, answer: Answer) {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).unwrap();
        request.extend_from_slice(&chunk[..read]);
    }
    let _ = answer(&mut stream); // the client may have gone away
}

#[test]
fn registries_that_misbehave() {
    let _turn = turn();
    let answers: [(&str, bool, Answer); 8] = [
        ("hangs", true, |stream| stream.read(&mut [0]).map(drop)),
        ("drips", true, |stream| {
            head(stream, 200, 1000)?;
            loop {
                stream.write_all(b" ")?;
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }),
        ("drips its head", true, |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx: ")?;
            loop {
                stream.write_all(b"x")?;
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }),
        ("speaks another language", true, |stream| stream.write_all(&[0x16, 3, 1, 0, 0xff].repeat(1000))),
        ("fails", true, |stream| head(stream, 500, 0)),
        ("says half of it", true, |stream| {
            head(stream, 200, 1000)?;
            stream.write_all(b"{\"schema\":\"")
        }),
        ("sends an endless head", true, |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(&[b"x: y\r\n".as_slice(); 1000].concat())?;
            }
        }),
        ("sends too much", false, |stream| {
            head(stream, 200, 1 << 40)?;
            loop {
                stream.write_all(&[b' '; 65_536])?;
            }
        }),
    ];
    for (what, is_asked_again, answer) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let r = reading(Some(&settings(&format!("http://{}", listener.local_addr().unwrap()), 300)));
        let run = |answer: Answer| {
            std::thread::scope(|scope| {
                scope.spawn(|| serve(&listener, answer));
                r.world.now_ms.fetch_add(60_000, SeqCst);
                r.world.tasks.lock().unwrap()[0].run()
            })
        };
        assert!(matches!(r.schemas.lookup(1, 1), Lookup::Asked));
        let state = within(&format!("a registry that {what}"), 16 * MIB, || run(answer));
        assert_eq!(matches!(state, TaskState::Sleeping(_)), is_asked_again, "{what}");
        if is_asked_again {
            assert!(matches!(r.schemas.lookup(1, 1), Lookup::Asked), "{what}");
            run(|stream| {
                let body = serde_json::json!({ "schema": READER }).to_string();
                head(stream, 200, body.len())?;
                stream.write_all(body.as_bytes())
            });
            assert!(matches!(r.schemas.lookup(1, 1), Lookup::Known(..)), "{what}");
        } else {
            assert!(matches!(r.schemas.lookup(1, 1), Lookup::Unknown(_)), "{what}");
        }
    }
}

#[test]
fn a_line_of_a_hundred_megabytes() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.ndjson");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(br#"{"partition":0,"offset":0,"event":{"user_id":""#).unwrap();
    let piece = vec![b'x'; MIB];
    (0..100).for_each(|_| file.write_all(&piece).unwrap());
    file.write_all(b"\"}}\n{\"partition\":0,\"offset\":1,\"event\":{\"user_id\":\"b\"}}\n").unwrap();
    within("a line of 100 MiB", 16 * MIB, || {
        let mut reader = NdjsonSource::new("s", &path).partitions(1).open(0, 1, Waker::none()).unwrap();
        reader.assign(0, 0).unwrap();
        let mut out = Vec::new();
        while reader.poll(0, None, 10, &mut out).unwrap() != Poll::Ended {}
        assert_eq!(out.iter().map(|r| (r.offset, r.value.is_some())).collect::<Vec<_>>(), [(0, false), (1, true)]);
    });
}
