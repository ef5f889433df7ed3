//! Decimal numbers as they are written: exact, whatever their scale.

use super::{COLUMN_TYPE, Found, INEXACT, OUT_OF_RANGE};

/// The number `unscaled` / 10^`scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exact {
    unscaled: i128,
    scale: i32,
}

impl Exact {
    /// An integer.
    pub(super) fn of_integer(n: i64) -> Exact {
        Exact { unscaled: n.into(), scale: 0 }
    }

    /// Of two's complement, big-endian; sign bytes beyond need not be minimal.
    pub(super) fn of_bytes(bytes: &[u8], scale: i32) -> Found<Exact> {
        let first = *bytes.first().ok_or(COLUMN_TYPE)?;
        let sign = if first & 0x80 == 0 { 0 } else { 0xff };
        let (extension, number) = bytes.split_at(bytes.len().saturating_sub(16));
        let number_is_signed_alike = number.first().is_some_and(|byte| (byte ^ sign) & 0x80 == 0);
        if !(extension.is_empty() || number_is_signed_alike && extension.iter().all(|byte| *byte == sign)) {
            return Err(OUT_OF_RANGE);
        }
        let mut whole = [sign; 16];
        whole[16 - number.len()..].copy_from_slice(number);
        Ok(Exact { unscaled: i128::from_be_bytes(whole), scale })
    }

    /// Of `-12.50`, `1.5e3` and the like.
    pub(super) fn of_text(text: &str) -> Found<Exact> {
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().map_err(|_| COLUMN_TYPE)?),
            None => (text, 0),
        };
        let (is_negative, digits) = match number.as_bytes() {
            [b'-', ..] => (true, &number[1..]),
            [b'+', ..] => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty()
            || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit())
        {
            return Err(COLUMN_TYPE);
        }
        let fraction = fraction.trim_end_matches('0');
        let mut unscaled = 0_i128;
        for digit in whole.bytes().chain(fraction.bytes()) {
            let next = unscaled.checked_mul(10).and_then(|n| n.checked_add(i128::from(digit - b'0')));
            unscaled = next.ok_or(OUT_OF_RANGE)?;
        }
        let places = i32::try_from(fraction.len()).map_err(|_| OUT_OF_RANGE)?;
        let scale = places.checked_sub(exponent).ok_or(OUT_OF_RANGE)?;
        Ok(Exact { unscaled: if is_negative { -unscaled } else { unscaled }, scale })
    }

    /// Of the shortest decimal number that is read as this one, which is what a database's decimal was before it became a double.
    pub(super) fn of_double(n: f64) -> Found<Exact> {
        Exact::of_text(&format!("{n:e}"))
    }

    /// As [`Exact::of_double`].
    pub(super) fn of_float(n: f32) -> Found<Exact> {
        Exact::of_text(&format!("{n:e}"))
    }

    /// The number without its point in a column of so many digits, `scale` of them after the point.
    pub(super) fn fit(self, precision: u8, scale: u8) -> Found<i128> {
        let shift = i64::from(scale) - i64::from(self.scale);
        let power = u32::try_from(shift.unsigned_abs()).ok().and_then(|shift| 10_i128.checked_pow(shift));
        let unscaled = match power {
            _ if self.unscaled == 0 => 0,
            Some(power) if shift >= 0 => self.unscaled.checked_mul(power).ok_or(OUT_OF_RANGE)?,
            Some(power) if self.unscaled % power == 0 => self.unscaled / power,
            _ => return Err(if shift >= 0 { OUT_OF_RANGE } else { INEXACT }),
        };
        let bound = 10_u128.checked_pow(precision.into());
        match bound.is_none_or(|bound| unscaled.unsigned_abs() < bound) {
            true => Ok(unscaled),
            false => Err(OUT_OF_RANGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(exact: Found<Exact>, expected: Found<i128>) {
        assert_eq!(exact.and_then(|exact| exact.fit(12, 2)), expected, "{exact:?}");
    }

    #[test]
    fn texts() {
        check(Exact::of_text("12.50"), Ok(1250));
        check(Exact::of_text("-0.00"), Ok(0));
        check(Exact::of_text("+.5"), Ok(50));
        check(Exact::of_text("7."), Ok(700));
        check(Exact::of_text("1.28e1"), Ok(1280));
        check(Exact::of_text("128E-2"), Ok(128));
        check(Exact::of_text(&format!("1.5{}", "0".repeat(100))), Ok(150));
        check(Exact::of_text("0e999999999"), Ok(0));
        check(Exact::of_text("1e999999999"), Err(OUT_OF_RANGE));
        check(Exact::of_text("1e-999999999"), Err(INEXACT));
        check(Exact::of_text("1e-2147483648"), Err(OUT_OF_RANGE));
        check(Exact::of_text("1.234"), Err(INEXACT));
        check(Exact::of_text("9999999999.99"), Ok(999_999_999_999));
        check(Exact::of_text("10000000000"), Err(OUT_OF_RANGE));
        check(Exact::of_text(&"9".repeat(40)), Err(OUT_OF_RANGE));
        for text in ["", ".", "-", "1,5", "1.2.3", "0x1", "NaN", "1e", "1e1.5", "--1", "1 ", "٣"] {
            check(Exact::of_text(text), Err(COLUMN_TYPE));
        }
    }

    #[test]
    fn bytes() {
        check(Exact::of_bytes(&[0x00, 0x80], 2), Ok(128));
        check(Exact::of_bytes(&[0xff], 2), Ok(-1));
        check(Exact::of_bytes(&[0x80], 2), Ok(-128));
        check(Exact::of_bytes(&[0; 40], 2), Ok(0));
        check(Exact::of_bytes(&[[0xff; 40].as_slice(), &[0x80]].concat(), 2), Ok(-128));
        check(Exact::of_bytes(&[&[1], [0; 16].as_slice()].concat(), 2), Err(OUT_OF_RANGE));
        // A sign that the last 16 bytes alone would lose.
        check(Exact::of_bytes(&[&[0, 0xff], [0xff; 15].as_slice()].concat(), 2), Err(OUT_OF_RANGE));
        check(Exact::of_bytes(&[], 2), Err(COLUMN_TYPE));
        // Scales that are larger, smaller and below zero.
        check(Exact::of_bytes(&[100], 4), Ok(1));
        check(Exact::of_bytes(&[101], 4), Err(INEXACT));
        check(Exact::of_bytes(&[3], -2), Ok(30_000));
        check(Exact::of_bytes(&[3], i32::MIN), Err(OUT_OF_RANGE));
        check(Exact::of_bytes(&[3], i32::MAX), Err(INEXACT));
    }

    #[test]
    fn doubles() {
        check(Exact::of_double(9_999_999_999.99), Ok(999_999_999_999));
        check(Exact::of_double(-0.0), Ok(0));
        check(Exact::of_double(0.1 + 0.2), Err(INEXACT));
        check(Exact::of_float(0.1), Ok(10));
        check(Exact::of_double(1e300), Err(OUT_OF_RANGE));
        check(Exact::of_double(f64::NAN), Err(COLUMN_TYPE));
    }

    proptest! {
        #[test]
        fn all_forms_agree(n in -999_999_999_999_i64..=999_999_999_999) {
            let text = format!("{}{}.{:02}", if n < 0 { "-" } else { "" }, n.abs() / 100, n.abs() % 100);
            let forms = [
                Exact::of_text(&text),
                Exact::of_bytes(&n.to_be_bytes(), 2),
                Exact::of_bytes(&(i128::from(n) * 100).to_be_bytes(), 4),
                Exact::of_double(text.parse().unwrap()),
            ];
            for form in forms {
                prop_assert_eq!(form.and_then(|exact| exact.fit(12, 2)), Ok(n.into()));
            }
        }
    }
}
