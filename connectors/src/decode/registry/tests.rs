//! The registry's protocol against a small HTTP server, with the clock and the task in the test's hands.

use super::*;
use dataflow_core::{AppendFile, Micros, Random, Spawner};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Files in memory. A file counts as durable when it was synced and its folder after it.
#[derive(Default)]
pub(in crate::decode) struct Memory {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    dirs_synced: AtomicUsize,
    /// Folders can not be synced.
    is_broken: AtomicBool,
}

struct File(Arc<Mutex<BTreeMap<String, Vec<u8>>>>, String);

impl AppendFile for File {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.lock().unwrap().entry(self.1.clone()).or_default().extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
    fn length(&self) -> u64 {
        self.0.lock().unwrap()[&self.1].len() as u64
    }
}

impl Storage for Memory {
    fn append(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        self.files.lock().unwrap().entry(path.to_owned()).or_default();
        Ok(Box::new(File(self.files.clone(), path.to_owned())))
    }
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.files.lock().unwrap().get(path).cloned().ok_or_else(|| Error::outside(format!("reading '{path}'")))
    }
    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        Ok(self.read(path)?.into_iter().skip(offset as usize).take(length).collect())
    }
    fn length(&self, path: &str) -> Result<Option<u64>> {
        Ok(self.files.lock().unwrap().get(path).map(|bytes| bytes.len() as u64))
    }
    fn list(&self, dir: &str) -> Result<Vec<String>> {
        let files = self.files.lock().unwrap();
        Ok(files.keys().filter_map(|p| p.strip_prefix(dir)?.strip_prefix('/')).map(str::to_owned).collect())
    }
    fn create_dir(&self, _: &str) -> Result<()> {
        Ok(())
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut files = self.files.lock().unwrap();
        let bytes = files.remove(from).ok_or_else(|| Error::outside(format!("renaming '{from}'")))?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }
    fn remove(&self, path: &str) -> Result<()> {
        self.files.lock().unwrap().remove(path);
        Ok(())
    }
    fn truncate(&self, _: &str, _: u64) -> Result<()> {
        Err(Error::us("truncating is not needed here"))
    }
    fn sync_dir(&self, dir: &str) -> Result<()> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(Error::outside(format!("syncing folder '{dir}'")));
        }
        self.dirs_synced.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn import(&self, _: &Path, _: &str) -> Result<()> {
        Err(Error::us("importing is not needed here"))
    }
    fn local_path(&self, _: &str) -> Option<PathBuf> {
        None
    }
}

/// A world where time stands unless it is moved, and tasks run when they are told to.
#[derive(Default)]
pub(in crate::decode) struct World {
    now_ms: AtomicU64,
    tasks: Mutex<Vec<Box<dyn Task>>>,
}

impl World {
    pub(in crate::decode) fn environment(self: &Arc<Self>) -> Environment {
        Environment { clock: self.clone(), random: self.clone(), spawner: self.clone() }
    }

    fn run(&self) -> TaskState {
        self.tasks.lock().unwrap()[0].run()
    }

    fn pass(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for World {
    fn wall(&self) -> Micros {
        Micros(0)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst))
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

/// Answers requests with these statuses and bodies, one connection each; returns what was asked.
fn serve(listener: &TcpListener, answers: &[(u16, &str)]) -> Vec<String> {
    let mut asked = Vec::new();
    for (status, body) in answers {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the client went away");
            request.extend_from_slice(&chunk[..read]);
        }
        asked.push(String::from_utf8(request).unwrap());
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
    }
    asked
}

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;

fn found() -> String {
    serde_json::json!({ "schema": SCHEMA }).to_string()
}

struct Setup {
    world: Arc<World>,
    storage: Arc<Memory>,
    schemas: Arc<Schemas>,
    woken: Arc<AtomicUsize>,
    listener: TcpListener,
}

fn setup() -> Setup {
    setup_on(Arc::default())
}

fn setup_on(storage: Arc<Memory>) -> Setup {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = RegistrySettings {
        url: format!("http://{}/base/", listener.local_addr().unwrap()),
        username: Some("u".to_owned()),
        password: Some("p".to_owned()),
        grace_ms: 5000,
        request_timeout_ms: 10_000,
    };
    let world = Arc::new(World::default());
    let schemas = Schemas::start(SourceId(2), "logins", storage.clone(), Some(&settings), &world.environment());
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    schemas.wake_also(Waker::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    Setup { world, storage, schemas, woken, listener }
}

impl Setup {
    /// Runs the task once against these answers.
    fn step(&self, answers: &[(u16, &str)]) -> (TaskState, Vec<String>) {
        std::thread::scope(|scope| {
            let server = scope.spawn(|| serve(&self.listener, answers));
            let state = self.world.run();
            (state, server.join().unwrap())
        })
    }
}

#[test]
fn an_answer_is_durable_before_it_is_known() {
    let s = setup();
    assert!(matches!(s.schemas.lookup(7, 1), Lookup::Asked));
    assert!(matches!(s.schemas.lookup(7, 1), Lookup::Asked));
    let (state, asked) = s.step(&[(200, &found())]);
    assert_eq!(state, TaskState::Waiting);
    assert!(asked[0].starts_with("GET /base/schemas/ids/7 HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].to_lowercase().contains("authorization: basic dtpw"), "{}", asked[0]);
    assert_eq!(s.woken.load(Ordering::SeqCst), 1);
    let Lookup::Known(text, Some(binding)) = s.schemas.lookup(7, 1) else { panic!() };
    assert_eq!((&*text, binding), (SCHEMA, SchemaBinding { source: SourceId(2), id: 7, hash: Some(hash_of(SCHEMA)) }));
    assert_eq!(s.storage.list("schemas/logins").unwrap().len(), 1);
    assert!(s.storage.dirs_synced.load(Ordering::SeqCst) > 0);

    // A later life knows it without the registry, and has nothing to bind.
    let world = Arc::new(World::default());
    let later = Schemas::start(SourceId(2), "logins", s.storage.clone(), None, &world.environment());
    later.bind(&[binding]).unwrap();
    assert!(matches!(later.lookup(7, 1), Lookup::Known(text, None) if &*text == SCHEMA));
    // Without a registry all else is unknown at once.
    assert!(matches!(later.lookup(8, 1), Lookup::Unknown(Some(SchemaBinding { id: 8, hash: None, .. }))));
}

#[test]
fn a_404_is_asked_again_for_the_grace() {
    let s = setup();
    assert!(matches!(s.schemas.lookup(9, 1), Lookup::Asked));
    let missing = (404, r#"{"error_code":40403}"#);
    assert!(matches!(s.step(&[missing]).0, TaskState::Sleeping(_)));
    // Woken too early, it asks nothing.
    assert!(matches!(s.step(&[]).0, TaskState::Sleeping(_)));
    s.world.pass(4999);
    assert!(matches!(s.step(&[missing]).0, TaskState::Sleeping(_)));
    assert!(matches!(s.schemas.lookup(9, 1), Lookup::Asked));
    s.world.pass(600);
    assert_eq!(s.step(&[missing]).0, TaskState::Waiting);
    assert!(matches!(s.schemas.lookup(9, 1), Lookup::Unknown(Some(SchemaBinding { id: 9, hash: None, .. }))));

    assert!(matches!(s.schemas.lookup(10, 1), Lookup::Asked));
    s.step(&[missing]);
    s.world.pass(1000);
    s.step(&[(200, &found())]);
    assert!(matches!(s.schemas.lookup(10, 1), Lookup::Known(..)));
}

#[test]
fn an_outage_stalls_new_ids_for_as_long_as_it_lasts() {
    let s = setup();
    assert!(matches!(s.schemas.lookup(7, 1), Lookup::Asked));
    for answer in [(500, ""), (503, "{}"), (200, "no json"), (404, ""), (500, "")] {
        assert!(matches!(s.step(&[answer]).0, TaskState::Sleeping(pause) if pause <= BACKOFF_MAX), "{answer:?}");
        s.world.pass(20_000);
    }
    // The grace counts from the outage's end.
    assert!(matches!(s.step(&[(404, "")]).0, TaskState::Sleeping(_)));
    assert!(matches!(s.schemas.lookup(7, 1), Lookup::Asked));
    s.world.pass(1000);
    s.step(&[(200, &found())]);
    assert!(matches!(s.schemas.lookup(7, 1), Lookup::Known(..)));
}

#[test]
fn a_text_that_can_not_be_kept_ends_the_job() {
    let s = setup();
    assert!(s.schemas.check().is_ok());
    s.storage.is_broken.store(true, Ordering::SeqCst);
    assert!(matches!(s.schemas.lookup(7, 1), Lookup::Asked));
    assert_eq!(s.step(&[(200, &found())]).0, TaskState::Done);
    // Whoever waits for it is woken and told; the id has no meaning, and none is ever asked for again.
    assert_eq!(s.woken.load(Ordering::SeqCst), 1);
    for _ in 0..2 {
        let error = s.schemas.check().unwrap_err();
        assert_eq!(error.fault, dataflow_core::Fault::Outside);
        let said =
            "keeping the schema of id '7' of source 'logins': syncing folder 'schemas/logins'; repair the data folder";
        assert!(error.to_string().starts_with(said), "{error}");
    }
    assert!(matches!(s.schemas.lookup(7, 1), Lookup::Asked));

    // The next life does not trust the file that this one left: only a write and a sync of its own make it durable.
    assert_eq!(s.storage.list("schemas/logins").unwrap().len(), 1);
    let later = setup_on(s.storage.clone());
    later.schemas.lookup(7, 1);
    assert_eq!(later.step(&[(200, &found())]).0, TaskState::Done);
    s.storage.is_broken.store(false, Ordering::SeqCst);
    let last = setup_on(s.storage.clone());
    last.schemas.lookup(7, 1);
    assert_eq!(last.step(&[(200, &found())]).0, TaskState::Waiting);
    assert!(matches!(last.schemas.lookup(7, 1), Lookup::Known(..)) && last.schemas.check().is_ok());
}

#[test]
fn a_registry_that_refuses_the_password_ends_the_job_and_names_the_setting() {
    for status in [401, 403] {
        let s = setup();
        assert!(matches!(s.schemas.lookup(7, 1), Lookup::Asked));
        assert_eq!(s.step(&[(status, "")]).0, TaskState::Done);
        assert_eq!(s.woken.load(Ordering::SeqCst), 1);
        let error = s.schemas.check().unwrap_err();
        assert_eq!(error.fault, Fault::User);
        let said = error.to_string();
        assert!(said.starts_with("reading source 'logins': asking the schema registry"), "{said}");
        assert!(said.contains(&status.to_string()) && said.contains("'registry.password'"), "{said}");
    }
}

#[test]
fn a_text_too_large_is_unknown() {
    let s = setup();
    s.schemas.lookup(3, 1);
    let large = serde_json::json!({ "schema": "x".repeat(SCHEMA_BYTES_MAX + 1) }).to_string();
    assert_eq!(s.step(&[(200, &large)]).0, TaskState::Waiting);
    assert!(matches!(s.schemas.lookup(3, 1), Lookup::Unknown(_)));
}

#[test]
fn bound_texts_are_verified() {
    let (world, storage) = (Arc::new(World::default()), Arc::new(Memory::default()));
    let store = SchemaStore::new(storage.clone(), "s");
    let hash = store.put(SCHEMA).unwrap();
    let start = || Schemas::start(SourceId(0), "s", storage.clone(), None, &world.environment());
    let binding = |id, hash| SchemaBinding { source: SourceId(0), id, hash };
    start().bind(&[binding(1, Some(hash)), binding(2, None)]).unwrap();
    assert!(start().bind(&[binding(1, Some([0; 16]))]).is_err());
    let schemas = start();
    schemas.bind(&[binding(1, Some(hash))]).unwrap();
    assert!(schemas.bind(&[binding(1, None)]).is_err());
    for file in storage.files.lock().unwrap().values_mut() {
        file[0] ^= 1;
    }
    assert!(start().bind(&[binding(1, Some(hash))]).is_err());
}

#[test]
fn ids_are_bounded() {
    let (world, storage) = (Arc::new(World::default()), Arc::new(Memory::default()));
    let schemas = Schemas::start(SourceId(0), "s", storage, None, &world.environment());
    for id in 0..UNKNOWN_MAX as u32 {
        assert!(matches!(schemas.lookup(id, 1), Lookup::Unknown(Some(_))));
    }
    for id in [UNKNOWN_MAX as u32, 1_000_000] {
        assert!(matches!(schemas.lookup(id, 1), Lookup::Refused));
    }
    assert!(matches!(schemas.lookup(0, 1), Lookup::Unknown(Some(_))));
}

#[test]
fn graces_overlap_and_end_once_too_many_ids_are_unknown() {
    let s = setup();
    (0..3).for_each(|id| s.schemas.foresee(id));
    let missing = [(404, ""); 3];
    assert!(matches!(s.step(&missing).0, TaskState::Sleeping(_)));
    s.world.pass(5000);
    assert_eq!(s.step(&missing).0, TaskState::Waiting);
    for id in 0..3 {
        assert!(matches!(s.schemas.lookup(id, 1), Lookup::Unknown(Some(_))), "one grace for all of them");
    }
    let unknown: Vec<_> =
        (3..UNKNOWN_MAX as u32).map(|id| SchemaBinding { source: SourceId(2), id, hash: None }).collect();
    s.schemas.bind(&unknown).unwrap();
    s.schemas.foresee(9_999);
    assert_eq!(s.step(&[(404, "")]).0, TaskState::Waiting, "no grace");
    assert!(matches!(s.schemas.lookup(9_999, 1), Lookup::Refused));
    s.schemas.foresee(10_000);
    assert_eq!(s.step(&[(200, &found())]).0, TaskState::Waiting);
    assert!(matches!(s.schemas.lookup(10_000, 1), Lookup::Known(..)), "good ids have room of their own");
}

#[test]
fn a_text_without_room_is_refused_and_not_kept() {
    let s = setup();
    let store = SchemaStore::new(s.storage.clone(), "logins");
    let mut bound = 0;
    for id in 0.. {
        let text = format!("{id}{}", "x".repeat(SCHEMA_BYTES_MAX - 8));
        bound += text.len();
        if bound + SCHEMA.len() > SCHEMAS_BYTES_MAX {
            break;
        }
        s.schemas.bind(&[SchemaBinding { source: SourceId(2), id, hash: Some(store.put(&text).unwrap()) }]).unwrap();
    }
    let kept = s.storage.list("schemas/logins").unwrap().len();
    s.schemas.foresee(7_000);
    let large = serde_json::json!({ "schema": "x".repeat(SCHEMA_BYTES_MAX) }).to_string();
    assert_eq!(s.step(&[(200, &large)]).0, TaskState::Waiting);
    assert!(matches!(s.schemas.lookup(7_000, 1), Lookup::Refused));
    assert_eq!(s.storage.list("schemas/logins").unwrap().len(), kept);
    s.schemas.foresee(7_001);
    s.step(&[(200, &found())]);
    assert!(matches!(s.schemas.lookup(7_001, 1), Lookup::Known(..)), "a small one still fits");
}
