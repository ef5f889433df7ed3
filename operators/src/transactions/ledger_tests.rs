//! The ledger against a naive reading of the same log, in random epochs, with repeats and restarts.

use super::*;
use dataflow_core::change::{Change, Op};
use dataflow_core::{Datum, Partition, Position, SourceId};
use proptest::prelude::*;

const TABLES: u16 = 3;

#[derive(Clone, Default)]
struct Kepts(BTreeMap<Key, Kept>);

impl Keep for Kepts {
    fn get(&mut self, key: &Key) -> Result<Kept> {
        Ok(self.0.get(key).cloned().unwrap_or_default())
    }

    fn put(&mut self, key: &Key, kept: Kept) -> Result<()> {
        self.0.insert(key.clone(), kept);
        Ok(())
    }
}

/// What the connector sends, in its order.
#[derive(Clone, Debug, PartialEq)]
enum Sent {
    /// Of no transaction.
    Free(u16),
    Event {
        table: u16,
        transaction: usize,
        table_order: u64,
        is_dead: bool,
    },
    End(usize, Vec<(u16, u64)>),
}

/// What a topic has: an event of the log by its rank, or the end of a transaction.
struct Topics {
    tables: Vec<Vec<Arrival>>,
    ends: Vec<Arrival>,
}

fn id(transaction: usize) -> Arc<str> {
    transaction.to_string().into()
}

fn event(table: u16, offset: u64, of: Option<(usize, u64)>) -> Stamped<ChangeEvent> {
    let partition = Partition { source: SourceId(table), index: 0 };
    let transaction =
        of.map(|(of, table_order)| Transaction { id: of.to_string().into(), order: table_order, table_order });
    let key: dataflow_core::Row = [Datum::Long(offset as i64)].into_iter().collect();
    let (row, position, unavailable, replaces) = (Some(key.clone()), None, Vec::new(), None);
    let change = Change { op: Op::Update, position, key, row, unavailable, replaces, transaction };
    Stamped { time: Micros(0), position: Position { partition, offset }, data: ChangeEvent::Change(change) }
}

fn topics(log: &[Sent]) -> Topics {
    let mut topics = Topics { tables: vec![Vec::new(); usize::from(TABLES)], ends: Vec::new() };
    for sent in log {
        let mut put = |table: u16, of, is_dead: bool| {
            let topic = &mut topics.tables[usize::from(table)];
            let offset = topic.len() as u64;
            topic.push(if is_dead {
                Arrival::Dead((table, 0), offset)
            } else {
                Arrival::Event(table, event(table, offset, of))
            });
        };
        match sent {
            Sent::Free(table) => put(*table, None, false),
            Sent::Event { table, transaction, table_order, is_dead } => {
                put(*table, Some((*transaction, *table_order)), *is_dead);
            }
            Sent::End(transaction, counts) => {
                let offset = topics.ends.len() as u64;
                topics.ends.push(Arrival::End(id(*transaction), End { offset, counts: counts.clone() }));
            }
        }
    }
    topics
}

/// Transactions in commit order, each with the tables of its events (dead letters among them), and events of none between.
fn log() -> impl Strategy<Value = Vec<Sent>> {
    let of_one = proptest::collection::vec((0..TABLES, proptest::bool::weighted(0.05)), 0..6);
    let one = (of_one, proptest::option::of(0..TABLES));
    proptest::collection::vec(one, 1..12).prop_map(|transactions| {
        let mut log = Vec::new();
        for (transaction, (events, free)) in transactions.into_iter().enumerate() {
            let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
            for (table, is_dead) in events {
                let table_order = counts.entry(table).or_default();
                *table_order += 1;
                log.push(Sent::Event { table, transaction, table_order: *table_order, is_dead });
            }
            log.push(Sent::End(transaction, counts.into_iter().collect()));
            log.extend(free.map(Sent::Free));
        }
        log
    })
}

/// The log with the connector started again: after some of it, it sends again what it had sent last.
fn repeated(log: &[Sent], restarts: &[(usize, usize)]) -> Vec<Sent> {
    let mut sent = Vec::new();
    for (at, item) in log.iter().enumerate() {
        sent.push(item.clone());
        for (_, back) in restarts.iter().filter(|(after, _)| after % log.len() == at) {
            sent.extend(log[(at + 1).saturating_sub(*back)..=at].iter().cloned());
        }
    }
    sent
}

/// How much each epoch reads of each topic, and whether the job ends after it and begins again from a checkpoint so many epochs back.
type Epochs = Vec<([usize; TABLES as usize + 1], Option<usize>)>;

fn epochs() -> impl Strategy<Value = Epochs> {
    let pace = prop_oneof![Just(0_usize), 0..3_usize, 0..10_usize];
    let paces = [pace.clone(), pace.clone(), pace.clone(), pace];
    proptest::collection::vec((paces, proptest::option::weighted(0.2, 1..4_usize)), 1..20)
}

/// What left in each epoch: the ranks in their topics.
type Left = Vec<Vec<(u16, u64)>>;

/// Reads all topics in these epochs and then to their ends.
fn run(topics: &Topics, epochs: &Epochs, settings: TransactionSettings) -> (Left, Vec<[usize; TABLES as usize + 1]>) {
    let mut ledger = Ledger::new(settings);
    let mut kept = vec![Kepts::default()];
    let (mut ends, mut left): (Vec<[usize; 4]>, Left) = (vec![[0; 4]], Vec::new());
    let all = [topics.tables[0].len(), topics.tables[1].len(), topics.tables[2].len(), topics.ends.len()];
    let to_the_end = [(all, None)];
    for (paces, dies) in epochs.iter().chain(&to_the_end) {
        let from = ends[ends.len() - 1];
        let to: [usize; 4] = std::array::from_fn(|at| (from[at] + paces[at]).min(all[at]));
        ends.push(to);
        let epoch = ends.len() - 2;
        let (next, out) = one(&mut ledger, kept[epoch].clone(), topics, &ends, epoch);
        kept.push(next);
        left.push(out);
        let Some(back) = dies else { continue };
        let restored = ends.len().saturating_sub(1 + back);
        ledger = Ledger::new(settings);
        let mut keep = kept[restored].clone();
        for (key, value) in kept[restored].0.iter().filter(|(_, value)| **value != Kept::Nothing) {
            ledger.restore(&mut keep, key.clone(), value).unwrap();
        }
        for epoch in restored..left.len() {
            let (next, out) = one(&mut ledger, kept[epoch].clone(), topics, &ends, epoch);
            assert_eq!(out, left[epoch], "a replay says the same");
            assert_eq!(next.0, kept[epoch + 1].0, "and keeps the same");
        }
    }
    (left, ends)
}

fn one(
    ledger: &mut Ledger,
    mut kept: Kepts,
    topics: &Topics,
    ends: &[[usize; 4]],
    epoch: usize,
) -> (Kepts, Vec<(u16, u64)>) {
    let (from, to) = (ends[epoch], ends[epoch + 1]);
    let mut arrivals: Vec<Arrival> = topics.ends[from[3]..to[3]].to_vec();
    for (table, topic) in topics.tables.iter().enumerate() {
        arrivals.extend_from_slice(&topic[from[table]..to[table]]);
    }
    // Workers bring them in any order.
    let middle = arrivals.len() / 2;
    arrivals.rotate_left(middle);
    let (out, _) = ledger.epoch(&mut kept, Micros(0), arrivals).unwrap();
    (kept, out.into_iter().map(|(table, event)| (table, event.position.offset)).collect())
}

const WHOLE: TransactionSettings = TransactionSettings { max_records: 1_000, on_large: OnLarge::Stop };

/// All events that are no dead letters left once, in the order of their topics, and no epoch shows a part of a transaction.
fn check(log: &[Sent], topics: &Topics, left: &Left) {
    let mut by_table: Vec<Vec<u64>> = vec![Vec::new(); usize::from(TABLES)];
    let mut shown: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (epoch, events) in left.iter().enumerate() {
        for (table, offset) in events {
            by_table[usize::from(*table)].push(*offset);
            if let Arrival::Event(_, event) = &topics.tables[usize::from(*table)][*offset as usize]
                && let Some(of) = transaction(&event.data)
            {
                shown.entry(format!("{} {table} {}", of.id, of.table_order)).or_default().insert(epoch);
            }
        }
    }
    for (topic, left) in topics.tables.iter().zip(by_table) {
        let living = topic.iter().filter_map(|arrival| match arrival {
            Arrival::Event(_, event) => Some(event.position.offset),
            _ => None,
        });
        assert_eq!(left, living.collect::<Vec<_>>());
    }
    for transaction in
        log.iter().filter_map(|sent| if let Sent::End(id, _) = sent { Some(id.to_string()) } else { None })
    {
        let events = shown.iter().filter(|(event, _)| event.split(' ').next() == Some(&transaction));
        let first: BTreeSet<usize> = events.filter_map(|(_, epochs)| epochs.first().copied()).collect();
        assert!(first.len() <= 1, "transaction {transaction} is shown in epochs {first:?}");
    }
}

/// The naive reading, of a log without repeats: the transactions that are read whole, from the first on, and what is read of no
/// transaction in front of the first that is not.
fn naive(log: &[Sent], ends: &[usize; 4]) -> Vec<(u16, u64)> {
    let mut at = [0_usize; 4];
    let mut is_read: Vec<bool> = Vec::new();
    for sent in log {
        let topic = match sent {
            Sent::Free(table) | Sent::Event { table, .. } => usize::from(*table),
            Sent::End(..) => 3,
        };
        is_read.push(at[topic] < ends[topic]);
        at[topic] += 1;
    }
    let is_whole = |transaction: usize| {
        log.iter().zip(&is_read).all(|(sent, is_read)| match sent {
            Sent::Event { transaction: of, .. } | Sent::End(of, _) if *of == transaction => *is_read,
            _ => true,
        })
    };
    let (mut visible, mut offsets) = (Vec::new(), [0_u64; 3]);
    let mut is_blocked = [false; 3];
    // A transaction that is not whole holds up its tables, and so the transactions after it that share one.
    let mut stays: BTreeSet<usize> = BTreeSet::new();
    let transactions = log.iter().filter_map(|sent| if let Sent::End(of, _) = sent { Some(*of) } else { None });
    let tables_of = |transaction: usize, with_dead: bool| {
        log.iter().filter_map(move |sent| match sent {
            Sent::Event { table, transaction: of, is_dead, .. } if *of == transaction && (with_dead || !is_dead) => {
                Some(usize::from(*table))
            }
            _ => None,
        })
    };
    for transaction in transactions {
        if !is_whole(transaction) || tables_of(transaction, true).any(|table| is_blocked[table]) {
            stays.insert(transaction);
            tables_of(transaction, false).for_each(|table| is_blocked[table] = true);
        }
    }
    let mut is_blocked = [false; 3];
    for (sent, is_read) in log.iter().zip(is_read) {
        let (table, stays, is_dead) = match sent {
            Sent::Free(table) => (*table, false, false),
            Sent::Event { table, transaction, is_dead, .. } => (*table, stays.contains(transaction), *is_dead),
            Sent::End(..) => continue,
        };
        let offset = &mut offsets[usize::from(table)];
        *offset += 1;
        is_blocked[usize::from(table)] |= stays && is_read && !is_dead;
        if is_read && !is_dead && !is_blocked[usize::from(table)] {
            visible.push((table, *offset - 1));
        }
    }
    visible.sort_unstable();
    visible
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_epoch_shows_what_a_naive_reading_does(log in log(), epochs in epochs()) {
        let topics = topics(&log);
        let (left, ends) = run(&topics, &epochs, WHOLE);
        check(&log, &topics, &left);
        let mut so_far: Vec<(u16, u64)> = Vec::new();
        for (epoch, events) in left.iter().enumerate() {
            so_far.extend(events);
            so_far.sort_unstable();
            prop_assert_eq!(&so_far, &naive(&log, &ends[epoch + 1]), "epoch {}", epoch);
        }
    }

    #[test]
    fn repeats_change_nothing(
        log in log(),
        restarts in proptest::collection::vec((any::<usize>(), 1..15_usize), 1..4),
        epochs in epochs(),
    ) {
        // A dead letter says nothing that a repeated one could be told by.
        let mut log = log;
        log.iter_mut().for_each(|sent| if let Sent::Event { is_dead, .. } = sent { *is_dead = false });
        let sent = repeated(&log, &restarts);
        let topics = topics(&sent);
        let (left, _) = run(&topics, &epochs, WHOLE);
        check(&log, &topics, &left);
    }
}

fn end(transaction: usize, counts: &[(u16, u64)]) -> Arrival {
    Arrival::End(id(transaction), End { offset: transaction as u64, counts: counts.to_vec() })
}

fn all_at_once(events: u64, settings: TransactionSettings) -> Result<(usize, Counts)> {
    let arrivals = (0..events).map(|offset| Arrival::Event(0, event(0, offset, Some((7, offset + 1)))));
    let (out, counts) = Ledger::new(settings).epoch(&mut Kepts::default(), Micros(0), arrivals.collect())?;
    Ok((out.len(), counts))
}

#[test]
fn a_large_transaction_is_applied_in_parts_or_stops() {
    let settings = |on_large| TransactionSettings { max_records: 3, on_large };
    assert_eq!(all_at_once(3, settings(OnLarge::Parts)).unwrap(), (0, Counts::default()));
    assert_eq!(all_at_once(5, settings(OnLarge::Parts)).unwrap(), (5, Counts { whole: 0, in_parts: 1 }));
    let said = all_at_once(4, settings(OnLarge::Stop)).unwrap_err().to_string();
    assert!(said.contains("'7'") && said.contains("more than 3 events"), "{said}");
}

#[test]
fn the_rest_of_a_large_transaction_comes_as_it_is_read() {
    let settings = TransactionSettings { max_records: 2, on_large: OnLarge::Parts };
    let (mut ledger, mut kept) = (Ledger::new(settings), Kepts::default());
    let mut epoch = |arrivals| ledger.epoch(&mut kept, Micros(0), arrivals).unwrap();
    let of = |offset: u64| Arrival::Event(0, event(0, offset, Some((7, offset + 1))));
    assert_eq!(epoch(vec![of(0), of(1)]).0.len(), 0);
    assert_eq!(epoch(vec![of(2)]).0.len(), 3);
    assert_eq!(epoch(vec![of(3)]).0.len(), 1);
    let (left, counts) = epoch(vec![end(7, &[(0, 4)]), Arrival::Event(0, event(0, 4, Some((8, 1))))]);
    assert_eq!((left.len(), counts), (0, Counts::default()));
    assert_eq!(epoch(vec![end(8, &[(0, 1)])]).0.len(), 1);
}

#[test]
fn a_dead_letter_takes_its_place() {
    let (mut ledger, mut kept) = (Ledger::new(WHOLE), Kepts::default());
    let mut epoch = |arrivals| {
        let (left, _) = ledger.epoch(&mut kept, Micros(0), arrivals).unwrap();
        left.len()
    };
    // One of two events of table 1 can not be read; the transaction is whole all the same, once.
    assert_eq!(epoch(vec![Arrival::Event(0, event(0, 0, Some((7, 1)))), Arrival::Dead((1, 0), 0)]), 0);
    assert_eq!(epoch(vec![end(7, &[(0, 1), (1, 2)])]), 0);
    assert_eq!(epoch(vec![Arrival::Event(1, event(1, 1, Some((7, 2))))]), 2);
    // It does not stand for an event of the next one.
    assert_eq!(epoch(vec![Arrival::Event(0, event(0, 1, Some((8, 1)))), end(8, &[(0, 1), (1, 1)])]), 0);
    assert_eq!(epoch(vec![Arrival::Event(1, event(1, 2, Some((8, 1))))]), 2);
}
