//! Rows to Arrow columns and back. Going out, a column has the type that the table has; coming in, a file may be older than the table and
//! narrower, and its values are widened.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    LargeBinaryArray, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow_schema::{ArrowError, DataType, TimeUnit};
use dataflow_core::{ColumnType, Datum, Error, Micros, Result, Row, TotalF64};
use std::sync::Arc;

/// The values at one place of `rows` as a column of the type `kind`; all null where the rows have no such place.
///
/// # Errors
/// When a value is not of that type: the row was not checked against its schema.
pub(crate) fn column(rows: &[&Row], at: Option<usize>, kind: &DataType) -> Result<ArrayRef> {
    let Some(at) = at else { return Ok(new_null_array(kind, rows.len())) };
    let values = rows.iter().map(|row| row.get(at));
    let wrong = |datum: &Datum| Error::us(format!("write {datum:?} into a column of the type {kind}"));
    macro_rules! values {
        ($datum:pat => $value:expr) => {
            values.map(|datum| match datum {
                Datum::Null => Ok(None),
                $datum => Ok(Some($value)),
                other => Err(wrong(other)),
            })
        };
    }
    Ok(match kind {
        DataType::Boolean => Arc::new(values!(Datum::Boolean(b) => *b).collect::<Result<BooleanArray>>()?),
        DataType::Int32 => Arc::new(values!(Datum::Int(n) => *n).collect::<Result<Int32Array>>()?),
        DataType::Int64 => Arc::new(values!(Datum::Long(n) => *n).collect::<Result<Int64Array>>()?),
        DataType::Float64 => Arc::new(values!(Datum::Double(n) => n.0).collect::<Result<Float64Array>>()?),
        DataType::Decimal128(precision, scale) => {
            let numbers = values!(Datum::Decimal(n) => *n).collect::<Result<Decimal128Array>>()?;
            Arc::new(
                numbers
                    .with_precision_and_scale(*precision, *scale)
                    .map_err(|e| Error::us("write a decimal").because(e))?,
            )
        }
        DataType::Date32 => Arc::new(values!(Datum::Date(n) => *n).collect::<Result<Date32Array>>()?),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let times = values!(Datum::Timestamp(t) => t.0).collect::<Result<TimestampMicrosecondArray>>()?;
            Arc::new(times.with_timezone_opt(zone.clone()))
        }
        DataType::Utf8 => Arc::new(values!(Datum::Text(text) => text.as_ref()).collect::<Result<StringArray>>()?),
        DataType::LargeBinary => {
            Arc::new(values!(Datum::Bytes(bytes) => bytes.as_ref()).collect::<Result<LargeBinaryArray>>()?)
        }
        _ => return Err(Error::us(format!("write a column of the type {kind}, which no column of ours has"))),
    })
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
