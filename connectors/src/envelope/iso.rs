//! Dates and times as Debezium writes them in text: years beyond 9999 with a sign, a fraction only where it is not zero, and a `Z` even
//! where the database has no time zone.

use super::{COLUMN_TYPE, Found, OUT_OF_RANGE};
use dataflow_core::Micros;
use dataflow_core::time::{DAY, HOUR, MINUTE, SECOND, days_from_civil, days_in_month};

/// What the database's infinity is as microseconds (as Debezium's MicroTimestamp has it), and minus infinity.
const INFINITY: [(&str, i64); 2] = [("infinity", 9_223_372_036_825_200_000), ("-infinity", -9_223_372_036_832_400_000)];

/// The digits of a year. Postgres' dates go to 5874897.
const YEAR_DIGITS_MAX: usize = 9;

/// Days since 1970 of `2026-03-01`, with or without a zone behind it.
pub(super) fn date(text: &str) -> Found<i32> {
    let mut rest = Rest(text.as_bytes());
    let days = rest.date().filter(|_| rest.zone().is_some() && rest.0.is_empty()).ok_or(COLUMN_TYPE)?;
    i32::try_from(days).map_err(|_| OUT_OF_RANGE)
}

/// The instant of `2026-03-01T09:00:00[.123456](Z|±HH:MM)`; without a zone it is UTC.
pub(super) fn timestamp(text: &str) -> Found<Micros> {
    if let Some((_, micros)) = INFINITY.iter().find(|(name, _)| *name == text) {
        return Ok(Micros(*micros));
    }
    let mut rest = Rest(text.as_bytes());
    let mut parts = || {
        let days = rest.date()?;
        rest.eat(b'T')?;
        let (time, zone) = (rest.time()?, rest.zone()?);
        rest.0.is_empty().then_some((days, time - zone))
    };
    let (days, time) = parts().ok_or(COLUMN_TYPE)?;
    days.checked_mul(DAY).and_then(|micros| micros.checked_add(time)).map(Micros).ok_or(OUT_OF_RANGE)
}

/// Microseconds since midnight of `09:00:00[.123456]`; a zone behind it is passed over.
pub(super) fn time_of_day(text: &str) -> Found<i64> {
    let mut rest = Rest(text.as_bytes());
    rest.time().filter(|_| rest.zone().is_some() && rest.0.is_empty()).ok_or(COLUMN_TYPE)
}

/// What is not read yet. Every method is `None` when it does not find what it reads.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn eat(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// A number of so many digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number.iter().try_fold(0, |n, c| Some(n * 10 + i64::from(c.checked_sub(b'0').filter(|d| *d <= 9)?)))
    }

    fn digits(&self) -> usize {
        self.0.iter().take_while(|c| c.is_ascii_digit()).count()
    }

    /// Days since 1970.
    fn date(&mut self) -> Option<i64> {
        let sign = if self.eat(b'-').is_some() { -1 } else { 1 };
        if sign == 1 {
            let _ = self.eat(b'+'); // it need not be there
        }
        let digits = self.digits();
        let year = sign * self.number(digits).filter(|_| (4..=YEAR_DIGITS_MAX).contains(&digits))?;
        self.eat(b'-')?;
        let month = self.number(2).filter(|month| (1..=12).contains(month))?;
        self.eat(b'-')?;
        let day = self.number(2).filter(|day| (1..=days_in_month(year, month)).contains(day))?;
        Some(days_from_civil(year, month, day))
    }

    /// Microseconds since midnight; 24:00:00, the end of the day, is one of Postgres'.
    fn time(&mut self) -> Option<i64> {
        let hour = self.number(2).filter(|hour| *hour <= 24)?;
        self.eat(b':')?;
        let minute = self.number(2).filter(|minute| *minute <= 59)?;
        self.eat(b':')?;
        let second = self.number(2).filter(|second| *second <= 59)?;
        let mut micros = hour * HOUR + minute * MINUTE + second * SECOND;
        if self.eat(b'.').is_some() {
            let digits = self.digits();
            let fraction = self.number(digits).filter(|_| (1..=9).contains(&digits))?;
            micros += if digits <= 6 {
                fraction * 10_i64.pow(6 - digits as u32)
            } else {
                fraction / 10_i64.pow(digits as u32 - 6)
            };
        }
        (micros <= DAY).then_some(micros)
    }

    /// Microseconds that the zone is ahead of UTC.
    fn zone(&mut self) -> Option<i64> {
        let sign = match self.0 {
            [] => return Some(0),
            [b'Z', ..] => return self.eat(b'Z').map(|()| 0),
            [b'+', ..] => 1,
            [b'-', ..] => -1,
            _ => return None,
        };
        self.0 = &self.0[1..];
        let hours = self.number(2).filter(|hours| *hours <= 23)?;
        self.eat(b':')?;
        let minutes = self.number(2).filter(|minutes| *minutes <= 59)?;
        Some(sign * (hours * HOUR + minutes * MINUTE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn timestamps() {
        let check = |text: &str, expected: Found<i64>| {
            assert_eq!(timestamp(text), expected.map(Micros), "{text}");
        };
        check("2026-01-02T03:04:05.678901Z", Ok(1_767_323_045_678_901));
        check("2026-02-01T00:00:00Z", Ok(1_769_904_000_000_000));
        check("1970-01-01T00:00:00.5", Ok(500_000));
        check("1970-01-01T00:00:00.123456789Z", Ok(123_456));
        check("1970-01-01T02:00:00+02:00", Ok(0));
        check("1969-12-31T22:30:00-01:30", Ok(0));
        check("0000-01-01T00:00:00.000000Z", Ok(-62_167_219_200_000_000));
        check("infinity", Ok(9_223_372_036_825_200_000));
        check("+294247-01-10T04:00:25.2Z", Ok(9_223_372_036_825_200_000));
        check("-infinity", Ok(-9_223_372_036_832_400_000));
        check("+294276-12-31T23:59:59.999999Z", Err(OUT_OF_RANGE));
        for text in [
            "",
            "2026-01-02",
            "2026-02-30T00:00:00Z",
            "26-01-02T00:00:00Z",
            "2026-01-02T25:00:00Z",
            "2026-01-02T00:00Z",
            "2026-01-02T00:00:00.Z",
            "2026-01-02T00:00:00z",
            "2026-01-02T00:00:00ZZ",
            "2026-01-02 00:00:00",
            "+-2026-01-02T00:00:00Z",
            "2026-01-02T24:00:01Z",
            "1234567890-01-01T00:00:00Z",
            "2026-01-02T00:00:00+2:00",
        ] {
            check(text, Err(COLUMN_TYPE));
        }
    }

    #[test]
    fn dates_and_times_of_day() {
        for (text, days) in [
            ("1969-12-31Z", -1),
            ("1970-01-01", 0),
            ("-4712-01-01Z", -2_440_550),
            ("+5874897-12-31Z", 2_145_042_905),
            ("-5877611-06-22Z", -2_147_472_691),
        ] {
            assert_eq!(date(text), Ok(days), "{text}");
        }
        assert_eq!(date("+99999999-01-01"), Err(OUT_OF_RANGE));
        assert_eq!(date("1970-01-01T"), Err(COLUMN_TYPE));
        assert_eq!(time_of_day("23:59:59.999999Z"), Ok(DAY - 1));
        assert_eq!(time_of_day("24:00:00"), Ok(DAY));
        assert_eq!(time_of_day("1:00:00"), Err(COLUMN_TYPE));
    }

    proptest! {
        #[test]
        fn what_the_core_prints_is_read(micros in -62_135_596_800_000_000i64..=253_402_300_799_999_999) {
            prop_assert_eq!(timestamp(&Micros(micros).to_string()), Ok(Micros(micros)));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}", near in "[+-]?[0-9]{1,10}-[0-9]{2}-[0-9]{2}T[0-9:.+Z-]{0,20}") {
            for text in [text, near] {
                let _ = (timestamp(&text), date(&text), time_of_day(&text));
            }
        }
    }
}
