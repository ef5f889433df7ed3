//! Rows go out and come back: every type, every partition transform, sorted and rolled.

use super::*;
use crate::{PartitionBy, SortBy, Transform};
use dataflow_core::TotalF64;
use parquet::basic::{Compression, GzipLevel};
use parquet::file::reader::{FileReader, SerializedFileReader};

/// A table of all types; `n` null columns beside the key.
fn everything() -> TableSpec {
    let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
    let kinds = [
        ("id", ColumnType::Int),
        ("is", ColumnType::Boolean),
        ("long", ColumnType::Long),
        ("double", ColumnType::Double),
        ("small", decimal(9, 2)),
        ("cents", decimal(14, 2)),
        ("huge", decimal(38, 10)),
        ("day", ColumnType::Date),
        ("at", ColumnType::Timestamp),
        ("text", ColumnType::Text),
        ("bytes", ColumnType::Bytes),
    ];
    let columns = kinds.iter().map(|(name, kind)| column(name, *kind, *name != "id")).collect();
    TableSpec {
        table: named("everything"),
        schema: TableSchema { columns, key: vec![0] },
        partition: vec![],
        sort: vec![],
        files: FileSettings::default(),
    }
}

/// Rows at the ends of each type, before 1970, negative, null.
fn extremes() -> Vec<Row> {
    let row = |id, rest: [Datum; 10]| std::iter::once(Datum::Int(id)).chain(rest).collect::<Row>();
    let double = |n| Datum::Double(TotalF64(n));
    let nulls = [const { Datum::Null }; 10];
    let least = [
        Datum::Boolean(false),
        Datum::Long(i64::MIN),
        double(f64::NEG_INFINITY),
        Datum::Decimal(-999_999_999),
        Datum::Decimal(-99_999_999_999_999),
        Datum::Decimal(-(10_i128.pow(38) - 1)),
        Datum::Date(-719_162),
        Datum::Timestamp(Micros(-1)),
        "".into(),
        Datum::Bytes([].into()),
    ];
    let most = [
        Datum::Boolean(true),
        Datum::Long(i64::MAX),
        double(f64::NAN),
        Datum::Decimal(999_999_999),
        Datum::Decimal(99_999_999_999_999),
        Datum::Decimal(10_i128.pow(38) - 1),
        Datum::Date(2_932_896),
        Datum::Timestamp(Micros(253_402_300_799_999_999)),
        "né €".repeat(50).as_str().into(),
        Datum::Bytes([0, 255].into()),
    ];
    let plain = [
        Datum::Boolean(true),
        Datum::Long(-1),
        double(-0.0),
        Datum::Decimal(-1),
        Datum::Decimal(-150),
        Datum::Decimal(7),
        Datum::Date(-1),
        Datum::Timestamp(Micros(-86_400_000_001)),
        "x".into(),
        Datum::Bytes([1].into()),
    ];
    vec![row(i32::MIN, nulls), row(-1, least), row(0, plain), row(i32::MAX, most)]
}

#[test]
fn every_type_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&everything()).unwrap();
    assert!(matches!(append(&table, 1, &extremes()), Outcome::Committed(_)));
    assert_eq!(rows(&table), extremes());
    // Anew, as another process reads it.
    let table = warehouse(folder.path(), 2).table(&everything()).unwrap();
    assert_eq!(rows(&table), extremes());
}

fn check_partitions(column: &str, transform: Transform, files: usize) {
    let folder = tempfile::tempdir().unwrap();
    let partition = vec![PartitionBy { column: column.to_owned(), transform }];
    let table = warehouse(folder.path(), 1).table(&TableSpec { partition, ..everything() }).unwrap();
    let (data, places) = written(&table, &extremes());
    assert_eq!(data.len(), files, "{column} by {transform:?}");
    // The intent crosses a checkpoint.
    let intent = intent(&table, 1, data, None);
    let restored: Intent = serde_json::from_str(&serde_json::to_string(&intent).unwrap()).unwrap();
    assert_eq!(restored, intent);
    table.commit(&restored).unwrap();
    assert_eq!(rows(&table), extremes(), "{column} by {transform:?}");
    // Deletes take the partition of their data file, also where another process wrote it.
    let table = warehouse(folder.path(), 2).table(table.spec()).unwrap();
    let deletes = table.delete_rows(&dead(&places[1..3])).unwrap();
    table.commit(&super::intent(&table, 2, vec![], deletes)).unwrap();
    assert_eq!(rows(&table), [extremes()[0].clone(), extremes()[3].clone()], "{column} by {transform:?}");
}

#[test]
fn every_partition_transform() {
    for (column, files) in
        [("id", 4), ("is", 3), ("long", 4), ("cents", 4), ("huge", 4), ("day", 4), ("at", 4), ("text", 4)]
    {
        check_partitions(column, Transform::Identity, files);
    }
    check_partitions("bytes", Transform::Identity, 4);
    for transform in [Transform::Year, Transform::Month, Transform::Day] {
        check_partitions("day", transform, 4);
    }
    check_partitions("at", Transform::Day, 4);
    check_partitions("at", Transform::Year, 3);
    check_partitions("at", Transform::Hour, 4);
    check_partitions("id", Transform::Bucket(1), 1);
    check_partitions("text", Transform::Bucket(1), 2);
    check_partitions("cents", Transform::Bucket(1), 2);
    check_partitions("text", Transform::Truncate(1), 4);
    check_partitions("cents", Transform::Truncate(10), 4);
}

#[test]
fn more_partitions_than_open_files() {
    let folder = tempfile::tempdir().unwrap();
    let partition = vec![PartitionBy { column: "id".to_owned(), transform: Transform::Identity }];
    let table = warehouse(folder.path(), 1).table(&TableSpec { partition, ..users() }).unwrap();
    let all: Vec<Row> = (0..50).map(|id| user(id, "x")).collect();
    let mut writer = table.writer().unwrap();
    for half in all.chunks(25) {
        writer.write(half).unwrap();
    }
    let data = writer.finish().unwrap();
    assert_eq!(data.len(), 50);
    table.commit(&intent(&table, 1, data, None)).unwrap();
    assert_eq!(rows(&table), all);
}

#[test]
fn rows_are_sorted_and_files_rolled() {
    let folder = tempfile::tempdir().unwrap();
    let sort = vec![SortBy { column: "name".to_owned(), descending: true }];
    let table = warehouse(folder.path(), 1).table(&TableSpec { sort, ..users() }).unwrap();
    let properties = [("write.target-file-size-bytes".to_owned(), "100000".to_owned())].into();
    done(&table, vec![TableUpdate::SetProperties { updates: properties }]);
    table.refresh().unwrap();
    let name = |id: i64| format!("{:016x}", (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let all: Vec<Row> = (0..40_000).map(|id| user(id, &name(id))).collect();
    let (data, places) = written(&table, &all);
    assert!(data.len() > 1, "{} files", data.len());
    table.commit(&intent(&table, 1, data, None)).unwrap();
    let found: Vec<(Row, Place)> = table.scan(table.snapshot().unwrap()).unwrap().map(Result::unwrap).collect();
    for file in found.chunk_by(|a, b| a.1.file == b.1.file) {
        assert!(file.is_sorted_by(|a, b| a.0.get(1) >= b.0.get(1)));
    }
    // Each row lies where the writer said.
    let mut told: Vec<(Row, Place)> = all.into_iter().zip(places).collect();
    let mut found = found;
    told.sort();
    found.sort();
    assert_eq!(told, found);
}

#[test]
fn files_are_written_as_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let house = warehouse(folder.path(), 1);
    let files = |compression: &str, bloom_filters: &[&str]| FileSettings {
        format: TableFormat::V2,
        target_bytes: Some(1),
        compression: Some(compression.parse().unwrap()),
        bloom_filters: bloom_filters.iter().map(|column| (*column).to_owned()).collect(),
    };
    let (mut epoch, mut wrote) = (0, Vec::new());
    let mut write = |files: FileSettings| {
        let table = house.table(&TableSpec { files, ..users() }).unwrap();
        let mut writer = table.writer().unwrap();
        (1..=2).for_each(|id| drop(writer.write(&[user(id, "a")]).unwrap()));
        let data = writer.finish().unwrap();
        assert_eq!(data.len(), 2, "each batch of rows ends a file of a byte");
        let file = std::fs::File::open(data[0].path.strip_prefix("file://").unwrap()).unwrap();
        let read = SerializedFileReader::new(file).unwrap();
        let columns = read.metadata().row_group(0).columns();
        wrote.push((
            columns[0].compression(),
            columns.iter().map(|c| c.bloom_filter_offset().is_some()).collect::<Vec<_>>(),
        ));
        epoch += 1;
        table.commit(&intent(&table, epoch, data, None)).unwrap();
    };
    write(files("snappy", &["name"]));
    // What a job does not name stays; what it names changes.
    write(FileSettings::default());
    write(files("gzip(9)", &["id"]));
    let gzip = Compression::GZIP(GzipLevel::default());
    let expected =
        [(Compression::SNAPPY, vec![false, true]), (Compression::SNAPPY, vec![false, true]), (gzip, vec![true, true])];
    assert_eq!(wrote, expected);

    let table = house.table(&users()).unwrap();
    let property = [("write.parquet.compression-codec".to_owned(), "lzo".to_owned())].into();
    done(&table, vec![TableUpdate::SetProperties { updates: property }]);
    table.refresh().unwrap();
    let error = table.writer().err().unwrap();
    assert!(error.to_string().contains("'lzo'"), "{error}");
    let wrong = house.table(&TableSpec { files: files("zstd", &["nope"]), ..users() }).err().unwrap();
    assert!(wrong.to_string().contains("'nope'"), "{wrong}");
}

#[test]
fn values_that_hardly_repeat_have_no_dictionary() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let all: Vec<Row> = (0..10_000).map(|id| user(id, ["a", "b"][id as usize % 2])).collect();
    let (data, _) = written(&table, &all);
    let file = std::fs::File::open(data[0].path.strip_prefix("file://").unwrap()).unwrap();
    let read = SerializedFileReader::new(file).unwrap();
    let columns = read.metadata().row_group(0).columns();
    let dictionaries: Vec<bool> = columns.iter().map(|c| c.dictionary_page_offset().is_some()).collect();
    assert_eq!(dictionaries, [false, true]);
    table.commit(&intent(&table, 1, data, None)).unwrap();
    let found = table.scan(table.snapshot().unwrap()).unwrap().map(|found| found.unwrap().0);
    assert!(found.eq(all));
}

#[test]
fn a_row_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let wrong = [Datum::Int(1), Datum::Null].into_iter().collect();
    assert!(table.writer().unwrap().write(&[wrong]).is_err());
    assert_eq!(table.snapshot(), None);
    assert_eq!(table.marker().unwrap(), None);
}

#[test]
fn wrong_specs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = warehouse(folder.path(), 1);
    let by = |column: &str, transform| vec![PartitionBy { column: column.to_owned(), transform }];
    for (partition, says) in [
        (by("nope", Transform::Identity), "'nope'"),
        (by("name", Transform::Day), "'name'"),
        (by("id", Transform::Bucket(0)), "0"),
    ] {
        let error = warehouse.table(&TableSpec { partition, ..users() }).err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
    }
}
