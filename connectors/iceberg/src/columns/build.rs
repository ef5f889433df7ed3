//! Rows to Arrow columns, a tile of rows at a time: so few that they stay in the core's cache while column after column takes its values of
//! them. A pass over all rows for each column would wait for memory as often as there are columns.

use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, LargeBinaryBuilder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, new_null_array};
use arrow_schema::{DataType, TimeUnit};
use dataflow_core::{Datum, Error, Result, Row};
use std::sync::Arc;

/// Rows of a tile: with a dozen columns some 50 kB.
pub(crate) const TILE_ROWS: usize = 128;
/// Bytes that a text is thought to have.
const TEXT_BYTES: usize = 16;

/// A column that grows.
pub(crate) struct ColumnBuilder {
    /// The place of its values in a row, and what takes them; without them all values are null.
    from: Option<(usize, Values)>,
    kind: DataType,
    rows: usize,
}

/// One builder for each type that a column of ours has.
enum Values {
    Boolean(BooleanBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Double(Float64Builder),
    /// With the power of ten below which its numbers are.
    Decimal(Decimal128Builder, u128),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    Bytes(LargeBinaryBuilder),
}

impl ColumnBuilder {
    /// A column of the type `kind`, of the values at one place of rows, with room for so many.
    ///
    /// # Errors
    /// When no column of ours has the type.
    pub(crate) fn new(at: Option<usize>, kind: &DataType, rows: usize) -> Result<ColumnBuilder> {
        let from = at.map(|at| Values::new(kind, rows).map(|values| (at, values))).transpose()?;
        Ok(ColumnBuilder { from, kind: kind.clone(), rows: 0 })
    }

    /// Takes the values of rows that are long enough.
    ///
    /// # Errors
    /// When one is not of the column's type. Whether it may be null is not looked at.
    pub(crate) fn append(&mut self, tile: &[&Row]) -> Result<()> {
        self.rows += tile.len();
        let Some((at, values)) = &mut self.from else { return Ok(()) };
        let wrong = values.append(tile.iter().map(|row| row.get(*at)));
        wrong.map_or(Ok(()), |datum| Err(Error::us(format!("write {datum:?} into a column of the type {}", self.kind))))
    }

    pub(crate) fn finish(self) -> ArrayRef {
        self.from.map_or_else(|| new_null_array(&self.kind, self.rows), |(_, values)| values.finish())
    }
}

impl Values {
    fn new(kind: &DataType, rows: usize) -> Result<Values> {
        Ok(match kind {
            DataType::Boolean => Values::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int32 => Values::Int(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Values::Long(Int64Builder::with_capacity(rows)),
            DataType::Float64 => Values::Double(Float64Builder::with_capacity(rows)),
            DataType::Decimal128(precision, _) => {
                let builder = Decimal128Builder::with_capacity(rows).with_data_type(kind.clone());
                Values::Decimal(builder, 10_u128.pow(u32::from(*precision)))
            }
            DataType::Date32 => Values::Date(Date32Builder::with_capacity(rows)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Values::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(kind.clone()))
            }
            DataType::Utf8 => Values::Text(StringBuilder::with_capacity(rows, rows * TEXT_BYTES)),
            DataType::LargeBinary => Values::Bytes(LargeBinaryBuilder::with_capacity(rows, rows * TEXT_BYTES)),
            _ => return Err(Error::us(format!("write a column of the type {kind}, which no column of ours has"))),
        })
    }

    /// Takes the values up to the first that is of another type; that one.
    fn append<'a>(&mut self, values: impl Iterator<Item = &'a Datum>) -> Option<&'a Datum> {
        macro_rules! take {
            ($builder:expr, $datum:pat $(if $fits:expr)? => $value:expr) => {
                for datum in values {
                    match datum {
                        Datum::Null => $builder.append_null(),
                        $datum $(if $fits)? => $builder.append_value($value),
                        other => return Some(other),
                    }
                }
            };
        }
        match self {
            Values::Boolean(builder) => take!(builder, Datum::Boolean(b) => *b),
            Values::Int(builder) => take!(builder, Datum::Int(n) => *n),
            Values::Long(builder) => take!(builder, Datum::Long(n) => *n),
            Values::Double(builder) => take!(builder, Datum::Double(n) => n.0),
            Values::Decimal(builder, bound) => take!(builder, Datum::Decimal(n) if n.unsigned_abs() < *bound => *n),
            Values::Date(builder) => take!(builder, Datum::Date(n) => *n),
            Values::Timestamp(builder) => take!(builder, Datum::Timestamp(t) => t.0),
            Values::Text(builder) => take!(builder, Datum::Text(text) => text),
            Values::Bytes(builder) => take!(builder, Datum::Bytes(bytes) => bytes),
        }
        None
    }

    fn finish(self) -> ArrayRef {
        match self {
            Values::Boolean(mut builder) => Arc::new(builder.finish()),
            Values::Int(mut builder) => Arc::new(builder.finish()),
            Values::Long(mut builder) => Arc::new(builder.finish()),
            Values::Double(mut builder) => Arc::new(builder.finish()),
            Values::Decimal(mut builder, _) => Arc::new(builder.finish()),
            Values::Date(mut builder) => Arc::new(builder.finish()),
            Values::Timestamp(mut builder) => Arc::new(builder.finish()),
            Values::Text(mut builder) => Arc::new(builder.finish()),
            Values::Bytes(mut builder) => Arc::new(builder.finish()),
        }
    }
}
