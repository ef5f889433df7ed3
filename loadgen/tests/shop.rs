//! The made-up shop: the same from any offset, sound as a database would have it, and with the shares that were asked for.

#![allow(clippy::unwrap_used)] // All of this file is a test.

use dataflow_core::Micros;
use dataflow_core::time::HOUR;
use dataflow_loadgen::shop::{Change, Event, Feed, Op, Purchase, Row, Settings, Shop, ShopRecord, Step};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn shop(events: u64) -> Shop {
    Shop::new(Settings { users: 60, items: 25, events: Some(events), ..Settings::default() }).unwrap()
}

/// All records of a feed, as the story tells them.
fn told(shop: &Shop, feed: Feed) -> Vec<ShopRecord> {
    let snapshot = shop.snapshot().filter(|change| change.feed() == feed);
    let mut records: Vec<ShopRecord> = snapshot.map(|change| ShopRecord { due_us: 0, value: change.line() }).collect();
    for Step { due_us, event } in shop.steps() {
        match event {
            Event::Transaction(changes) => {
                let mine = changes.iter().filter(|change| change.feed() == feed);
                records.extend(mine.map(|change| ShopRecord { due_us, value: change.line() }));
            }
            Event::Pageview(value) if feed == Feed::Pageviews => records.push(ShopRecord { due_us, value }),
            Event::Pageview(_) => {}
        }
    }
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_feed_is_the_same_from_any_offset(seed in 0u64..5, first in 0u64..3000, count in 1u64..600, events in 0u64..20_000) {
        let settings = Settings { seed, users: 40, items: 9, events: Some(events), ..Settings::default() };
        let shop = Shop::new(settings).unwrap();
        for feed in Feed::ALL {
            let all = told(&shop, feed);
            prop_assert_eq!(shop.length(feed), Some(all.len() as u64));
            let some = shop.records(feed, first, count);
            prop_assert_eq!(some.len() as u64, count);
            let there: Vec<_> = all.iter().skip(first as usize).take(count as usize).cloned().collect();
            prop_assert_eq!(&some[..there.len()], &there[..]);
            prop_assert!(some.is_sorted_by_key(|record| record.due_us));
        }
    }
}

/// The tables as a database has them, which refuses what a database refuses.
#[derive(Default)]
struct Database {
    rows: BTreeMap<(u8, i32), Row>,
    lsn: u64,
}

impl Database {
    fn apply(&mut self, changes: &[Change]) {
        for Change { op, row, lsn, .. } in changes {
            assert!(*lsn >= self.lsn, "{row:?}");
            self.lsn = *lsn;
            let key = (changes_rank(row), row.id());
            let old = match op {
                Op::Delete => self.rows.remove(&key),
                _ => self.rows.insert(key, row.clone()),
            };
            assert_eq!(old.is_none(), matches!(op, Op::Read | Op::Create), "{op:?} {row:?}");
            if let (Some(old), Op::Update) = (&old, op) {
                check_update(old, row);
            }
        }
        for purchase in changes.iter().filter_map(|change| as_purchase(&change.row).filter(|_| change.op != Op::Delete))
        {
            let has = |rank, id: Option<i64>| id.is_none_or(|id| self.rows.contains_key(&(rank, id as i32)));
            assert!(has(0, purchase.user_id) && has(1, purchase.item_id), "{purchase:?}");
        }
        let gone = changes.iter().filter(|change| change.op == Op::Delete && change.feed() == Feed::Users);
        for user in gone.map(|change| i64::from(change.row.id())) {
            let left = self.rows.values().filter_map(as_purchase).find(|purchase| purchase.user_id == Some(user));
            assert!(left.is_none(), "user {user} is gone: {left:?}");
        }
    }
}

fn changes_rank(row: &Row) -> u8 {
    match row {
        Row::User(_) => 0,
        Row::Item(_) => 1,
        Row::Purchase(_) => 2,
    }
}

fn as_purchase(row: &Row) -> Option<&Purchase> {
    match row {
        Row::Purchase(purchase) => Some(purchase),
        _ => None,
    }
}

/// An update changes what it is about, and nothing else.
fn check_update(old: &Row, new: &Row) {
    match (old, new) {
        (Row::User(old), Row::User(new)) => {
            let changed = [old.first_name != new.first_name, old.last_name != new.last_name, old.email != new.email];
            assert!(changed.iter().filter(|changed| **changed).count() <= 1, "{old:?} {new:?}");
            assert!(old.created_at == new.created_at && old.updated_at < new.updated_at, "{old:?} {new:?}");
        }
        (Row::Item(old), Row::Item(new)) => {
            // Twice in one transaction, at one time.
            assert!(old.created_at == new.created_at && old.updated_at <= new.updated_at, "{old:?} {new:?}");
        }
        (Row::Purchase(old), Row::Purchase(new)) => {
            let same = Purchase { status: old.status, quantity: old.quantity, deleted: old.deleted, ..new.clone() };
            let same = Purchase { user_id: old.user_id, updated_at: old.updated_at, ..same };
            assert_eq!(*old, same);
            assert!(new.user_id == old.user_id || new.user_id.is_none(), "{old:?} {new:?}");
            assert!(
                new.status >= old.status && new.quantity <= old.quantity && new.updated_at > old.updated_at,
                "{old:?} {new:?}"
            );
        }
        _ => panic!("{old:?} {new:?}"),
    }
}

#[test]
fn a_database_would_take_it() {
    let shop = shop(60_000);
    let mut database = Database::default();
    shop.snapshot().for_each(|row| database.apply(&[row]));
    let mut seen = BTreeMap::new();
    for step in shop.steps() {
        if let Event::Transaction(changes) = step.event {
            database.apply(&changes);
            changes.iter().for_each(|c| *seen.entry((changes_rank(&c.row), c.op as u8)).or_insert(0u64) += 1);
        }
    }
    let seen = |rank, op: Op| seen.get(&(rank, op as u8)).copied().unwrap_or(0);
    for (what, count) in [
        ("sign-ups", seen(0, Op::Create)),
        ("profiles", seen(0, Op::Update)),
        ("erasures", seen(0, Op::Delete)),
        ("new items", seen(1, Op::Create)),
        ("prices, stock, names", seen(1, Op::Update)),
        ("orders", seen(2, Op::Create)),
        ("shipped and closed", seen(2, Op::Update)),
        ("cancelled", seen(2, Op::Delete)),
    ] {
        assert!(count >= 5, "{what}: {count}");
    }
    let purchases = || database.rows.values().filter_map(as_purchase);
    assert!(purchases().any(|purchase| purchase.deleted) && purchases().any(|purchase| purchase.user_id.is_none()));
}

#[test]
fn orders_follow_pageviews_of_the_item_at_its_price() {
    let shop = shop(40_000);
    let mut prices = BTreeMap::new();
    let mut looked = BTreeSet::new();
    let (mut orders, mut after_a_look) = (0, 0);
    let note = |row: &Row, prices: &mut BTreeMap<i64, i64>| {
        if let Row::Item(item) = row {
            prices.insert(item.id.into(), item.price.unwrap().0);
        }
    };
    shop.snapshot().for_each(|change| note(&change.row, &mut prices));
    for step in shop.steps() {
        match step.event {
            Event::Pageview(line) => {
                let Ok(line) = serde_json::from_slice::<Value>(&line) else { continue };
                looked.insert((line["user_id"].as_i64(), line["url"].as_str().map(str::to_owned)));
            }
            Event::Transaction(changes) => {
                changes.iter().for_each(|change| note(&change.row, &mut prices));
                for placed in changes.iter().filter(|c| c.op == Op::Create).filter_map(|c| as_purchase(&c.row)) {
                    let item = placed.item_id.unwrap();
                    assert_eq!(placed.purchase_price.0, prices[&item].abs(), "{placed:?}");
                    orders += 1;
                    after_a_look += u64::from(looked.contains(&(placed.user_id, Some(format!("/products/{item}")))));
                }
            }
        }
    }
    assert!(orders > 1500 && after_a_look * 100 > orders * 97, "{after_a_look} of {orders}");
}

#[test]
fn shares_are_as_asked() {
    let settings = Settings { late: 0.1, malformed: 0.05, events: Some(50_000), items: 100, ..Settings::default() };
    let shop = Shop::new(settings.clone()).unwrap();
    let records = told(&shop, Feed::Pageviews);
    let near = |name: &str, got: usize, all: usize, expected: f64| {
        let got = got as f64 / all as f64;
        assert!((got - expected).abs() < 0.02, "{name}: {got}, not {expected}");
    };
    let (mut late, mut bad, mut by_item) = (0, 0, BTreeMap::new());
    for ShopRecord { due_us, value } in &records {
        let line = serde_json::from_slice::<Value>(value).unwrap_or_default();
        let (user, url, at) = (line["user_id"].as_i64(), line["url"].as_str(), line["received_at"].as_i64());
        let (Some(_), Some(url), Some(at)) = (user, url, at.filter(|at| *at >= 0)) else {
            bad += 1;
            continue;
        };
        let behind = settings.start.plus(*due_us as i64).since(Micros(at * 1_000_000));
        assert!((0..37 * HOUR).contains(&behind), "{behind}");
        late += usize::from(behind > 10_000_000);
        if let Some(item) = url.strip_prefix("/products/") {
            *by_item.entry(item.to_owned()).or_insert(0usize) += 1;
        }
    }
    near("late", late, records.len(), 0.095);
    near("malformed", bad, records.len(), 0.05);
    let mut counts: Vec<usize> = by_item.into_values().collect();
    counts.sort_unstable();
    let all: usize = counts.iter().sum();
    assert!(counts.iter().rev().take(10).sum::<usize>() * 3 > all, "few items are looked at most");
}

#[test]
fn settings_out_of_bounds_are_refused() {
    for bad in [
        Settings { users: 0, ..Settings::default() },
        Settings { items: 0, ..Settings::default() },
        Settings { rate: f64::NAN, ..Settings::default() },
        Settings { late: 1.5, ..Settings::default() },
    ] {
        assert!(Shop::new(bad.clone()).is_err(), "{bad:?}");
    }
    assert!(Shop::new(Settings { users: 1, items: 1, events: Some(3000), ..Settings::default() }).is_ok());
}
