//! `credential_stuffing`, per address: many users from one address in a short time.
//!
//! Fires at e when its ip is an address A, and a window `[s, s + 60 s)` with e.t in it, s a multiple of 10 s since 1970
//! and not before the end of A's last window that fired, has at least 10 distinct users among A's logins up to e; the
//! earliest such s. Severity high. Evidence: each user's last login from A in the window. Detail: ip (e's), users,
//! window_start = s.
//!
//! The earliest window that e.t is in, and that is not ruled out, holds every login that a later one holds: it alone
//! decides. So the state is each user's last login since that window's start, and never more users than make it fire,
//! less one; and the end of the last window that fired.

use super::detector::NEVER_MATTERS;
use super::{Detail, Detector, Login, Severity, Texts, Verdict};
use dataflow_core::time::{MINUTE, SECOND};
use dataflow_core::{Micros, Position, Stamped};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The detector and its parameters.
///
/// ```
/// use dataflow_core::{Micros, time::SECOND};
/// use dataflow_operators::anomaly::{CredentialStuffing, Detail, Detectors, Login};
/// let detectors = (CredentialStuffing::default(),);
/// let (mut history, mut found) = (Default::default(), Vec::new());
/// for n in 0..12 {
///     let login = Login::new(&format!("user-{n}"), "203.0.113.7");
///     detectors.step(&mut history, &login.at(Micros((65 + n) * SECOND), 0, n as u64), &mut found);
/// }
/// assert_eq!((found.len(), found[0].position.offset, found[0].evidence.len()), (1, 9, 10));
/// assert_eq!(found[0].detail, Detail::Stuffing { ip: "203.0.113.7".into(), users: 10, window_start: Micros(20 * SECOND) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialStuffing {
    /// How many distinct users fire, at least 1.
    pub users: usize,
    /// A window's length.
    pub window_us: i64,
    /// Windows start at multiples of this, greater than 0.
    pub hop_us: i64,
}

impl Default for CredentialStuffing {
    fn default() -> Self {
        CredentialStuffing { users: 10, window_us: MINUTE, hop_us: 10 * SECOND }
    }
}

/// An address's users.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Users {
    /// Each user's last login since the start of the window that decides, in login order.
    last: SmallVec<[LastLogin; 1]>,
    /// The end of the last window that fired.
    fired_until: Option<Micros>,
}

/// A user's last login from the address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LastLogin {
    user: Texts<1>,
    time: Micros,
    position: Position,
}

impl CredentialStuffing {
    /// The start of the earliest window that may still fire for a login at `t`. It lies after `t` when all windows
    /// around `t` are ruled out.
    fn earliest(&self, fired_until: Option<Micros>, t: Micros) -> Micros {
        // The first multiple above t - window is the one at or above the next microsecond.
        let least = t.plus(1 - self.window_us).max(fired_until.unwrap_or(NEVER_MATTERS));
        least.plus((-least.0).rem_euclid(self.hop_us))
    }
}

impl Detector for CredentialStuffing {
    type History = Users;
    const NAME: &'static str = "credential_stuffing";
    const REASON: &'static str = "Credential stuffing";

    fn judge(&self, history: &Users, event: &Stamped<Login>) -> Option<Verdict> {
        event.data.address?;
        let window_start = self.earliest(history.fired_until, event.time);
        if window_start > event.time {
            return None;
        }
        let others = history.last.iter().filter(|x| x.time >= window_start && x.user.get(0) != event.data.user_id());
        let users = 1 + others.clone().count();
        (users >= self.users).then(|| Verdict {
            severity: Severity::High,
            evidence: others.map(|x| x.position).chain([event.position]).collect(),
            detail: Detail::Stuffing { ip: event.data.ip().into(), users: users as u64, window_start },
        })
    }

    fn absorb(&self, history: &mut Users, event: &Stamped<Login>, verdict: Option<&Verdict>) {
        if event.data.address.is_none() {
            return;
        }
        if let Some(Verdict { detail: Detail::Stuffing { window_start, .. }, .. }) = verdict {
            history.fired_until = Some(window_start.plus(self.window_us));
        }
        let since = self.earliest(history.fired_until, event.time);
        history.last.retain(|x| x.time >= since && x.user.get(0) != event.data.user_id());
        if event.time >= since {
            let Stamped { time, position, data } = event;
            history.last.push(LastLogin { user: data.user(), time: *time, position: *position });
        }
        history.fired_until = history.fired_until.filter(|until| event.time <= self.until_matters(*until));
    }

    fn expires(&self, history: &Users) -> Micros {
        let last = history.last.last().map_or(NEVER_MATTERS, |x| x.time.plus(self.window_us));
        last.max(history.fired_until.map_or(NEVER_MATTERS, |until| self.until_matters(until)))
    }
}

impl CredentialStuffing {
    /// The last time of a login that has a window which begins before `until`.
    fn until_matters(&self, until: Micros) -> Micros {
        until.plus(self.window_us - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::check::{self, Draft, logins};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn naive(detector: &CredentialStuffing, logins: &[Stamped<Login>]) -> Vec<Option<Verdict>> {
        let mut verdicts = Vec::new();
        let mut ends = Vec::new();
        for (i, e) in logins.iter().enumerate() {
            // Every multiple from before the window's length to e.
            let first = (e.time.0 - detector.window_us).div_euclid(detector.hop_us) - 1;
            let starts = (first..=e.time.0.div_euclid(detector.hop_us)).map(|n| n * detector.hop_us);
            let verdict = starts.filter(|s| *s <= e.time.0 && e.time.0 < s + detector.window_us).find_map(|s| {
                if ends.last().is_some_and(|end| s < *end) || e.data.address.is_none() {
                    return None;
                }
                let mut users: BTreeMap<&str, usize> = BTreeMap::new();
                for (j, x) in logins[..=i].iter().enumerate() {
                    if x.data.address == e.data.address && x.time.0 >= s && x.time.0 < s + detector.window_us {
                        users.insert(x.data.user_id(), j);
                    }
                }
                if users.len() < detector.users {
                    return None;
                }
                let mut rows: Vec<usize> = users.into_values().collect();
                rows.sort();
                ends.push(s + detector.window_us);
                Some(Verdict {
                    severity: Severity::High,
                    evidence: rows.iter().map(|j| logins[*j].position).collect(),
                    detail: Detail::Stuffing {
                        ip: e.data.ip().into(),
                        users: rows.len() as u64,
                        window_start: Micros(s),
                    },
                })
            });
            verdicts.push(verdict);
        }
        verdicts
    }

    proptest! {
        #[test]
        fn as_the_definition_says(
            drafts in Draft::lists(80),
            users in 1usize..=4,
            hop_us in prop::sample::select(vec![10 * SECOND, 60 * SECOND, 70 * SECOND, 25 * SECOND]),
            address in prop::sample::select(vec!["203.0.113.7", "nowhere"]),
        ) {
            let detector = CredentialStuffing { users, hop_us, ..CredentialStuffing::default() };
            let mut logins = logins(&drafts, &[0, 1, SECOND, 5 * SECOND, 9 * SECOND, 10 * SECOND, 30 * SECOND, 50 * SECOND, MINUTE, 2 * MINUTE]);
            logins.iter_mut().for_each(|x| x.data.address = crate::enrich::parse_address(address));
            let expected = naive(&detector, &logins);
            check::check(&detector, &logins, |i| expected[i].clone(), |history| {
                assert!(history.last.len() < users.max(1) || users == 0, "{history:?}");
            })?;
        }
    }
}
