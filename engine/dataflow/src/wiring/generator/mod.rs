//! The `generator` connector: traffic of `loadgen` as a source, paced by the clock, the same on every replay. A source of logins says
//! its settings itself; `of = "shop"` makes it a feed of the shop that `[shop]` of the profile describes.
//!
//! A time line begins when the job first starts; that instant is kept in the data folder, so that a replay makes the same records.

mod logins;
mod shop;

use dataflow_connectors::source::generator::{Generator, GeneratorSource, Pace};
use dataflow_core::{Environment, Error, Micros, Result, Source, Storage};
use std::sync::Arc;
use toml::{Table, Value};

pub(super) use logins::build as logins;
pub(super) use shop::build as shop;

/// Where the beginning of a generator's time line is kept, in the data folder.
const STARTS: &str = "generators";

/// Takes out whether records wait until they are due.
fn take_paced(table: &mut Table, place: &str) -> Result<bool> {
    match table.remove("paced") {
        None => Ok(true),
        Some(Value::Boolean(paced)) => Ok(paced),
        Some(other) => Err(Error::user(format!("reading 'paced' of {place}: it is of type {}", other.type_str()))
            .hint("it must be true (each record when it is due) or false (as fast as they are read)")),
    }
}

/// When the time line of the generator `name` began, and the settings' own word for it refused.
fn start(name: &str, table: &Table, environment: &Environment, storage: &dyn Storage, place: &str) -> Result<Micros> {
    if table.contains_key("start") {
        return Err(Error::user(format!("{place} has a 'start'"))
            .hint("remove it: the traffic begins when the job first starts"));
    }
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

fn source(
    name: &str,
    generator: Arc<dyn Generator>,
    start: Micros,
    is_paced: bool,
    environment: &Environment,
) -> Arc<dyn Source> {
    let source = GeneratorSource::new(name, generator);
    let pace = Pace { clock: environment.clock.clone(), spawner: environment.spawner.clone(), start };
    Arc::new(if is_paced { source.paced(pace) } else { source })
}
