//! What the sink of tables relies on in a catalog and the files beside it: what one process commits another sees, a commit is in a table
//! once however often it is made, rows go by position, and a newer generation shuts an older one out.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use dataflow_core::{
    ChainHash, Column, ColumnType, Datum, Epoch, Fault, Generation, Lineage, Marker, Row, TableSchema,
};
use dataflow_iceberg::{
    Committed, Deletes, FileSettings, Intent, NewFile, Outcome, Purpose, Table, TableFormat, TableName, TableSpec,
    Warehouse,
};
use std::collections::BTreeMap;

fn spec(format: TableFormat) -> TableSpec {
    let columns = vec![Column { name: "id".to_owned(), kind: ColumnType::Long, is_nullable: false }];
    TableSpec {
        table: TableName { namespace: vec!["conformance".to_owned()], name: format!("numbers_{}", u8::from(format)) },
        schema: TableSchema { columns, key: vec![0] },
        partition: Vec::new(),
        sort: Vec::new(),
        files: FileSettings { format, ..FileSettings::default() },
    }
}

fn marker(generation: u64, epoch: Epoch) -> Marker {
    let generation = Generation { number: generation, nonce: generation };
    Marker { lineage: Lineage(7), generation, epoch, chain: ChainHash([epoch as u8; 16]) }
}

fn row(id: i64) -> Row {
    [Datum::Long(id)].into_iter().collect()
}

fn rows(table: &Table) -> Vec<Row> {
    table.refresh().unwrap();
    let mut rows: Vec<Row> = match table.snapshot() {
        Some(snapshot) => table.scan(snapshot).unwrap().map(|found| found.unwrap().0).collect(),
        None => Vec::new(),
    };
    rows.sort();
    rows
}

fn intent(table: &Table, marker: Marker, first_epoch: Epoch, data: Vec<NewFile>, deletes: Deletes) -> Intent {
    let (parent, purpose, removed) = (table.snapshot(), Purpose::Rows, Vec::new());
    Intent { table: table.uuid(), marker, first_epoch, parent, is_alone: false, purpose, data, deletes, removed }
}

fn committed(outcome: Outcome) -> Committed {
    let Outcome::Committed(done) = outcome else { panic!("{outcome:?}") };
    done
}

/// What every warehouse does, with tables of each format. `open` opens it as another process does; nothing is there under `conformance`.
///
/// # Panics
/// When it does not conform.
pub fn warehouse(open: &dyn Fn() -> Warehouse) {
    warehouse_of(open, &spec(TableFormat::V2));
    warehouse_of(open, &spec(TableFormat::V3));
}

fn warehouse_of(open: &dyn Fn() -> Warehouse, spec: &TableSpec) {
    let (one, two) = (open(), open());
    assert_eq!(one.marker(&spec.table).unwrap(), None, "there is no such table");
    let (ours, theirs) = (one.table(spec).unwrap(), two.table(spec).unwrap());
    assert_eq!(ours.uuid(), theirs.uuid(), "a table is made once");
    assert_eq!(rows(&theirs), []);

    ours.claim(Lineage(7), marker(1, 0).generation).unwrap();
    let mut writer = ours.writer().unwrap();
    let places = writer.write(&[row(1), row(2)]).unwrap();
    let first = intent(&ours, marker(1, 5), 1, writer.finish().unwrap(), Deletes::default());
    assert_eq!(rows(&ours), [], "files are not rows before a commit");
    assert!(committed(ours.commit(&first).unwrap()).is_new);
    assert!(!committed(ours.commit(&first).unwrap()).is_new, "it is there");
    assert!(!committed(theirs.commit(&first).unwrap()).is_new, "for others as well");
    assert_eq!(rows(&theirs), [row(1), row(2)]);
    assert_eq!(two.marker(&spec.table).unwrap(), Some(marker(1, 5)));

    let dead = BTreeMap::from([(places[0].file.clone(), vec![places[0].position])]);
    let mut writer = ours.writer().unwrap();
    writer.write(&[row(3)]).unwrap();
    let deletes = ours.delete_rows(&dead).unwrap();
    let second = intent(&ours, marker(1, 9), 6, writer.finish().unwrap(), deletes);
    committed(ours.commit(&second).unwrap());
    assert_eq!(rows(&theirs), [row(2), row(3)]);

    theirs.claim(Lineage(7), marker(2, 0).generation).unwrap();
    let mut writer = ours.writer().unwrap();
    writer.write(&[row(4)]).unwrap();
    let late = intent(&ours, marker(1, 12), 10, writer.finish().unwrap(), Deletes::default());
    assert_eq!(ours.commit(&late).unwrap_err().fault, Fault::Fenced);
    assert!(committed(theirs.commit(&Intent { marker: marker(2, 12), ..late }).unwrap()).is_new);
    assert_eq!(rows(&ours), [row(2), row(3), row(4)]);
}
