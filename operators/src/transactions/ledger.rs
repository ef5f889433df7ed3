//! Which events wait for their transaction, and when it is whole: the decision, without streams and state.
//!
//! Events of a partition leave in the order of their offsets. An event of a transaction that is not whole holds up what stands behind it
//! in its partition, so that a snapshot's row never overtakes an older change; Debezium sends transactions one after another, so
//! nothing of another stands between the events of one. A transaction leaves when its end has come with as many events of
//! each table as the end counts, and when nothing but what leaves too stands before any of them. So it leaves in one epoch.
//!
//! A dead letter may be an event of a transaction. It holds its place in its partition, and stands for an event that a transaction which has
//! ended lacks, of several for that of the first to end. One that is of no transaction goes with the next one behind it. Nothing tells a dead
//! letter from its repetition: where a connector repeats one in the midst of its transaction, that may leave before its last events.
//!
//! What an epoch decides is a function of what arrived and of what was kept, never of the order within the epoch.

use dataflow_core::change::{ChangeEvent, Transaction};
use dataflow_core::{Error, Micros, Result, Stamped, time::DAY};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// For how long it is known that a transaction has left: as far back as its source may repeat its events.
pub(super) const DONE_KEPT_US: i64 = 7 * DAY;
/// Events that wait in all. Their rows lie in the state, where they lie in memory is some 100 bytes each.
const WAITING_MAX: u64 = 16 << 20;

/// What to do with a transaction that has more events than wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLarge {
    /// Let what has come leave, and the rest as it comes.
    Parts,
    /// End the job.
    Stop,
}

/// How transactions are kept whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionSettings {
    /// Events of one transaction that wait for its end.
    pub max_records: u64,
    /// What to do with one that has more.
    pub on_large: OnLarge,
}

/// A partition: the rank of its table, and its number.
pub(super) type Lane = (u16, u32);

/// What is kept over a restart, under [`Key`]s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kept {
    /// Nothing.
    #[default]
    Nothing,
    /// An event that waits.
    Event(Stamped<ChangeEvent>),
    /// A dead letter in its place.
    Dead,
    /// The end of a transaction that is not whole: its events by the rank of their table.
    End(End),
    /// The transaction has left, or leaves in parts; known until this instant.
    Done { until: Micros },
}

/// Under what it is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Key {
    Waiting(Lane, u64),
    Transaction(Arc<str>),
}

/// Events that leave, with the rank of their table.
type Released = Vec<(u16, Stamped<ChangeEvent>)>;

/// Where it is kept.
pub(super) trait Keep {
    fn get(&mut self, key: &Key) -> Result<Kept>;
    fn put(&mut self, key: &Key, kept: Kept) -> Result<()>;
}

/// What arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Arrival {
    Event(u16, Stamped<ChangeEvent>),
    Dead(Lane, u64),
    End(Arc<str>, End),
}

/// The end of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// Where it stood in its topic: transactions end in this order.
    pub(super) offset: u64,
    /// Its events, by the rank of their table.
    pub(super) counts: Vec<(u16, u64)>,
}

/// What an epoch came to, beside the events that leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) whole: u64,
    pub(super) in_parts: u64,
}

/// What stands in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Free,
    Of(Arc<str>),
    Dead,
}

/// A transaction that has not left.
#[derive(Default)]
struct Open {
    /// The numbers of its events, by table: a repeated event is one.
    orders: BTreeMap<u16, BTreeSet<u64>>,
    events: u64,
    end: Option<End>,
}

/// All that waits.
pub(super) struct Ledger {
    settings: TransactionSettings,
    lanes: BTreeMap<Lane, VecDeque<(u64, Item)>>,
    open: BTreeMap<Arc<str>, Open>,
    waiting: u64,
}

impl Ledger {
    /// One in which nothing waits.
    pub(super) fn new(settings: TransactionSettings) -> Ledger {
        Ledger { settings, lanes: BTreeMap::new(), open: BTreeMap::new(), waiting: 0 }
    }

    /// Takes in what a checkpoint kept, in the order of its keys.
    ///
    /// # Errors
    /// When what is kept can not be read.
    pub(super) fn restore(&mut self, keep: &mut dyn Keep, key: Key, kept: &Kept) -> Result<()> {
        match (key, kept) {
            (Key::Waiting(lane, offset), Kept::Event(event)) => {
                let item = self.item(keep, lane.0, event)?;
                self.push(lane, offset, item);
            }
            (Key::Waiting(lane, offset), _) => self.push(lane, offset, Item::Dead),
            (Key::Transaction(id), Kept::End(end)) => self.open.entry(id).or_default().end = Some(end.clone()),
            (Key::Transaction(_), _) => {}
        }
        Ok(())
    }

    /// Takes in what an epoch brought and lets go what may leave, by table; `clock` is the epoch's.
    ///
    /// # Errors
    /// When a transaction is too large and the settings say so, too much waits, or what is kept can not be read or written.
    pub(super) fn epoch(
        &mut self,
        keep: &mut dyn Keep,
        clock: Micros,
        mut arrivals: Vec<Arrival>,
    ) -> Result<(Released, Counts)> {
        arrivals.sort_by_key(rank);
        let mut counts = Counts::default();
        let mut fresh: BTreeMap<(Lane, u64), Option<Stamped<ChangeEvent>>> = BTreeMap::new();
        let done = Kept::Done { until: clock.plus(DONE_KEPT_US) };
        for arrival in arrivals {
            match arrival {
                Arrival::End(id, end) => self.end(keep, id, end)?,
                Arrival::Dead(lane, offset) => {
                    self.push(lane, offset, Item::Dead);
                    fresh.insert((lane, offset), None);
                }
                Arrival::Event(table, event) => {
                    let (lane, offset) = ((table, event.position.partition.index), event.position.offset);
                    let item = self.item(keep, table, &event)?;
                    if let Item::Of(id) = &item {
                        self.bound(keep, &id.clone(), &done, &mut counts)?;
                    }
                    self.push(lane, offset, item);
                    fresh.insert((lane, offset), Some(event));
                }
            }
        }
        let (leaving, dead) = self.leaving();
        counts.whole += leaving.len() as u64;
        for id in leaving {
            self.open.remove(&id);
            keep.put(&Key::Transaction(id), done.clone())?;
        }
        let out = self.let_go(keep, dead, &mut fresh)?;
        for ((lane, offset), event) in fresh {
            keep.put(&Key::Waiting(lane, offset), event.map_or(Kept::Dead, Kept::Event))?;
        }
        if self.waiting > WAITING_MAX {
            let open = self.open.keys().next().map_or("none", |id| id);
            let what = format!("keeping transactions whole: {} events wait; one of transaction '{open}'", self.waiting);
            return Err(Error::outside(what).hint(
                "the transaction topic lacks its end: look whether the connector writes it, or read without that topic",
            ));
        }
        Ok((out, counts))
    }

    fn end(&mut self, keep: &mut dyn Keep, id: Arc<str>, end: End) -> Result<()> {
        let key = Key::Transaction(id.clone());
        if end.counts.is_empty() || matches!(keep.get(&key)?, Kept::Done { .. }) {
            return Ok(()); // of other tables, or told again
        }
        keep.put(&key, Kept::End(end.clone()))?;
        self.open.entry(id).or_default().end = Some(end);
        Ok(())
    }

    /// Where an event stands: nothing waits for one of a transaction that has left already.
    fn item(&mut self, keep: &mut dyn Keep, table: u16, event: &Stamped<ChangeEvent>) -> Result<Item> {
        let Some(transaction) = transaction(&event.data) else { return Ok(Item::Free) };
        if !self.open.contains_key(&*transaction.id)
            && matches!(keep.get(&Key::Transaction((*transaction.id).into()))?, Kept::Done { .. })
        {
            return Ok(Item::Free);
        }
        Ok(self.note(table, event).map_or(Item::Free, Item::Of))
    }

    /// Counts an event for its transaction.
    fn note(&mut self, table: u16, event: &Stamped<ChangeEvent>) -> Option<Arc<str>> {
        let Transaction { id, table_order, .. } = transaction(&event.data)?;
        let id: Arc<str> = (**id).into();
        let open = self.open.entry(id.clone()).or_default();
        open.events += u64::from(open.orders.entry(table).or_default().insert(*table_order));
        Some(id)
    }

    /// Lets a transaction leave in parts, or refuses it, when more of it waits than may.
    fn bound(&mut self, keep: &mut dyn Keep, id: &Arc<str>, done: &Kept, counts: &mut Counts) -> Result<()> {
        let max = self.settings.max_records;
        if self.open.get(id).is_none_or(|open| open.events <= max) {
            return Ok(());
        }
        if self.settings.on_large == OnLarge::Stop {
            return Err(Error::outside(format!("keeping transaction '{id}' whole: it has more than {max} events"))
                .hint(
                    "allow more with 'transaction_max_records', or parts of it with 'transaction_on_large = \"parts\"'",
                ));
        }
        tracing::warn!(
            transaction = &**id,
            max,
            "a transaction has more events than wait for its end; it is applied in parts"
        );
        self.open.remove(id);
        counts.in_parts += 1;
        keep.put(&Key::Transaction(id.clone()), done.clone())
    }

    fn push(&mut self, lane: Lane, offset: u64, item: Item) {
        self.waiting += 1;
        self.lanes.entry(lane).or_default().push_back((offset, item));
    }

    /// The transactions that leave: whole, and behind nothing that stays. And what becomes of dead letters.
    fn leaving(&self) -> (BTreeSet<Arc<str>>, DeadLetters) {
        let ended: BTreeMap<(u64, &Arc<str>), (&Open, &End)> = self
            .open
            .iter()
            .filter_map(|(id, open)| open.end.as_ref().map(|end| ((end.offset, id), (open, end))))
            .collect();
        if ended.is_empty() {
            return Default::default();
        }
        let mut leaving: BTreeSet<Arc<str>> = ended.keys().map(|(_, id)| (*id).clone()).collect();
        loop {
            let mut staying = BTreeSet::new();
            let mut room = BTreeMap::new();
            for ((table, _), lane) in &self.lanes {
                *room.entry(*table).or_default() += self.look_through(lane, &leaving, &mut staying);
            }
            let mut dead = DeadLetters::default();
            for ((_, id), (open, end)) in &ended {
                let is_whole = end.counts.iter().fold(true, |is_whole, (table, count)| {
                    let has = open.orders.get(table).map_or(0, |orders| orders.len() as u64);
                    let lacks = count.saturating_sub(has);
                    let room = room.entry(*table).or_default();
                    let is_found = lacks <= *room;
                    // Those that end later get none of what this one waits for.
                    *room = if is_found { *room - lacks } else { 0 };
                    let of = if leaving.contains(*id) { &mut dead.taken } else { &mut dead.kept };
                    *of.entry(*table).or_default() += lacks;
                    is_whole && is_found
                });
                staying.extend((!is_whole).then(|| (*id).clone()));
            }
            let before = leaving.len();
            leaving.retain(|id| !staying.contains(id));
            if leaving.len() == before {
                return (leaving, dead);
            }
        }
    }

    /// Goes through a lane until something stays: transactions behind it stay too. How many dead letters stand before it.
    fn look_through(
        &self,
        lane: &VecDeque<(u64, Item)>,
        leaving: &BTreeSet<Arc<str>>,
        staying: &mut BTreeSet<Arc<str>>,
    ) -> u64 {
        let (mut is_blocked, mut dead) = (false, 0);
        for (_, item) in lane {
            match item {
                Item::Dead => dead += u64::from(!is_blocked),
                Item::Of(id) if is_blocked => _ = staying.insert(id.clone()),
                Item::Of(id) => is_blocked = self.open.contains_key(id) && !leaving.contains(id),
                Item::Free => {}
            }
        }
        dead
    }

    /// Takes from each lane what may leave.
    fn let_go(
        &mut self,
        keep: &mut dyn Keep,
        mut dead: DeadLetters,
        fresh: &mut BTreeMap<(Lane, u64), Option<Stamped<ChangeEvent>>>,
    ) -> Result<Released> {
        let mut out = Vec::new();
        for (lane, items) in &mut self.lanes {
            let stays = |item: &Item| matches!(item, Item::Of(id) if self.open.contains_key(id));
            let free = items.iter().position(|(_, item)| stays(item)).unwrap_or(items.len());
            let last = items.range(..free).rposition(|(_, item)| matches!(item, Item::Of(_)));
            let is_waited_for = dead.kept.get(&lane.0).is_some_and(|count| *count > 0);
            let taken = dead.taken.entry(lane.0).or_default();
            let mut kept_dead = Vec::new();
            for (at, (offset, item)) in items.drain(..free).enumerate() {
                let is_of_none = !is_waited_for && last.is_some_and(|last| at < last);
                if item == Item::Dead && *taken == 0 && !is_of_none {
                    kept_dead.push((offset, item));
                    continue;
                }
                *taken -= u64::from(item == Item::Dead && *taken > 0);
                self.waiting -= 1;
                let key = Key::Waiting(*lane, offset);
                let event = match fresh.remove(&(*lane, offset)) {
                    Some(event) => event,
                    None => {
                        let kept = keep.get(&key)?;
                        keep.put(&key, Kept::Nothing)?;
                        if let Kept::Event(event) = kept { Some(event) } else { None }
                    }
                };
                out.extend(event.map(|event| (lane.0, event)));
            }
            kept_dead.into_iter().rev().for_each(|dead| items.push_front(dead));
        }
        self.lanes.retain(|_, items| !items.is_empty());
        Ok(out)
    }
}

/// Dead letters that stand for events, by table: of transactions that leave, and of those that have ended and stay.
#[derive(Default)]
struct DeadLetters {
    taken: BTreeMap<u16, u64>,
    kept: BTreeMap<u16, u64>,
}

/// The order in which an epoch's arrivals are taken.
fn rank(arrival: &Arrival) -> (u8, Lane, u64) {
    match arrival {
        Arrival::End(_, end) => (0, (0, 0), end.offset),
        Arrival::Event(table, event) => (1, (*table, event.position.partition.index), event.position.offset),
        Arrival::Dead(lane, offset) => (1, *lane, *offset),
    }
}

fn transaction(event: &ChangeEvent) -> Option<&Transaction> {
    match event {
        ChangeEvent::Change(change) => change.transaction.as_ref(),
        ChangeEvent::Truncate { transaction, .. } => transaction.as_ref(),
        ChangeEvent::Ignored(_) => None,
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
