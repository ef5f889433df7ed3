//! Where objects lie, the data folder, and one reader at a time, whose task runs when it is stepped and at no other time.

use bytes::Bytes;
use dataflow_connectors::source::objects::{Location, ObjectsCounters, ObjectsSettings, ObjectsSource};
use dataflow_core::{
    Clock, Environment, Micros, Poll, Random, Record, Result, Source, SourceReader, Spawner, Task, TaskState, Waker,
};
use dataflow_state::storage::MemoryStorage;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How an object is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

pub(crate) fn packed(how: Packed, bytes: &[u8]) -> Vec<u8> {
    match how {
        Packed::Plain => bytes.to_vec(),
        Packed::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Packed::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

/// A clock that moves by a minute whenever it is asked, so that all objects are listed each time.
struct Moving(Mutex<Duration>);

impl Clock for Moving {
    fn wall(&self) -> Micros {
        Micros(0)
    }

    fn monotonic(&self) -> Duration {
        let mut now = self.0.lock().unwrap();
        *now += Duration::from_secs(60);
        *now
    }
}

struct Fixed;

impl Random for Fixed {
    fn next_u64(&self) -> u64 {
        4
    }
}

/// Tasks that run when they are stepped.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<Box<dyn Task>>>>);

impl Spawner for Tasks {
    fn spawn(&self, _: &str, task: Box<dyn Task>) -> Waker {
        self.0.lock().unwrap().push(task);
        Waker::none()
    }
}

/// A source and what it knows.
pub(crate) struct World {
    pub(crate) storage: MemoryStorage,
    settings: ObjectsSettings,
}

impl World {
    pub(crate) fn new(location: Location) -> World {
        let (poll, full_listing) = (Duration::from_millis(1), Duration::from_secs(1));
        let settings = ObjectsSettings { name: "pageviews".to_owned(), location, poll, full_listing };
        World { storage: MemoryStorage::new(), settings }
    }

    pub(crate) fn of_folder(folder: &Path) -> World {
        World::new(Location::Folder(folder.to_owned()))
    }

    /// A life that begins at the line of rank `next`.
    pub(crate) fn begin(&self, next: u64) -> Result<Life> {
        let tasks = Tasks::default();
        let environment = Environment {
            clock: Arc::new(Moving(Mutex::default())),
            random: Arc::new(Fixed),
            spawner: Arc::new(tasks.clone()),
        };
        let source = ObjectsSource::new(self.settings.clone(), Arc::new(self.storage.clone()), environment);
        let counters = source.counters();
        let mut reader = source.open(0, 1, Waker::none())?;
        if next == 0 {
            assert_eq!(reader.discover()?.len(), 1);
        }
        reader.assign(0, next)?;
        assert!(reader.discover()?.is_empty(), "it is assigned");
        Ok(Life { reader, tasks, counters })
    }
}

/// One reader.
pub(crate) struct Life {
    reader: Box<dyn SourceReader>,
    tasks: Tasks,
    pub(crate) counters: Arc<ObjectsCounters>,
}

impl Life {
    /// Lets the task do what it can.
    fn step(&self) {
        let mut tasks = self.tasks.0.lock().unwrap();
        tasks.retain_mut(|task| task.run() != TaskState::Done);
    }

    /// Reads to the end, or to `until`, by at most `budget` at a time.
    pub(crate) fn read(&mut self, until: Option<u64>, budget: usize) -> Result<Vec<Record>> {
        let mut out = Vec::new();
        // An object that is given up takes some rounds.
        for _ in 0..1_000_000 {
            self.step();
            match self.reader.poll(0, until, budget, &mut out)? {
                Poll::AtEnd => return Ok(out),
                Poll::More | Poll::Pending => {}
                Poll::Ended => panic!("it goes on for ever"),
            }
        }
        panic!("it never ends: {} records", out.len());
    }

    /// Reads some and goes no further.
    pub(crate) fn read_some(&mut self, most: usize) -> Result<Vec<Record>> {
        let mut out = Vec::new();
        self.step();
        self.reader.poll(0, None, most, &mut out)?;
        Ok(out)
    }
}

/// Puts an object into a folder, whole.
pub(crate) fn put(folder: &Path, key: &str, bytes: &[u8]) {
    let (path, temporary) = (folder.join(key), folder.join(format!(".{}", key.replace('/', "-"))));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&temporary, bytes).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the source's folder is not the product's")]
    fs::rename(temporary, path).unwrap();
}

/// The lines of records, `None` for one without a value.
pub(crate) fn lines(records: &[Record]) -> Vec<Option<Bytes>> {
    records.iter().map(|record| record.value.clone()).collect()
}

/// Texts as such lines.
pub(crate) fn texts(texts: &[&str]) -> Vec<Option<Bytes>> {
    texts.iter().map(|text| Some(Bytes::copy_from_slice(text.as_bytes()))).collect()
}
