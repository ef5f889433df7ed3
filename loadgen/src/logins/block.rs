//! Makes the records of one block: ordinary logins from habits, with the attacks' events at their times.

use super::campaign::{self, Attempt};
use super::event::{Body, Login, LoginEvent};
use super::habits::{self, Device};
use super::{BLOCK, Traffic, partition_of};
use crate::dice::Dice;
use dataflow_core::Micros;
use dataflow_core::time::{HOUR, SECOND};

const TAG_BLOCK: u64 = 32;
/// How often another user is chosen when the first sleeps or flies.
const REDRAWS: usize = 6;
/// Share of a block that attacks may take; what is beyond it does not happen.
const ATTEMPTS_MAX: usize = BLOCK as usize / 2;
/// Chance that an ordinary login fails: a mistyped password.
const MISTYPED: f64 = 0.03;

pub(super) fn make(traffic: &Traffic, partition: u32, block: u64) -> Vec<Login> {
    let schedule = traffic.schedules[partition as usize].as_ref().expect("a partition with records has users");
    let first = block * BLOCK;
    let span = (schedule.due_us(first, 0, 0, 1), schedule.due_us(first + BLOCK, 0, 0, 1));
    let mut dice = Dice::of(&[traffic.settings.seed, TAG_BLOCK, u64::from(partition), block]);
    let attempts = attempts(traffic, partition, span);
    let ordinary = BLOCK - attempts.len() as u64;
    let mut attempts = attempts.into_iter().peekable();
    let mut logins: Vec<Login> = Vec::with_capacity(BLOCK as usize);
    let mut before: Option<LoginEvent> = None;
    for n in 0..ordinary {
        let due_us = schedule.due_us(first, BLOCK, n, ordinary);
        while let Some((id, attempt)) = attempts.next_if(|(_, attempt)| attempt.at_us < due_us) {
            logins.push(attack(traffic, id, &attempt));
        }
        logins.push(one(traffic, (partition, first + n), due_us, &mut before, &mut dice));
    }
    logins.extend(attempts.map(|(id, attempt)| attack(traffic, id, &attempt)));
    logins
}

/// The attacks' events of this partition in the span, by time.
fn attempts(traffic: &Traffic, partition: u32, (from, until): (u64, u64)) -> Vec<(u64, Attempt)> {
    let mut found = Vec::new();
    for campaign in campaign::within(traffic, from, until) {
        let mine = campaign.attempts.into_iter().filter(|a| {
            a.at_us >= from
                && a.at_us < until
                && partition_of(&habits::name(a.user), traffic.settings.partitions) == partition
        });
        found.extend(mine.map(|attempt| (campaign.id, attempt)));
    }
    found.sort_by_key(|(id, attempt)| (attempt.at_us, *id));
    found.truncate(ATTEMPTS_MAX);
    found
}

fn attack(traffic: &Traffic, id: u64, attempt: &Attempt) -> Login {
    let time = campaign::time(&traffic.settings, attempt);
    let event = event(attempt.user, time, attempt.ip.clone(), attempt.device, Some(attempt.success));
    Login { due_us: attempt.at_us, time, key: event.user_id.clone(), body: Body::Event(event), campaign: Some(id) }
}

fn event(user: u32, time: Micros, ip: String, device: Device, success: Option<bool>) -> LoginEvent {
    let (device, platform, user_agent) = (device.0.into(), device.1.into(), device.2.into());
    // Writers of the first version say the zone as an offset.
    let mut timestamp = time.to_string();
    if success.is_none() {
        timestamp.pop();
        timestamp += "+00:00";
    }
    LoginEvent { user_id: habits::name(user), timestamp, ip, device, platform, user_agent, success }
}

/// An ordinary record: a login, one that is sent again, or one for the dead letters. `place`: its partition, and which one it is
/// there.
fn one(traffic: &Traffic, place: (u32, u64), due_us: u64, before: &mut Option<LoginEvent>, dice: &mut Dice) -> Login {
    let settings = &traffic.settings;
    if let Some(event) = before.take_if(|_| dice.chance(settings.duplicates)) {
        let time = Micros::parse(&event.timestamp).expect("we wrote it");
        return Login { due_us, time, key: event.user_id.clone(), body: Body::Event(event), campaign: None };
    }
    let due = settings.start.plus(due_us as i64);
    let behind = if dice.chance(settings.late) {
        dice.between(15_000_000, 120_000_000)
    } else if dice.chance(settings.disorder) {
        dice.below(settings.disorder_ms_max * 1000 + 1)
    } else {
        0
    };
    let time = due.plus(-(behind as i64));
    let (user, city) = choose(traffic, place, time, dice);
    let device = habits::device(settings.seed, user, time, dice);
    let ip = habits::address(settings.seed, user, city, dice);
    let failed = dice.chance(MISTYPED);
    let old = !failed && dice.chance(settings.old_writers);
    let event = event(user, time, ip, device, (!old).then_some(!failed));
    let key = event.user_id.clone();
    if dice.chance(settings.poison) {
        return Login { due_us, time, key, body: poison(event, due, dice), campaign: None };
    }
    *before = Some(event.clone());
    Login { due_us, time, key, body: Body::Event(event), campaign: None }
}

/// Who logs in: the hot user by their share, else a member of the partition: who is next, or the first ones far more often than
/// the last (rank = members * u * u), who is awake and not on a flight.
fn choose(traffic: &Traffic, (partition, number): (u32, u64), time: Micros, dice: &mut Dice) -> (u32, usize) {
    let (seed, members) = (traffic.settings.seed, &traffic.members[partition as usize]);
    let hot = traffic.settings.user(0);
    let is_hot = partition == partition_of(&habits::name(hot), traffic.settings.partitions);
    if is_hot && dice.chance(traffic.hot_share) {
        return (hot, habits::home(seed, hot));
    }
    if traffic.settings.in_turn {
        let user = members[(number % members.len() as u64) as usize];
        return (user, habits::city(seed, user, time).unwrap_or_else(|| habits::home(seed, user)));
    }
    let mut user = members[0];
    for _ in 0..REDRAWS {
        let u = dice.unit();
        user = members[(members.len() as f64 * u * u) as usize];
        if let Some(city) = habits::city(seed, user, time).filter(|_| habits::is_awake(seed, user, time, dice)) {
            return (user, city);
        }
    }
    // Somebody is always up; a traveller's flight has ended.
    (user, habits::city(seed, user, time).unwrap_or_else(|| habits::home(seed, user)))
}

fn poison(mut event: LoginEvent, due: Micros, dice: &mut Dice) -> Body {
    match dice.below(9) {
        0 => Body::Poison(None),
        // The framing of an id that no schema has.
        1 | 2 => Body::Poison(Some(b"\x00\xff\xff\xff\xff\x02a".to_vec())),
        3 => Body::Poison(Some(b"\x00\x00".to_vec())),
        4 | 5 => Body::Poison(Some((0..dice.between(1, 40)).map(|_| 0x80 | dice.bits() as u8).collect())),
        6 => {
            event.user_id.clear();
            Body::Event(event)
        }
        7 => {
            event.timestamp = (due.0 / SECOND).to_string();
            Body::Event(event)
        }
        _ => {
            event.timestamp = due.plus(dice.between(2, 48) as i64 * HOUR).to_string();
            Body::Event(event)
        }
    }
}
