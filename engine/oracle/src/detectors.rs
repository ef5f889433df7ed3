//! The seven detectors, in the order and the words of the table in `SEMANTICS.md`.
//!
//! Each is a function of a login e and of the logins up to e of its user (or of its address): `logins[..=i]` in login
//! order, without duplicates, e = `logins[i]`. Two rules speak of what fired before; `fired[..i]` holds that. Nothing
//! looks behind i, so a list may grow at its end without a change to what was found before.

use crate::TOPIC;
use crate::intake::Login;
use crate::time::{DAY, MINUTE, SECOND, format_time};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The detectors, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detector {
    NewCountry,
    UnresolvedAddress,
    ImpossibleTravel,
    BruteForce,
    CredentialStuffing,
    NewDevice,
    Burst,
}

impl Detector {
    fn name_and_reason(self) -> (&'static str, &'static str) {
        match self {
            Detector::NewCountry => ("new_country", "Login from new country"),
            Detector::UnresolvedAddress => ("unresolved_address", "Login from unresolved address"),
            Detector::ImpossibleTravel => ("impossible_travel", "Impossible travel"),
            Detector::BruteForce => ("brute_force", "Brute force"),
            Detector::CredentialStuffing => ("credential_stuffing", "Credential stuffing"),
            Detector::NewDevice => ("new_device", "Login from new device"),
            Detector::Burst => ("burst", "Login burst"),
        }
    }
}

/// What a detector found at a login.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Anomaly<'a> {
    pub(crate) detector: Detector,
    pub(crate) login: &'a Login,
    severity: &'static str,
    evidence: Vec<&'a Login>,
    detail: Value,
    /// Of credential stuffing: the end of the window that fired.
    window_end: Option<i64>,
}

/// The detectors of a kind: those by user, or the one by address.
pub(crate) type Judge = for<'a> fn(&[&'a Login], usize, &[Vec<Anomaly<'a>>]) -> Vec<Anomaly<'a>>;

/// What fires at `logins[i]`, from the logins of its user.
pub(crate) fn by_user<'a>(logins: &[&'a Login], i: usize, fired: &[Vec<Anomaly<'a>>]) -> Vec<Anomaly<'a>> {
    let found = [
        new_country(logins, i),
        unresolved_address(logins, i),
        impossible_travel(logins, i),
        brute_force(logins, i, fired),
        new_device(logins, i),
        burst(logins, i),
    ];
    found.into_iter().flatten().collect()
}

/// What fires at `logins[i]`, from the logins of its address.
pub(crate) fn by_address<'a>(logins: &[&'a Login], i: usize, fired: &[Vec<Anomaly<'a>>]) -> Vec<Anomaly<'a>> {
    credential_stuffing(logins, i, fired).into_iter().collect()
}

impl<'a> Anomaly<'a> {
    fn new(detector: Detector, login: &'a Login, severity: &'static str, evidence: Vec<&'a Login>) -> Anomaly<'a> {
        Anomaly { detector, login, severity, evidence, detail: json!({}), window_end: None }
    }

    /// Unique in a job, and the same in every replay.
    pub(crate) fn id(&self) -> String {
        let (name, _) = self.detector.name_and_reason();
        format!("{name}/{TOPIC}/{}/{}", self.login.partition, self.login.offset)
    }

    /// The row without what depends on when it is said: no `status`, no `epoch`.
    pub(crate) fn content(&self) -> Map<String, Value> {
        let (name, reason) = self.detector.name_and_reason();
        let at = |l: &&Login| json!({"topic": TOPIC, "partition": l.partition, "offset": l.offset});
        let mut row = Map::new();
        row.insert("id".to_owned(), json!(self.id()));
        row.insert("user_id".to_owned(), json!(self.login.event.user_id));
        row.insert("timestamp".to_owned(), json!(format_time(self.login.t)));
        row.insert("detector".to_owned(), json!(name));
        row.insert("reason".to_owned(), json!(reason));
        row.insert("severity".to_owned(), json!(self.severity));
        row.insert("country".to_owned(), json!(self.login.place.country));
        row.insert("evidence".to_owned(), self.evidence.iter().map(at).collect());
        row.insert("detail".to_owned(), self.detail.clone());
        row
    }
}

/// The logins before `logins[i]` that are at most `within` older, the newest first.
fn back<'s, 'a>(logins: &'s [&'a Login], i: usize, within: i64) -> impl Iterator<Item = &'a Login> + use<'s, 'a> {
    let t = logins[i].t;
    logins[..i].iter().rev().copied().take_while(move |l| t - l.t <= within)
}

fn new_country<'a>(logins: &[&'a Login], i: usize) -> Option<Anomaly<'a>> {
    let e = logins[i];
    e.place.country.as_ref()?;
    let mut window = back(logins, i, 7 * DAY).filter(|l| e.t - l.t >= SECOND);
    let Some(newest) = window.next() else {
        return Some(Anomaly::new(Detector::NewCountry, e, "low", vec![e]));
    };
    let known = std::iter::once(newest).chain(window).any(|l| l.place.country == e.place.country);
    (!known).then(|| Anomaly::new(Detector::NewCountry, e, "medium", vec![e]))
}

fn unresolved_address<'a>(logins: &[&'a Login], i: usize) -> Option<Anomaly<'a>> {
    let e = logins[i];
    let mut window = back(logins, i, 7 * DAY).filter(|l| e.t - l.t >= SECOND);
    let fires = e.place.country.is_none() && !window.any(|l| l.place.country.is_none());
    fires.then(|| Anomaly::new(Detector::UnresolvedAddress, e, "low", vec![e]))
}

fn impossible_travel<'a>(logins: &[&'a Login], i: usize) -> Option<Anomaly<'a>> {
    let e = logins[i];
    let at = |l: &Login| if l.success { l.place.position } else { None };
    let here = at(e)?;
    let f = logins[..i].iter().rev().copied().find(|l| at(l).is_some())?;
    let d = haversine_km(at(f)?, here);
    let elapsed_us = e.t - f.t;
    if d > 100.0 && d * 4_000_000.0 > elapsed_us as f64 {
        let mut found = Anomaly::new(Detector::ImpossibleTravel, e, "high", vec![f, e]);
        found.detail = json!({"distance_km": (d + 0.5).floor() as i64, "elapsed_us": elapsed_us});
        Some(found)
    } else {
        None
    }
}

/// The distance of two positions (latitude, longitude in degrees) on a sphere.
fn haversine_km(f: (f64, f64), e: (f64, f64)) -> f64 {
    let (lat_f, lon_f) = (f.0.to_radians(), f.1.to_radians());
    let (lat_e, lon_e) = (e.0.to_radians(), e.1.to_radians());
    let h = ((lat_e - lat_f) / 2.0).sin().powi(2) + lat_f.cos() * lat_e.cos() * ((lon_e - lon_f) / 2.0).sin().powi(2);
    2.0 * 6371.0088 * h.sqrt().min(1.0).asin()
}

fn brute_force<'a>(logins: &[&'a Login], i: usize, fired: &[Vec<Anomaly<'a>>]) -> Option<Anomaly<'a>> {
    let e = logins[i];
    // The user's last `high` before e, and where: one older than 5 minutes matters to neither rule.
    let last_high = (0..i).rev().take_while(|j| e.t - logins[*j].t <= 5 * MINUTE).find_map(|j| {
        let high = fired[j].iter().find(|a| a.detector == Detector::BruteForce && a.severity == "high")?;
        Some((j, high))
    });
    if e.success {
        let (j, b) = last_high?;
        if logins[j + 1..i].iter().any(|l| l.success) {
            return None;
        }
        let evidence = b.evidence.iter().copied().chain([e]).collect();
        let mut found = Anomaly::new(Detector::BruteForce, e, "critical", evidence);
        found.detail = json!({"escalates": b.id()});
        return Some(found);
    }
    let mut failed: Vec<&Login> = logins[..=i].iter().rev().copied().filter(|l| !l.success).take(5).collect();
    failed.reverse();
    let within = failed.len() == 5 && e.t - failed[0].t <= MINUTE;
    let said = last_high.is_some_and(|(j, _)| e.t - logins[j].t <= MINUTE);
    (within && !said).then(|| Anomaly::new(Detector::BruteForce, e, "high", failed))
}

fn credential_stuffing<'a>(logins: &[&'a Login], i: usize, fired: &[Vec<Anomaly<'a>>]) -> Option<Anomaly<'a>> {
    let e = logins[i];
    // The end of A's last window that fired. A window ends within a minute after the login it fires at, and one that
    // e can be in begins within a minute before e: what fired earlier than two minutes ago forbids nothing.
    let last_end = (0..i)
        .rev()
        .take_while(|j| e.t - logins[*j].t <= 2 * MINUTE)
        .find_map(|j| fired[j].iter().find_map(|a| a.window_end));
    let newest = e.t.div_euclid(10 * SECOND) * 10 * SECOND;
    for s in (0..6).rev().map(|n| newest - n * 10 * SECOND) {
        if last_end.is_some_and(|end| s < end) {
            continue;
        }
        let mut last_of_user: BTreeMap<&str, &Login> = BTreeMap::new();
        for l in logins[..=i].iter().rev().copied().take_while(|l| l.t >= s) {
            last_of_user.entry(&l.event.user_id).or_insert(l);
        }
        if last_of_user.len() >= 10 {
            let users = last_of_user.len();
            let mut evidence: Vec<&Login> = last_of_user.into_values().collect();
            evidence.sort_by_key(|l| l.order());
            let mut found = Anomaly::new(Detector::CredentialStuffing, e, "high", evidence);
            found.detail = json!({"ip": e.event.ip, "users": users, "window_start": format_time(s)});
            found.window_end = Some(s + MINUTE);
            return Some(found);
        }
    }
    None
}

fn new_device<'a>(logins: &[&'a Login], i: usize) -> Option<Anomaly<'a>> {
    let e = logins[i];
    if !e.success {
        return None;
    }
    let pair = |l: &Login| (l.event.device.clone(), l.event.platform.clone());
    if back(logins, i, 30 * DAY)
        .any(|l| l.success && l.event.device == e.event.device && l.event.platform == e.event.platform)
    {
        return None;
    }
    // The user's first ok login since their last silence: from e back, as long as no two are over 30 d apart.
    let mut first = e;
    for l in logins[..i].iter().rev().copied().filter(|l| l.success) {
        if first.t - l.t > 30 * DAY {
            break;
        }
        first = l;
    }
    let (device, platform) = pair(e);
    (e.t - first.t >= DAY).then(|| {
        let mut found = Anomaly::new(Detector::NewDevice, e, "medium", vec![e]);
        found.detail = json!({"device": device, "platform": platform});
        found
    })
}

fn burst<'a>(logins: &[&'a Login], i: usize) -> Option<Anomaly<'a>> {
    let e = logins[i];
    let begin = session_begin(logins, i);
    let c = i - begin + 1;
    if c < 10 {
        return None;
    }
    let start = logins[begin];
    let mut counts: Vec<i128> = Vec::new();
    let mut next = begin;
    while next > 0 && counts.len() < 50 {
        let earlier = session_begin(logins, next - 1);
        if start.t - logins[earlier].t > 30 * DAY {
            break;
        }
        counts.push((next - earlier) as i128);
        next = earlier;
    }
    let n = counts.len() as i128;
    let (sum, squares) = (counts.iter().sum::<i128>(), counts.iter().map(|k| k * k).sum::<i128>());
    let over = |c: i128| c >= 10 && n >= 10 && n * c > sum && (n * c - sum).pow(2) > 16 * (n * squares - sum * sum);
    // "The first of its session": no login before it is over.
    if !over(c as i128) || (1..c as i128).any(over) {
        return None;
    }
    let mut found = Anomaly::new(Detector::Burst, e, "medium", vec![start, e]);
    found.detail = json!({"logins": c, "session_start": format_time(start.t), "sessions": n as i64});
    Some(found)
}

/// The index of the first login of the session that `logins[i]` is in: each within 30 s of the one before.
fn session_begin(logins: &[&Login], i: usize) -> usize {
    let mut begin = i;
    while begin > 0 && logins[begin].t - logins[begin - 1].t <= 30 * SECOND {
        begin -= 1;
    }
    begin
}
