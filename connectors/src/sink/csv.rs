//! Rows of a table as CSV (SEMANTICS "Gold"): UTF-8, LF, a header of the columns' names, quotes only where needed, null empty.

use csv::{QuoteStyle, Terminator, WriterBuilder};
use dataflow_core::row::{date_text, decimal_text};
use dataflow_core::{ColumnType, Datum, Error, Result, Row, TableSchema};

/// The rows as one file, in their order.
///
/// # Errors
/// A row is not of that shape.
pub fn csv_file(schema: &TableSchema, rows: &[Row]) -> Result<Vec<u8>> {
    let mut writer = WriterBuilder::new()
        .quote_style(QuoteStyle::Necessary)
        .terminator(Terminator::Any(b'\n'))
        .from_writer(Vec::new());
    let header = schema.columns.iter().map(|column| column.name.clone());
    let lines = rows.iter().map(|row| {
        schema.columns.iter().zip(row.0.iter()).map(|(column, datum)| text(column.kind, datum)).collect::<Vec<String>>()
    });
    let written = std::iter::once(header.collect()).chain(lines).try_for_each(|line| writer.write_record(line));
    let failed = |cause: String| Error::us("write rows as CSV").because(cause);
    written.map_err(|cause| failed(cause.to_string()))?;
    writer.into_inner().map_err(|cause| failed(cause.to_string()))
}

fn text(kind: ColumnType, datum: &Datum) -> String {
    match datum {
        Datum::Null => String::new(),
        Datum::Boolean(value) => value.to_string(),
        Datum::Int(value) => value.to_string(),
        Datum::Long(value) => value.to_string(),
        Datum::Double(value) => value.0.to_string(),
        Datum::Decimal(value) => match kind {
            ColumnType::Decimal { scale, .. } => decimal_text(*value, scale),
            _ => value.to_string(),
        },
        Datum::Date(days) => date_text(*days),
        Datum::Timestamp(at) => at.to_string(),
        Datum::Text(text) => text.to_string(),
        Datum::Bytes(bytes) => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::Column;

    #[test]
    fn quotes_only_where_needed_and_null_is_empty() {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind, is_nullable: true };
        let cents = ColumnType::Decimal { precision: 9, scale: 2 };
        let columns = vec![column("a", ColumnType::Text), column("b", cents), column("c", ColumnType::Date)];
        let schema = TableSchema { columns, key: Vec::new() };
        let row = |text: Datum, cents: Datum| [text, cents, Datum::Date(20_513)].into_iter().collect();
        let rows = [
            row(Datum::Text(" plain'".into()), Datum::Decimal(-5)),
            row(Datum::Text("a,\"b\"\n".into()), Datum::Null),
            row(Datum::Null, Datum::Decimal(1250)),
        ];
        let text = String::from_utf8(csv_file(&schema, &rows).unwrap()).unwrap();
        let expected = "a,b,c\n plain',-0.05,2026-03-01\n\"a,\"\"b\"\"\n\",,2026-03-01\n,12.50,2026-03-01\n";
        assert_eq!(text, expected);
        assert_eq!(csv_file(&schema, &[]).unwrap(), b"a,b,c\n");
    }
}
