//! A table that is there is brought to its spec, or the change is refused in plain words.

use super::*;
use crate::{PartitionBy, SortBy, Transform};
use dataflow_core::Fault;

fn with(columns: Vec<Column>) -> TableSpec {
    TableSpec { schema: TableSchema { columns, key: vec![0] }, ..users() }
}

#[test]
fn columns_come_go_and_widen() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = warehouse(folder.path(), 1);
    let decimal = |precision| ColumnType::Decimal { precision, scale: 2 };
    let first = vec![
        column("id", ColumnType::Int, false),
        column("gone", ColumnType::Text, false),
        column("price", decimal(9), true),
    ];
    let table = warehouse.table(&with(first)).unwrap();
    append(&table, 1, &[[Datum::Int(-1), "old".into(), Datum::Decimal(-150)].into_iter().collect()]);

    let second = vec![
        column("price", decimal(20), true),
        column("new", ColumnType::Boolean, false),
        column("id", ColumnType::Long, false),
    ];
    let spec = TableSpec { schema: TableSchema { columns: second, key: vec![2] }, ..users() };
    let table = warehouse.table(&spec).unwrap();
    let old: Row = [Datum::Decimal(-150), Datum::Null, Datum::Long(-1)].into_iter().collect();
    let new: Row = [Datum::Decimal(10_i128.pow(19)), Datum::Boolean(true), Datum::Long(i64::MAX)].into_iter().collect();
    append(&table, 2, std::slice::from_ref(&new));
    assert_eq!(rows(&table), [old, new]);
    let schema = table.metadata().current_schema().clone();
    let required = |name: &str| schema.field_by_name(name).unwrap().required;
    assert!(required("id") && !required("gone") && !required("new"));
    assert_eq!(schema.identifier_field_ids().collect::<Vec<_>>(), [1]);

    // The same again changes nothing.
    let before = table.metadata_location();
    assert_eq!(warehouse.table(&spec).unwrap().metadata_location(), before);
}

#[test]
fn what_iceberg_has_not_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = warehouse(folder.path(), 1);
    warehouse.table(&users()).unwrap();
    for kind in [ColumnType::Int, ColumnType::Text, ColumnType::Double, ColumnType::Timestamp] {
        let error = warehouse.table(&with(vec![column("id", kind, false)])).err().unwrap();
        assert_eq!(error.fault, Fault::User);
        let text = error.to_string();
        for part in ["'id'", "'shop.silver.users'", "from long"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn partitions_and_order_change_for_new_files() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = warehouse(folder.path(), 1);
    let table = warehouse.table(&users()).unwrap();
    let (data, places) = written(&table, &[user(1, "a"), user(2, "b")]);
    table.commit(&intent(&table, 1, data, None)).unwrap();

    let bucket = |n| vec![PartitionBy { column: "id".to_owned(), transform: Transform::Bucket(n) }];
    let sort = vec![SortBy { column: "name".to_owned(), descending: false }];
    for (epoch, spec) in [
        (2, TableSpec { partition: bucket(4), sort: sort.clone(), ..users() }),
        (3, TableSpec { partition: bucket(8), sort, ..users() }),
        (4, users()),
    ] {
        let table = warehouse.table(&spec).unwrap();
        append(&table, epoch, &[user(epoch as i64 * 10, "n")]);
    }
    // A file of the old partitions has its rows deleted under them.
    let table = warehouse.table(&users()).unwrap();
    let deletes = table.delete_rows(&dead(&places[..1])).unwrap();
    table.commit(&intent(&table, 5, vec![], deletes)).unwrap();
    assert_eq!(rows(&table), [user(2, "b"), user(20, "n"), user(30, "n"), user(40, "n")]);
}
