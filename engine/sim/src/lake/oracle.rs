//! What the tables hold after each epoch, by a naive fold over everything bound: written from the rules of change events and from what each
//! view says in its own words, and sharing nothing with the operators but the types of values.

use super::graph::{BEST, SOURCES};
use super::traffic::{LakeTraffic, Said, UNAVAILABLE};
use dataflow_core::time::{DAY, SECOND};
use dataflow_core::{Binding, Datum, Epoch, Micros, Row};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The rows of each table, sorted.
pub(crate) type Contents = BTreeMap<&'static str, Vec<Row>>;

/// A table of the database: (name, price) or (item, cents) by id.
#[derive(Default)]
struct Table {
    rows: BTreeMap<i64, [Value; 2]>,
    positions: BTreeMap<i64, u64>,
    truncated: Option<u64>,
}

impl Table {
    fn applies(&self, id: i64, lsn: Option<u64>) -> bool {
        let Some(lsn) = lsn else { return true };
        self.truncated.is_none_or(|truncated| lsn > truncated) && self.positions.get(&id).is_none_or(|at| lsn >= *at)
    }

    fn note(&mut self, id: i64, lsn: Option<u64>) {
        self.positions.extend(lsn.map(|lsn| (id, lsn)));
    }

    fn apply(&mut self, said: &Said) {
        match said {
            Said::Put(lsn, row) => {
                let id = row[0].as_i64().unwrap_or_default();
                if !self.applies(id, *lsn) {
                    return;
                }
                let old = self.rows.get(&id).map_or(Value::Null, |old| old[0].clone());
                let first = if row[1] == UNAVAILABLE { old } else { row[1].clone() };
                self.rows.insert(id, [first, row[2].clone()]);
                self.note(id, *lsn);
            }
            Said::Delete(lsn, id) if self.applies(*id, *lsn) => {
                self.rows.remove(id);
                self.note(*id, *lsn);
            }
            Said::Truncate(lsn) if self.truncated.is_none_or(|truncated| *lsn >= truncated) => {
                self.rows.clear();
                self.truncated = Some(*lsn);
            }
            _ => {}
        }
    }
}

/// All that was read so far.
#[derive(Default)]
pub(crate) struct Naive {
    ends: BTreeMap<(usize, u32), u64>,
    items: Table,
    sales: Table,
    views: Vec<Row>,
    bad_views: Vec<Row>,
    dead: Vec<Row>,
    /// What each item had brought at the end of each day.
    days: BTreeMap<i32, Vec<(Datum, i64)>>,
}

fn int(value: &Value) -> Datum {
    value.as_i64().map_or(Datum::Null, |n| Datum::Int(n as i32))
}

fn long(value: &Value) -> Datum {
    value.as_i64().map_or(Datum::Null, Datum::Long)
}

fn text(value: &Value) -> Datum {
    value.as_str().map_or(Datum::Null, Datum::from)
}

fn row(values: impl IntoIterator<Item = Datum>) -> Row {
    values.into_iter().collect()
}

impl Naive {
    /// Reads what an epoch was bound to.
    pub(crate) fn epoch(&mut self, traffic: &LakeTraffic, binding: &Binding) {
        let clock = Datum::Timestamp(binding.clock);
        for (partition, advance) in &binding.advances {
            let (source, index) = (usize::from(partition.source.0), partition.index);
            let end = self.ends.entry((source, index)).or_default();
            let range = *end as usize..advance.end as usize;
            *end = advance.end;
            for offset in range {
                let said = &traffic.said[source][index as usize][offset];
                let place = format!("{}/{index}@{offset}", SOURCES[source]);
                self.record(source, said, &place, &clock);
            }
        }
        self.days.insert((binding.clock.0.div_euclid(DAY)) as i32, self.brought());
    }

    /// What of the traffic no epoch has read.
    pub(crate) fn unread(&self, traffic: &LakeTraffic) -> Option<String> {
        let partitions = traffic.said.iter().enumerate();
        let all = partitions.flat_map(|(source, of)| (0_u32..).zip(of).map(move |(at, said)| (source, at, said.len())));
        let read = |source, at| self.ends.get(&(source, at)).copied().unwrap_or(0);
        all.map(|(source, at, length)| (SOURCES[source], at, length, read(source, at)))
            .find(|(_, _, length, read)| *read < *length as u64)
            .map(|(name, at, length, read)| format!("'{name}/{at}' has {length} records, and {read} were read"))
    }

    fn record(&mut self, source: usize, said: &Said, place: &str, clock: &Datum) {
        match said {
            Said::Dead => self.dead.push(row([clock.clone(), place.into()])),
            Said::View(user, url, channel, seconds) => {
                let channel = channel.as_deref().map_or(Datum::Null, Datum::from);
                let at = Datum::Timestamp(Micros(seconds * SECOND));
                self.views.push(row([Datum::Long(*user), url.as_str().into(), channel, at]));
            }
            Said::BadView(line, why, user, url) => {
                let user = user.map_or(Datum::Null, Datum::Long);
                let url = url.as_deref().map_or(Datum::Null, Datum::from);
                let values = [clock.clone(), place.into(), line.as_str().into(), (*why).into(), user, url];
                self.bad_views.push(row(values));
            }
            _ if source == 0 => self.items.apply(said),
            _ => self.sales.apply(said),
        }
    }

    /// By item: how many sales, and what they came to.
    fn totals(&self) -> BTreeMap<Datum, (i64, i64)> {
        let mut totals = BTreeMap::new();
        for [item, cents] in self.sales.rows.values() {
            let total: &mut (i64, i64) = totals.entry(int(item)).or_default();
            *total = (total.0 + 1, total.1 + cents.as_i64().unwrap_or(0));
        }
        totals
    }

    fn brought(&self) -> Vec<(Datum, i64)> {
        self.totals().into_iter().map(|(item, (_, cents))| (item, cents)).collect()
    }

    /// What the tables hold now.
    pub(crate) fn contents(&self) -> Contents {
        let id = |id: &i64| Datum::Int(*id as i32);
        let items = self.items.rows.iter().filter(|(_, [_, price])| price.as_i64().is_some_and(|price| price > 0));
        let items = items.map(|(key, [name, price])| row([id(key), text(name), long(price)]));
        let name_of = |item: &Value| item.as_i64().and_then(|id| self.items.rows.get(&id)).map(|[name, _]| text(name));
        let sales =
            self.sales.rows.iter().map(|(key, [item, cents])| {
                row([id(key), int(item), name_of(item).unwrap_or(Datum::Null), long(cents)])
            });
        let totals = self.totals();
        let total = |(item, (count, cents)): (&Datum, &(i64, i64))| {
            row([item.clone(), Datum::Long(*count), Datum::Long(*cents)])
        };
        let mut best = self.brought();
        best.sort_by_key(|(item, cents)| (Reverse(*cents), item.clone()));
        let best = (1..).zip(best.into_iter().take(BEST));
        let best = best.map(|(rank, (item, cents))| row([Datum::Int(rank), item, Datum::Long(cents)]));
        let days = self.days.iter().flat_map(|(date, of)| of.iter().map(move |(item, cents)| (date, item, cents)));
        let days = days.map(|(date, item, cents)| row([Datum::Date(*date), item.clone(), Datum::Long(*cents)]));
        let sorted = |rows: Vec<Row>| {
            let mut rows = rows;
            rows.sort();
            rows
        };
        BTreeMap::from([
            ("lake.items", sorted(items.collect())),
            ("lake.sales", sorted(sales.collect())),
            ("lake.totals", sorted(totals.iter().map(total).collect())),
            ("lake.best", sorted(best.collect())),
            ("lake.days", sorted(days.collect())),
            ("lake.pageviews", sorted(self.views.clone())),
            ("lake.bad_views", sorted(self.bad_views.clone())),
            ("lake.dead", sorted(self.dead.clone())),
        ])
    }
}

/// What the tables hold after each of some epochs, and after the last one.
pub(crate) fn contents_at(
    traffic: &LakeTraffic,
    bindings: &[Binding],
    wanted: impl Fn(Epoch) -> bool,
) -> Result<(BTreeMap<Epoch, Contents>, Contents), String> {
    let (mut naive, mut at) = (Naive::default(), BTreeMap::new());
    for binding in bindings {
        naive.epoch(traffic, binding);
        if wanted(binding.epoch) {
            at.insert(binding.epoch, naive.contents());
        }
    }
    naive.unread(traffic).map_or(Ok(()), Err)?;
    Ok((at, naive.contents()))
}
