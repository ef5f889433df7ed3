//! What a user usually does: pure functions of seed, user and time, so that no block needs another.
//!
//! A user lives in a city, is awake there by day, has one to three devices of which each is replaced every few months, and
//! now and then travels for some days, with the hours of the flight between the last login here and the first there.

use crate::dice::Dice;
use crate::geography::{self, CITIES, CityId};
use dataflow_core::Micros;
use dataflow_core::time::{DAY, HOUR};

const TAG_HOME: u64 = 1;
const TAG_TRIP: u64 = 2;
const TAG_DEVICE: u64 = 3;
const TAG_ADDRESS: u64 = 4;

/// Chance of a trip in a week.
const TRIP: f64 = 0.04;
/// Hours without a login around a flight: more than the longest one takes.
const FLIGHT: i64 = 24 * HOUR;
/// Until a device is replaced.
const DEVICE_LIFE: i64 = 150 * DAY;

/// A device: name, platform, user agent.
pub(super) type Device = (&'static str, &'static str, &'static str);

/// Devices that people have, common ones first and more than once.
const DEVICES: [Device; 10] = [
    ("iPhone 15", "iOS", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"),
    ("iPhone 14", "iOS", "Mozilla/5.0 (iPhone; CPU iPhone OS 16_6 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"),
    (
        "Android Galaxy S24",
        "Android",
        "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 Chrome/123.0 Mobile",
    ),
    ("Android Pixel 8", "Android", "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/123.0 Mobile"),
    (
        "Android Redmi 12",
        "Android",
        "Mozilla/5.0 (Linux; Android 13; 23053RN02A) AppleWebKit/537.36 Chrome/121.0 Mobile",
    ),
    ("Windows PC", "Windows", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/123.0"),
    ("Windows Laptop", "Windows", "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:124.0) Gecko/20100101 Firefox/124.0"),
    (
        "MacBook Pro",
        "macOS",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_4) AppleWebKit/605.1.15 Version/17.4 Safari/605.1.15",
    ),
    ("iPad Air", "iPadOS", "Mozilla/5.0 (iPad; CPU OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"),
    ("Linux PC", "Linux", "Mozilla/5.0 (X11; Linux x86_64; rv:124.0) Gecko/20100101 Firefox/124.0"),
];

/// Devices that only attackers have.
pub(super) const TOOLS: [Device; 3] = [
    ("Headless Chrome", "Linux", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/122.0"),
    ("Script", "Linux", "python-requests/2.31.0"),
    ("Windows VM", "Windows", "Mozilla/5.0 (Windows NT 10.0; WOW64) AppleWebKit/537.36 Chrome/109.0"),
];

/// The user id.
pub(super) fn name(user: u32) -> String {
    format!("u{user:06}")
}

/// Where the user lives.
pub(super) fn home(seed: u64, user: u32) -> CityId {
    geography::home(&mut Dice::of(&[seed, TAG_HOME, u64::from(user)]))
}

/// Where the user is; `None` on a flight.
pub(super) fn city(seed: u64, user: u32, at: Micros) -> Option<CityId> {
    let (week, within) = (at.0.div_euclid(7 * DAY), at.0.rem_euclid(7 * DAY));
    let home = home(seed, user);
    let mut dice = Dice::of(&[seed, TAG_TRIP, u64::from(user), week as u64]);
    if !dice.chance(TRIP) {
        return Some(home);
    }
    let from = dice.below(2) as i64 * DAY;
    let until = from + dice.between(4, 5) as i64 * DAY;
    let away = geography::far_from(home, &mut dice);
    match within {
        t if t < from || t >= until => Some(home),
        t if t < from + FLIGHT || t >= until - FLIGHT => None,
        _ => Some(away),
    }
}

/// Whether the user would log in now: by the hour of the day at home.
pub(super) fn is_awake(seed: u64, user: u32, at: Micros, dice: &mut Dice) -> bool {
    let shift = (CITIES[home(seed, user)].lon / 15.0) as i64 * HOUR;
    let share = match at.plus(shift).0.rem_euclid(DAY) / HOUR {
        0..=5 => 0.1,
        6..=8 => 0.6,
        9..=17 => 0.8,
        18..=22 => 1.0,
        _ => 0.4,
    };
    dice.chance(share)
}

/// One of the user's devices: mostly the first.
pub(super) fn device(seed: u64, user: u32, at: Micros, dice: &mut Dice) -> Device {
    let owned = Dice::of(&[seed, TAG_DEVICE, u64::from(user)]).between(1, 3);
    let slot = if dice.chance(0.7) { 0 } else { dice.below(owned) };
    let mut own = Dice::of(&[seed, TAG_DEVICE, u64::from(user), slot]);
    let age = own.below(DEVICE_LIFE as u64) as i64;
    let generation = (at.0 + age).div_euclid(DEVICE_LIFE) as u64;
    *Dice::of(&[seed, TAG_DEVICE, u64::from(user), slot, generation]).pick(&DEVICES)
}

/// An address in the city where the user is: mostly the one at home or in the hotel.
pub(super) fn address(seed: u64, user: u32, city: CityId, dice: &mut Dice) -> String {
    if dice.chance(0.8) {
        return geography::address(city, &mut Dice::of(&[seed, TAG_ADDRESS, u64::from(user), city as u64]));
    }
    geography::address(city, dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travellers_fly_before_they_arrive() {
        let mut trips = 0;
        for user in 0..300 {
            let mut last = city(7, user, Micros(0));
            for hour in 1..24 * 60 {
                let now = city(7, user, Micros(hour * HOUR));
                assert!(last == now || last.is_none() || now.is_none(), "user {user} jumps in hour {hour}");
                trips += usize::from(last.is_some() && now.is_none());
                last = now;
            }
        }
        assert!(trips > 50, "{trips}");
    }
}
