//! What a case gives to the views: rows of the whole tables, as changes of each epoch.

use crate::case::{EpochOfCase, Tables};
use dataflow_core::{Column, ColumnType, Datum, Micros, Row, TableSchema};
use dataflow_operators::view::TableRow;
use dataflow_operators::view::shop::pageview::{Line, parse};
use serde_json::Value;
use std::collections::BTreeMap;

/// The inputs, in the order of a feed's changes.
pub(crate) const TABLES: [&str; 4] = ["users", "items", "purchases", "pageviews"];

/// An epoch as the views get it.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) epoch: u64,
    pub(crate) clock: Micros,
    /// The changes of each of [`TABLES`].
    pub(crate) changes: [Vec<(Row, isize)>; 4],
}

/// The columns of a table as the database has them, and more than the views read.
pub(crate) fn schema(table: &str) -> TableSchema {
    use ColumnType::{Boolean, Int, Long, Text, Timestamp};
    let decimal = |precision| ColumnType::Decimal { precision, scale: 2 };
    let columns: &[(&str, ColumnType)] = match table {
        "users" => &[("id", Int), ("first_name", Text), ("last_name", Text), ("email", Text)],
        "items" => &[("id", Int), ("name", Text), ("category", Text), ("price", decimal(10)), ("inventory", Int)],
        "purchases" => &[
            ("id", Int),
            ("user_id", Long),
            ("item_id", Long),
            ("campaign_id", Text),
            ("status", Int),
            ("quantity", Int),
            ("purchase_price", decimal(12)),
            ("deleted", Boolean),
        ],
        _ => return dataflow_operators::view::shop::Pageview::schema(),
    };
    let times = [("created_at", Timestamp), ("updated_at", Timestamp)];
    let column = |(name, kind): &(&str, ColumnType)| {
        let is_nullable = !matches!((table, *name), (_, "id") | ("items", "name"));
        Column { name: (*name).to_owned(), kind: *kind, is_nullable }
    };
    TableSchema { columns: columns.iter().chain(&times).map(column).collect(), key: vec![0] }
}

/// The changes of each epoch.
pub(crate) fn feeds(epochs: &[EpochOfCase]) -> Vec<Feed> {
    let mut before = Tables::default();
    let mut feeds = Vec::new();
    for EpochOfCase { epoch, clock, tables } in epochs {
        let changes = [
            difference("users", &before.users, &tables.users),
            difference("items", &before.items, &tables.items),
            difference("purchases", &before.purchases, &tables.purchases),
            tables.pageviews[before.pageviews.len()..].iter().filter_map(|line| Some((pageview(line)?, 1))).collect(),
        ];
        feeds.push(Feed { epoch: *epoch, clock: Micros::parse(clock).unwrap(), changes });
        before = tables.clone();
    }
    feeds
}

fn pageview(line: &[u8]) -> Option<Row> {
    match parse(line) {
        Line::Pageview(view) => Some(view.into_row()),
        Line::Blank | Line::Defective(_) => None,
    }
}

fn difference(table: &str, before: &BTreeMap<i64, Value>, after: &BTreeMap<i64, Value>) -> Vec<(Row, isize)> {
    let schema = schema(table);
    let gone = before.iter().filter(|(id, row)| after.get(id) != Some(row)).map(|(_, row)| (row_of(&schema, row), -1));
    let come = after.iter().filter(|(id, row)| before.get(id) != Some(row)).map(|(_, row)| (row_of(&schema, row), 1));
    gone.chain(come).collect()
}

fn row_of(schema: &TableSchema, row: &Value) -> Row {
    let datum = |column: &Column| {
        let value = &row[&column.name];
        let text = || value.as_str().unwrap();
        match column.kind {
            _ if value.is_null() => Datum::Null,
            ColumnType::Boolean => Datum::Boolean(value.as_bool().unwrap()),
            ColumnType::Int => Datum::Int(value.as_i64().unwrap() as i32),
            ColumnType::Long => Datum::Long(value.as_i64().unwrap()),
            ColumnType::Timestamp => Datum::Timestamp(Micros::parse(text()).unwrap()),
            ColumnType::Decimal { .. } => Datum::Decimal(text().replace('.', "").parse().unwrap()),
            _ => text().into(),
        }
    };
    let row: Row = schema.columns.iter().map(datum).collect();
    schema.check(&row).unwrap();
    row
}
