//! The state of one key of a [keyed history](super::keyed_history): what is final, what is pending, and what was said of it.
//!
//! ```text
//!   history ──► pending[0] ──► pending[1] ──► ... ──► pending[n-1]        in the order (time, partition, offset)
//!               │ said[..]     │                       │
//!               └─ rungs: copies of the history after some prefix, so that judging again costs the changed suffix only
//! ```
//!
//! Pure: no streams, no epochs, no I/O. Invariant: `said` is exactly what [`Rules::step`] finds for the pending events in this
//! order; whoever changes `pending` judges again from the first change on. Rungs are derived and never stored.

use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Error, Micros, Position, Result, Stamped};
use dataflow_state::table::StateValue;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Pending events between two rungs: bounds what a late insertion judges again before the first change.
const RUNG_EVERY: usize = 32;

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
    /// Bytes of an event and of a history in memory, estimated.
    fn weight(&self, history: &Self::History, event: Option<&Self::Event>) -> usize;
}

/// The state of one key.
#[derive(Clone, Debug)]
pub struct KeyState<R: Rules> {
    history: R::History,
    pending: Vec<Stamped<R::Event>>,
    said: Vec<R::Finding>,
    expires: Micros,
    weight: usize,
    /// Whether `said` has gone out (eager emission), or waits for the release (final).
    is_public: bool,
    /// (n, the history after the first n pending events), ascending in n; the last may be at the end.
    rungs: Vec<(usize, R::History)>,
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
            pending: Vec::new(),
            said: Vec::new(),
            expires: Micros(i64::MIN),
            weight: size_of::<Self>(),
            is_public: false,
            rungs: Vec::new(),
        }
    }
}

impl<R: Rules> KeyState<R> {
    /// The time of the first pending event.
    pub fn first_pending(&self) -> Option<Micros> {
        self.pending.first().map(|e| e.time)
    }

    /// How many events are pending.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Puts an event in its place. Returns also the index of the first pending event that changed.
    pub fn insert(&mut self, rules: &R, event: Stamped<R::Event>) -> (Inserted, usize) {
        let at = self.pending.partition_point(|e| e.order() < event.order());
        let from = self.pending[..at].partition_point(|e| e.time < event.time);
        let to = at + self.pending[at..].partition_point(|e| e.time == event.time);
        let twin = (from..to).find(|i| rules.same(&self.pending[*i].data, &event.data));
        match twin {
            Some(earlier) if earlier < at => (Inserted::Duplicate, self.pending.len()),
            Some(later) => {
                self.pending.remove(later);
                self.pending.insert(at, event);
                (Inserted::Replaces, at)
            }
            None => {
                self.pending.insert(at, event);
                (Inserted::New, at)
            }
        }
    }

    /// Judges the pending events from index `first` on again. What is no longer true goes to `withdrawn`, what is new to `raised`.
    pub fn judge(&mut self, rules: &R, first: usize, withdrawn: &mut Vec<R::Finding>, raised: &mut Vec<R::Finding>) {
        let mut history = self.history_after(rules, first);
        let mut now = Vec::new();
        for at in first..self.pending.len() {
            rules.step(&mut history, &self.pending[at], &mut now);
            if (at + 1) % RUNG_EVERY == 0 && at + 1 < self.pending.len() {
                self.rungs.push((at + 1, history.clone()));
            }
        }
        self.rungs.push((self.pending.len(), history));
        // What was said of events before the first change stands. A replaced event's position is not below the new one's.
        let keep = match self.pending.get(first) {
            Some(changed) => self.said.partition_point(|f| rules.about(f) < changed.order()),
            None => self.said.len(),
        };
        let before = self.said.split_off(keep);
        withdrawn.extend(before.iter().filter(|f| !now.contains(f)).cloned());
        raised.extend(now.iter().filter(|f| !before.contains(f)).cloned());
        self.said.append(&mut now);
    }

    /// Makes the pending events below the watermark final, handing each to `released` with what is found for it.
    pub fn release(
        &mut self,
        rules: &R,
        watermark: Option<Micros>,
        mut released: impl FnMut(Stamped<R::Event>, &[R::Finding]),
    ) {
        let Some(watermark) = watermark else { return };
        let count = self.pending.partition_point(|e| e.time < watermark);
        if count == 0 {
            return;
        }
        let said = self.said.partition_point(|f| rules.about(f).0 < watermark);
        let history = self.history_after(rules, count);
        let findings: Vec<_> = self.said.drain(..said).collect();
        let mut rest = &findings[..];
        for event in self.pending.drain(..count) {
            let own = rest.iter().take_while(|f| rules.about(f) == event.order()).count();
            released(event, &rest[..own]);
            rest = &rest[own..];
        }
        assert!(rest.is_empty(), "findings stand in the order of the events they are about");
        self.rungs.retain_mut(|(n, _)| match n.checked_sub(count) {
            Some(left) => {
                *n = left;
                true
            }
            None => false,
        });
        self.history = history;
    }

    /// Whether what was said of the pending events has gone out.
    pub fn is_public(&self) -> bool {
        self.is_public
    }

    /// Brings the derived numbers up to date, after all changes of an epoch. `is_public`: what was judged has gone out.
    pub fn seal(&mut self, rules: &R, is_public: bool) {
        self.is_public = is_public;
        let tail = self.history_after(rules, self.pending.len());
        let last = self.pending.last().map_or(Micros(i64::MIN), |e| e.time);
        self.expires = rules.expires(&tail).max(last);
        let events: usize = self.pending.iter().map(|e| rules.weight(&self.history, Some(&e.data))).sum();
        let rungs = (1 + self.rungs.len()) * rules.weight(&self.history, None);
        self.weight = size_of::<Self>() + events + rungs + self.said.len() * size_of::<R::Finding>();
    }

    /// The history after the first `count` pending events; cuts the rungs back to that point.
    fn history_after(&mut self, rules: &R, count: usize) -> R::History {
        let usable = self.rungs.partition_point(|(n, _)| *n <= count);
        let (from, mut history) = match usable.checked_sub(1).map(|last| &self.rungs[last]) {
            Some((n, history)) => (*n, history.clone()),
            None => (0, self.history.clone()),
        };
        let mut ignored = Vec::new();
        for event in &self.pending[from..count] {
            rules.step(&mut history, event, &mut ignored);
            ignored.clear();
        }
        history
    }

    /// Forgets the rungs beyond `first`: the events there are about to change.
    pub fn change_from(&mut self, first: usize) {
        let keep = self.rungs.partition_point(|(n, _)| *n <= first);
        self.rungs.truncate(keep);
    }
}

/// What is stored of a key.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Stored<R: Rules> {
    history: R::History,
    pending: Vec<Stamped<R::Event>>,
    said: Vec<R::Finding>,
    expires: Micros,
    weight: u64,
    is_public: bool,
}

impl<R: Rules> StateValue for KeyState<R> {
    const VERSION: u16 = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        let said = if is_planted(Bug::SaidNotInState) { &[] } else { &self.said[..] };
        let stored = (&self.history, &self.pending, said, self.expires, self.weight as u64, self.is_public);
        let bytes =
            postcard::to_extend(&stored, std::mem::take(out)).expect("state values have no unsized or untagged parts");
        *out = bytes;
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let stored: Stored<R> =
            postcard::from_bytes(bytes).map_err(|cause| Error::doubt("reading the state of a key").because(cause))?;
        let Stored { history, pending, said, expires, weight, is_public } = stored;
        Ok(KeyState { history, pending, said, expires, weight: weight as usize, is_public, rungs: Vec::new() })
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
