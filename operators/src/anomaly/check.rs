//! What the detectors' tests share: lists of logins full of edges, and the one check of a detector against its definition.

use super::{Detector, Login, Verdict};
use crate::enrich::Place;
use dataflow_core::{Micros, Stamped};
use proptest::prelude::*;
use std::sync::Arc;

/// Country and position of each place; one has neither, one has no country, one no position.
pub(super) const PLACES: [(&str, Option<(f64, f64)>); 6] = [
    ("", None),
    ("AA", Some((0.0, 0.0))),
    ("BB", Some((0.0, 10.0))),
    ("", Some((52.52, 13.405))),
    ("CC", None),
    ("AA", Some((-33.8688, 151.2093))),
];
/// How many countries [`PLACES`] has.
pub(super) const COUNTRIES: usize = 3;
/// How many devices there are.
pub(super) const DEVICES: usize = 3;
/// How many platforms there are.
pub(super) const PLATFORMS: usize = 2;

/// A login before its time is known: it happens `gap` and `jitter` after the one `back` before it in the list.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    back: usize,
    gap: prop::sample::Index,
    jitter: i64,
    place: usize,
    user: u8,
    device: usize,
    platform: usize,
    success: bool,
}

impl Draft {
    /// Lists of up to `most` drafts.
    pub(super) fn lists(most: usize) -> impl Strategy<Value = Vec<Draft>> {
        let jitter = prop_oneof![3 => Just(0i64), 1 => Just(-1i64), 1 => Just(1i64)];
        let back = prop_oneof![3 => Just(1usize), 2 => 1usize..8];
        let who = (0..PLACES.len(), 0u8..6, 0..DEVICES, 0..PLATFORMS, prop::bool::weighted(0.4));
        let draft = (back, any::<prop::sample::Index>(), jitter, who);
        prop::collection::vec(draft, 1..most).prop_map(|drafts| {
            let draft = |(back, gap, jitter, (place, user, device, platform, success))| Draft {
                back,
                gap,
                jitter,
                place,
                user,
                device,
                platform,
                success,
            };
            drafts.into_iter().map(draft).collect()
        })
    }
}

/// The logins of `drafts`, in order, `gaps` and a microsecond more or less apart. Times never fall.
pub(super) fn logins(drafts: &[Draft], gaps: &[i64]) -> Vec<Stamped<Login>> {
    let mut logins: Vec<Stamped<Login>> = Vec::new();
    for (offset, draft) in drafts.iter().enumerate() {
        let anchor = logins.len().checked_sub(draft.back).map_or(Micros(0), |at| logins[at].time);
        let time = anchor.plus(gaps[draft.gap.index(gaps.len())] + draft.jitter);
        let time = logins.last().map_or(time, |last| last.time.max(time));
        let (country, position) = PLACES[draft.place];
        let country = Some(country).filter(|country| !country.is_empty()).map(Arc::from);
        let place =
            (country.is_some() || position.is_some()).then(|| Arc::new(Place { country, city: None, position }));
        let login = Login {
            place,
            success: draft.success,
            ..Login::new(&format!("u{}", draft.user), "203.0.113.7").on(
                &format!("d{}", draft.device),
                &format!("p{}", draft.platform),
                "",
            )
        };
        logins.push(login.at(time, 0, offset as u64));
    }
    logins
}

/// Runs the detector over `logins` and compares every verdict with `naive`'s for that index; `bounded` asserts the
/// history's size after each. A second run, whose history goes through postcard at each step and is dropped as soon as
/// `expires` allows, must say the same.
pub(super) fn check<D: Detector>(
    detector: &D,
    logins: &[Stamped<Login>],
    naive: impl Fn(usize) -> Option<Verdict>,
    bounded: impl Fn(&D::History),
) -> Result<(), TestCaseError> {
    let (mut kept, mut stored) = (D::History::default(), Vec::new());
    for (i, event) in logins.iter().enumerate() {
        let expected = naive(i);
        let verdict = detector.judge(&kept, event);
        prop_assert_eq!(&verdict, &expected, "login {} of {:#?}\n{:?}", i, logins, kept);
        detector.absorb(&mut kept, event, verdict.as_ref());
        bounded(&kept);

        let mut history: D::History = match stored.as_slice() {
            [] => D::History::default(),
            bytes => postcard::from_bytes(bytes).expect("what was encoded decodes"),
        };
        if event.time > detector.expires(&history) {
            history = D::History::default();
        }
        let verdict = detector.judge(&history, event);
        prop_assert_eq!(&verdict, &expected, "forgetful, login {} of {:#?}\n{:?}", i, logins, history);
        detector.absorb(&mut history, event, verdict.as_ref());
        stored = postcard::to_stdvec(&history).expect("histories encode");
    }
    Ok(())
}
