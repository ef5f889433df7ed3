//! Login traffic as a source.

use super::{source, start, take_paced};
use crate::profile::typed;
use bytes::Bytes;
use dataflow_connectors::source::generator::{Generated, Generator};
use dataflow_core::{Environment, Result, Source, Storage};
use dataflow_loadgen::logins::{BLOCK, Settings, Traffic};
use std::sync::Arc;
use toml::Table;

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

/// The source, and its traffic for who wants to know the attacks in it.
pub(in crate::wiring) fn build(
    name: &str,
    mut table: Table,
    environment: &Environment,
    storage: &Arc<dyn Storage>,
    place: &str,
) -> Result<(Arc<dyn Source>, Arc<Traffic>)> {
    let is_paced = take_paced(&mut table, place)?;
    let start = start(name, &table, environment, &**storage, place)?;
    let traffic = Arc::new(Traffic::new(Settings { start, ..typed(table, place)? })?);
    Ok((source(name, Arc::new(Logins(traffic.clone())), start, is_paced, environment), traffic))
}
