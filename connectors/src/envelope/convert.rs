//! From what was written to the value of a declared column: exactly, or not at all.
//!
//! Types may have been widened since: an int is read as a long or a double, a decimal at another scale as long as no digit is lost.
//! What a decimal can not be (not a number, infinity) is null, because that is what the precise encoding makes of it.

use super::cell::{Cell, Meaning, PLACEHOLDER, Raw, Unit};
use super::decimal::Exact;
use super::{COLUMN_TYPE, Found, OUT_OF_RANGE, UNEXPECTED_NULL, iso};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dataflow_core::{Column, ColumnType, Datum, Micros, TotalF64};

/// What a cell is to its column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Datum(Datum),
    /// The database did not send it.
    Unavailable,
}

/// The value of `cell` in `column`.
pub(super) fn convert(cell: &Cell<'_>, column: &Column) -> Found<Value> {
    let is_placeholder = match &cell.raw {
        Raw::Text(text) => text == PLACEHOLDER,
        Raw::Bytes(bytes) => bytes.as_ref() == PLACEHOLDER.as_bytes(),
        _ => false,
    };
    if is_placeholder {
        return Ok(Value::Unavailable);
    }
    let datum = match (&cell.raw, column.kind) {
        (Raw::Null, _) => Datum::Null,
        (Raw::Boolean(b), ColumnType::Boolean) => Datum::Boolean(*b),
        (raw, ColumnType::Int) => {
            let n = integer(raw, cell.meaning)?;
            Datum::Int(i32::try_from(n).map_err(|_| OUT_OF_RANGE)?)
        }
        (raw, ColumnType::Long) => Datum::Long(long(raw, cell.meaning)?),
        (raw, ColumnType::Double) => Datum::Double(TotalF64(double(raw, cell.meaning)?)),
        (raw, ColumnType::Decimal { precision, scale }) => match decimal(raw, cell.meaning)? {
            Some(exact) => Datum::Decimal(exact.fit(precision, scale)?),
            None => Datum::Null,
        },
        (raw, ColumnType::Date) => Datum::Date(date(raw, cell.meaning)?),
        (raw, ColumnType::Timestamp) => Datum::Timestamp(timestamp(raw, cell.meaning)?),
        (Raw::Text(text), ColumnType::Text) => Datum::Text(text.as_ref().into()),
        (raw, ColumnType::Bytes) => match bytes(raw, cell.meaning)? {
            bytes if *bytes == *PLACEHOLDER.as_bytes() => return Ok(Value::Unavailable),
            bytes => Datum::Bytes(bytes),
        },
        _ => return Err(COLUMN_TYPE),
    };
    match datum {
        Datum::Null if !column.is_nullable => Err(UNEXPECTED_NULL),
        datum => Ok(Value::Datum(datum)),
    }
}

/// A number that counts nothing: neither days nor time.
fn integer(raw: &Raw<'_>, meaning: Meaning) -> Found<i64> {
    match (raw, meaning) {
        (Raw::Integer(n), Meaning::Plain) => Ok(*n),
        _ => Err(COLUMN_TYPE),
    }
}

/// Times of day are microseconds.
fn long(raw: &Raw<'_>, meaning: Meaning) -> Found<i64> {
    match (raw, meaning) {
        (Raw::Integer(n), Meaning::TimeOfDay(unit)) => micros(*n, unit),
        (Raw::Text(text), Meaning::IsoTimeOfDay) => iso::time_of_day(text),
        _ => integer(raw, meaning),
    }
}

fn double(raw: &Raw<'_>, meaning: Meaning) -> Found<f64> {
    match raw {
        Raw::Float(n) => Ok(f64::from(*n)),
        Raw::Double(n) => Ok(*n),
        Raw::Number(text) => text.parse().map_err(|_| COLUMN_TYPE),
        // JSON has no other way to say them.
        Raw::Text(text) => match text.as_ref() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => Err(COLUMN_TYPE),
        },
        _ => integer(raw, meaning).map(|n| n as f64),
    }
}

/// `None` where it is not a number that a decimal can be.
fn decimal(raw: &Raw<'_>, meaning: Meaning) -> Found<Option<Exact>> {
    let exact = match (raw, meaning) {
        (Raw::Bytes(bytes), Meaning::Decimal { scale }) => Exact::of_bytes(bytes, scale)?,
        (Raw::Scaled { scale, unscaled }, _) => Exact::of_bytes(unscaled, *scale)?,
        (Raw::Integer(n), Meaning::Plain | Meaning::Decimal { .. }) => Exact::of_integer(*n),
        (Raw::Number(text), _) => Exact::of_text(text)?,
        (Raw::Float(n), _) if !n.is_finite() => return Ok(None),
        (Raw::Float(n), _) => Exact::of_float(*n)?,
        (Raw::Double(n), _) if !n.is_finite() => return Ok(None),
        (Raw::Double(n), _) => Exact::of_double(*n)?,
        (Raw::Text(text), _) => match text.as_ref() {
            "NAN" | "NaN" | "POSITIVE_INFINITY" | "NEGATIVE_INFINITY" | "Infinity" | "-Infinity" => return Ok(None),
            text => Exact::of_text(text)?,
        },
        _ => return Err(COLUMN_TYPE),
    };
    Ok(Some(exact))
}

fn date(raw: &Raw<'_>, meaning: Meaning) -> Found<i32> {
    match (raw, meaning) {
        (Raw::Integer(days), Meaning::Days) => i32::try_from(*days).map_err(|_| OUT_OF_RANGE),
        (Raw::Text(text), _) => iso::date(text),
        _ => Err(COLUMN_TYPE),
    }
}

fn timestamp(raw: &Raw<'_>, meaning: Meaning) -> Found<Micros> {
    match (raw, meaning) {
        (Raw::Integer(n), Meaning::Instant(unit)) => micros(*n, unit).map(Micros),
        (Raw::Text(text), _) => iso::timestamp(text),
        _ => Err(COLUMN_TYPE),
    }
}

/// Whole microseconds: what is finer is cut off.
fn micros(n: i64, unit: Unit) -> Found<i64> {
    match unit {
        Unit::Millis => n.checked_mul(1_000).ok_or(OUT_OF_RANGE),
        Unit::Micros => Ok(n),
        Unit::Nanos => Ok(n.div_euclid(1_000)),
    }
}

/// Text in a column of bytes is base64 (`binary.handling.mode`).
fn bytes(raw: &Raw<'_>, meaning: Meaning) -> Found<Box<[u8]>> {
    match (raw, meaning) {
        (Raw::Bytes(bytes), Meaning::Plain | Meaning::Bytes) => Ok(bytes.as_ref().into()),
        (Raw::Text(text), _) => BASE64_STANDARD.decode(text.as_ref()).map(Into::into).map_err(|_| COLUMN_TYPE),
        _ => Err(COLUMN_TYPE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::INEXACT;
    use ColumnType as C;

    const CENTS: C = C::Decimal { precision: 12, scale: 2 };

    fn check(raw: Raw<'_>, meaning: Meaning, kind: C, expected: Found<Datum>) {
        let column = Column { name: "c".to_owned(), kind, is_nullable: true };
        let cell = Cell { raw, meaning };
        assert_eq!(convert(&cell, &column), expected.map(Value::Datum), "{cell:?} in {kind:?}");
    }

    #[test]
    fn widened_types() {
        use Meaning::Plain;
        check(Raw::Integer(7), Plain, C::Int, Ok(Datum::Int(7)));
        check(Raw::Integer(7), Plain, C::Long, Ok(Datum::Long(7)));
        check(Raw::Integer(7), Plain, C::Double, Ok(Datum::Double(TotalF64(7.0))));
        check(Raw::Integer(7), Plain, CENTS, Ok(Datum::Decimal(700)));
        check(Raw::Float(0.5), Plain, C::Double, Ok(Datum::Double(TotalF64(0.5))));
        check(Raw::Integer(1 << 40), Plain, C::Int, Err(OUT_OF_RANGE));
        check(Raw::Number("1.5"), Plain, C::Int, Err(COLUMN_TYPE));
        check(Raw::Boolean(true), Plain, C::Int, Err(COLUMN_TYPE));
        check(Raw::Integer(1), Plain, C::Boolean, Err(COLUMN_TYPE));
        check(Raw::Integer(1), Plain, C::Text, Err(COLUMN_TYPE));
        check(Raw::Other, Plain, C::Text, Err(COLUMN_TYPE));
    }

    #[test]
    fn decimals_of_every_encoding() {
        use Meaning::Plain;
        let bytes = || Raw::Bytes((&[0x00, 0x80][..]).into());
        check(bytes(), Meaning::Decimal { scale: 2 }, CENTS, Ok(Datum::Decimal(128)));
        check(bytes(), Meaning::Decimal { scale: 4 }, CENTS, Err(INEXACT));
        check(bytes(), Plain, CENTS, Err(COLUMN_TYPE));
        check(Raw::Scaled { scale: 1, unscaled: (&[0x80][..]).into() }, Plain, CENTS, Ok(Datum::Decimal(-1280)));
        check(Raw::Text("1.2800".into()), Plain, CENTS, Ok(Datum::Decimal(128)));
        check(Raw::Double(1.28), Plain, CENTS, Ok(Datum::Decimal(128)));
        check(Raw::Number("1.28"), Plain, CENTS, Ok(Datum::Decimal(128)));
        check(Raw::Number("1.28"), Meaning::Decimal { scale: 2 }, CENTS, Ok(Datum::Decimal(128)));
        for raw in [Raw::Double(f64::NAN), Raw::Text("NAN".into()), Raw::Text("POSITIVE_INFINITY".into())] {
            check(raw, Plain, CENTS, Ok(Datum::Null));
        }
    }

    #[test]
    fn times_of_every_unit() {
        use Meaning::{Days, Instant, IsoTimeOfDay, Plain, TimeOfDay};
        let at = |micros| Ok(Datum::Timestamp(Micros(micros)));
        check(Raw::Integer(-1), Instant(Unit::Millis), C::Timestamp, at(-1_000));
        check(Raw::Integer(-1), Instant(Unit::Micros), C::Timestamp, at(-1));
        check(Raw::Integer(-1), Instant(Unit::Nanos), C::Timestamp, at(-1));
        check(Raw::Integer(i64::MAX), Instant(Unit::Millis), C::Timestamp, Err(OUT_OF_RANGE));
        check(Raw::Text("1970-01-01T00:00:01Z".into()), Plain, C::Timestamp, at(1_000_000));
        // Of what unit is not known.
        check(Raw::Integer(1), Plain, C::Timestamp, Err(COLUMN_TYPE));
        check(Raw::Integer(1), Instant(Unit::Millis), C::Long, Err(COLUMN_TYPE));
        check(Raw::Integer(-1), Days, C::Date, Ok(Datum::Date(-1)));
        check(Raw::Text("1969-12-31Z".into()), Plain, C::Date, Ok(Datum::Date(-1)));
        check(Raw::Integer(1), TimeOfDay(Unit::Millis), C::Long, Ok(Datum::Long(1_000)));
        check(Raw::Text("00:00:00.001Z".into()), IsoTimeOfDay, C::Long, Ok(Datum::Long(1_000)));
    }

    #[test]
    fn bytes_nulls_and_what_was_not_sent() {
        use Meaning::Plain;
        check(Raw::Text("q6s=".into()), Plain, C::Bytes, Ok(Datum::Bytes([0xab, 0xab].into())));
        check(Raw::Text("?".into()), Plain, C::Bytes, Err(COLUMN_TYPE));
        check(Raw::Null, Plain, C::Bytes, Ok(Datum::Null));
        let encoded = BASE64_STANDARD.encode(PLACEHOLDER);
        for (raw, kind) in [
            (Raw::Text(PLACEHOLDER.into()), C::Text),
            (Raw::Text(PLACEHOLDER.into()), CENTS),
            (Raw::Bytes(PLACEHOLDER.as_bytes().into()), C::Bytes),
            (Raw::Text(encoded.into()), C::Bytes),
        ] {
            let column = Column { name: "c".to_owned(), kind, is_nullable: false };
            assert_eq!(convert(&Cell { raw, meaning: Plain }, &column), Ok(Value::Unavailable));
            assert_eq!(convert(&Cell::EMPTY, &column), Err(UNEXPECTED_NULL));
        }
    }
}
