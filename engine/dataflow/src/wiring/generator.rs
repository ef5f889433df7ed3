//! The `generator` connector: login traffic of `loadgen` as a source, paced by the clock, the same on every replay.

use crate::profile::typed;
use bytes::Bytes;
use dataflow_connectors::source::generator::{Generated, Generator, GeneratorSource, Pace};
use dataflow_core::{Environment, Error, Micros, Result, Source, Storage};
use dataflow_loadgen::logins::{BLOCK, Settings, Traffic};
use std::sync::Arc;
use toml::{Table, Value};

/// Where the beginning of a generator's time line is kept, in the data folder.
const STARTS: &str = "generators";

struct Logins(Arc<Traffic>);

impl Generator for Logins {
    fn partitions(&self) -> u32 {
        self.0.settings().partitions
    }

    fn length(&self, partition: u32) -> Option<u64> {
        self.0.length(partition)
    }

    fn block_records(&self) -> u64 {
        BLOCK
    }

    fn block(&self, partition: u32, block: u64) -> Vec<Generated> {
        let logins = self.0.block(partition, block).into_iter();
        let record = |login: dataflow_loadgen::logins::Login| Generated {
            due_us: login.due_us,
            value: login.json().map(Bytes::from),
            key: Some(Bytes::from(login.key)),
        };
        logins.map(record).collect()
    }
}

/// The time line begins when the job first starts; that instant is kept, so that a replay makes the same records.
pub(super) fn build(
    name: &str,
    mut table: Table,
    environment: &Environment,
    storage: &Arc<dyn Storage>,
    place: &str,
) -> Result<(Arc<dyn Source>, Arc<Traffic>)> {
    let paced = match table.remove("paced") {
        None => true,
        Some(Value::Boolean(paced)) => paced,
        Some(other) => {
            return Err(Error::user(format!("reading 'paced' of {place}: it is of type {}", other.type_str()))
                .hint("it must be true (each record when it is due) or false (as fast as they are read)"));
        }
    };
    if table.contains_key("start") {
        return Err(Error::user(format!("{place} has a 'start'"))
            .hint("remove it: the traffic begins when the job first starts"));
    }
    let mut settings: Settings = typed(table, place)?;
    settings.start = start_of(name, environment, &**storage)?;
    let start = settings.start;
    let traffic = Arc::new(Traffic::new(settings)?);
    let source = GeneratorSource::new(name, Arc::new(Logins(traffic.clone())));
    let pace = Pace { clock: environment.clock.clone(), spawner: environment.spawner.clone(), start };
    let source: Arc<dyn Source> = Arc::new(if paced { source.paced(pace) } else { source });
    Ok((source, traffic))
}

fn start_of(name: &str, environment: &Environment, storage: &dyn Storage) -> Result<Micros> {
    let path = format!("{STARTS}/{name}");
    if storage.length(&path)?.is_some() {
        let text = String::from_utf8_lossy(&storage.read(&path)?).trim().to_owned();
        return Micros::parse(&text).ok_or_else(|| Error::doubt(format!("reading '{path}': '{text}' is no timestamp")));
    }
    storage.create_dir(STARTS)?;
    let now = environment.clock.wall();
    dataflow_core::replace_file(storage, STARTS, name, now.to_string().as_bytes())?;
    Ok(now)
}
