//! Rows of a table as Parquet: the sink's writer, beside Arrow's.
//!
//! The bare writer is given batches that are ready; the sink's makes them of rows, and tells where each row lies. It leaves dictionaries out where
//! values hardly repeat; the bare one is measured as it is by default, and so too.

use criterion::{Criterion, Throughput};
use dataflow_core::{Column, ColumnType, Datum, Environment, Micros, Row, TableSchema};
use dataflow_iceberg::{
    CatalogSettings, FileSettings, StorageSettings, Table, TableName, TableSpec, Warehouse, WarehouseSettings,
};
use dataflow_runtime::threads;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;

const ROWS: i64 = 200_000;

/// A table like those of the shop: a key, texts, a number, an amount, times.
fn schema() -> TableSchema {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind, is_nullable: name != "id" };
    let columns = vec![
        column("id", ColumnType::Long),
        column("name", ColumnType::Text),
        column("status", ColumnType::Text),
        column("quantity", ColumnType::Int),
        column("price", ColumnType::Decimal { precision: 12, scale: 2 }),
        column("created_at", ColumnType::Timestamp),
        column("updated_at", ColumnType::Timestamp),
    ];
    TableSchema { columns, key: vec![0] }
}

fn row(id: i64) -> Row {
    let scattered = (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let at = 1_770_000_000_000_000 + id * 1_000_003;
    let cells = [
        Datum::Long(id),
        format!("item {scattered:08x}").as_str().into(),
        ["new", "paid", "returned"][scattered as usize % 3].into(),
        Datum::Int((scattered % 9) as i32),
        Datum::Decimal(i128::from(scattered % 100_000)),
        Datum::Timestamp(Micros(at)),
        if scattered.is_multiple_of(4) { Datum::Null } else { Datum::Timestamp(Micros(at + 77)) },
    ];
    cells.into_iter().collect()
}

fn table(folder: &Path, environment: Environment) -> Table {
    let settings = WarehouseSettings {
        catalog: CatalogSettings::Sqlite { file: folder.join("catalog.db"), name: "bench".to_owned() },
        storage: StorageSettings::Folder { path: folder.join("warehouse") },
    };
    let warehouse = Warehouse::open(&settings, environment).expect("a folder can hold a warehouse");
    let name = TableName { namespace: vec!["bench".to_owned()], name: "purchases".to_owned() };
    let spec =
        TableSpec { table: name, schema: schema(), partition: vec![], sort: vec![], files: FileSettings::default() };
    warehouse.table(&spec).expect("the table can be made")
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("there is room for files");
    let table = table(folder.path(), threads::environment());
    let rows: Vec<Row> = (0..ROWS).map(row).collect();
    let write = || {
        let mut writer = table.writer().expect("all columns are written");
        black_box(writer.write(&rows).expect("there is room for a file"));
        writer.finish().expect("there is room for a file")
    };
    let file = write().remove(0);
    let path = file.path.strip_prefix("file://").expect("the warehouse is a folder");
    let written = File::open(path).expect("the file is there");
    let read = ParquetRecordBatchReaderBuilder::try_new(written).expect("it is Parquet").with_batch_size(8_192);
    let batches: Vec<_> = read.build().expect("it can be read").map(|batch| batch.expect("it can be read")).collect();

    let mut group = criterion.benchmark_group("parquet");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    group.bench_function("the sink's writer, rows", |bencher| bencher.iter(write));
    let how = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_bytes(Some(16 << 20));
    let of_sink = ["id", "name", "price", "created_at", "updated_at"]
        .iter()
        .fold(how.clone(), |how, column| how.set_column_dictionary_enabled(ColumnPath::from(*column), false));
    for (name, how) in [("ArrowWriter, batches", how), ("ArrowWriter, batches, the sink's dictionaries", of_sink)] {
        let how = how.build();
        let mut number = 0;
        let mut write = || {
            // A new file, as of the sink.
            number += 1;
            let bare = folder.path().join(format!("bare-{number}.parquet"));
            let file = File::create(&bare).expect("there is room for a file");
            let mut writer =
                ArrowWriter::try_new(file, batches[0].schema(), Some(how.clone())).expect("all is written");
            batches.iter().for_each(|batch| writer.write(batch).expect("there is room for a file"));
            // As durable as the sink's: the file, and its name.
            let file = writer.into_inner().expect("there is room for a file");
            file.sync_all().expect("the disk works");
            File::open(folder.path()).and_then(|folder| folder.sync_all()).expect("the disk works");
            file.metadata().expect("the file is there").len()
        };
        println!("{name}: {} bytes, the sink's {}", write(), file.bytes);
        group.bench_function(name, |bencher| bencher.iter(&mut write));
    }
    group.finish();
}
