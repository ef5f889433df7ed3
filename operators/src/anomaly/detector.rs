//! The protocol of detectors: two pure functions over a history, and sets of them over one key.
//!
//! Owns the global order of detectors. A detector does no I/O, keeps no clock and no timer: it sees the logins of one
//! key in the order (time, position), and its history is bounded by what can still matter to a later one.

use super::{
    BruteForce, Burst, CredentialStuffing, Finding, ImpossibleTravel, Login, NewCountry, NewDevice, UnresolvedAddress,
    Verdict,
};
use dataflow_core::{Micros, Stamped};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// What a detector may keep of the past. The default is the empty past.
pub trait History: Default + Clone + PartialEq + Debug + Serialize + DeserializeOwned + Send + 'static {}

impl<T: Default + Clone + PartialEq + Debug + Serialize + DeserializeOwned + Send + 'static> History for T {}

/// A detector is two pure functions.
pub trait Detector: Clone + Send + Sync + 'static {
    /// What it keeps of a key's past.
    type History: History;

    /// Its name, the first part of an anomaly's id. It must stand in [`DETECTORS`].
    const NAME: &'static str;
    /// What it says, for people.
    const REASON: &'static str;
    /// Its rank in [`DETECTORS`].
    const RANK: u16 = rank(Self::NAME);

    /// What `event`, as the next login after everything in `history`, amounts to.
    fn judge(&self, history: &Self::History, event: &Stamped<Login>) -> Option<Verdict>;

    /// Adds `event`, and the verdict on it, to the history. Forgets what can matter to no later event: `event.time`
    /// only rises.
    fn absorb(&self, history: &mut Self::History, event: &Stamped<Login>, verdict: Option<&Verdict>);

    /// The greatest event time to which the history can matter: for every later one it equals the empty history, so a
    /// key may be dropped once the watermark is above it. The least instant there is for an empty history.
    fn expires(&self, history: &Self::History) -> Micros;
}

/// What [`Detector::expires`] says of an empty history: it matters to nobody.
pub const NEVER_MATTERS: Micros = Micros(i64::MIN);

/// All detectors, name and reason, in the order of SEMANTICS "Login anomalies": a user's anomalies of one login stand in it.
pub const DETECTORS: [(&str, &str); 7] = [
    of::<NewCountry>(),
    of::<UnresolvedAddress>(),
    of::<ImpossibleTravel>(),
    of::<BruteForce>(),
    of::<CredentialStuffing>(),
    of::<NewDevice>(),
    of::<Burst>(),
];

const fn of<D: Detector>() -> (&'static str, &'static str) {
    (D::NAME, D::REASON)
}

/// The rank of the detector `name`; a compile error in constants when it is not listed.
const fn rank(name: &str) -> u16 {
    let mut rank = 0;
    while rank < DETECTORS.len() {
        if same(DETECTORS[rank].0.as_bytes(), name.as_bytes()) {
            return rank as u16;
        }
        rank += 1;
    }
    panic!("the detector is not listed in DETECTORS")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// A set of detectors over one key: a tuple of one to eight, in the order of [`DETECTORS`].
///
/// ```
/// use dataflow_core::Micros;
/// use dataflow_operators::anomaly::{Detectors, Login, NewCountry, UnresolvedAddress};
/// let detectors = (NewCountry::default(), UnresolvedAddress::default());
/// let (mut history, mut findings) = (Default::default(), Vec::new());
/// detectors.step(&mut history, &Login::new("ana", "not an address").at(Micros(0), 0, 0), &mut findings);
/// assert_eq!(detectors.names()[usize::from(findings[0].detector)].0, "unresolved_address");
/// ```
pub trait Detectors: Clone + Send + Sync + 'static {
    /// The tuple of histories.
    type History: History;

    /// Judges `event` as the next login after `history`, absorbs it, and appends what was found to `out`, in the order
    /// of the tuple.
    fn step(&self, history: &mut Self::History, event: &Stamped<Login>, out: &mut Vec<Finding>);

    /// The greatest event time to which any of the histories can matter.
    fn expires(&self, history: &Self::History) -> Micros;

    /// Name and reason of each, in the order of the tuple.
    fn names(&self) -> Vec<(&'static str, &'static str)>;

    /// Whether the history is the empty one, which need not be stored.
    fn is_default(history: &Self::History) -> bool {
        *history == Self::History::default()
    }
}

/// Judges, absorbs, and says what was found.
fn step_one<D: Detector>(detector: &D, history: &mut D::History, event: &Stamped<Login>, out: &mut Vec<Finding>) {
    let verdict = detector.judge(history, event);
    detector.absorb(history, event, verdict.as_ref());
    if let Some(Verdict { severity, evidence, detail }) = verdict {
        out.push(Finding {
            detector: D::RANK,
            time: event.time,
            position: event.position,
            user: event.data.user(),
            country: event.data.country().cloned(),
            severity,
            evidence,
            detail,
        });
    }
}

const fn ascending(ranks: &[u16]) -> bool {
    let mut at = 1;
    while at < ranks.len() {
        if ranks[at - 1] >= ranks[at] {
            return false;
        }
        at += 1;
    }
    true
}

macro_rules! detectors_of_tuples {
    ($(($($d:ident $i:tt),+))+) => {$(
        impl<$($d: Detector),+> Detectors for ($($d,)+) {
            type History = ($($d::History,)+);

            fn step(&self, history: &mut Self::History, event: &Stamped<Login>, out: &mut Vec<Finding>) {
                const { assert!(ascending(&[$($d::RANK),+]), "a tuple of detectors follows the order of DETECTORS") };
                $(step_one(&self.$i, &mut history.$i, event, out);)+
            }

            fn expires(&self, history: &Self::History) -> Micros {
                NEVER_MATTERS$(.max(self.$i.expires(&history.$i)))+
            }

            fn names(&self) -> Vec<(&'static str, &'static str)> {
                vec![$(of::<$d>()),+]
            }
        }
    )+};
}

detectors_of_tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_its_members() {
        let set = (NewCountry::default(), UnresolvedAddress::default(), Burst::default());
        assert_eq!(set.names(), [DETECTORS[0], DETECTORS[1], DETECTORS[6]]);
        let (mut history, mut found) = (Default::default(), Vec::new());
        assert!(<(NewCountry, UnresolvedAddress, Burst)>::is_default(&history));
        assert_eq!(set.expires(&history), NEVER_MATTERS);
        let event = Login::new("ana", "").at(Micros(5), 1, 2);
        set.step(&mut history, &event, &mut found);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].detector, found[0].user.get(0), found[0].order()),
            (1, "ana", (event.time, event.position, 1))
        );
        assert!(!<(NewCountry, UnresolvedAddress, Burst)>::is_default(&history));
        let expires = [set.0.expires(&history.0), set.1.expires(&history.1), set.2.expires(&history.2)];
        assert_eq!(Some(set.expires(&history)), expires.into_iter().max());
    }

    #[test]
    fn ranks_are_the_order_of_the_table() {
        let ranks = [NewCountry::RANK, UnresolvedAddress::RANK, ImpossibleTravel::RANK, BruteForce::RANK];
        assert_eq!(ranks, [0, 1, 2, 3]);
        assert_eq!([CredentialStuffing::RANK, NewDevice::RANK, Burst::RANK], [4, 5, 6]);
    }
}
