//! Event time: UTC, whole microseconds since 1970, from and to its text form.
//!
//! Years are 0000 to 9999. A day's number is counted by whole years and months, not by a formula.

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// The watermark when a bounded input has ended: 9999-12-31T23:59:59.999999Z.
pub(crate) const END_OF_TIME: i64 = 253_402_300_799_999_999;

/// `YYYY-MM-DDTHH:MM:SS[.f]` and `Z` or `±HH:MM`, with f of 1-9 digits, cut to 6; `None` for anything else.
///
/// ```
/// assert_eq!(dataflow_oracle::parse_time("1970-01-01T01:00:00.0000019+01:00"), Some(1));
/// ```
pub fn parse_time(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    if b.len() < 20 {
        return None;
    }
    let (date_and_time, rest) = b.split_at(19);
    for (at, sign) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if date_and_time[at] != sign {
            return None;
        }
    }
    let field = |from: usize, to: usize| number(&date_and_time[from..to]);
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix(b".") {
        None => (0, rest),
        Some(rest) => {
            let count = rest.iter().take_while(|c| c.is_ascii_digit()).count();
            if !(1..=9).contains(&count) {
                return None;
            }
            let mut six = rest[..count.min(6)].to_vec();
            six.resize(6, b'0');
            (number(&six)?, &rest[count..])
        }
    };
    let ahead = match zone {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * HOUR + minutes * MINUTE) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let day_number = days_before_year(year) + (1..month).map(|m| days_of_month(year, m)).sum::<i64>() + day - 1;
    Some(day_number * DAY + hour * HOUR + minute * MINUTE + second * SECOND + fraction - ahead)
}

/// `2026-03-01T09:00:00.123456Z`: always six digits.
pub fn format_time(micros: i64) -> String {
    let (day_number, of_day) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    // At most the year sought, before and after 1970; then by whole years.
    let mut year = 1970 + day_number.div_euclid(366).min(day_number.div_euclid(365));
    while days_before_year(year + 1) <= day_number {
        year += 1;
    }
    let (mut month, mut day) = (1, day_number - days_before_year(year));
    while day >= days_of_month(year, month) {
        day -= days_of_month(year, month);
        month += 1;
    }
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        day + 1,
        of_day / HOUR,
        of_day / MINUTE % 60,
        of_day / SECOND % 60,
        of_day % SECOND
    )
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to January 1st of `year`: 365 a year and one for each leap year between.
fn days_before_year(year: i64) -> i64 {
    let leap_years_before = |y: i64| (y - 1).div_euclid(4) - (y - 1).div_euclid(100) + (y - 1).div_euclid(400);
    (year - 1970) * 365 + leap_years_before(year) - leap_years_before(1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        for (text, micros) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2000-02-29T00:00:00.000000Z", 951_782_400_000_000),
            ("2026-03-01T09:00:00.123456Z", 1_772_355_600_123_456),
            ("9999-12-31T23:59:59.999999Z", END_OF_TIME),
            ("0000-01-01T00:00:00.000000Z", -62_167_219_200_000_000),
        ] {
            assert_eq!(parse_time(text), Some(micros), "{text}");
            assert_eq!(format_time(micros), text);
        }
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        let first = parse_time("1899-12-31T12:34:56.789012Z").unwrap();
        for day in 0..146_097 {
            let t = first + day * DAY;
            assert_eq!(parse_time(&format_time(t)), Some(t));
        }
    }

    #[test]
    fn other_forms() {
        let expected = parse_time("2026-03-01T09:00:00.5Z");
        assert!(expected.is_some());
        for text in ["2026-03-01T09:00:00.500000999Z", "2026-03-01T14:30:00.5+05:30", "2026-02-28T23:59:00.5-09:01"] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
        for text in [
            "",
            "2026-03-01T09:00:00",
            "2026-03-01T09:00:00.Z",
            "2026-03-01T09:00:00.1234567890Z",
            "2026-03-01T09:00:00z",
            "2026-03-01t09:00:00Z",
            "2026-03-01 09:00:00Z",
            "2026-03-01T24:00:00Z",
            "2026-03-01T23:59:60Z",
            "2026-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-03-01T09:00:00+0100",
            "2026-03-01T09:00:00+24:00",
            "2026-03-01T09:00:00+01:60",
            "2026-03-01T09:00:00Z ",
            "+026-03-01T09:00:00Z",
            "２026-03-01T09:00:00Z",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
