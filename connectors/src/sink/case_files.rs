//! The output of a finished job as plain files, in the form of a case's `expected/` folder.
//!
//! A job that writes files writes a [local log](super::local_log): that is what makes it exactly once. When a bounded
//! run has ended, this copies the committed lines of each topic into `<out>/<topic>.ndjson`. The files are an export,
//! not the truth: a repeat writes them again, and a crash in the middle leaves an incomplete one until then. The rows of tables are
//! written the same way, one JSON object a line (SEMANTICS "Values").

use super::local_log::committed_lines;
use dataflow_core::row::{date_text, decimal_text};
use dataflow_core::{ColumnType, Datum, Error, Result, Row, Storage, TableSchema};
use serde_json::{Number, Value};
use std::collections::BTreeMap;
use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Writes the committed lines of each topic of the local log `dir` to `<out>/<topic>.ndjson`, in committed order; a topic
/// without rows becomes an empty file. Returns the number of lines by topic.
///
/// # Errors
/// The log is damaged, or `out` cannot be written.
pub fn export_case_files(storage: &Arc<dyn Storage>, dir: &str, topics: &[String], out: &Path) -> Result<Vec<u64>> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Error::outside(format!("write '{path}'")).because(error)
    };
    create_dir_all(out).map_err(failed(out))?;
    let mut counts = Vec::new();
    for topic in topics {
        let path = out.join(format!("{topic}.ndjson"));
        let mut file = BufWriter::new(File::create(&path).map_err(failed(&path))?);
        let mut count = 0;
        for line in committed_lines(storage.clone(), dir, topic, None)? {
            file.write_all(&line?).and_then(|()| file.write_all(b"\n")).map_err(failed(&path))?;
            count += 1;
        }
        file.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all()).map_err(failed(&path))?;
        counts.push(count);
    }
    Ok(counts)
}

/// Writes the rows of a table to `<out>/<table>.ndjson`, sorted as bytes. Returns their number.
///
/// # Errors
/// A row cannot be read, or `out` not be written.
pub fn export_case_table(
    table: &str,
    schema: &TableSchema,
    rows: impl Iterator<Item = Result<Row>>,
    out: &Path,
) -> Result<u64> {
    let mut lines = rows.map(|row| Ok(line(schema, &row?))).collect::<Result<Vec<String>>>()?;
    lines.sort_unstable();
    let path = out.join(format!("{table}.ndjson"));
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    let written =
        File::create(&path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|cause| Error::outside(format!("write '{}'", path.display())).because(cause))?;
    Ok(lines.len() as u64)
}

fn line(schema: &TableSchema, row: &Row) -> String {
    let columns = schema.columns.iter().zip(row.0.iter());
    let fields: BTreeMap<&str, Value> =
        columns.map(|(column, datum)| (column.name.as_str(), json_cell(column.kind, datum))).collect();
    serde_json::to_string(&fields).expect("texts and numbers can be written")
}

/// A value of a column as cases write it.
pub fn json_cell(kind: ColumnType, datum: &Datum) -> Value {
    match datum {
        Datum::Null => Value::Null,
        Datum::Boolean(value) => Value::Bool(*value),
        Datum::Int(value) => Value::Number((*value).into()),
        Datum::Long(value) => Value::Number((*value).into()),
        // JSON has no number for what is none.
        Datum::Double(value) => Number::from_f64(value.0).map_or_else(|| value.0.to_string().into(), Value::Number),
        Datum::Decimal(value) => match kind {
            ColumnType::Decimal { scale, .. } => decimal_text(*value, scale).into(),
            _ => value.to_string().into(),
        },
        Datum::Date(days) => date_text(*days).into(),
        Datum::Timestamp(at) => at.to_string().into(),
        Datum::Text(text) => text.to_string().into(),
        Datum::Bytes(bytes) => bytes.escape_ascii().to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::Micros;

    fn check(kind: ColumnType, datum: Datum, expected: &str) {
        assert_eq!(json_cell(kind, &datum).to_string(), expected);
    }

    #[test]
    fn values_as_cases_write_them() {
        let cents = ColumnType::Decimal { precision: 10, scale: 2 };
        check(cents, Datum::Decimal(-5), "\"-0.05\"");
        check(cents, Datum::Decimal(1250), "\"12.50\"");
        check(ColumnType::Decimal { precision: 3, scale: 0 }, Datum::Decimal(7), "\"7\"");
        check(ColumnType::Date, Datum::Date(20_513), "\"2026-03-01\"");
        check(ColumnType::Timestamp, Datum::Timestamp(Micros(1)), "\"1970-01-01T00:00:00.000001Z\"");
        check(ColumnType::Double, Datum::Double(dataflow_core::TotalF64(0.5)), "0.5");
        check(ColumnType::Text, Datum::Null, "null");
    }
}
