//! Feeds of one made-up shop as sources: each is a function of the shop's settings and its own offsets, so each can be read again alone.

use super::{source, start, take_paced};
use crate::profile::{Profile, typed, unknown};
use bytes::Bytes;
use dataflow_connectors::source::generator::{Generated, Generator};
use dataflow_core::{Environment, Result, Source, Storage};
use dataflow_loadgen::shop::{Feed, Settings, Shop};
use std::sync::Arc;
use toml::Table;

/// The section of the shop's settings, and the name of its time line.
const SHOP: &str = "shop";
/// Records made at once: of the tables these are some rounds, which are made as a whole.
const BLOCK: u64 = 128;

/// One feed; the shop has one partition of each.
struct FeedOf(Arc<Shop>, Feed);

impl Generator for FeedOf {
    fn partitions(&self) -> u32 {
        1
    }

    fn length(&self, _: u32) -> Option<u64> {
        self.0.length(self.1)
    }

    fn block_records(&self) -> u64 {
        BLOCK
    }

    fn block(&self, _: u32, block: u64) -> Vec<Generated> {
        let records = self.0.records(self.1, block * BLOCK, BLOCK).into_iter();
        records
            .map(|record| Generated { due_us: record.due_us, key: None, value: Some(Bytes::from(record.value)) })
            .collect()
    }
}

/// The source `name`, whose last part is the name of a feed.
pub(in crate::wiring) fn build(
    profile: &Profile,
    name: &str,
    rest: Table,
    environment: &Environment,
    storage: &Arc<dyn Storage>,
    place: &str,
) -> Result<Arc<dyn Source>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    typed::<Nothing>(rest, place)?;
    let of = name.rsplit('.').next().unwrap_or(name);
    let feed = Feed::ALL.into_iter().find(|feed| feed.name() == of).ok_or_else(|| {
        unknown("feed", of, Feed::ALL.iter().map(|feed| feed.name()), "the shop, whose feeds sources are named after,")
    })?;
    let mut table = profile.table(&[SHOP])?;
    let place = format!("'{SHOP}' of {}", profile.place());
    let is_paced = take_paced(&mut table, &place)?;
    let start = start(SHOP, &table, environment, &**storage, &place)?;
    let shop = Arc::new(Shop::new(Settings { start, ..typed(table, &place)? })?);
    Ok(source(name, Arc::new(FeedOf(shop, feed)), start, is_paced, environment))
}
