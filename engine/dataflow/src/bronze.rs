//! Bronze tables: what a source brought, as it came, one row for each record that could be read. They only grow.
//!
//! | column | of changes | of facts |
//! | --- | --- | --- |
//! | the row's own | as they are after the change; of a delete the key, of a truncate nothing | as they came |
//! | `op` | `r`, `c`, `u`, `d`, or `t` of a truncate | |
//! | `lsn` | where in the database's log; null where the connector did not say | |
//! | `topic`, `partition`, `offset` | where the record stood | likewise |
//! | `ingested_at` | the clock of the epoch that read it | likewise |
//!
//! Late and repeated changes are rows as well: nothing is compared with what is there. A value that the database did not send, because it
//! is large and did not change, is null. What can not be read is in `bronze.dead_letters`.

use crate::job::{FACT_PLACE, FactSource, Job, TableSource};
use dataflow_core::change::{ChangeEvent, Op};
use dataflow_core::{Column, ColumnType, Datum, Error, Position, Result, Row, Stamped, TableSchema};
use dataflow_operators::view::{EpochClock, TableRow, View};
use dataflow_runtime::TableMode;
use differential_dataflow::AsCollection;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

/// What a change was.
const OF_CHANGE: [(&str, ColumnType, bool); 2] = [("op", ColumnType::Text, false), ("lsn", ColumnType::Long, true)];
/// Where a record stood.
const OF_PLACE: [(&str, ColumnType, bool); 3] =
    [("topic", ColumnType::Text, false), ("partition", ColumnType::Int, false), ("offset", ColumnType::Long, false)];
/// When it was read.
const OF_CLOCK: [(&str, ColumnType, bool); 1] = [("ingested_at", ColumnType::Timestamp, false)];

impl<'s> Job<'_, 's> {
    /// Appends the changes of a source to `table`: late and repeated ones too, and each once.
    ///
    /// # Errors
    /// When no sink of the profile takes the table, or a column of the source's is called as one of [this table](crate::bronze).
    pub fn append_changes<R: TableRow>(
        &mut self,
        table: &str,
        source: &TableSource<'s, R>,
        clock: &EpochClock<'s>,
    ) -> Result<()> {
        let columns = source.schema.columns.clone();
        let key = source.schema.key.clone();
        let added = [&OF_CHANGE[..], &OF_PLACE].concat();
        self.append(table, source, columns, &added, clock, move |event, columns| change_row(event, columns, &key))
    }

    /// Appends the facts of a source to `table`: equal ones too, and each once.
    ///
    /// # Errors
    /// As [`Job::append_changes`].
    pub fn append_facts<R: TableRow, D: Clone + 'static>(
        &mut self,
        table: &str,
        source: &FactSource<'s, R, D>,
        clock: &EpochClock<'s>,
    ) -> Result<()> {
        let columns = R::schema().columns;
        self.append(table, &source.facts, columns, &OF_PLACE, clock, |event, _| match &event.data {
            ChangeEvent::Change(change) => change.row.as_ref().map(|row| row.0[FACT_PLACE.len()..].to_vec()),
            ChangeEvent::Truncate { .. } | ChangeEvent::Ignored(_) => None,
        })
    }

    /// Appends a row for each event that `row` makes values of, given how many columns the source has.
    fn append<R: TableRow>(
        &mut self,
        table: &str,
        source: &TableSource<'s, R>,
        columns: Vec<Column>,
        added: &[(&str, ColumnType, bool)],
        clock: &EpochClock<'s>,
        row: impl Fn(&Stamped<ChangeEvent>, usize) -> Option<Vec<Datum>> + 'static,
    ) -> Result<()> {
        let count = columns.len();
        let schema = schema(table, columns, &[added, &OF_CLOCK].concat())?;
        let plan = self.plan().clone();
        let topic = move |position: Position| plan.sources[usize::from(position.partition.source.0)].name().into();
        let rows = source.events.clone().unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
            Pipeline,
            &format!("Bronze {table}"),
            move |_, _| {
                move |input, output| {
                    input.for_each(|stamp, batch| {
                        let epoch = *stamp.least().expect("events are stamped with their epoch");
                        let rows = batch.drain(..).filter_map(|event| {
                            let mut row = row(&event, count)?;
                            let Position { partition, offset } = event.position;
                            let index = i32::try_from(partition.index).unwrap_or(i32::MAX);
                            row.extend([topic(event.position), Datum::Int(index), Datum::Long(offset as i64)]);
                            Some((row.into_iter().collect::<Row>(), epoch, 1))
                        });
                        output.session(&stamp).give_iterator(rows);
                    });
                }
            },
        );
        let rows = View::new(table, rows.as_collection());
        let with_clock = |now, row: Row| row.0.iter().cloned().chain([Datum::Timestamp(now)]).collect::<Row>();
        self.keep_table(table, schema, TableMode::Append, rows.ingested(clock, with_clock))
    }
}

/// The columns of a source, which may all be null here, and those that are added.
fn schema(table: &str, mut columns: Vec<Column>, added: &[(&str, ColumnType, bool)]) -> Result<TableSchema> {
    columns.iter_mut().for_each(|column| column.is_nullable = true);
    for (name, kind, is_nullable) in added {
        if columns.iter().any(|column| column.name == *name) {
            let what = format!("append to table '{table}': its source has a column '{name}' of its own");
            return Err(Error::user(what).hint("leave the column out of the row that the job reads"));
        }
        columns.push(Column { name: (*name).to_owned(), kind: *kind, is_nullable: *is_nullable });
    }
    Ok(TableSchema { columns, key: Vec::new() })
}

/// The row's columns, `op` and `lsn`; none of an event that says nothing about a row.
fn change_row(event: &Stamped<ChangeEvent>, columns: usize, key: &[usize]) -> Option<Vec<Datum>> {
    let (mut row, op, position) = match &event.data {
        ChangeEvent::Ignored(_) => return None,
        ChangeEvent::Truncate { position, .. } => (vec![Datum::Null; columns], "t", *position),
        ChangeEvent::Change(change) => {
            let row = match &change.row {
                Some(row) => row.0.to_vec(),
                None => {
                    let mut row = vec![Datum::Null; columns];
                    key.iter().zip(change.key.0.iter()).for_each(|(at, datum)| row[*at] = datum.clone());
                    row
                }
            };
            (row, code(change.op), change.position)
        }
    };
    // An LSN is a 64-bit number without a sign in Postgres; a log that long was never written.
    let lsn = position.map_or(Datum::Null, |position| Datum::Long(position.1 as i64));
    row.extend([op.into(), lsn]);
    Some(row)
}

/// Debezium's letter for what was done.
fn code(op: Op) -> &'static str {
    match op {
        Op::Read => "r",
        Op::Create => "c",
        Op::Update => "u",
        Op::Delete => "d",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::change::{Change, ChangePosition, Ignored};
    use dataflow_core::{Micros, Partition, SourceId};

    fn event(data: ChangeEvent) -> Stamped<ChangeEvent> {
        let partition = Partition { source: SourceId(0), index: 0 };
        Stamped { time: Micros(0), position: Position { partition, offset: 1 }, data }
    }

    fn row(values: &[Datum]) -> Row {
        values.iter().cloned().collect()
    }

    #[test]
    fn each_kind_of_event() {
        let (id, name) = (Datum::Int(7), Datum::Text("bo".into()));
        let change = |op, row: Option<Row>| {
            let (key, position) = ([Datum::Int(7)].into_iter().collect(), Some(ChangePosition(3, 4)));
            let (unavailable, replaces, transaction) = (Vec::new(), None, None);
            event(ChangeEvent::Change(Change { op, position, key, row, unavailable, replaces, transaction }))
        };
        let said = |event: &Stamped<ChangeEvent>| change_row(event, 2, &[0]);
        let lsn = Datum::Long(4);
        let whole = change(Op::Update, Some(row(&[id.clone(), name.clone()])));
        assert_eq!(said(&whole), Some(vec![id.clone(), name, "u".into(), lsn.clone()]));
        assert_eq!(said(&change(Op::Delete, None)), Some(vec![id, Datum::Null, "d".into(), lsn]));
        let truncate = event(ChangeEvent::Truncate { position: None, transaction: None });
        assert_eq!(said(&truncate), Some(vec![Datum::Null, Datum::Null, "t".into(), Datum::Null]));
        assert_eq!(said(&event(ChangeEvent::Ignored(Ignored::Tombstone))), None);
    }

    #[test]
    fn a_column_of_the_same_name_is_refused() {
        let column = |name: &str| Column { name: name.to_owned(), kind: ColumnType::Int, is_nullable: false };
        let said = schema("bronze.t", vec![column("id"), column("op")], &OF_CHANGE).unwrap_err().to_string();
        assert!(said.contains("'bronze.t'") && said.contains("'op'"), "{said}");
        let shape = schema("bronze.t", vec![column("id")], &OF_CHANGE).unwrap();
        assert!(shape.columns[0].is_nullable && !shape.columns[1].is_nullable && shape.key.is_empty());
    }
}
