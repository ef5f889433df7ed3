//! Rows of tables: what change events carry, durable collections keep and table sinks write.
//!
//! A [`Row`] is cheap to clone and totally ordered, as differential dataflow wants it. Its types are in the [`TableSchema`] beside it and
//! not in the row: whoever makes a row makes it fit ([`TableSchema::check`]).

use crate::time::{DAY, Micros};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// True or false.
    Boolean,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// 64-bit floating point number.
    Double,
    /// Exact decimal number, at most 38 digits.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01T00:00:00, UTC.
    Timestamp,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Bytes,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// Whether it may be null.
    pub is_nullable: bool,
}

/// The columns of a table, and which of them are its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The columns, in the order of a row.
    pub columns: Vec<Column>,
    /// The places of the key's columns, in the key's order; empty: the whole row is the key.
    pub key: Vec<usize>,
}

impl TableSchema {
    /// The place of the column `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The key of a row: its key columns, or all of them where there is no key.
    pub fn key_of(&self, row: &Row) -> Row {
        if self.key.is_empty() { row.clone() } else { self.key.iter().map(|at| row.0[*at].clone()).collect() }
    }

    /// Whether `row` is one of this table.
    ///
    /// # Errors
    /// When a value is missing, left over, or not of its column's type.
    pub fn check(&self, row: &Row) -> Result<()> {
        if row.0.len() != self.columns.len() {
            let (got, want) = (row.0.len(), self.columns.len());
            return Err(Error::user(format!("a row has {got} values, its table {want} columns")));
        }
        let wrong = self.columns.iter().zip(row.0.iter()).find(|(column, datum)| !datum.fits(column));
        wrong.map_or(Ok(()), |(column, datum)| {
            Err(Error::user(format!("column '{}' is {:?} and can not hold {datum:?}", column.name, column.kind)))
        })
    }
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Datum {
    /// No value.
    Null,
    /// Of [`ColumnType::Boolean`].
    Boolean(bool),
    /// Of [`ColumnType::Int`].
    Int(i32),
    /// Of [`ColumnType::Long`].
    Long(i64),
    /// Of [`ColumnType::Double`].
    Double(TotalF64),
    /// Of [`ColumnType::Decimal`]: the number without its point, whose place is the column's scale.
    Decimal(i128),
    /// Of [`ColumnType::Date`].
    Date(i32),
    /// Of [`ColumnType::Timestamp`].
    Timestamp(Micros),
    /// Of [`ColumnType::Text`].
    Text(Box<str>),
    /// Of [`ColumnType::Bytes`].
    Bytes(Box<[u8]>),
}

impl Datum {
    /// Whether a column can hold it.
    pub fn fits(&self, column: &Column) -> bool {
        use ColumnType as C;
        match (self, column.kind) {
            (Datum::Null, _) => column.is_nullable,
            (Datum::Decimal(n), C::Decimal { precision, .. }) => {
                10_u128.checked_pow(precision.into()).is_none_or(|bound| n.unsigned_abs() < bound)
            }
            (Datum::Boolean(_), C::Boolean)
            | (Datum::Int(_), C::Int)
            | (Datum::Long(_), C::Long)
            | (Datum::Double(_), C::Double)
            | (Datum::Date(_), C::Date)
            | (Datum::Timestamp(_), C::Timestamp)
            | (Datum::Text(_), C::Text)
            | (Datum::Bytes(_), C::Bytes) => true,
            _ => false,
        }
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Datum {
        Datum::Text(text.into())
    }
}

/// A floating point number under IEEE 754's total order, so that it can be a key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct TotalF64(pub f64);

impl PartialEq for TotalF64 {
    fn eq(&self, other: &TotalF64) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for TotalF64 {}

impl PartialOrd for TotalF64 {
    fn partial_cmp(&self, other: &TotalF64) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TotalF64 {
    fn cmp(&self, other: &TotalF64) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Hash for TotalF64 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The text of a decimal number: all the digits of its scale after the point.
pub fn decimal_text(unscaled: i128, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    match digits.split_at(digits.len() - usize::from(scale)) {
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// The text of a date, in days since 1970: `2026-03-01`.
pub fn date_text(days: i32) -> String {
    Micros(i64::from(days) * DAY).to_string()[..10].to_owned()
}

/// The values of a row in the order of its table's columns.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Row(pub Arc<[Datum]>);

impl Row {
    /// The value at a place.
    pub fn get(&self, at: usize) -> &Datum {
        &self.0[at]
    }

    /// Bytes in memory, roughly.
    pub fn weight(&self) -> usize {
        let beside = |datum: &Datum| match datum {
            Datum::Text(text) => text.len(),
            Datum::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        size_of::<Row>() + self.0.iter().map(|datum| size_of::<Datum>() + beside(datum)).sum::<usize>()
    }
}

impl FromIterator<Datum> for Row {
    fn from_iter<I: IntoIterator<Item = Datum>>(values: I) -> Row {
        Row(values.into_iter().collect())
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ColumnType, is_nullable: bool) -> Column {
        Column { name: "c".to_owned(), kind, is_nullable }
    }

    fn check(kind: ColumnType, datum: Datum, expected: bool) {
        assert_eq!(datum.fits(&column(kind, false)), expected, "{datum:?} in {kind:?}");
    }

    #[test]
    fn values_fit_their_columns() {
        let cents = ColumnType::Decimal { precision: 4, scale: 2 };
        check(cents, Datum::Decimal(-9_999), true);
        check(cents, Datum::Decimal(10_000), false);
        check(ColumnType::Decimal { precision: 38, scale: 0 }, Datum::Decimal(i128::MAX), false);
        check(ColumnType::Int, Datum::Long(1), false);
        check(ColumnType::Text, "x".into(), true);
        check(ColumnType::Text, Datum::Null, false);
        assert!(Datum::Null.fits(&column(ColumnType::Text, true)));
    }

    #[test]
    fn a_row_is_checked_and_keyed() {
        let columns = vec![column(ColumnType::Int, false), column(ColumnType::Text, true)];
        let row: Row = [Datum::Int(7), Datum::Null].into_iter().collect();
        let keyed = TableSchema { columns: columns.clone(), key: vec![0] };
        assert!(keyed.check(&row).is_ok());
        assert_eq!(keyed.key_of(&row), [Datum::Int(7)].into_iter().collect());
        assert_eq!(TableSchema { columns, key: vec![] }.key_of(&row), row);
        assert!(keyed.check(&[Datum::Int(7)].into_iter().collect()).is_err());
        assert!(keyed.check(&[Datum::Null, Datum::Null].into_iter().collect()).is_err());
    }

    #[test]
    fn numbers_are_totally_ordered() {
        let double = |n: f64| Datum::Double(TotalF64(n));
        assert_eq!(double(f64::NAN), double(f64::NAN));
        assert!(double(-0.0) < double(0.0));
        assert_ne!(double(-0.0), double(0.0));
    }
}
