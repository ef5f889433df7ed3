//! `brute_force`, per user: a volley of failures, and a success that follows one.
//!
//! Fires high at e when e failed, the user's last 5 failed up to e are within 1 min, and no earlier `high` of the user
//! is within 1 min of e. Evidence: the 5. Fires critical at e when e is the first ok login after the user's last `high`
//! b, and within 5 min of it. Evidence: b's 5, e; escalates = b's id. State: the last failures of a minute, and the
//! last `high` until neither rule can need it.

use super::detector::NEVER_MATTERS;
use super::{Detail, Detector, Evidence, Login, Severity, Verdict};
use dataflow_core::time::MINUTE;
use dataflow_core::{Micros, Position, Stamped};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The detector and its parameters.
///
/// ```
/// use dataflow_core::{Micros, time::SECOND};
/// use dataflow_operators::anomaly::{BruteForce, Detectors, Login, Severity};
/// let detectors = (BruteForce::default(),);
/// let (mut history, mut found) = (Default::default(), Vec::new());
/// for (offset, success) in [false, false, false, false, false, false, true, true].into_iter().enumerate() {
///     let login = Login { success, ..Login::new("ana", "203.0.113.7") };
///     detectors.step(&mut history, &login.at(Micros(offset as i64 * SECOND), 0, offset as u64), &mut found);
/// }
/// let found: Vec<_> = found.iter().map(|f| (f.position.offset, f.severity)).collect();
/// assert_eq!(found, [(4, Severity::High), (6, Severity::Critical)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BruteForce {
    /// How many failures make a volley, at least 1.
    pub failures: usize,
    /// How close together they are; and how long a volley keeps the next one silent.
    pub within_us: i64,
    /// How soon a success must follow to count as a break-in.
    pub escalates_us: i64,
}

impl Default for BruteForce {
    fn default() -> Self {
        BruteForce { failures: 5, within_us: MINUTE, escalates_us: 5 * MINUTE }
    }
}

/// A user's failures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// The last failed logins, one less than make a volley.
    failed: SmallVec<[(Micros, Position); 4]>,
    /// The last volley that fired.
    high: Option<Volley>,
}

/// A volley that fired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Volley {
    time: Micros,
    /// Its failures; the last one is where it fired. Empty once a success has followed.
    evidence: Evidence,
}

impl BruteForce {
    fn volley(&self, history: &Failures, event: &Stamped<Login>) -> Option<Verdict> {
        let before = history.failed.len().checked_sub(self.failures.saturating_sub(1))?;
        let before = &history.failed[before..];
        let began = before.first().map_or(event.time, |(time, _)| *time);
        let near = |time: Micros| event.time.since(time) <= self.within_us;
        if !near(began) || history.high.as_ref().is_some_and(|high| near(high.time)) {
            return None;
        }
        let evidence = before.iter().map(|(_, position)| *position).chain([event.position]).collect();
        Some(Verdict { severity: Severity::High, evidence, detail: Detail::None })
    }

    fn escalation(&self, history: &Failures, event: &Stamped<Login>) -> Option<Verdict> {
        let high = history.high.as_ref()?;
        let fired = *high.evidence.last()?;
        (event.time.since(high.time) <= self.escalates_us).then(|| Verdict {
            severity: Severity::Critical,
            evidence: high.evidence.iter().copied().chain([event.position]).collect(),
            detail: Detail::Escalates { high: fired },
        })
    }

    /// The last time at which `high` can matter.
    fn high_expires(&self, high: &Volley) -> Micros {
        let escalates_us = if high.evidence.is_empty() { 0 } else { self.escalates_us };
        high.time.plus(self.within_us.max(escalates_us))
    }
}

impl Detector for BruteForce {
    type History = Failures;
    const NAME: &'static str = "brute_force";
    const REASON: &'static str = "Brute force";

    fn judge(&self, history: &Failures, event: &Stamped<Login>) -> Option<Verdict> {
        if event.data.success { self.escalation(history, event) } else { self.volley(history, event) }
    }

    fn absorb(&self, history: &mut Failures, event: &Stamped<Login>, verdict: Option<&Verdict>) {
        if event.data.success {
            if let Some(high) = &mut history.high {
                high.evidence.clear();
            }
        } else {
            if let Some(verdict) = verdict {
                history.high = Some(Volley { time: event.time, evidence: verdict.evidence.clone() });
            }
            history.failed.push((event.time, event.position));
            if history.failed.len() >= self.failures {
                history.failed.remove(0);
            }
        }
        history.failed.retain(|(time, _)| event.time.since(*time) <= self.within_us);
        if history.high.as_ref().is_some_and(|high| event.time > self.high_expires(high)) {
            history.high = None;
        }
    }

    fn expires(&self, history: &Failures) -> Micros {
        let failed = history.failed.last().map_or(NEVER_MATTERS, |(time, _)| time.plus(self.within_us));
        failed.max(history.high.as_ref().map_or(NEVER_MATTERS, |high| self.high_expires(high)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::check::{self, Draft, logins};
    use dataflow_core::time::SECOND;
    use proptest::prelude::*;

    /// The verdicts on all logins; a `high` asks for the ones before it.
    fn naive(detector: &BruteForce, logins: &[Stamped<Login>]) -> Vec<Option<Verdict>> {
        let mut verdicts: Vec<Option<Verdict>> = Vec::new();
        for (i, e) in logins.iter().enumerate() {
            let highs: Vec<usize> =
                (0..i).filter(|j| verdicts[*j].as_ref().is_some_and(|v| v.severity == Severity::High)).collect();
            let verdict = if e.data.success {
                highs
                    .last()
                    .copied()
                    .filter(|b| {
                        let first = !logins[b + 1..i].iter().any(|x| x.data.success);
                        first && e.time.0 - logins[*b].time.0 <= detector.escalates_us
                    })
                    .map(|b| {
                        let mut evidence = verdicts[b].clone().unwrap().evidence;
                        evidence.push(e.position);
                        Verdict {
                            severity: Severity::Critical,
                            evidence,
                            detail: Detail::Escalates { high: logins[b].position },
                        }
                    })
            } else {
                let failed: Vec<_> = logins[..=i].iter().filter(|x| !x.data.success).collect();
                failed
                    .len()
                    .checked_sub(detector.failures)
                    .map(|from| &failed[from..])
                    .filter(|last| {
                        e.time.0 - last[0].time.0 <= detector.within_us
                            && !highs.iter().any(|h| e.time.0 - logins[*h].time.0 <= detector.within_us)
                    })
                    .map(|last| Verdict {
                        severity: Severity::High,
                        evidence: last.iter().map(|x| x.position).collect(),
                        detail: Detail::None,
                    })
            };
            verdicts.push(verdict);
        }
        verdicts
    }

    proptest! {
        #[test]
        fn as_the_definition_says(drafts in Draft::lists(80), failures in 1usize..=5) {
            let detector = BruteForce { failures, ..BruteForce::default() };
            let logins = logins(&drafts, &[0, 0, 1, SECOND, 12 * SECOND, 15 * SECOND, 30 * SECOND, MINUTE, 2 * MINUTE, 5 * MINUTE]);
            let expected = naive(&detector, &logins);
            check::check(&detector, &logins, |i| expected[i].clone(), |history| {
                assert!(history.failed.len() < failures, "{history:?}");
                assert!(history.high.as_ref().is_none_or(|high| high.evidence.len() <= failures), "{history:?}");
            })?;
        }
    }
}
