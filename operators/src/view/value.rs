//! The types a column of a typed row may have, and how each becomes a [`Datum`] and back.
//!
//! A type holds nothing that its column can not: a [`Decimal`] of the wrong size can not be made. A type that is no column is
//! refused by the compiler, in words.

use dataflow_core::row::{date_text, decimal_text};
use dataflow_core::time::{DAY, HOUR};
use dataflow_core::{ColumnType, Datum, Micros, TotalF64};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Text that is cheap to clone: rows are cloned into every arrangement that holds them.
pub type Text = Arc<str>;

/// A floating point number that can be compared and be a key.
pub type Double = TotalF64;

/// A type that a column can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a type that a column can have",
    label = "not a column type",
    note = "columns are bool, i32, i64, Double, Decimal<PRECISION, SCALE>, Date, Micros and Text, or an Option of one of them"
)]
pub trait Value: Sized {
    /// The column's type.
    const KIND: ColumnType;
    /// Whether the column may be null.
    const IS_NULLABLE: bool = false;

    /// The value as a row holds it.
    fn into_datum(self) -> Datum;

    /// The value that a row holds; `None` when it is of another type.
    fn from_datum(datum: &Datum) -> Option<Self>;
}

macro_rules! plain_value {
    ($type:ty, $kind:expr, $variant:ident) => {
        impl Value for $type {
            const KIND: ColumnType = $kind;

            fn into_datum(self) -> Datum {
                Datum::$variant(self)
            }

            fn from_datum(datum: &Datum) -> Option<Self> {
                match datum {
                    Datum::$variant(value) => Some(*value),
                    _ => None,
                }
            }
        }
    };
}

plain_value!(bool, ColumnType::Boolean, Boolean);
plain_value!(i32, ColumnType::Int, Int);
plain_value!(i64, ColumnType::Long, Long);
plain_value!(Double, ColumnType::Double, Double);
plain_value!(Micros, ColumnType::Timestamp, Timestamp);

impl Value for Text {
    const KIND: ColumnType = ColumnType::Text;

    fn into_datum(self) -> Datum {
        Datum::Text((*self).into())
    }

    fn from_datum(datum: &Datum) -> Option<Self> {
        match datum {
            Datum::Text(text) => Some((**text).into()),
            _ => None,
        }
    }
}

impl<V: Value> Value for Option<V> {
    const KIND: ColumnType = V::KIND;
    const IS_NULLABLE: bool = true;

    fn into_datum(self) -> Datum {
        self.map_or(Datum::Null, V::into_datum)
    }

    fn from_datum(datum: &Datum) -> Option<Self> {
        if *datum == Datum::Null { Some(None) } else { V::from_datum(datum).map(Some) }
    }
}

/// An exact decimal number of at most `PRECISION` digits, `SCALE` of them after the point.
///
/// ```
/// use dataflow_operators::view::Decimal;
/// assert_eq!(Decimal::<4, 2>::new(1250).expect("four digits").to_string(), "12.50");
/// assert!(Decimal::<4, 2>::new(10_000).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Decimal<const PRECISION: u8, const SCALE: u8>(i128);

impl<const PRECISION: u8, const SCALE: u8> Decimal<PRECISION, SCALE> {
    const BOUND: u128 = 10_u128.pow(PRECISION as u32);

    /// The number whose digits, read without the point, are `unscaled`; `None` when it has too many.
    pub fn new(unscaled: i128) -> Option<Self> {
        (unscaled.unsigned_abs() < Self::BOUND).then_some(Decimal(unscaled))
    }

    /// The digits, read without the point.
    pub fn unscaled(self) -> i128 {
        self.0
    }
}

impl<const PRECISION: u8, const SCALE: u8> fmt::Display for Decimal<PRECISION, SCALE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal_text(self.0, SCALE))
    }
}

impl<const PRECISION: u8, const SCALE: u8> Value for Decimal<PRECISION, SCALE> {
    const KIND: ColumnType = ColumnType::Decimal { precision: PRECISION, scale: SCALE };

    fn into_datum(self) -> Datum {
        Datum::Decimal(self.0)
    }

    fn from_datum(datum: &Datum) -> Option<Self> {
        match datum {
            Datum::Decimal(unscaled) => Decimal::new(*unscaled),
            _ => None,
        }
    }
}

/// A day: days since 1970-01-01, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Date(pub i32);

impl Date {
    /// The day of an instant.
    pub fn of(instant: Micros) -> Date {
        Date(i32::try_from(instant.0.div_euclid(DAY)).expect("i64 microseconds are fewer than 2^31 days"))
    }

    /// Days from `earlier` to this one.
    pub fn since(self, earlier: Date) -> i32 {
        self.0 - earlier.0
    }
}

/// The hour of an instant's day, 0 to 23.
pub fn hour_of(instant: Micros) -> i32 {
    (instant.0.rem_euclid(DAY) / HOUR) as i32
}

impl fmt::Display for Date {
    /// `2026-03-01`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&date_text(self.0))
    }
}

impl Value for Date {
    const KIND: ColumnType = ColumnType::Date;

    fn into_datum(self) -> Datum {
        Datum::Date(self.0)
    }

    fn from_datum(datum: &Datum) -> Option<Self> {
        match datum {
            Datum::Date(days) => Some(Date(*days)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_print_with_their_scale() {
        for (unscaled, text) in [(0, "0.00"), (-5, "-0.05"), (-100, "-1.00"), (9_999, "99.99"), (7, "0.07")] {
            assert_eq!(Decimal::<4, 2>::new(unscaled).expect("fits").to_string(), text);
        }
        assert_eq!(Decimal::<3, 0>::new(-12).expect("fits").to_string(), "-12");
        assert_eq!(Decimal::<2, 2>::new(i128::MIN), None);
        assert!(Decimal::<38, 2>::new(10_i128.pow(38) - 1).is_some());
        assert_eq!(Decimal::<38, 2>::new(10_i128.pow(38)), None);
    }

    #[test]
    fn days_and_hours_before_1970_count_downwards() {
        assert_eq!((Date::of(Micros(-1)), hour_of(Micros(-1))), (Date(-1), 23));
        assert_eq!(Date::of(Micros(DAY)).to_string(), "1970-01-02");
    }

    #[test]
    fn a_null_is_a_value_of_a_nullable_column_alone() {
        assert_eq!(Option::<i32>::from_datum(&Datum::Null), Some(None));
        assert_eq!(i32::from_datum(&Datum::Null), None);
        assert_eq!(i64::from_datum(&Datum::Int(1)), None);
        assert_eq!(Some(5_i64).into_datum(), Datum::Long(5));
    }
}
