//! The state of a key against a naive recomputation of everything, over generated lives of a key: disorder within and across epochs,
//! duplicates, watermarks, both emissions, restarts, expiry, a program that changes.
//!
//! The life is driven as the operator drives it. After every epoch what it said is compared, in order, with the difference between two
//! full judgements, before and after; so what stands at any epoch, raised less withdrawn, is what the definition gives.

use super::*;
use dataflow_core::{Partition, SourceId};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How far back a finding looks.
const WINDOW: i64 = 12;
/// Events without a longer pause between them are one run, of any length: a change reaches to its end.
const PAUSE: i64 = 3;
/// Events of this kind leave no trace in the history: nothing later depends on them, and it does not outlive them.
const TRACELESS: u8 = 4;
/// Lives per run of the test.
const CASES: u32 = 1000;

type Event = Stamped<u8>;

/// What is said of an event: how many runs on, and what the window before it holds, in its order. Kinds divide events into those with no
/// finding, one, or two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Finding {
    about: (Micros, Position),
    number: u8,
    program: u8,
    run: u32,
    window: u64,
}

fn findings(event: &Event, program: u8, run: u32, window: impl Iterator<Item = (Micros, u8)>) -> Vec<Finding> {
    let mix = |hash: u64, (time, kind): (Micros, u8)| {
        (hash.wrapping_mul(31) ^ time.0 as u64).wrapping_mul(31) ^ u64::from(kind)
    };
    let window = window.fold(17, mix);
    (0..event.data % 3).map(|number| Finding { about: event.order(), number, program, run, window }).collect()
}

/// The incremental form of the rules.
#[derive(Clone, Copy, Debug)]
struct Counting {
    program: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct History {
    window: Vec<(Micros, u8)>,
    run: u32,
}

impl Rules for Counting {
    type Event = u8;
    type History = History;
    type Finding = Finding;

    fn key(&self, _: &u8, _: &mut Vec<u8>) -> bool {
        unreachable!("there is one key")
    }
    fn same(&self, one: &u8, other: &u8) -> bool {
        one == other
    }
    fn step(&self, history: &mut History, event: &Event, out: &mut Vec<Finding>) {
        let goes_on = history.window.last().is_some_and(|(last, _)| event.time.since(*last) <= PAUSE);
        let run = if goes_on { history.run + 1 } else { 1 };
        let window = history.window.iter().copied().filter(|(time, _)| event.time.since(*time) <= WINDOW);
        out.extend(findings(event, self.program, run, window));
        if event.data != TRACELESS {
            history.window.retain(|(time, _)| event.time.since(*time) <= WINDOW);
            history.window.push((event.time, event.data));
            history.run = run;
        }
    }
    fn expires(&self, history: &History) -> Micros {
        history.window.last().map_or(Micros(i64::MIN), |(time, _)| time.plus(WINDOW))
    }
    fn about(&self, finding: &Finding) -> (Micros, Position) {
        finding.about
    }
    fn label(&self, _: &Finding) -> &'static str {
        "counted"
    }
    fn event_weight(&self, _: &u8) -> usize {
        1
    }
}

/// The definition, computed anew from everything accepted so far.
#[derive(Clone, Default)]
struct Naive {
    accepted: Vec<Event>,
    /// (watermark, program): from there on this program judges.
    programs: Vec<(Micros, u8)>,
}

impl Naive {
    /// The events that are no duplicates, in order.
    fn distinct(&self) -> Vec<Event> {
        let mut sorted = self.accepted.clone();
        sorted.sort_by_key(Stamped::order);
        let mut seen = BTreeSet::new();
        sorted.retain(|event| seen.insert((event.time, event.data)));
        sorted
    }

    /// What is true of the events below `until`.
    fn judge(&self, until: Option<Micros>) -> Vec<Finding> {
        let events = self.distinct();
        let judge = |event: &Event| {
            let is_earlier = |e: &&Event| e.order() < event.order() && e.data != TRACELESS;
            let mut earlier: Vec<_> = events.iter().filter(is_earlier).map(|e| (e.time, e.data)).collect();
            let window: Vec<_> =
                earlier.iter().copied().filter(|(time, _)| event.time.since(*time) <= WINDOW).collect();
            earlier.push((event.time, event.data));
            let pause = earlier.windows(2).rposition(|pair| pair[1].0.since(pair[0].0) > PAUSE);
            let run = earlier.len() - pause.map_or(0, |at| at + 1);
            let program = self.programs.iter().rev().find(|(from, _)| *from <= event.time).map_or(0, |(_, p)| *p);
            findings(event, program, run as u32, window.into_iter())
        };
        events.iter().take_while(|event| until.is_none_or(|until| event.time < until)).flat_map(judge).collect()
    }
}

/// An event before the watermark at its arrival is known.
#[derive(Clone, Debug)]
struct Draft {
    ahead: i64,
    kind: u8,
    partition: u32,
    rank: u8,
}

/// An epoch of the key.
#[derive(Clone, Debug)]
struct Epoch {
    /// In the order in which they are put in.
    events: Vec<Draft>,
    watermark_step: i64,
    /// Another program judges from now on.
    changes: bool,
    /// The other emission from now on, if nothing is open.
    flips: bool,
    /// The state is stored and loaded again afterwards.
    restarts: bool,
    /// What has expired is dropped afterwards.
    collects: bool,
}

fn lives() -> impl Strategy<Value = (bool, Vec<Epoch>)> {
    let ahead = prop_oneof![4 => 0..4i64, 4 => 0..40i64, 1 => 0..300i64];
    let draft = (ahead, 0..5u8, 0..3u32, any::<u8>()).prop_map(|(ahead, kind, partition, rank)| Draft {
        ahead,
        kind,
        partition,
        rank,
    });
    let events = prop_oneof![2 => Just(0..1usize), 6 => Just(0..6), 1 => Just(0..90)];
    let events = events.prop_flat_map(move |count| prop::collection::vec(draft.clone(), count));
    let step = prop_oneof![5 => Just(0i64), 3 => 0..6i64, 2 => 0..60i64, 1 => 0..600i64];
    let flags = (prop::bool::weighted(0.04), prop::bool::weighted(0.1), prop::bool::weighted(0.3), any::<bool>());
    let epoch = (events, step, flags).prop_map(|(events, watermark_step, (changes, flips, restarts, collects))| {
        Epoch { events, watermark_step, changes, flips, restarts, collects }
    });
    (any::<bool>(), prop::collection::vec(epoch, 1..30))
}

/// What the lives of a run went through: a proof of nothing that never happened.
#[derive(Debug, Default)]
struct Seen {
    withdrawn: usize,
    duplicates: usize,
    replaced: usize,
    rungs_most: usize,
    restarted_with_pending: usize,
    changed_with_pending: usize,
    flipped: usize,
    dropped: usize,
    released: usize,
}

/// The key's state, driven as `keyed_history` drives it.
struct Life {
    state: KeyState<Counting>,
    rules: Counting,
    is_eager: bool,
    naive: Naive,
    /// What was said and not taken back.
    stands: Vec<Finding>,
    watermark: Option<Micros>,
}

/// What an epoch says.
#[derive(Default)]
struct Said {
    distinct: Vec<Event>,
    withdrawn: Vec<Finding>,
    raised: Vec<Finding>,
}

impl Life {
    fn epoch(&mut self, number: usize, epoch: &Epoch, seen: &mut Seen) -> Said {
        let before = self.watermark;
        let after = Micros(before.map_or(0, |w| w.0) + epoch.watermark_step);
        self.watermark = (before.is_some() || epoch.watermark_step > 0).then_some(after);
        let floor = before.unwrap_or(Micros(0));
        let is_open = self.naive.accepted.iter().any(|event| event.time >= floor);
        if epoch.flips && !is_open && before.is_some() {
            self.is_eager = !self.is_eager;
            seen.flipped += 1;
        }
        if epoch.changes {
            self.rules.program += 1;
            self.naive.programs.push((floor, self.rules.program));
            seen.changed_with_pending += usize::from(is_open);
        }
        let events: Vec<Event> = epoch.events.iter().enumerate().map(|(at, d)| event(d, number, at, floor)).collect();
        self.naive.accepted.extend(events.iter().cloned());
        self.work(before, events, epoch.changes, seen)
    }

    /// An epoch's work as `keyed_history::Worker::key` does it.
    fn work(&mut self, before: Option<Micros>, events: Vec<Event>, again: bool, seen: &mut Seen) -> Said {
        let mut said = Said::default();
        let is_due = !self.is_eager && self.state.first_pending().is_some_and(|first| Some(first) < self.watermark);
        if events.is_empty() && !again && !is_due {
            return said; // nobody touches the key
        }
        let (rules, state) = (&self.rules, &mut self.state);
        let mut first = usize::MAX;
        if again || state.is_public() != self.is_eager {
            state.release(rules, before, |_, _| ());
        }
        if again {
            state.forget_judged();
            first = 0;
        }
        for event in events {
            let (inserted, at) = state.insert(rules, event.clone());
            seen.duplicates += usize::from(inserted == Inserted::Duplicate);
            seen.replaced += usize::from(inserted == Inserted::Replaces);
            if inserted != Inserted::Duplicate {
                first = first.min(at);
            }
            if self.is_eager && inserted == Inserted::New {
                said.distinct.push(event);
            }
        }
        if first != usize::MAX {
            state.judge(rules, first, &mut said.withdrawn, &mut said.raised);
        }
        seen.rungs_most = seen.rungs_most.max(state.rungs.len());
        if self.is_eager {
            state.release(rules, self.watermark, |_, _| seen.released += 1);
        } else {
            (said.withdrawn, said.raised) = (Vec::new(), Vec::new());
            state.release(rules, self.watermark, |event, findings| {
                said.distinct.push(event);
                said.raised.extend_from_slice(findings);
                seen.released += 1;
            });
        }
        state.seal(rules, self.is_eager);
        said
    }

    /// What may happen between two epochs.
    fn rest(&mut self, epoch: &Epoch, seen: &mut Seen) {
        if epoch.restarts {
            let mut bytes = Vec::new();
            self.state.encode(&mut bytes);
            self.state = KeyState::decode(&bytes).unwrap();
            seen.restarted_with_pending += usize::from(self.state.first_pending().is_some());
        }
        let is_expired = self.watermark.is_some_and(|watermark| self.state.expires() < watermark);
        if epoch.collects && is_expired && !self.state.is_default() {
            self.state = KeyState::default();
            seen.dropped += 1;
        }
    }
}

fn event(draft: &Draft, epoch: usize, at: usize, floor: Micros) -> Event {
    // Any order between the positions of two epochs, and no position twice.
    let offset = u64::from(draft.rank) << 32 | (epoch as u64) << 16 | at as u64;
    let partition = Partition { source: SourceId(0), index: draft.partition };
    Stamped { time: floor.plus(draft.ahead), position: Position { partition, offset }, data: draft.kind }
}

fn without(these: &[Finding], those: &[Finding]) -> Vec<Finding> {
    these.iter().filter(|f| !those.contains(f)).cloned().collect()
}

fn check(is_eager: bool, epochs: &[Epoch], seen: &mut Seen) -> Result<(), TestCaseError> {
    let rules = Counting { program: 0 };
    let (naive, state) = (Naive::default(), KeyState::default());
    let mut life = Life { state, rules, is_eager, naive, stands: Vec::new(), watermark: None };
    for (number, epoch) in epochs.iter().enumerate() {
        let distinct_before = life.naive.distinct();
        let watermark_before = life.watermark;
        let said = life.epoch(number, epoch, seen);
        let until = if life.is_eager { None } else { Some(life.watermark.unwrap_or(Micros(i64::MIN))) };
        let is_true = life.naive.judge(until);
        prop_assert_eq!(&said.withdrawn, &without(&life.stands, &is_true), "withdrawn in epoch {}", number);
        prop_assert_eq!(&said.raised, &without(&is_true, &life.stands), "raised in epoch {}", number);
        prop_assert!(life.is_eager || said.withdrawn.is_empty());
        seen.withdrawn += said.withdrawn.len();
        life.stands = is_true;

        let mut distinct: Vec<_> = said.distinct.iter().map(|e| (e.time, e.data)).collect();
        let released = |e: &&Event| watermark_before.is_none_or(|w| e.time >= w) && until.is_none_or(|u| e.time < u);
        let mut expected: Vec<_> = life.naive.distinct().iter().filter(released).map(|e| (e.time, e.data)).collect();
        if life.is_eager {
            let known: BTreeSet<_> = distinct_before.iter().map(|e| (e.time, e.data)).collect();
            expected.retain(|event| !known.contains(event));
            // Each once; the rows are ordered by the sink.
            distinct.sort_unstable();
            expected.sort_unstable();
        }
        prop_assert_eq!(distinct, expected, "events of epoch {}", number);
        life.rest(epoch, seen);
    }
    Ok(())
}

#[test]
fn what_stands_is_what_a_full_recomputation_says() {
    let seen = RefCell::new(Seen::default());
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    runner.run(&lives(), |(is_eager, epochs)| check(is_eager, &epochs, &mut seen.borrow_mut())).unwrap();
    let seen = seen.into_inner();
    assert!(seen.withdrawn > 0 && seen.duplicates > 0 && seen.replaced > 0 && seen.rungs_most > 1, "{seen:?}");
    assert!(seen.restarted_with_pending > 0 && seen.dropped > 0 && seen.released > 0, "{seen:?}");
    assert!(seen.changed_with_pending > 0 && seen.flipped > 0, "{seen:?}");
}

/// [`Counting`], whose steps are counted.
#[derive(Clone)]
struct Stepping {
    rules: Counting,
    steps: Arc<AtomicUsize>,
}

impl Rules for Stepping {
    type Event = u8;
    type History = History;
    type Finding = Finding;

    fn key(&self, event: &u8, out: &mut Vec<u8>) -> bool {
        self.rules.key(event, out)
    }
    fn same(&self, one: &u8, other: &u8) -> bool {
        self.rules.same(one, other)
    }
    fn step(&self, history: &mut History, event: &Event, out: &mut Vec<Finding>) {
        self.steps.fetch_add(1, Relaxed);
        self.rules.step(history, event, out);
    }
    fn expires(&self, history: &History) -> Micros {
        self.rules.expires(history)
    }
    fn about(&self, finding: &Finding) -> (Micros, Position) {
        self.rules.about(finding)
    }
    fn label(&self, finding: &Finding) -> &'static str {
        self.rules.label(finding)
    }
    fn event_weight(&self, event: &u8) -> usize {
        self.rules.event_weight(event)
    }
}

/// An event of an epoch costs the changed suffix of what is pending, and at most the way from a rung to it; one in order costs itself.
#[test]
fn judging_costs_the_changed_suffix() {
    const PENDING: usize = 40 * RUNG_EVERY;
    let steps = Arc::new(AtomicUsize::new(0));
    let rules = Stepping { rules: Counting { program: 0 }, steps: steps.clone() };
    let mut state = KeyState::<Stepping>::default();
    let mut offset = 0;
    let mut cost = |time: i64| {
        offset += 1;
        let position = Position { partition: Partition { source: SourceId(0), index: 0 }, offset };
        steps.store(0, Relaxed);
        let (inserted, at) = state.insert(&rules, Stamped { time: Micros(time), position, data: 1 });
        assert_eq!(inserted, Inserted::New);
        state.judge(&rules, at, &mut Vec::new(), &mut Vec::new());
        state.seal(&rules, true);
        (steps.load(Relaxed), state.pending.len() - at)
    };
    for time in 0..PENDING as i64 {
        assert_eq!(cost(1_000 * time), (1, 1), "in order");
    }
    // Late by little and by much, beside a rung and between two, and again where the rungs were made anew.
    let mut twice = 0i64..;
    for back in [1, 2, 31, 32, 33, 500, 1_000, 1_279, 1_000, 40, 1] {
        let (steps, suffix) = cost(1_000 * (PENDING as i64 - back) - 500 + twice.next().expect("endless"));
        assert!(suffix as i64 >= back && suffix <= steps, "{back} back: {steps} steps for a suffix of {suffix}");
        assert!(steps < RUNG_EVERY + suffix, "{back} back: {steps} steps for a suffix of {suffix}");
    }
}
