//! The operators of views against naive computations, over random changes: after every epoch, with one worker and with two.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use dataflow_core::{Epoch, Micros, Row};
use dataflow_operators::table_row;
use dataflow_operators::view::{EpochClock, TableRow, View};
use differential_dataflow::AsCollection;
use proptest::prelude::*;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::vec::Input;
use timely::dataflow::{InputHandleVec, StreamVec};

/// The length of the temporal filter, in clock values as small as the others here.
const LENGTH: i64 = 10;
/// Rows of the top: few, so that there are ties at its edge.
const TOP: usize = 3;

table_row! {
    /// A fact, as often as it is there.
    struct Fact("facts") {
        key: Option<i64>,
        value: i64,
    }
}

table_row! {
    /// A fact with what the dimension says of its key.
    struct Joined("joined") {
        key: Option<i64>,
        value: i64,
        name: Option<i64>,
    }
}

table_row! {
    /// What the facts of a key come to.
    struct Total("totals", key: key) {
        key: Option<i64>,
        sum: i64,
        rows: i64,
        greatest: i64,
        distinct: i64,
    }
}

table_row! {
    /// A fact of the top.
    struct Ranked("ranked", key: rank) {
        rank: i32,
        key: Option<i64>,
        value: i64,
    }
}

/// What happens in an epoch.
#[derive(Clone, Debug, Default)]
struct Step {
    /// Facts that come (true) or go; one that is not there does not go.
    facts: Vec<((Option<i64>, i64), bool)>,
    /// New names of keys, or none.
    names: Vec<(i64, Option<i64>)>,
    /// How far the clock goes.
    clock: i64,
}

/// The changes of an epoch, and its clock.
#[derive(Clone, Debug, Default)]
struct Changes {
    facts: Vec<(Fact, isize)>,
    names: Vec<((i64, i64), isize)>,
    clock: i64,
}

type Facts = BTreeMap<Fact, isize>;
type Names = BTreeMap<i64, i64>;
/// Rows of each view, with their counts.
type Contents = BTreeMap<&'static str, BTreeMap<Row, isize>>;
/// The batches of each view.
type Batches = BTreeMap<&'static str, Vec<(Epoch, Vec<(Row, isize)>)>>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || prop_oneof![1 => Just(None), 6 => (0..6_i64).prop_map(Some)];
    let fact = ((key(), 0..30_i64), prop::bool::weighted(0.6));
    let name = (0..6_i64, prop::option::of(0..4_i64));
    let step = (prop::collection::vec(fact, 0..12), prop::collection::vec(name, 0..4), 0..8_i64)
        .prop_map(|(facts, names, clock)| Step { facts, names, clock });
    prop::collection::vec(step, 1..8)
}

/// The changes of each epoch, and what there is after it.
fn fold(steps: &[Step]) -> Vec<(Changes, Facts, Names)> {
    let (mut facts, mut names, mut clock) = (Facts::new(), Names::new(), 0);
    let mut epochs = Vec::new();
    for step in steps {
        clock += step.clock;
        let mut changes = Changes { clock, ..Changes::default() };
        for ((key, value), comes) in &step.facts {
            let fact = Fact { key: *key, value: *value };
            let count = facts.entry(fact.clone()).or_default();
            if *comes || *count > 0 {
                let diff = if *comes { 1 } else { -1 };
                *count += diff;
                changes.facts.push((fact, diff));
            }
        }
        facts.retain(|_, count| *count > 0);
        for (key, name) in &step.names {
            let old = names.remove(key);
            changes.names.extend(old.map(|old| ((*key, old), -1)));
            changes.names.extend(name.map(|name| ((*key, name), 1)));
            names.extend(name.map(|name| (*key, name)));
        }
        epochs.push((changes, facts.clone(), names.clone()));
    }
    epochs
}

fn naive(facts: &Facts, names: &Names, now: i64) -> Contents {
    let mut contents = Contents::new();
    let mut put = |table: &'static str, row: Row, count: isize| {
        *contents.entry(table).or_default().entry(row).or_default() += count;
    };
    for (fact, count) in facts {
        let name = fact.key.and_then(|key| names.get(&key).copied());
        let joined = Joined { key: fact.key, value: fact.value, name }.into_row();
        if name.is_some() {
            put("join", joined.clone(), *count);
        }
        put("left_join", joined, *count);
        if now - LENGTH < fact.value && fact.value <= now {
            put("within_last", fact.clone().into_row(), *count);
        }
    }
    let each = || facts.iter().flat_map(|(fact, count)| std::iter::repeat_n(fact, *count as usize));
    let mut top: Vec<&Fact> = each().collect();
    top.sort_by_key(|fact| (Reverse(fact.value), *fact));
    for (rank, fact) in (1..).zip(top.into_iter().take(TOP)) {
        put("top_k", Ranked { rank, key: fact.key, value: fact.value }.into_row(), 1);
    }
    let mut groups: BTreeMap<Option<i64>, Vec<i64>> = BTreeMap::new();
    each().for_each(|fact| groups.entry(fact.key).or_default().push(fact.value));
    for (key, values) in groups {
        let (sum, rows) = (values.iter().sum(), values.len() as i64);
        put("group", Total { key, sum, rows, greatest: 0, distinct: 0 }.into_row(), 1);
        let greatest = *values.iter().max().unwrap();
        let distinct = values.iter().collect::<std::collections::BTreeSet<_>>().len() as i64;
        put("fold", Total { key, sum, rows, greatest, distinct }.into_row(), 1);
        put("distinct", Total { key, sum: 0, rows: distinct, greatest: 0, distinct: 0 }.into_row(), 1);
    }
    contents
}

fn record<R: TableRow + Clone>(table: &'static str, view: View<'_, R>, said: &Rc<RefCell<Batches>>) {
    let said = said.clone();
    view.changes().inspect_core(move |event| {
        if let Ok((stamp, batch)) = event {
            said.borrow_mut().entry(table).or_default().push((*stamp.least().unwrap(), batch.to_vec()));
        }
    });
}

fn views<'s>(
    facts: &View<'s, Fact>,
    names: &View<'s, (i64, i64)>,
    clock: &EpochClock<'s>,
    said: &Rc<RefCell<Batches>>,
) {
    let index = names.index(|entry| entry);
    let joined = |fact: &Fact, name: Option<&i64>| Joined { key: fact.key, value: fact.value, name: name.copied() };
    let total = |key: &Option<i64>| Total { key: *key, sum: 0, rows: 0, greatest: 0, distinct: 0 };
    record("join", facts.join(|fact| fact.key, &index, move |fact, name| joined(fact, Some(name))), said);
    record("left_join", facts.left_join(|fact| fact.key, &index, joined), said);
    record("within_last", facts.within_last(LENGTH, clock, |fact| Some((Micros(fact.value), fact))), said);
    let ranked = |rank, fact: &Fact| Ranked { rank, key: fact.key, value: fact.value };
    record("top_k", facts.top_k(TOP, |fact| Reverse(fact.value), ranked), said);
    let sums = facts.group(
        |fact| fact.key,
        |fact| [fact.value.into()],
        move |key, sums| Total { sum: sums.of[0] as i64, rows: sums.rows, ..total(key) },
    );
    record("group", sums, said);
    let counts =
        facts.distinct().group(|fact| fact.key, |_| [], move |key, sums| Total { rows: sums.rows, ..total(key) });
    record("distinct", counts, said);
    let folded = facts.fold(
        |fact| (fact.key, fact.value),
        |key, values| Total {
            key: *key,
            sum: values.iter().map(|(value, count)| **value * *count as i64).sum(),
            rows: values.iter().map(|(_, count)| *count as i64).sum(),
            greatest: values.last().map_or(0, |(value, _)| **value),
            distinct: values.len() as i64,
        },
    );
    record("fold", folded, said);
}

fn run(epochs: &[Changes], workers: usize) -> Batches {
    let epochs = epochs.to_vec();
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let mut facts = InputHandleVec::<Epoch, (Fact, Epoch, isize)>::new();
        let mut names = InputHandleVec::<Epoch, ((i64, i64), Epoch, isize)>::new();
        let mut clock = InputHandleVec::<Epoch, (Epoch, Micros)>::new();
        let said = Rc::new(RefCell::new(Batches::new()));
        worker.dataflow::<Epoch, _, _>(|scope| {
            let facts = View::new("facts", scope.input_from(&mut facts).as_collection());
            let names = View::new("names", scope.input_from(&mut names).as_collection());
            let clock: StreamVec<'_, _, _> = scope.input_from(&mut clock);
            views(&facts, &names, &clock, &said);
        });
        for (epoch, changes) in (0..).zip(&epochs) {
            clock.send((epoch, Micros(changes.clock)));
            let mine = |at: &usize| at % peers == index;
            for (_, (fact, diff)) in changes.facts.iter().enumerate().filter(|(at, _)| mine(at)) {
                facts.send((fact.clone(), epoch, *diff));
            }
            for (_, (entry, diff)) in changes.names.iter().enumerate().filter(|(at, _)| mine(at)) {
                names.send((*entry, epoch, *diff));
            }
            facts.advance_to(epoch + 1);
            names.advance_to(epoch + 1);
            clock.advance_to(epoch + 1);
            worker.step();
        }
        drop((facts, names, clock));
        while worker.step_or_park(None) {}
        said.take()
    });
    let mut said = guards.unwrap().join().into_iter().map(|said| said.unwrap());
    let first = said.next().unwrap();
    assert!(said.all(|other| other.is_empty()), "worker 0 says all");
    first
}

fn check(steps: &[Step]) {
    let folded = fold(steps);
    let changes: Vec<Changes> = folded.iter().map(|(changes, ..)| changes.clone()).collect();
    let said = run(&changes, 1);
    let mut held = Contents::new();
    for (epoch, (changes, facts, names)) in (0..).zip(&folded) {
        for (table, batches) in &said {
            let mut of_epoch = batches.iter().filter(|(at, _)| *at == epoch);
            let rows = held.entry(*table).or_default();
            for (row, diff) in of_epoch.next().into_iter().flat_map(|(_, batch)| batch) {
                *rows.entry(row.clone()).or_default() += diff;
            }
            rows.retain(|_, count| *count != 0);
            assert_eq!(of_epoch.next(), None, "{table}: one batch an epoch");
        }
        held.retain(|_, rows| !rows.is_empty());
        assert_eq!(held, naive(facts, names, changes.clock), "after epoch {epoch} of {steps:#?}");
    }
    assert_eq!(run(&changes, 2), said, "two workers say something else: {steps:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn views_are_what_a_batch_computes(steps in steps()) {
        check(&steps);
    }
}

/// Enough rows that parts of the top hold several.
#[test]
fn the_top_of_many() {
    let come = (0..20_000_i64).map(|n| ((Some(n % 977), n * 7_919 % 5_000), true)).collect();
    let go = (0..20_000_i64).filter(|n| n * 7_919 % 5_000 > 4_990).map(|n| ((Some(n % 977), n * 7_919 % 5_000), false));
    check(&[Step { facts: come, ..Step::default() }, Step { facts: go.collect(), ..Step::default() }]);
}
