//! `new_device`, per user: a device that a known user did not use lately.
//!
//! Fires at e when e is ok; no earlier ok login of the user within 30 d has its device and platform; the user's first ok
//! login since their last silence > 30 d is at least 1 d before e (e may be what ends a silence: then the user is as
//! good as new). Severity medium. Evidence: e. Detail: device, platform. State: the last time of each pair, first and
//! last of the user.

use super::detector::NEVER_MATTERS;
use super::{Detail, Detector, Login, Severity, Texts, Verdict};
use dataflow_core::time::DAY;
use dataflow_core::{Micros, Stamped};
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

/// The detector and its parameters.
///
/// ```
/// use dataflow_core::{Micros, time::DAY};
/// use dataflow_operators::anomaly::{Detectors, Login, NewDevice};
/// let detectors = (NewDevice::default(),);
/// let (mut history, mut found) = (Default::default(), Vec::new());
/// for (day, device) in [(0, "Mac"), (1, "Kindle"), (2, "Kindle"), (32, "Mac")] {
///     let login = Login::new("ana", "203.0.113.7").on(device, "", "");
///     detectors.step(&mut history, &login.at(Micros(day * DAY), 0, day as u64), &mut found);
/// }
/// let days: Vec<_> = found.iter().map(|f| f.position.offset).collect();
/// assert_eq!(days, [1, 32]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDevice {
    /// How long a device, and a user, is remembered.
    pub window_us: i64,
    /// For how long a user's devices are learnt before one can be new; greater than 0.
    pub learn_us: i64,
}

impl Default for NewDevice {
    fn default() -> Self {
        NewDevice { window_us: 30 * DAY, learn_us: DAY }
    }
}

/// A user's devices, since their last silence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Devices {
    /// First and last ok login.
    known: Option<(Micros, Micros)>,
    /// Each pair of device and platform with its last ok login, sorted. Swept when a pair comes in, so it holds no more
    /// than one window had.
    pairs: SmallVec<[Pair; 2]>,
}

/// A device on a platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair {
    /// Device, platform.
    names: Texts<2>,
    last: Micros,
}

impl Devices {
    /// Where the pair of `login` stands, or would.
    fn find(&self, login: &Login) -> Result<usize, usize> {
        self.pairs.binary_search_by(|Pair { names, .. }| {
            (names.get(0), names.get(1)).cmp(&(login.device(), login.platform()))
        })
    }
}

impl Detector for NewDevice {
    type History = Devices;
    const NAME: &'static str = "new_device";
    const REASON: &'static str = "Login from new device";

    fn judge(&self, history: &Devices, event: &Stamped<Login>) -> Option<Verdict> {
        let (first, last) = history.known.filter(|_| event.data.success)?;
        let remembered = |time: Micros| event.time.since(time) <= self.window_us;
        if !remembered(last) || event.time.since(first) < self.learn_us {
            return None;
        }
        if history.find(&event.data).is_ok_and(|at| remembered(history.pairs[at].last)) {
            return None;
        }
        let detail = Detail::Device { device: event.data.device().into(), platform: event.data.platform().into() };
        Some(Verdict { severity: Severity::Medium, evidence: smallvec![event.position], detail })
    }

    fn absorb(&self, history: &mut Devices, event: &Stamped<Login>, _: Option<&Verdict>) {
        if !event.data.success {
            return;
        }
        let remembered = |time: Micros| event.time.since(time) <= self.window_us;
        if history.known.is_some_and(|(_, last)| !remembered(last)) {
            *history = Devices::default();
        }
        let first = history.known.map_or(event.time, |(first, _)| first);
        history.known = Some((first, event.time));
        if let Ok(at) = history.find(&event.data) {
            history.pairs[at].last = event.time;
            return;
        }
        history.pairs.retain(|pair| remembered(pair.last));
        if let Err(at) = history.find(&event.data) {
            let names = Texts::new([event.data.device(), event.data.platform()]);
            history.pairs.insert(at, Pair { names, last: event.time });
        }
    }

    fn expires(&self, history: &Devices) -> Micros {
        history.known.map_or(NEVER_MATTERS, |(_, last)| last.plus(self.window_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::check::{self, Draft, logins};
    use dataflow_core::time::SECOND;
    use proptest::prelude::*;

    fn naive(detector: &NewDevice, logins: &[Stamped<Login>], i: usize) -> Option<Verdict> {
        let e = &logins[i];
        let ok: Vec<_> = logins[..=i].iter().filter(|x| x.data.success).collect();
        if !e.data.success {
            return None;
        }
        let silence = (1..ok.len()).rfind(|j| ok[*j].time.0 - ok[j - 1].time.0 > detector.window_us);
        let first = ok[silence.unwrap_or(0)];
        let known = ok[..ok.len() - 1].iter().any(|x| {
            e.time.0 - x.time.0 <= detector.window_us
                && x.data.device() == e.data.device()
                && x.data.platform() == e.data.platform()
        });
        (!known && e.time.0 - first.time.0 >= detector.learn_us).then(|| Verdict {
            severity: Severity::Medium,
            evidence: smallvec![e.position],
            detail: Detail::Device { device: e.data.device().into(), platform: e.data.platform().into() },
        })
    }

    proptest! {
        #[test]
        fn as_the_definition_says(drafts in Draft::lists(80), learn_us in prop::sample::select(vec![1, DAY, 30 * DAY])) {
            let detector = NewDevice { learn_us, ..NewDevice::default() };
            let logins = logins(&drafts, &[0, SECOND, DAY / 2, DAY, 10 * DAY, 15 * DAY, 29 * DAY, 30 * DAY, 31 * DAY]);
            check::check(&detector, &logins, |i| naive(&detector, &logins, i), |history| {
                assert!(history.pairs.len() <= check::DEVICES * check::PLATFORMS, "{history:?}");
            })?;
        }
    }

    #[test]
    fn a_flood_of_devices_is_forgotten() {
        let (detector, mut history) = (NewDevice::default(), Devices::default());
        for day in 0..200 {
            let login = Login::new("a", "").on(&day.to_string(), "", "");
            detector.absorb(&mut history, &login.at(Micros(day * DAY), 0, day as u64), None);
            assert!(history.pairs.len() <= 31, "day {day}");
        }
    }
}
