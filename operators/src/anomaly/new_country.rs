//! `new_country`, per user: a login from a country that the user was not in lately.
//!
//! Fires at e when its country is not null, and no login of the user (ok or failed) with it is in
//! `[e.t - 7 d, e.t - 1 s]`; a first login fires. Severity medium; low if no login of the user at all is in there.
//! Evidence: e. State: what was [`Seen`] of the user, and of each country since the window.

use super::detector::NEVER_MATTERS;
use super::seen::{Seen, Stretch};
use super::{Detail, Detector, Login, Severity, Verdict};
use dataflow_core::time::{DAY, SECOND};
use dataflow_core::{Micros, Stamped};
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

/// The detector and its parameters.
///
/// ```
/// use dataflow_core::{Micros, time::DAY};
/// use dataflow_operators::anomaly::{Detectors, Login, NewCountry, Severity};
/// use dataflow_operators::enrich::IpTable;
/// let table = IpTable::parse(b"ip_prefix,country,city\n1.0,AA,Aton\n2.0,BB,Bton\n").unwrap();
/// let login = |ip: &str, day: i64| {
///     let place = table.locate(ip).1;
///     Login { place, ..Login::new("ana", ip) }.at(Micros(day * DAY), 0, day as u64)
/// };
/// let detectors = (NewCountry::default(),);
/// let (mut history, mut found) = (Default::default(), Vec::new());
/// for event in [login("1.0.0.1", 0), login("2.0.0.1", 1), login("1.0.0.1", 7)] {
///     detectors.step(&mut history, &event, &mut found);
/// }
/// let found: Vec<_> = found.iter().map(|f| (f.position.offset, f.severity)).collect();
/// assert_eq!(found, [(0, Severity::Low), (1, Severity::Medium)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCountry {
    /// How long a country is remembered.
    pub window_us: i64,
    /// How old a login must be to count: a volley from a new country raises more than its first login.
    pub tail_us: i64,
}

impl Default for NewCountry {
    fn default() -> Self {
        NewCountry { window_us: 7 * DAY, tail_us: SECOND }
    }
}

/// A user's countries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Countries {
    /// All logins of the user.
    all: Seen,
    /// Those with a country, by country. Swept when a country comes in, so it holds no more than one window had.
    /// Few, so a sorted list; most users have one or two.
    by_country: SmallVec<[(Arc<str>, Seen); 2]>,
}

impl Countries {
    /// Where a country stands, or would.
    fn find(&self, country: &str) -> Result<usize, usize> {
        self.by_country.binary_search_by(|(other, _)| (**other).cmp(country))
    }
}

impl NewCountry {
    fn stretch(&self) -> Stretch {
        Stretch { window_us: self.window_us, tail_us: self.tail_us }
    }
}

impl Detector for NewCountry {
    type History = Countries;
    const NAME: &'static str = "new_country";
    const REASON: &'static str = "Login from new country";

    fn judge(&self, history: &Countries, event: &Stamped<Login>) -> Option<Verdict> {
        let seen = history.find(event.data.country()?);
        if seen.is_ok_and(|at| history.by_country[at].1.within(self.stretch(), event.time)) {
            return None;
        }
        let known = history.all.within(self.stretch(), event.time);
        let severity = if known { Severity::Medium } else { Severity::Low };
        Some(Verdict { severity, evidence: smallvec![event.position], detail: Detail::None })
    }

    fn absorb(&self, history: &mut Countries, event: &Stamped<Login>, _: Option<&Verdict>) {
        history.all.add(self.stretch(), event.time);
        let Some(country) = event.data.country() else { return };
        if let Ok(at) = history.find(country) {
            history.by_country[at].1.add(self.stretch(), event.time);
            return;
        }
        let oldest = event.time.plus(-self.window_us);
        history.by_country.retain(|(_, seen)| seen.newest() >= Some(oldest));
        if let Err(at) = history.find(country) {
            let mut seen = Seen::default();
            seen.add(self.stretch(), event.time);
            history.by_country.insert(at, (country.clone(), seen));
        }
    }

    fn expires(&self, history: &Countries) -> Micros {
        history.all.newest().map_or(NEVER_MATTERS, |newest| newest.plus(self.window_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::check::{self, Draft, logins};
    use proptest::prelude::*;

    fn naive(detector: &NewCountry, logins: &[Stamped<Login>], i: usize) -> Option<Verdict> {
        let e = &logins[i];
        let country = e.data.country()?;
        let there: Vec<_> = logins[..i]
            .iter()
            .filter(|x| x.time.0 >= e.time.0 - detector.window_us && x.time.0 <= e.time.0 - detector.tail_us)
            .collect();
        if there.iter().any(|x| x.data.country() == Some(country)) {
            return None;
        }
        let severity = if there.is_empty() { Severity::Low } else { Severity::Medium };
        Some(Verdict { severity, evidence: smallvec![e.position], detail: Detail::None })
    }

    proptest! {
        #[test]
        fn as_the_definition_says(drafts in Draft::lists(80), tail_us in prop::sample::select(vec![0, 1, SECOND, 3 * SECOND])) {
            let detector = NewCountry { tail_us, ..NewCountry::default() };
            let logins = logins(&drafts, &[0, 0, 1, SECOND / 2, SECOND, 2 * SECOND, 3 * SECOND, DAY, 7 * DAY, 7 * DAY + SECOND]);
            check::check(&detector, &logins, |i| naive(&detector, &logins, i), |history| {
                assert!(history.all.size() <= 2, "{history:?}");
                assert!(history.by_country.len() <= check::COUNTRIES && history.by_country.iter().all(|(_, seen)| seen.size() <= 2));
            })?;
        }
    }

    #[test]
    fn a_flood_of_countries_is_forgotten() {
        let (detector, mut history) = (NewCountry::default(), Countries::default());
        for day in 0..100 {
            let place = crate::enrich::Place { country: Some(format!("C{day}").into()), ..Default::default() };
            let login = Login { place: Some(Arc::new(place)), ..Login::new("a", "") };
            detector.absorb(&mut history, &login.at(Micros(day * DAY), 0, day as u64), None);
            assert!(history.by_country.len() <= 8, "day {day}");
        }
    }
}
