//! `burst`, per user: many more logins in one go than the user's habit.
//!
//! A session is a user's logins, ok or failed, each within 30 s of the one before; e is its c-th. n is the number of
//! the user's last 50 sessions before it that began within 30 d before its start; S and Q are the sum and the sum of
//! squares of their counts. Fires at e when e is the first of its session with c >= 10, n >= 10, nc > S and
//! (nc - S)² > 16(nQ - S²): c exceeds the mean by more than 4 population standard deviations, in exact integers.
//! Severity medium. Evidence: the session's first, e. Detail: logins = c, session_start, sessions = n. State: start
//! and count of 50 sessions, and the open one.

use super::detector::NEVER_MATTERS;
use super::{Detail, Detector, Login, Severity, Verdict};
use dataflow_core::time::{DAY, SECOND};
use dataflow_core::{Micros, Position, Stamped};
use serde::{Deserialize, Serialize};
use smallvec::smallvec;
use std::collections::VecDeque;
use std::sync::Arc;

/// The detector and its parameters.
///
/// ```
/// use dataflow_core::{Micros, time::{HOUR, SECOND}};
/// use dataflow_operators::anomaly::{Burst, Detail, Detectors, Login};
/// let detectors = (Burst::default(),);
/// let (mut history, mut found) = (Default::default(), Vec::new());
/// let times = (0..10).map(|n| n * HOUR).chain((0..12).map(|n| 10 * HOUR + n * SECOND));
/// for (offset, time) in times.enumerate() {
///     detectors.step(&mut history, &Login::new("ana", "203.0.113.7").at(Micros(time), 0, offset as u64), &mut found);
/// }
/// assert_eq!((found.len(), found[0].position.offset), (1, 19));
/// assert_eq!(found[0].detail, Detail::Burst { logins: 10, session_start: Micros(10 * HOUR), sessions: 10 });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burst {
    /// The longest pause within a session.
    pub pause_us: i64,
    /// How long a session is remembered, from start to start.
    pub window_us: i64,
    /// How many sessions are compared with.
    pub sessions_max: usize,
    /// How many sessions make a habit.
    pub sessions_min: usize,
    /// How many logins make a burst.
    pub logins_min: u64,
    /// By how many standard deviations a session must exceed the mean.
    pub deviations: u32,
}

impl Default for Burst {
    fn default() -> Self {
        Burst {
            pause_us: 30 * SECOND,
            window_us: 30 * DAY,
            sessions_max: 50,
            sessions_min: 10,
            logins_min: 10,
            deviations: 4,
        }
    }
}

/// A user's sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// Start and count of those before the open one, oldest first.
    /// Shared between copies of the history until a session ends.
    closed: Arc<VecDeque<(Micros, u64)>>,
    open: Option<Session>,
}

/// The open session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    start: Micros,
    first: Position,
    last: Micros,
    logins: u64,
    fired: bool,
}

impl Session {
    fn begin(event: &Stamped<Login>) -> Session {
        Session { start: event.time, first: event.position, last: event.time, logins: 1, fired: false }
    }
}

impl Burst {
    /// Whether `event` belongs to `session`.
    fn continues(&self, session: &Session, event: &Stamped<Login>) -> bool {
        event.time.since(session.last) <= self.pause_us
    }

    /// Whether `c` logins are a burst beside sessions of these counts, and how many sessions those are.
    fn exceeds(&self, c: u64, counts: impl Iterator<Item = u64>) -> Option<u64> {
        let (mut n, mut sum, mut squares) = (0i128, 0i128, 0i128);
        for count in counts.map(i128::from) {
            n += 1;
            sum += count;
            squares += count * count;
        }
        let excess = n * i128::from(c) - sum;
        let deviations = i128::from(self.deviations);
        let habit = n >= self.sessions_min as i128;
        (habit && excess > 0 && excess * excess > deviations * deviations * (n * squares - sum * sum))
            .then_some(n as u64)
    }

    fn verdict(
        &self,
        session: &Session,
        c: u64,
        event: &Stamped<Login>,
        counts: impl Iterator<Item = u64>,
    ) -> Option<Verdict> {
        let sessions = self.exceeds(c, counts)?;
        Some(Verdict {
            severity: Severity::Medium,
            evidence: smallvec![session.first, event.position],
            detail: Detail::Burst { logins: c, session_start: session.start, sessions },
        })
    }
}

impl Detector for Burst {
    type History = Sessions;
    const NAME: &'static str = "burst";
    const REASON: &'static str = "Login burst";

    fn judge(&self, history: &Sessions, event: &Stamped<Login>) -> Option<Verdict> {
        let open = history.open.as_ref()?;
        if self.continues(open, event) {
            let c = open.logins + 1;
            if open.fired || c < self.logins_min {
                return None;
            }
            return self.verdict(open, c, event, history.closed.iter().map(|(_, count)| *count));
        }
        if self.logins_min > 1 {
            return None;
        }
        let mut next = history.clone();
        self.absorb(&mut next, event, None);
        self.verdict(next.open.as_ref()?, 1, event, next.closed.iter().map(|(_, count)| *count))
    }

    fn absorb(&self, history: &mut Sessions, event: &Stamped<Login>, verdict: Option<&Verdict>) {
        match &mut history.open {
            Some(open) if self.continues(open, event) => {
                open.last = event.time;
                open.logins += 1;
            }
            open => {
                if let Some(before) = open.replace(Session::begin(event)) {
                    let closed = Arc::make_mut(&mut history.closed);
                    closed.push_back((before.start, before.logins));
                    let excess = closed.len().saturating_sub(self.sessions_max);
                    closed.drain(..excess);
                    let remembered = |start: Micros| event.time.since(start) <= self.window_us;
                    while closed.front().is_some_and(|(start, _)| !remembered(*start)) {
                        closed.pop_front();
                    }
                }
            }
        }
        if let Some(open) = history.open.as_mut().filter(|_| verdict.is_some()) {
            open.fired = true;
        }
    }

    fn expires(&self, history: &Sessions) -> Micros {
        // The open session began last, so it is remembered longest; and it may go on after it is no longer remembered.
        let longest = |open: &Session| open.start.plus(self.window_us).max(open.last.plus(self.pause_us));
        history.open.as_ref().map_or(NEVER_MATTERS, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::check::{self, Draft, logins};
    use proptest::prelude::*;

    /// Whether the last of `logins` satisfies all but "the first of its session": (session's first, c, n).
    fn holds(d: &Burst, logins: &[Stamped<Login>]) -> Option<(usize, u64, u64)> {
        let mut starts: Vec<usize> = Vec::new();
        for j in 0..logins.len() {
            if j == 0 || logins[j].time.0 - logins[j - 1].time.0 > d.pause_us {
                starts.push(j);
            }
        }
        let start = starts.pop().unwrap();
        let c = (logins.len() - start) as u64;
        let mut ends: Vec<usize> = starts.iter().skip(1).copied().collect();
        ends.push(start);
        let sessions =
            starts.iter().zip(ends).filter(|(s, _)| logins[start].time.0 - logins[**s].time.0 <= d.window_us);
        let counts: Vec<f64> = sessions.map(|(s, end)| (end - s) as f64).rev().take(d.sessions_max).collect();
        let n = counts.len() as f64;
        let mean = counts.iter().sum::<f64>() / n;
        // Counts are tiny here: n² times the variance is a whole number, exact in a double once rounded.
        let variance = (counts.iter().map(|x| (x - mean).powi(2)).sum::<f64>() * n).round();
        let excess = (c as f64 - mean) * n;
        let beyond = excess.round() > 0.0 && excess.round().powi(2) > f64::from(d.deviations).powi(2) * variance;
        (c >= d.logins_min && counts.len() >= d.sessions_min && beyond).then_some((start, c, counts.len() as u64))
    }

    proptest! {
        #[test]
        fn as_the_definition_says(
            drafts in Draft::lists(100),
            sessions_max in 2usize..6,
            logins_min in 1u64..4,
            deviations in 0u32..3,
            window_us in prop::sample::select(vec![30 * DAY, 120 * SECOND, 40 * SECOND]),
        ) {
            let detector = Burst { sessions_max, sessions_min: 2, logins_min, deviations, window_us, ..Burst::default() };
            let logins = logins(&drafts, &[0, 0, 1, SECOND, SECOND, 30 * SECOND, 31 * SECOND, 60 * SECOND, DAY, window_us]);
            let naive = |i: usize| {
                let (start, c, n) = holds(&detector, &logins[..=i])?;
                if (start..i).any(|j| holds(&detector, &logins[..=j]).is_some()) {
                    return None;
                }
                Some(Verdict {
                    severity: Severity::Medium,
                    evidence: smallvec![logins[start].position, logins[i].position],
                    detail: Detail::Burst { logins: c, session_start: logins[start].time, sessions: n },
                })
            };
            check::check(&detector, &logins, naive, |history| {
                assert!(history.closed.len() <= sessions_max, "{history:?}");
            })?;
        }
    }

    #[test]
    fn an_open_session_outlives_the_window_while_it_goes_on() {
        let (detector, mut history) = (Burst { window_us: 40 * SECOND, ..Burst::default() }, Sessions::default());
        for (offset, (time, expires)) in [(0, 40), (30, 60), (60, 90), (90, 120), (121, 161)].into_iter().enumerate() {
            detector.absorb(&mut history, &Login::new("a", "").at(Micros(time * SECOND), 0, offset as u64), None);
            assert_eq!(detector.expires(&history), Micros(expires * SECOND), "after {time} s");
        }
    }

    #[test]
    fn four_deviations_in_exact_integers() {
        let detector = Burst::default();
        let check = |c: u64, counts: &[u64], expected: Option<u64>| {
            assert_eq!(detector.exceeds(c, counts.iter().copied()), expected, "{c} {counts:?}");
        };
        let ivy = [1, 1, 1, 1, 1, 1, 1, 1, 1, 11];
        check(14, &ivy, None);
        check(15, &ivy, Some(10));
        check(15, &ivy[..9], None);
        check(1, &[1; 10], None);
        check(2, &[1; 10], Some(10));
        // Beyond what doubles, or 64 bits, could tell apart.
        let huge = 1 << 40;
        check(huge, &[huge; 50], None);
        check(huge + 1, &[huge; 50], Some(50));
    }
}
