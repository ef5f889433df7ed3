//! Rows to Arrow columns and back. Going out, a column has the type that the table has; coming in, a file may be older than the table and
//! narrower, and its values are widened.

mod build;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{ArrowError, DataType, TimeUnit};
pub(crate) use build::{ColumnBuilder, TILE_ROWS};
use dataflow_core::{ColumnType, Datum, Micros, Result, Row, TotalF64};

/// The values at one place of `rows` as a column of the type `kind`; all null where the rows have no such place.
///
/// # Errors
/// When a value is not of that type: the row was not checked against its schema.
pub(crate) fn column(rows: &[&Row], at: Option<usize>, kind: &DataType) -> Result<ArrayRef> {
    let mut column = ColumnBuilder::new(at, kind, rows.len())?;
    column.append(rows)?;
    Ok(column.finish())
}

/// The values of a column of a file, for a column of ours.
///
/// # Errors
/// When the file's type is neither that of the column nor one that is widened to it.
pub(crate) fn values(array: &dyn Array, kind: ColumnType) -> Result<Vec<Datum>, ArrowError> {
    use ColumnType as C;
    macro_rules! read {
        ($array:expr, $value:ident => $datum:expr) => {
            $array.iter().map(|value| value.map_or(Datum::Null, |$value| $datum)).collect()
        };
    }
    let double = |n: f64| Datum::Double(TotalF64(n));
    Ok(match (array.data_type(), kind) {
        (DataType::Null, _) => vec![Datum::Null; array.len()],
        (DataType::Boolean, C::Boolean) => read!(array.as_boolean(), b => Datum::Boolean(b)),
        (DataType::Int32, C::Int) => read!(array.as_primitive::<Int32Type>(), n => Datum::Int(n)),
        (DataType::Int32, C::Long) => read!(array.as_primitive::<Int32Type>(), n => Datum::Long(n.into())),
        (DataType::Int64, C::Long) => read!(array.as_primitive::<Int64Type>(), n => Datum::Long(n)),
        (DataType::Float32, C::Double) => read!(array.as_primitive::<Float32Type>(), n => double(n.into())),
        (DataType::Float64, C::Double) => read!(array.as_primitive::<Float64Type>(), n => double(n)),
        (DataType::Decimal128(_, has), C::Decimal { scale, .. }) if i16::from(*has) == i16::from(scale) => {
            read!(array.as_primitive::<Decimal128Type>(), n => Datum::Decimal(n))
        }
        (DataType::Date32, C::Date) => read!(array.as_primitive::<Date32Type>(), n => Datum::Date(n)),
        (DataType::Timestamp(TimeUnit::Microsecond, _), C::Timestamp) => {
            read!(array.as_primitive::<TimestampMicrosecondType>(), t => Datum::Timestamp(Micros(t)))
        }
        (DataType::Utf8, C::Text) => read!(array.as_string::<i32>(), text => text.into()),
        (DataType::LargeUtf8, C::Text) => read!(array.as_string::<i64>(), text => text.into()),
        (DataType::Utf8View, C::Text) => read!(array.as_string_view(), text => text.into()),
        (DataType::Binary, C::Bytes) => read!(array.as_binary::<i32>(), bytes => Datum::Bytes(bytes.into())),
        (DataType::LargeBinary, C::Bytes) => read!(array.as_binary::<i64>(), bytes => Datum::Bytes(bytes.into())),
        (DataType::BinaryView, C::Bytes) => read!(array.as_binary_view(), bytes => Datum::Bytes(bytes.into())),
        (DataType::FixedSizeBinary(_), C::Bytes) => {
            read!(array.as_fixed_size_binary(), bytes => Datum::Bytes(bytes.into()))
        }
        (has, _) => return Err(ArrowError::CastError(format!("a column of the type {has} is not read as {kind:?}"))),
    })
}
