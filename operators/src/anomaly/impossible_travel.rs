//! `impossible_travel`, per user: two logins too far apart for the time between them.
//!
//! Fires at e when e is ok and has lat, lon; f is the user's last earlier such login; d > 100.0 and
//! d * 4000000.0 > e.t - f.t in microseconds (900 km/h). Severity high. Evidence: f, e. distance_km = floor(d + 0.5), elapsed_us.
//! d is the haversine distance on a sphere of 6371.0088 km, in doubles, by the formula of SEMANTICS. State: the last
//! such login, for the time that half the globe takes.

use super::detector::NEVER_MATTERS;
use super::{Detail, Detector, Login, Severity, Verdict};
use dataflow_core::{Micros, Position, Stamped};
use serde::{Deserialize, Serialize};
use smallvec::smallvec;

/// The mean radius of the Earth, km (IUGG).
pub const EARTH_RADIUS_KM: f64 = 6371.0088;

/// More than half the globe's circumference, 20015.115 km: no distance is greater.
const FARTHEST_KM: f64 = 20_016.0;

/// The detector and its parameters.
///
/// ```
/// use dataflow_core::{Micros, time::HOUR};
/// use dataflow_operators::anomaly::{Detail, Detectors, ImpossibleTravel, Login};
/// use dataflow_operators::enrich::IpTable;
/// let table = IpTable::parse(b"ip_prefix,country,city,lat,lon\n1,DE,Berlin,52.52,13.405\n2,AU,Sydney,-33.8688,151.2093\n").unwrap();
/// let login = |ip: &str, hour: i64| {
///     let place = table.locate(ip).1;
///     Login { place, ..Login::new("ana", ip) }.at(Micros(hour * HOUR), 0, hour as u64)
/// };
/// let detectors = (ImpossibleTravel::default(),);
/// let (mut history, mut found) = (Default::default(), Vec::new());
/// for event in [login("1.0.0.1", 0), login("2.0.0.1", 17), login("1.0.0.1", 36)] {
///     detectors.step(&mut history, &event, &mut found);
/// }
/// assert_eq!(found.len(), 1);
/// assert_eq!(found[0].detail, Detail::Travel { distance_km: 16095, elapsed_us: 17 * HOUR });
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ImpossibleTravel {
    /// Distances up to this are within the error of the IP geography, km.
    pub within_km: f64,
    /// The least time a kilometre takes, us: 4000000.0 is 900 km/h.
    pub pace_us_per_km: f64,
}

impl Default for ImpossibleTravel {
    fn default() -> Self {
        ImpossibleTravel { within_km: 100.0, pace_us_per_km: 4_000_000.0 }
    }
}

/// Where a user was last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Whereabouts {
    time: Micros,
    position: Position,
    lat_lon: (f64, f64),
}

impl Detector for ImpossibleTravel {
    type History = Option<Whereabouts>;
    const NAME: &'static str = "impossible_travel";
    const REASON: &'static str = "Impossible travel";

    fn judge(&self, history: &Option<Whereabouts>, event: &Stamped<Login>) -> Option<Verdict> {
        let here = event.data.lat_lon().filter(|_| event.data.success)?;
        let before = history.as_ref()?;
        let (km, elapsed_us) = (distance_km(before.lat_lon, here), event.time.since(before.time));
        if !(km > self.within_km && km * self.pace_us_per_km > elapsed_us as f64) {
            return None;
        }
        Some(Verdict {
            severity: Severity::High,
            evidence: smallvec![before.position, event.position],
            detail: Detail::Travel { distance_km: (km + 0.5).floor() as i64, elapsed_us },
        })
    }

    fn absorb(&self, history: &mut Option<Whereabouts>, event: &Stamped<Login>, _: Option<&Verdict>) {
        if let Some(lat_lon) = event.data.lat_lon().filter(|_| event.data.success) {
            *history = Some(Whereabouts { time: event.time, position: event.position, lat_lon });
        }
    }

    fn expires(&self, history: &Option<Whereabouts>) -> Micros {
        let longest_us = (FARTHEST_KM * self.pace_us_per_km).ceil() as i64;
        history.as_ref().map_or(NEVER_MATTERS, |last| last.time.plus(longest_us))
    }
}

/// The great-circle distance of two points in degrees, by the haversine formula, in the order of operations of SEMANTICS.
pub fn distance_km(from: (f64, f64), to: (f64, f64)) -> f64 {
    let (phi_f, phi_e) = (from.0.to_radians(), to.0.to_radians());
    let (lambda_f, lambda_e) = (from.1.to_radians(), to.1.to_radians());
    let (north, east) = (((phi_e - phi_f) / 2.0).sin(), ((lambda_e - lambda_f) / 2.0).sin());
    let h = north * north + phi_f.cos() * phi_e.cos() * (east * east);
    2.0 * EARTH_RADIUS_KM * h.min(1.0).sqrt().asin()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::check::{self, Draft, logins};
    use dataflow_core::time::{DAY, HOUR, SECOND};
    use proptest::prelude::*;

    /// By the angle between unit vectors, which is another formula for the same distance.
    fn by_vectors(from: (f64, f64), to: (f64, f64)) -> f64 {
        let vector = |(lat, lon): (f64, f64)| {
            let (lat, lon) = (lat / 180.0 * std::f64::consts::PI, lon / 180.0 * std::f64::consts::PI);
            [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
        };
        let ([a, b, c], [x, y, z]) = (vector(from), vector(to));
        let cross = [b * z - c * y, c * x - a * z, a * y - b * x];
        let sine = cross.iter().map(|v| v * v).sum::<f64>().sqrt();
        6371.0088 * sine.atan2(a * x + b * y + c * z)
    }

    proptest! {
        #[test]
        fn distance_is_the_angle(a in (-90.0..=90.0, -180.0..=180.0), b in (-90.0..=90.0, -180.0..=180.0)) {
            prop_assert!((distance_km(a, b) - by_vectors(a, b)).abs() < 1e-3, "{} {}", distance_km(a, b), by_vectors(a, b));
            prop_assert!(distance_km(a, b) < FARTHEST_KM);
        }

        #[test]
        fn as_the_definition_says(drafts in Draft::lists(60)) {
            let detector = ImpossibleTravel::default();
            let mut gaps = vec![0, SECOND, HOUR, 23 * HOUR, DAY];
            // What 900 km/h takes between each two places, to the microsecond.
            gaps.extend(check::PLACES.iter().flat_map(|a| check::PLACES.iter().map(|b| (a.1, b.1))).filter_map(|(a, b)| {
                Some((by_vectors(a?, b?) * 4e6) as i64)
            }));
            let logins = logins(&drafts, &gaps);
            let naive = |i: usize| {
                let placed = |x: &Stamped<Login>| x.data.success && x.data.lat_lon().is_some();
                let e: &Stamped<Login> = &logins[i];
                let f = logins[..i].iter().rfind(|x| placed(x)).filter(|_| placed(e))?;
                let d = distance_km(f.data.lat_lon()?, e.data.lat_lon()?);
                (d > 100.0 && d * 4000000.0 > (e.time.0 - f.time.0) as f64).then(|| Verdict {
                    severity: Severity::High,
                    evidence: smallvec![f.position, e.position],
                    detail: Detail::Travel { distance_km: (d + 0.5).floor() as i64, elapsed_us: e.time.0 - f.time.0 },
                })
            };
            check::check(&detector, &logins, naive, |_| ())?;
        }
    }

    #[test]
    fn ten_degrees_of_the_equator() {
        assert_eq!((distance_km((0.0, 0.0), (0.0, 10.0)) * 1000.0).round(), 1_111_951.0);
        assert!(distance_km((0.0, 0.0), (0.0, 0.91)) > 100.0 && distance_km((0.0, 0.0), (0.0, 0.89)) < 100.0);
        assert_eq!(distance_km((90.0, 0.0), (-90.0, 77.0)).floor(), 20015.0);
        assert_eq!(distance_km((0.0, -180.0), (0.0, 180.0)).floor(), 0.0);
    }
}
