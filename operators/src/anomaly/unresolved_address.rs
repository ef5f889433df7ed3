//! `unresolved_address`, per user: a login from an address without a country.
//!
//! Fires at e when its country is null, and no login of the user with a null country (ok or failed) is in
//! `[e.t - 7 d, e.t - 1 s]`. Severity low. Evidence: e. State: what was [`Seen`] of such logins.

use super::detector::NEVER_MATTERS;
use super::seen::{Seen, Stretch};
use super::{Detail, Detector, Login, Severity, Verdict};
use dataflow_core::time::{DAY, SECOND};
use dataflow_core::{Micros, Stamped};
use smallvec::smallvec;

/// The detector and its parameters.
///
/// ```
/// use dataflow_core::{Micros, time::SECOND};
/// use dataflow_operators::anomaly::{Detectors, Login, UnresolvedAddress};
/// let detectors = (UnresolvedAddress::default(),);
/// let (mut history, mut found) = (Default::default(), Vec::new());
/// for (offset, time) in [0, SECOND - 1, SECOND].into_iter().enumerate() {
///     detectors.step(&mut history, &Login::new("ana", "unknown").at(Micros(time), 0, offset as u64), &mut found);
/// }
/// let offsets: Vec<_> = found.iter().map(|f| f.position.offset).collect();
/// assert_eq!(offsets, [0, 1]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnresolvedAddress {
    /// How long an unresolved login is remembered.
    pub window_us: i64,
    /// How old a login must be to count.
    pub tail_us: i64,
}

impl Default for UnresolvedAddress {
    fn default() -> Self {
        UnresolvedAddress { window_us: 7 * DAY, tail_us: SECOND }
    }
}

impl UnresolvedAddress {
    fn stretch(&self) -> Stretch {
        Stretch { window_us: self.window_us, tail_us: self.tail_us }
    }
}

impl Detector for UnresolvedAddress {
    type History = Seen;
    const NAME: &'static str = "unresolved_address";
    const REASON: &'static str = "Login from unresolved address";

    fn judge(&self, history: &Seen, event: &Stamped<Login>) -> Option<Verdict> {
        if event.data.country().is_some() || history.within(self.stretch(), event.time) {
            return None;
        }
        Some(Verdict { severity: Severity::Low, evidence: smallvec![event.position], detail: Detail::None })
    }

    fn absorb(&self, history: &mut Seen, event: &Stamped<Login>, _: Option<&Verdict>) {
        if event.data.country().is_none() {
            history.add(self.stretch(), event.time);
        }
    }

    fn expires(&self, history: &Seen) -> Micros {
        history.newest().map_or(NEVER_MATTERS, |newest| newest.plus(self.window_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::check::{self, Draft, logins};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_the_definition_says(drafts in Draft::lists(80), window_us in prop::sample::select(vec![7 * DAY, 4 * SECOND, SECOND + 1, SECOND, 1])) {
            let detector = UnresolvedAddress { window_us, ..UnresolvedAddress::default() };
            let logins = logins(&drafts, &[0, 0, 1, SECOND / 2, SECOND, 2 * SECOND, 4 * SECOND, DAY, 7 * DAY, 7 * DAY + SECOND]);
            let naive = |i: usize| {
                let e: &Stamped<Login> = &logins[i];
                let in_window = |x: &&Stamped<Login>| x.time.0 >= e.time.0 - window_us && x.time.0 <= e.time.0 - SECOND;
                let fires = e.data.country().is_none()
                    && !logins[..i].iter().filter(in_window).any(|x| x.data.country().is_none());
                fires.then(|| Verdict { severity: Severity::Low, evidence: smallvec![e.position], detail: Detail::None })
            };
            // A window that leaves less than the tail between its ends allows shorter runs, and so more of them.
            let bound = if window_us >= 2 * SECOND { 2 } else { logins.len() };
            check::check(&detector, &logins, naive, |history| assert!(history.size() <= bound, "{history:?}"))?;
        }
    }
}
