//! Event time and clock values: UTC, whole microseconds since 1970, and their text form.
//!
//! Owns the one parser and the one printer of timestamps (SEMANTICS "Values" and "Login records"): always six
//! digits and a `Z` on output; on input a fraction of 1 to 9 digits (cut to six), `Z` or `±HH:MM`, seconds to 59.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds in an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Microseconds in a day.
pub const DAY: i64 = 24 * HOUR;

impl Micros {
    /// The watermark of an ended input: 9999-12-31T23:59:59.999999Z.
    pub const END_OF_TIME: Micros = Micros(253_402_300_799_999_999);

    /// This instant moved by `micros`, staying within `i64`.
    pub fn plus(self, micros: i64) -> Micros {
        Micros(self.0.saturating_add(micros))
    }

    /// `self - earlier` in microseconds, staying within `i64`.
    pub fn since(self, earlier: Micros) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Parses `YYYY-MM-DDTHH:MM:SS[.f](Z|±HH:MM)`; `None` for everything else.
    ///
    /// ```
    /// use dataflow_core::Micros;
    /// assert_eq!(Micros::parse("1970-01-01T00:00:01.5Z"), Some(Micros(1_500_000)));
    /// assert_eq!(Micros::parse("1970-01-01T01:00:00+01:00"), Some(Micros(0)));
    /// assert_eq!(Micros::parse("1970-01-01T00:00:60Z"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Micros> {
        let b = text.as_bytes();
        let digits = |range: std::ops::Range<usize>| -> Option<i64> {
            let mut n = 0;
            for c in b.get(range)? {
                n = n * 10 + i64::from(c.checked_sub(b'0').filter(|d| *d <= 9)?);
            }
            Some(n)
        };
        let is = |at: usize, c: u8| b.get(at) == Some(&c);
        if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
            return None;
        }
        let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
        let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let (mut at, mut fraction) = (19, 0);
        if is(at, b'.') {
            at += 1;
            let mut count = 0;
            while let Some(d) = b.get(at).and_then(|c| c.checked_sub(b'0')).filter(|d| *d <= 9) {
                if count < 6 {
                    fraction = fraction * 10 + i64::from(d);
                }
                count += 1;
                at += 1;
            }
            if !(1..=9).contains(&count) {
                return None;
            }
            for _ in count..6 {
                fraction *= 10;
            }
        }
        let offset_minutes = match b.get(at)? {
            b'Z' if b.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if b.len() == at + 6 && is(at + 3, b':') => {
                let (h, m) = (digits(at + 1..at + 3)?, digits(at + 4..at + 6)?);
                if h > 23 || m > 59 {
                    return None;
                }
                (h * 60 + m) * if *sign == b'+' { 1 } else { -1 }
            }
            _ => return None,
        };
        let days = days_from_civil(year, month, day);
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_minutes * 60;
        Some(Micros(seconds * SECOND + fraction))
    }

    /// Appends the 27 bytes of the text form, `2026-03-01T09:00:00.123456Z`, without allocating.
    pub fn write(self, out: &mut Vec<u8>) {
        let seconds = self.0.div_euclid(SECOND);
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |at: std::ops::Range<usize>, number: i64| {
            let mut left = number as u32;
            for digit in text[at].iter_mut().rev() {
                *digit = b'0' + (left % 10) as u8;
                left /= 10;
            }
        };
        put(0..4, year);
        put(5..7, month);
        put(8..10, day);
        put(11..13, of_day / 3600);
        put(14..16, of_day / 60 % 60);
        put(17..19, of_day % 60);
        put(20..26, self.0.rem_euclid(SECOND));
        out.extend_from_slice(&text);
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(27);
        self.write(&mut text);
        f.write_str(std::str::from_utf8(&text).expect("digits and separators are ASCII"))
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Micros::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("'{text}' is not a UTC timestamp")))
        } else {
            Ok(Micros(i64::deserialize(deserializer)?))
        }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of a month, 1 to 12, of the proleptic Gregorian calendar.
pub fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`]: (year, month, day).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants() {
        for (text, micros) in [
            ("2026-03-01T09:00:00.123456Z", 1_772_355_600_123_456),
            ("9999-12-31T23:59:59.999999Z", Micros::END_OF_TIME.0),
            ("2000-02-29T00:00:00.000000Z", 951_782_400_000_000),
        ] {
            assert_eq!(Micros::parse(text), Some(Micros(micros)));
            assert_eq!(Micros(micros).to_string(), text);
        }
        for text in [
            "",
            "2026-02-30T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00z",
            "2026-01-01T00:00:00+0100",
        ] {
            assert_eq!(Micros::parse(text), None, "{text}");
        }
        assert_eq!(Micros::parse("2026-01-01T00:00:00.123456789Z"), Micros::parse("2026-01-01T00:00:00.123456Z"));
    }

    proptest! {
        #[test]
        fn printed_is_parsed(micros in -62_135_596_800_000_000i64..=253_402_300_799_999_999) {
            prop_assert_eq!(Micros::parse(&Micros(micros).to_string()), Some(Micros(micros)));
        }
    }
}
