//! A day that is over, for people: its rows as a CSV file, and a mail that says where the file is and how many rows of each kind it has.

use dataflow_connectors::sink::csv::csv_file;
use dataflow_core::{Datum, Error, Letter, OutputFile, Result, TableSchema};
use dataflow_operators::view::ClosedDay;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the mail about a day counts: its rows by the values of a column of texts.
#[derive(Clone, Copy, Debug)]
pub struct CountedBy {
    /// The column.
    pub column: &'static str,
    /// The values that it may have, in the order in which they are listed; one that no row has is listed with 0.
    pub values: &'static [&'static str],
}

/// Makes the files of days.
pub(crate) struct DailyFile {
    /// The file's name, without date.
    name: String,
    schema: TableSchema,
    counted: CountedBy,
    column: usize,
    /// What makes the mail's id one of this job and its history: `JOB.LINEAGE`.
    history: String,
}

impl DailyFile {
    /// # Errors
    /// When the rows do not have the column that is counted.
    pub(crate) fn new(name: &str, schema: TableSchema, counted: CountedBy, history: String) -> Result<DailyFile> {
        let column = schema.columns.iter().position(|column| column.name == counted.column).ok_or_else(|| {
            crate::profile::unknown("column", counted.column, schema.columns.iter().map(|c| c.name.as_str()), name)
        })?;
        Ok(DailyFile { name: name.to_owned(), schema, counted, column, history })
    }

    /// The file of a day, and its mail. `location` says where a file of that name is.
    pub(crate) fn of(&self, day: &ClosedDay, location: impl Fn(&str) -> String) -> Result<OutputFile> {
        let bytes = csv_file(&self.schema, &day.rows)?;
        let stem = format!("{}_{}", self.name, day.date);
        let name = format!("{stem}.csv");
        let text = self.text(day, &location(&name)).map_err(|cause| Error::us("write a mail").because(cause))?;
        let letter = Letter { id: format!("{}.{stem}", self.history), subject: format!("{name} is there"), text };
        Ok(OutputFile { name, bytes, letter })
    }

    fn text(&self, day: &ClosedDay, location: &str) -> Result<String, std::fmt::Error> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &day.rows {
            let value = match &row.0[self.column] {
                Datum::Text(text) => text,
                _ => "(none)",
            };
            *counts.entry(value).or_default() += 1;
        }
        let listed: Vec<(&str, usize)> =
            self.counted.values.iter().map(|value| (*value, counts.remove(value).unwrap_or(0))).collect();
        let listed: Vec<(&str, usize)> = listed.into_iter().chain(counts).collect();
        let total = day.rows.len();
        let wide = listed.iter().map(|(value, _)| value.len()).chain([self.counted.column.len()]).max().unwrap_or(0);
        let digits = total.to_string().len().max("rows".len());
        let mut text = format!("{} is over. Its rows are in\n\n    {location}\n\n", day.date);
        writeln!(text, "    {:wide$}  {:>digits$}", self.counted.column, "rows")?;
        for (value, rows) in listed.into_iter().chain([("all", total)]) {
            writeln!(text, "    {value:wide$}  {rows:>digits$}")?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_operators::view::{Date, TableRow, shop};

    const BY_SEGMENT: CountedBy = CountedBy { column: "engagement_segment", values: &shop::ENGAGEMENT_SEGMENTS };

    fn row(user_id: i32, segment: &str) -> shop::UserEngagement {
        shop::UserEngagement {
            user_id,
            email: "a@b.example".into(),
            full_name: "A B".into(),
            total_pageviews: 0,
            active_days: 0,
            last_active_date: None,
            days_since_last_active: None,
            engagement_segment: segment.into(),
            segment_date: Date(20_513),
        }
    }

    #[test]
    fn a_mail_names_the_file_and_counts_each_segment() {
        let daily = |counted| DailyFile::new("users", shop::UserEngagement::schema(), counted, "shop.01".to_owned());
        let rows = [row(1, "low_engagement"), row(2, "low_engagement"), row(3, "high_engagement")];
        let day = ClosedDay { date: Date(20_513), rows: rows.into_iter().map(TableRow::into_row).collect() };
        let file = daily(BY_SEGMENT).unwrap().of(&day, |name| format!("s3://b/{name}")).unwrap();
        assert_eq!(file.name, "users_2026-03-01.csv");
        assert_eq!(file.bytes.iter().filter(|byte| **byte == b'\n').count(), 4);
        assert_eq!(
            (&*file.letter.id, &*file.letter.subject),
            ("shop.01.users_2026-03-01", "users_2026-03-01.csv is there")
        );
        let text = "2026-03-01 is over. Its rows are in

    s3://b/users_2026-03-01.csv

    engagement_segment  rows
    high_engagement        1
    medium_engagement      0
    low_engagement         2
    all                    3
";
        assert_eq!(file.letter.text, text);
        let error = daily(CountedBy { column: "segment", values: &[] }).err().unwrap().to_string();
        assert!(error.contains("'segment'"), "{error}");
    }
}
