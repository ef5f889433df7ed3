//! How a table's rows are laid out in files, as settings write it: `day(created_at)`, `bucket(16, id)`, `created_at desc`.

use crate::file_format::FileSettings;
use crate::schema::{PartitionBy, SortBy, Transform};
use dataflow_core::{Error, Result};
use std::str::FromStr;

/// How the rows of a table are divided, ordered and written. A change holds for new files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableLayout {
    /// The partitions, outermost first.
    pub partition: Vec<PartitionBy>,
    /// The order within a file.
    pub sort: Vec<SortBy>,
    /// How files are written.
    pub files: FileSettings,
}

impl FromStr for PartitionBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<PartitionBy> {
        let wrong = || {
            Error::user(format!("reading the partition '{text}'")).hint(
                "write a column, or year(COLUMN), month(COLUMN), day(COLUMN), hour(COLUMN), bucket(N, COLUMN), truncate(N, COLUMN)",
            )
        };
        let Some((transform, arguments)) = text.split_once('(') else {
            let column = Some(text.trim()).filter(|column| is_name(column)).ok_or_else(wrong)?;
            return Ok(PartitionBy { column: column.to_owned(), transform: Transform::Identity });
        };
        let arguments = arguments.trim_end().strip_suffix(')').ok_or_else(wrong)?;
        let (number, column) = match arguments.split_once(',') {
            Some((number, column)) => (Some(number.trim().parse::<u32>().map_err(|_| wrong())?), column.trim()),
            None => (None, arguments.trim()),
        };
        let transform = match (transform.trim(), number) {
            ("year", None) => Transform::Year,
            ("month", None) => Transform::Month,
            ("day", None) => Transform::Day,
            ("hour", None) => Transform::Hour,
            ("bucket", Some(count)) if count > 0 => Transform::Bucket(count),
            ("truncate", Some(width)) if width > 0 => Transform::Truncate(width),
            _ => return Err(wrong()),
        };
        if !is_name(column) {
            return Err(wrong());
        }
        Ok(PartitionBy { column: column.to_owned(), transform })
    }
}

impl FromStr for SortBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<SortBy> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (column, descending) = match words[..] {
            [column] | [column, "asc"] => (column, false),
            [column, "desc"] => (column, true),
            _ => return Err(Error::user(format!("reading the order '{text}'")).hint("write COLUMN or COLUMN desc")),
        };
        Ok(SortBy { column: column.to_owned(), descending })
    }
}

fn is_name(column: &str) -> bool {
    !column.is_empty() && !column.contains(|c: char| c.is_whitespace() || "(),".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read() {
        let check = |text: &str, expected: Option<(&str, Transform)>| {
            let expected = expected.map(|(column, transform)| PartitionBy { column: column.to_owned(), transform });
            assert_eq!(text.parse::<PartitionBy>().ok(), expected, "{text}");
        };
        check("country", Some(("country", Transform::Identity)));
        check("day(created_at)", Some(("created_at", Transform::Day)));
        check("hour( at )", Some(("at", Transform::Hour)));
        check("bucket(16, id)", Some(("id", Transform::Bucket(16))));
        check("truncate(4,name)", Some(("name", Transform::Truncate(4))));
        for wrong in ["", "day()", "day(a", "week(a)", "bucket(id)", "bucket(0, id)", "day(1, a)", "a b"] {
            check(wrong, None);
        }
    }

    #[test]
    fn orders_are_read() {
        let check = |text: &str, expected: Option<(&str, bool)>| {
            let expected = expected.map(|(column, descending)| SortBy { column: column.to_owned(), descending });
            assert_eq!(text.parse::<SortBy>().ok(), expected, "{text}");
        };
        check("at", Some(("at", false)));
        check("at asc", Some(("at", false)));
        check("at desc", Some(("at", true)));
        check("at down", None);
        check("", None);
    }
}
