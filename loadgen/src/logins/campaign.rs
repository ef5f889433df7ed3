//! Attacks: scheduled one to a slot of event time, each a pure function of seed and slot, over all partitions.
//!
//! The events of an attack are made so that the detector of its kind fires (SEMANTICS "Login anomalies") once all of them
//! were read, whatever came before: but for a new device, whose victim must have logged in a day earlier, and for a second
//! attack of the same kind on the same account.

use super::habits::{self, Device, TOOLS};
use super::{Settings, Traffic};
use crate::dice::Dice;
use crate::geography;
use dataflow_core::Micros;
use dataflow_core::time::{HOUR, MINUTE, SECOND};
use serde::{Deserialize, Serialize};

const TAG_CAMPAIGN: u64 = 16;
/// The logins before a burst: sessions of one, so that the mean is 1.
const SESSIONS: u64 = 12;
/// Between them: more than the 30 s that part two sessions.
const SESSION_GAP: u64 = 42 * SECOND as u64;

/// A new device is noticed at accounts that are known for a day: those of a partition's most active users.
const ACTIVE: usize = 10;
/// ... and so not before the second day.
const KNOWN_US: u64 = 25 * HOUR as u64;

/// What the attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One address tries a list of accounts.
    CredentialStuffing,
    /// One account, many passwords, without success.
    BruteForce,
    /// The same, until one of them fits.
    AccountTakeover,
    /// The account is used at home and, minutes later, on another continent.
    ImpossibleTravel,
    /// An active user's account is used from a device that they never had. From the second day on only.
    NewDevice,
    /// After a dozen quiet sessions, a script logs in again and again.
    Burst,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 6] = [
        Kind::CredentialStuffing,
        Kind::BruteForce,
        Kind::AccountTakeover,
        Kind::ImpossibleTravel,
        Kind::NewDevice,
        Kind::Burst,
    ];

    /// The detector that is to catch it, and the least severity that tells it.
    pub fn detector(self) -> (&'static str, &'static str) {
        match self {
            Kind::CredentialStuffing => ("credential_stuffing", "high"),
            Kind::BruteForce => ("brute_force", "high"),
            Kind::AccountTakeover => ("brute_force", "critical"),
            Kind::ImpossibleTravel => ("impossible_travel", "high"),
            Kind::NewDevice => ("new_device", "medium"),
            Kind::Burst => ("burst", "medium"),
        }
    }

    /// From the first to the last event at most, in microseconds.
    fn span_us(self) -> u64 {
        match self {
            Kind::CredentialStuffing | Kind::BruteForce => MINUTE as u64,
            Kind::AccountTakeover => 2 * MINUTE as u64,
            Kind::ImpossibleTravel => 11 * MINUTE as u64,
            Kind::NewDevice => 1,
            Kind::Burst => SPAN_MAX_US,
        }
    }
}

/// The longest attack.
const SPAN_MAX_US: u64 = 11 * MINUTE as u64;

/// One login of an attack.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) at_us: u64,
    pub(super) user: u32,
    pub(super) ip: String,
    pub(super) device: Device,
    pub(super) success: bool,
}

/// An attack.
#[derive(Clone, Debug)]
pub(super) struct Campaign {
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) attempts: Vec<Attempt>,
}

fn slot_us(settings: &Settings) -> u64 {
    // An attack has about 15 events: as many attacks a minute as records a second leaves most records ordinary, and
    // bounds what a block has to look at.
    ((60e6 / settings.attacks.min(settings.rate)) as u64).max(1)
}

/// The attacks that may have an event in [from_us, until_us).
pub(super) fn within(traffic: &Traffic, from_us: u64, until_us: u64) -> impl Iterator<Item = Campaign> {
    let settings = &traffic.settings;
    let slot = if settings.attacks > 0.0 { slot_us(settings) } else { u64::MAX };
    let ids =
        if settings.attacks > 0.0 { from_us.saturating_sub(SPAN_MAX_US) / slot..until_us.div_ceil(slot) } else { 0..0 };
    ids.filter_map(move |id| {
        let (kind, start, _) = outline(settings, id);
        let overlaps = start < until_us && start + kind.span_us() > from_us;
        overlaps.then(|| campaign(traffic, id))?
    })
}

/// What and when, and the dice for the rest.
fn outline(settings: &Settings, id: u64) -> (Kind, u64, Dice) {
    let mut dice = Dice::of(&[settings.seed, TAG_CAMPAIGN, id]);
    let kind = *dice.pick(&settings.kinds);
    let slot = slot_us(settings);
    let start = id.saturating_mul(slot).saturating_add(dice.below(slot / 2 + 1));
    (kind, start, dice)
}

/// The attack with this id; `None` where the kind is not possible yet.
pub(super) fn campaign(traffic: &Traffic, id: u64) -> Option<Campaign> {
    let settings = &traffic.settings;
    let (kind, start, mut dice) = outline(settings, id);
    let dice = &mut dice;
    let seed = settings.seed;
    let victim = settings.user(dice.below(settings.users));
    let ip = geography::attacker(dice);
    let tool = *dice.pick(&TOOLS);
    let time = |at_us: u64| settings.start.plus(at_us as i64);
    let fails = |dice: &mut Dice, count: u64, step: u64| -> Vec<Attempt> {
        let at = |n: u64, dice: &mut Dice| start + n * step + dice.below(step / 2);
        let one = |n| Attempt { at_us: at(n, dice), user: victim, ip: ip.clone(), device: tool, success: false };
        (0..count).map(one).collect()
    };
    let usual = |at_us: u64, user: u32, dice: &mut Dice| {
        let city = habits::city(seed, user, time(at_us)).unwrap_or_else(|| habits::home(seed, user));
        let device = habits::device(seed, user, time(at_us), dice);
        Attempt { at_us, user, ip: habits::address(seed, user, city, dice), device, success: true }
    };
    let attempts = match kind {
        Kind::CredentialStuffing => {
            // All in 7 s: a window begins every 10 s, so some window of 60 s holds them.
            let first = dice.below(settings.users);
            let count = dice.between(14, 24).min(settings.users);
            let one = |n| Attempt {
                at_us: start + n * 7 * SECOND as u64 / count,
                user: settings.user((first + n) % settings.users),
                ip: ip.clone(),
                device: tool,
                success: dice.chance(0.05),
            };
            (0..count).map(one).collect()
        }
        Kind::BruteForce => {
            let count = dice.between(6, 12);
            fails(dice, count, 3 * SECOND as u64)
        }
        Kind::AccountTakeover => {
            let count = dice.between(6, 12);
            let mut attempts = fails(dice, count, 3 * SECOND as u64);
            let at_us = start + dice.between(45, 100) * SECOND as u64;
            attempts.push(Attempt { at_us, user: victim, ip: ip.clone(), device: tool, success: true });
            attempts
        }
        Kind::ImpossibleTravel => {
            let first = usual(start, victim, dice);
            let city = habits::city(seed, victim, time(start)).unwrap_or_else(|| habits::home(seed, victim));
            let away = geography::far_from(city, dice);
            let at_us = start + dice.between(1, 10) * MINUTE as u64;
            let ip = geography::address(away, dice);
            vec![first, Attempt { at_us, user: victim, ip, device: tool, success: true }]
        }
        Kind::NewDevice => {
            if start < KNOWN_US {
                return None;
            }
            let partition = dice.below(traffic.members.len() as u64) as usize;
            let active = traffic.members.iter().cycle().skip(partition).find(|m| !m.is_empty())?;
            let user = active[dice.below(active.len().min(ACTIVE) as u64) as usize];
            let mut attempt = usual(start, user, dice);
            attempt.device = tool;
            vec![attempt]
        }
        Kind::Burst => {
            let quiet: Vec<_> = (0..SESSIONS).map(|n| usual(start + n * SESSION_GAP, victim, dice)).collect();
            let begin = start + SESSIONS * SESSION_GAP;
            let again =
                (0..14).map(|n| Attempt { at_us: begin + n * 2 * SECOND as u64, device: tool, ..quiet[0].clone() });
            quiet.iter().cloned().chain(again).collect()
        }
    };
    Some(Campaign { id, kind, attempts })
}

/// The time of an attempt.
pub(super) fn time(settings: &Settings, attempt: &Attempt) -> Micros {
    settings.start.plus(attempt.at_us as i64)
}
