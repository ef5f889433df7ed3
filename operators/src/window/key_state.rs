//! The state of one key of a [keyed history](super::keyed_history): what is final, what is pending, and what was said of it.
//!
//! ```text
//!   history ──► pending[0] ──► pending[1] ──► ... ──► pending[n-1]        in the order (time, partition, offset)
//!               │ said[..]     │                       │
//!               └─ rungs: copies of the history after some prefix, so that judging again costs the changed suffix only;
//!                  and the tail, the one after all of them, which is moved and not copied when events come in order
//! ```
//!
//! Pure: no streams, no epochs, no I/O. Invariant: `said` is exactly what [`Rules::step`] finds for the pending events in this
//! order; whoever changes `pending` judges again from the first change on. Rungs and tail are derived and never stored.

use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Micros, Position, Result, Stamped};
use dataflow_state::table::{StateValue, decode_postcard, encode_postcard};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use std::fmt::Debug;

/// Pending events between two rungs: bounds what a late insertion judges again before the first change.
const RUNG_EVERY: usize = 32;

/// What the lists of a history hold beside its fixed part, on average: they are bounded, and most are short.
const HISTORY_LISTS_BYTES: usize = 128;

/// What a keyed history computes: the detectors of a key, seen from the operator.
pub trait Rules: Clone + Send + Sync + 'static {
    /// What happens.
    type Event: Clone + Debug + Serialize + DeserializeOwned + Send + 'static;
    /// What is kept of final events.
    type History: Clone + Default + Debug + PartialEq + Serialize + DeserializeOwned + Send + 'static;
    /// What is said of an event.
    type Finding: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + 'static;

    /// Appends the bytes of the key; `false` when these rules have nothing to do with the event.
    fn key(&self, event: &Self::Event, out: &mut Vec<u8>) -> bool;
    /// Whether two events of equal time are one event that came twice.
    fn same(&self, one: &Self::Event, other: &Self::Event) -> bool;
    /// Judges `event` against what came before it, then adds it to that.
    fn step(&self, history: &mut Self::History, event: &Stamped<Self::Event>, findings: &mut Vec<Self::Finding>);
    /// Once the watermark is above this, the history says what the empty one says.
    fn expires(&self, history: &Self::History) -> Micros;
    /// The event that a finding is about: its (time, position).
    fn about(&self, finding: &Self::Finding) -> (Micros, Position);
    /// The name under which a finding is counted.
    fn label(&self, finding: &Self::Finding) -> &'static str;
    /// A key as people write it, for whoever watches the job.
    fn key_text(&self, key: &[u8]) -> String {
        String::from_utf8_lossy(key).into_owned()
    }
    /// Bytes of an event in memory, estimated.
    fn event_weight(&self, event: &Self::Event) -> usize;
}

/// The state of one key.
#[derive(Clone, Debug)]
pub struct KeyState<R: Rules> {
    history: R::History,
    pending: VecDeque<Stamped<R::Event>>,
    said: Vec<R::Finding>,
    expires: Micros,
    /// Bytes of the pending events.
    events_weight: usize,
    weight: usize,
    /// Whether `said` has gone out (eager emission), or waits for the release (final).
    is_public: bool,
    /// (n, the history after the first n pending events), n a multiple of [`RUNG_EVERY`] when it was made; ascending.
    rungs: Vec<(usize, R::History)>,
    /// (n, the history after the first n pending events), where judging stopped last: what comes in order goes on from there.
    tail: Option<(usize, R::History)>,
}

/// What an insertion came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The event is new: it was not in the pending ones.
    New,
    /// It equals an earlier one and was dropped.
    Duplicate,
    /// It equals a later one, whose place it took.
    Replaces,
}

impl<R: Rules> Default for KeyState<R> {
    fn default() -> Self {
        KeyState {
            history: R::History::default(),
            pending: VecDeque::new(),
            said: Vec::new(),
            expires: Micros(i64::MIN),
            events_weight: 0,
            weight: size_of::<Self>(),
            is_public: false,
            rungs: Vec::new(),
            tail: None,
        }
    }
}

impl<R: Rules> KeyState<R> {
    /// The time of the first pending event.
    pub fn first_pending(&self) -> Option<Micros> {
        self.pending.front().map(|e| e.time)
    }

    /// The time of the last pending event.
    pub fn last_pending(&self) -> Option<Micros> {
        self.pending.back().map(|e| e.time)
    }

    /// Puts an event in its place. Returns also the index of the first pending event that changed.
    pub fn insert(&mut self, rules: &R, event: Stamped<R::Event>) -> (Inserted, usize) {
        let at = match self.pending.back() {
            Some(last) if last.time < event.time => {
                let at = self.pending.len();
                self.put(rules, at, event);
                return (Inserted::New, at);
            }
            _ => self.pending.partition_point(|e| e.order() < event.order()),
        };
        let from = self.pending.partition_point(|e| e.time < event.time);
        let to = self.pending.partition_point(|e| e.time <= event.time);
        let twin = (from..to).find(|i| rules.same(&self.pending[*i].data, &event.data));
        match twin {
            Some(earlier) if earlier < at => (Inserted::Duplicate, self.pending.len()),
            Some(later) => {
                let replaced = self.pending.remove(later).expect("the search found it");
                self.events_weight -= rules.event_weight(&replaced.data);
                self.put(rules, at, event);
                (Inserted::Replaces, at)
            }
            None => {
                self.put(rules, at, event);
                (Inserted::New, at)
            }
        }
    }

    fn put(&mut self, rules: &R, at: usize, event: Stamped<R::Event>) {
        self.events_weight += rules.event_weight(&event.data);
        self.forget_after(at);
        self.pending.insert(at, event);
    }

    /// Everything is to be judged again.
    pub fn forget_judged(&mut self) {
        self.forget_after(0);
    }

    /// Judges the pending events from index `first` on again. What is no longer true goes to `withdrawn`, what is new to `raised`.
    pub fn judge(&mut self, rules: &R, first: usize, withdrawn: &mut Vec<R::Finding>, raised: &mut Vec<R::Finding>) {
        let mut history = self.take_history_after(rules, first);
        let mut now = Vec::new();
        for at in first..self.pending.len() {
            rules.step(&mut history, &self.pending[at], &mut now);
            if (at + 1) % RUNG_EVERY == 0 {
                self.rungs.push((at + 1, history.clone()));
            }
        }
        self.tail = Some((self.pending.len(), history));
        // What was said of events before the first change stands. A replaced event's position is not below the new one's.
        let keep = match self.pending.get(first) {
            Some(changed) => self.said.partition_point(|f| rules.about(f) < changed.order()),
            None => self.said.len(),
        };
        if keep == self.said.len() {
            raised.extend(now.iter().cloned());
        } else {
            let before: Vec<_> = self.said.drain(keep..).collect();
            withdrawn.extend(before.iter().filter(|f| !now.contains(f)).cloned());
            raised.extend(now.iter().filter(|f| !before.contains(f)).cloned());
        }
        self.said.append(&mut now);
    }

    /// Makes the pending events below the watermark final, handing each to `released` with what is found for it.
    pub fn release(
        &mut self,
        rules: &R,
        watermark: Option<Micros>,
        mut released: impl FnMut(Stamped<R::Event>, &[R::Finding]),
    ) {
        let Some(watermark) = watermark.filter(|w| self.first_pending().is_some_and(|first| first < *w)) else {
            return;
        };
        let count = self.pending.partition_point(|e| e.time < watermark);
        let said = self.said.partition_point(|f| rules.about(f).0 < watermark);
        self.history = self.final_history(rules, count);
        let findings: Vec<_> = self.said.drain(..said).collect();
        let mut rest = &findings[..];
        for event in self.pending.drain(..count) {
            self.events_weight -= rules.event_weight(&event.data);
            let own = rest.iter().take_while(|f| rules.about(f) == event.order()).count();
            released(event, &rest[..own]);
            rest = &rest[own..];
        }
        assert!(rest.is_empty(), "findings stand in the order of the events they are about");
        let left = |n: &mut usize| n.checked_sub(count).map(|rest| *n = rest).is_some();
        self.rungs.retain_mut(|(n, _)| left(n));
        self.tail =
            self.tail.take().filter(|_| !self.pending.is_empty()).and_then(|(mut n, h)| left(&mut n).then_some((n, h)));
    }

    /// Whether what was said of the pending events has gone out.
    pub fn is_public(&self) -> bool {
        self.is_public
    }

    /// Brings the derived numbers up to date, after all changes of an epoch. `is_public`: what was judged has gone out.
    pub fn seal(&mut self, rules: &R, is_public: bool) {
        self.is_public = is_public;
        let all = self.pending.len();
        if all > 0 && self.tail.as_ref().is_none_or(|(n, _)| *n < all) {
            // Only after a restore, when nothing was judged.
            self.tail = Some((all, self.take_history_after(rules, all)));
        }
        let tail = self.tail.as_ref().map_or(&self.history, |(_, tail)| tail);
        self.expires = rules.expires(tail).max(self.last_pending().unwrap_or(Micros(i64::MIN)));
        // The fixed parts of the history and of the tail lie in the state itself.
        let (inside, lists) = (1 + usize::from(self.tail.is_some()), HISTORY_LISTS_BYTES);
        let histories = self.rungs.len() * (size_of::<R::History>() + lists) + inside * lists;
        let findings = self.said.len() * size_of::<R::Finding>();
        self.weight = size_of::<Self>() + self.events_weight + histories + findings;
    }

    /// The history after the first `count` pending events, to be judged on from there: the tail itself where it stands there.
    fn take_history_after(&mut self, rules: &R, count: usize) -> R::History {
        let (from, mut history) = match self.tail.take() {
            Some((n, tail)) if n <= count => (n, tail),
            _ => match self.rungs.iter().rev().find(|(n, _)| *n <= count) {
                Some((n, rung)) => (*n, rung.clone()),
                None => (0, self.history.clone()),
            },
        };
        let mut ignored = Vec::new();
        for at in from..count {
            rules.step(&mut history, &self.pending[at], &mut ignored);
            ignored.clear();
        }
        history
    }

    /// The history after the first `count` pending events, which are about to become final: that before them, and the tail if it
    /// stands there, are not needed any more.
    fn final_history(&mut self, rules: &R, count: usize) -> R::History {
        if count == self.pending.len()
            && let Some((_, tail)) = self.tail.take_if(|(n, _)| *n == count)
        {
            return tail;
        }
        let usable = self.rungs.partition_point(|(n, _)| *n <= count);
        let (from, mut history) = match usable.checked_sub(1) {
            Some(last) => self.rungs[last].clone(),
            None => (0, std::mem::take(&mut self.history)),
        };
        let mut ignored = Vec::new();
        for at in from..count {
            rules.step(&mut history, &self.pending[at], &mut ignored);
            ignored.clear();
        }
        history
    }

    /// Forgets the histories beyond the first `count` events: those that follow are about to change.
    fn forget_after(&mut self, count: usize) {
        let keep = self.rungs.partition_point(|(n, _)| *n <= count);
        self.rungs.truncate(keep);
        self.tail.take_if(|(n, _)| *n > count);
    }
}

/// What is stored of a key.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Stored<R: Rules> {
    history: R::History,
    pending: VecDeque<Stamped<R::Event>>,
    said: Vec<R::Finding>,
    expires: Micros,
    events_weight: u64,
    is_public: bool,
}

impl<R: Rules> StateValue for KeyState<R> {
    const VERSION: u16 = 2;

    fn encode(&self, out: &mut Vec<u8>) {
        let said = if is_planted(Bug::SaidNotInState) { &[] } else { &self.said[..] };
        let stored = (&self.history, &self.pending, said, self.expires, self.events_weight as u64, self.is_public);
        encode_postcard(&stored, out);
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let stored: Stored<R> = decode_postcard(bytes, "the state of a key")?;
        let Stored { history, pending, said, expires, events_weight, is_public } = stored;
        let events_weight = events_weight as usize;
        let weight = size_of::<Self>() + events_weight + HISTORY_LISTS_BYTES;
        Ok(KeyState {
            history,
            pending,
            said,
            expires,
            events_weight,
            weight,
            is_public,
            rungs: Vec::new(),
            tail: None,
        })
    }

    fn expires(&self) -> Micros {
        self.expires
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn is_default(&self) -> bool {
        self.pending.is_empty() && self.history == R::History::default()
    }
}

#[cfg(test)]
#[path = "key_state_tests.rs"]
mod tests;
