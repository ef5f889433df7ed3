//! Where each wanted value of a change event goes, and what they say together: one layout for one declared table.
//!
//! A reader finds fields by their names in [`Fields`] and puts each into the cell that stands there. The cells are a fixed list: what
//! says something about the change, then the columns before it, then the columns after it.

use super::cell::{Cell, Raw};
use super::convert::{Value, convert};
use super::{
    BAD_POSITION, COLUMN_TYPE, Change, ChangeEvent, ChangePosition, Found, Ignored, NO_OLD_ROW, NO_ROW, NOT_A_CHANGE,
    Op, Transaction, UNKNOWN_OP, ignored,
};
use dataflow_core::change::transaction_id;
use dataflow_core::{Column, Datum, Error, Result, Row, TableSchema};
use std::collections::BTreeMap;

/// The cell of the operation.
pub(super) const OP: usize = 0;
/// The cell of the mark of a flattened delete.
const DELETED: usize = 1;
/// The cell of the position as Debezium's text.
const SEQUENCE: usize = 2;
/// The cell of the position in the log.
const LSN: usize = 3;
const TRANSACTION_ID: usize = 4;
const TRANSACTION_ORDER: usize = 5;
const TABLE_ORDER: usize = 6;
/// The cell of the table's name, in files that hold several.
pub(super) const TABLE: usize = 7;
/// Not null when there is a row before the change.
const BEFORE: usize = 8;
/// Not null when there is a row after the change.
const AFTER: usize = 9;
/// The first column.
const COLUMNS: usize = 10;

/// What is wanted of a record's fields, by name. The rest is passed over.
pub(super) type Fields = BTreeMap<Box<str>, Want>;

/// What is wanted of a field.
#[derive(Clone, Debug)]
pub(super) enum Want {
    /// Its value, in this cell.
    Cell(usize),
    /// Some of its fields, and in a cell whether it is there at all.
    Record { present: Option<usize>, fields: Fields },
}

/// Which shape a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Envelope,
    /// As ExtractNewRecordState leaves it: the row, with fields of its own beside the columns.
    Flattened,
    Ignored(Ignored),
}

impl Form {
    /// The fields' names that tell shapes apart.
    pub(super) const TELLING: [&'static str; 8] =
        ["__op", "__deleted", "op", "source", "ts_ms", "status", "id", "event_count"];

    /// Of a record that has the fields `has`, `count` in all.
    pub(super) fn of(has: impl Fn(&str) -> bool, source_is_record: bool, count: usize) -> Option<Form> {
        if has("__op") || has("__deleted") {
            Some(Form::Flattened)
        } else if has("op") && source_is_record {
            Some(Form::Envelope)
        } else if has("ts_ms") && count == 1 {
            Some(Form::Ignored(Ignored::Heartbeat))
        } else if has("status") && has("id") && has("event_count") {
            Some(Form::Ignored(Ignored::TransactionBoundary))
        } else {
            None
        }
    }
}

/// The layout of a table's change events.
#[derive(Debug)]
pub(super) struct Layout {
    table: TableSchema,
    /// What is wanted of an envelope.
    pub(super) envelope: Fields,
    /// What is wanted of a flattened change.
    pub(super) flattened: Fields,
}

impl Layout {
    /// # Errors
    /// When the key names columns that there are not, or two columns have one name.
    pub(super) fn new(table: TableSchema) -> Result<Layout> {
        let count = table.columns.len();
        if let Some(at) = table.key.iter().find(|at| **at >= count) {
            return Err(Error::user(format!("declaring a table: its key has column {at} of {count}")));
        }
        let cell = |(at, column): (usize, &Column)| (column.name.as_str().into(), Want::Cell(COLUMNS + count + at));
        let after: Fields = table.columns.iter().enumerate().map(cell).collect();
        if after.len() < count {
            return Err(Error::user("declaring a table: two of its columns have the same name"));
        }
        let old: Vec<usize> = if table.key.is_empty() { (0..count).collect() } else { table.key.clone() };
        let before = old.iter().map(|at| (table.columns[*at].name.as_str().into(), Want::Cell(COLUMNS + at))).collect();
        let mut flattened = after.clone();
        flattened.extend(cells(&[
            ("__op", OP),
            ("__deleted", DELETED),
            ("__source_sequence", SEQUENCE),
            ("__sequence", SEQUENCE),
            ("__source_lsn", LSN),
            ("__lsn", LSN),
            ("__transaction_id", TRANSACTION_ID),
            ("__transaction_total_order", TRANSACTION_ORDER),
            ("__transaction_data_collection_order", TABLE_ORDER),
        ]));
        let record = |present, fields| Want::Record { present, fields };
        let source = cells(&[("sequence", SEQUENCE), ("lsn", LSN)]);
        let transaction = cells(&[
            ("id", TRANSACTION_ID),
            ("total_order", TRANSACTION_ORDER),
            ("data_collection_order", TABLE_ORDER),
        ]);
        let mut envelope = cells(&[("op", OP)]);
        envelope.insert("source".into(), record(None, source));
        envelope.insert("transaction".into(), record(None, transaction));
        envelope.insert("before".into(), record(Some(BEFORE), before));
        envelope.insert("after".into(), record(Some(AFTER), after));
        Ok(Layout { table, envelope, flattened })
    }

    /// What is wanted of a line that names its table and has its position beside the rows.
    pub(super) fn line(&self) -> Fields {
        let mut fields = cells(&[("table", TABLE), ("op", OP), ("lsn", LSN)]);
        let rows = self.envelope.iter().filter(|(name, _)| matches!(name.as_ref(), "before" | "after"));
        fields.extend(rows.map(|(name, want)| (name.clone(), want.clone())));
        fields
    }

    /// What is wanted of a record of this form; nothing: it is not read.
    pub(super) fn wanted(&self, form: Form) -> Option<&Fields> {
        match form {
            Form::Envelope => Some(&self.envelope),
            Form::Flattened => Some(&self.flattened),
            Form::Ignored(_) => None,
        }
    }

    /// The cells of an event of which nothing is known yet.
    pub(super) fn cells<'a>(&self) -> Vec<Cell<'a>> {
        vec![Cell::EMPTY; self.cell_count()]
    }

    /// How many cells an event has.
    pub(super) fn cell_count(&self) -> usize {
        COLUMNS + 2 * self.table.columns.len()
    }

    /// The columns with the cells that hold them, before and after the change.
    pub(super) fn columns(&self) -> impl Iterator<Item = (usize, &Column)> {
        let twice = self.table.columns.iter().chain(&self.table.columns);
        twice.enumerate().map(|(at, column)| (COLUMNS + at, column))
    }

    /// What the cells say together.
    pub(super) fn event(&self, form: Form, cells: &[Cell<'_>]) -> Found<ChangeEvent> {
        let text = |at: usize| if let Raw::Text(text) = &cells[at].raw { Some(text.as_ref()) } else { None };
        let is_deleted = text(DELETED) == Some("true");
        let op = match (form, text(OP)) {
            (Form::Ignored(why), _) => return ignored(why),
            (Form::Flattened, _) if is_deleted => Op::Delete,
            // Whether it was there before was not written.
            (Form::Flattened, None) if cells[OP].raw == Raw::Null => Op::Update,
            (_, Some("r")) => Op::Read,
            (_, Some("c")) => Op::Create,
            (_, Some("u")) => Op::Update,
            (_, Some("d")) => Op::Delete,
            (_, Some("m")) => return ignored(Ignored::Message),
            (_, Some("t")) => {
                return Ok(ChangeEvent::Truncate { position: position(cells)?, transaction: transaction(cells) });
            }
            (_, Some(_)) => return Err(UNKNOWN_OP),
            (_, None) => return Err(NOT_A_CHANGE),
        };
        let position = position(cells)?;
        let is_present = |at: usize| cells[at].raw != Raw::Null;
        let before = (form == Form::Envelope && is_present(BEFORE)).then(|| self.columns_at(cells, 0));
        let after =
            (form == Form::Flattened || is_present(AFTER)).then(|| self.columns_at(cells, self.table.columns.len()));
        let change = match op {
            Op::Delete => {
                let old = if form == Form::Flattened { after } else { before };
                let key = self.key(old.ok_or(NO_ROW)?)?;
                Change { op, position, key, row: None, unavailable: Vec::new(), replaces: None, transaction: None }
            }
            Op::Read | Op::Create | Op::Update => self.put(op, position, before, after.ok_or(NO_ROW)?)?,
        };
        Ok(ChangeEvent::Change(Change { transaction: transaction(cells), ..change }))
    }

    fn put(
        &self,
        op: Op,
        position: Option<ChangePosition>,
        before: Option<&[Cell<'_>]>,
        after: &[Cell<'_>],
    ) -> Found<Change> {
        let mut unavailable = Vec::new();
        let datum = |(at, (cell, column)): (usize, (&Cell<'_>, &Column))| {
            Found::Ok(match convert(cell, column)? {
                Value::Datum(datum) => datum,
                Value::Unavailable => {
                    unavailable.push(at);
                    Datum::Null
                }
            })
        };
        let row = after.iter().zip(&self.table.columns).enumerate().map(datum).collect::<Found<Row>>()?;
        let key = self.table.key_of(&row);
        let has_no_key = self.table.key.is_empty();
        if unavailable.iter().any(|at| has_no_key || self.table.key.contains(at)) {
            return Err(NO_OLD_ROW);
        }
        let replaces = match before.filter(|_| op == Op::Update) {
            Some(before) => Some(self.key(before)?).filter(|old| has_no_key || *old != key),
            None if has_no_key && op == Op::Update => return Err(NO_OLD_ROW),
            None => None,
        };
        Ok(Change { op, position, key, row: Some(row), unavailable, replaces, transaction: None })
    }

    fn columns_at<'c, 'a>(&self, cells: &'c [Cell<'a>], at: usize) -> &'c [Cell<'a>] {
        &cells[COLUMNS + at..][..self.table.columns.len()]
    }

    /// The key alone: it is all that is true of an old row.
    fn key(&self, row: &[Cell<'_>]) -> Found<Row> {
        let datum = |at: usize| match convert(&row[at], &self.table.columns[at])? {
            Value::Datum(datum) => Ok(datum),
            Value::Unavailable => Err(COLUMN_TYPE),
        };
        match self.table.key.as_slice() {
            [] => (0..row.len()).map(datum).collect(),
            key => key.iter().map(|at| datum(*at)).collect(),
        }
    }
}

fn cells(named: &[(&str, usize)]) -> Fields {
    named.iter().map(|(name, at)| ((*name).into(), Want::Cell(*at))).collect()
}

fn position(cells: &[Cell<'_>]) -> Found<Option<ChangePosition>> {
    match (&cells[SEQUENCE].raw, &cells[LSN].raw) {
        (Raw::Text(text), _) => sequence(text).map(Some).ok_or(BAD_POSITION),
        (Raw::Null, Raw::Integer(lsn)) => {
            let lsn = u64::try_from(*lsn).map_err(|_| BAD_POSITION)?;
            Ok(Some(ChangePosition(lsn, lsn)))
        }
        (Raw::Null, Raw::Null) => Ok(None),
        _ => Err(BAD_POSITION),
    }
}

/// JSON text, `[LSN of the last commit or null, LSN]`, with the numbers as strings.
fn sequence(text: &str) -> Option<ChangePosition> {
    let (commit, lsn): (Option<String>, String) = serde_json::from_str(text).ok()?;
    let commit = commit.map_or(Some(0), |commit| commit.parse().ok())?;
    Some(ChangePosition(commit, lsn.parse().ok()?))
}

fn transaction(cells: &[Cell<'_>]) -> Option<Transaction> {
    let number = |at: usize| match cells[at].raw {
        Raw::Integer(n) => u64::try_from(n).ok(),
        _ => None,
    };
    let Raw::Text(id) = &cells[TRANSACTION_ID].raw else { return None };
    Some(Transaction {
        id: transaction_id(id).into(),
        order: number(TRANSACTION_ORDER)?,
        table_order: number(TABLE_ORDER)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        assert_eq!(sequence(r#"[null,"26528304"]"#), Some(ChangePosition(0, 26_528_304)));
        assert_eq!(sequence(r#"["26562536","26561840"]"#), Some(ChangePosition(26_562_536, 26_561_840)));
        for text in ["", "null", "[]", r#"["1"]"#, r#"["1",null]"#, r#"["1","-2"]"#, r#"["1","2","3"]"#, "[1,2]"] {
            assert_eq!(sequence(text), None, "{text}");
        }
        // As numbers, not as text.
        assert!(sequence(r#"["9","9"]"#) < sequence(r#"["10","1"]"#));
    }

    #[test]
    fn a_table_that_is_none() {
        use dataflow_core::ColumnType;
        let column = Column { name: "c".to_owned(), kind: ColumnType::Int, is_nullable: true };
        assert!(Layout::new(TableSchema { columns: vec![column.clone()], key: vec![1] }).is_err());
        assert!(Layout::new(TableSchema { columns: vec![column.clone(), column.clone()], key: vec![] }).is_err());
        assert!(Layout::new(TableSchema { columns: vec![column], key: vec![0] }).is_ok());
    }
}
