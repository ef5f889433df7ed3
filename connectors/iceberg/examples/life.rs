//! The life of an upsert table, for independent readers to look at: append, upserts with position deletes, a column added, two files
//! rewritten as one. Leaves in a folder what the table must hold, as one JSON object a row, and where its metadata lies.
//!
//! ```text
//! life sqlite FOLDER OUT [FORMAT]   catalog FOLDER/catalog.db, files under FOLDER/warehouse
//! life rest URI OUT [FORMAT]        S3_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; files in s3://warehouse
//! ```
//! FORMAT is 2 or 3 (2 without one), or `upgraded`: 3 from the second step on.
//! `connectors/iceberg/tests/readers.py` runs it and compares.

use dataflow_core::{
    ChainHash, Clock, Column, ColumnType, Datum, Environment, Error, Generation, Lineage, Marker, Micros, Random,
    Result, Row, Spawner, TableSchema, Task, TotalF64, Waker,
};
use dataflow_iceberg::{
    CatalogSettings, Deletes, FileSettings, Intent, Outcome, PartitionBy, Place, Purpose, S3Keys, S3Settings, Secret,
    SortBy, StorageSettings, Table, TableFormat, TableName, TableSpec, Transform, Warehouse, WarehouseSettings,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const ROWS: i64 = 1_000;

/// The process's number seeds what needs to be unique; the clock stands.
struct World(AtomicU64);

impl Clock for World {
    fn wall(&self) -> Micros {
        Micros(1_790_000_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

impl Random for World {
    fn next_u64(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Spawner for World {
    fn spawn(&self, _: &str, _: Box<dyn Task>) -> Waker {
        Waker::none()
    }
}

fn environment() -> Environment {
    let world = Arc::new(World(AtomicU64::new(u64::from(std::process::id()) << 32)));
    Environment { clock: world.clone(), random: world.clone(), spawner: world }
}

fn settings(kind: &str, place: &str) -> WarehouseSettings {
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    if kind == "sqlite" {
        let folder = PathBuf::from(place);
        let catalog = CatalogSettings::Sqlite { file: folder.join("catalog.db"), name: "default".to_owned() };
        return WarehouseSettings { catalog, storage: StorageSettings::Folder { path: folder.join("warehouse") } };
    }
    let keys = S3Keys { access_key: var("AWS_ACCESS_KEY_ID"), secret_key: Secret::new(var("AWS_SECRET_ACCESS_KEY")) };
    let s3 = S3Settings {
        endpoint: Some(var("S3_ENDPOINT")),
        region: var("AWS_REGION"),
        path_style: true,
        keys: Some(keys),
    };
    let catalog = CatalogSettings::Rest { uri: place.to_owned(), warehouse: None, token: None };
    WarehouseSettings { catalog, storage: StorageSettings::S3 { location: "s3://warehouse/tables".to_owned(), s3 } }
}

fn spec(name: &str, with_note: bool, format: TableFormat) -> TableSpec {
    let kinds = [
        ("id", ColumnType::Long),
        ("name", ColumnType::Text),
        ("amount", ColumnType::Decimal { precision: 14, scale: 2 }),
        ("large", ColumnType::Decimal { precision: 30, scale: 3 }),
        ("at", ColumnType::Timestamp),
        ("day", ColumnType::Date),
        ("ratio", ColumnType::Double),
        ("is", ColumnType::Boolean),
        ("raw", ColumnType::Bytes),
        ("note", if with_note { ColumnType::Long } else { ColumnType::Int }),
        ("added", ColumnType::Text),
    ];
    let count = if with_note { kinds.len() } else { kinds.len() - 1 };
    let columns = kinds[..count].iter().map(|(name, kind)| Column {
        name: (*name).to_owned(),
        kind: *kind,
        is_nullable: *name != "id",
    });
    TableSpec {
        table: TableName { namespace: vec!["check".to_owned(), "silver".to_owned()], name: name.to_owned() },
        schema: TableSchema { columns: columns.collect(), key: vec![0] },
        partition: vec![PartitionBy { column: "at".to_owned(), transform: Transform::Day }],
        sort: vec![SortBy { column: "id".to_owned(), descending: false }],
        files: FileSettings { format, ..FileSettings::default() },
    }
}

/// A row as a function of its id, its version and the columns there are.
fn row(id: i64, version: i64, columns: usize) -> Row {
    let unless = |is_null: bool, datum: Datum| if is_null { Datum::Null } else { datum };
    let note = if columns > 10 { Datum::Long(id << 20) } else { Datum::Int(id as i32) };
    let all = [
        Datum::Long(id),
        unless(id % 7 == 0, format!("n{id}-é{version}").as_str().into()),
        unless(id % 11 == 0, Datum::Decimal(i128::from(id - 500) * 123_456_789 + i128::from(version))),
        Datum::Decimal(-i128::from(id) * 10_i128.pow(24) - i128::from(version)),
        // The last day before 1970, and the first.
        Datum::Timestamp(Micros((id / 500 - 1) * 86_400_000_000 + (id % 500) * 1_000_001)),
        unless(id % 13 == 0, Datum::Date((id - 200) as i32)),
        unless(id % 17 == 0, Datum::Double(TotalF64(id as f64 / -8.0))),
        unless(id % 5 == 0, Datum::Boolean(id % 2 == 0)),
        unless(id % 19 == 0, Datum::Bytes(id.to_be_bytes()[6..].into())),
        unless(version == 0, note),
        "later".into(),
    ];
    all.into_iter().take(columns).collect()
}

/// The sink's view of the table.
struct Sink {
    table: Table,
    rows: BTreeMap<i64, (Row, Place)>,
    epoch: u64,
}

impl Sink {
    fn intent(&mut self) -> Intent {
        self.epoch += 1;
        let generation = Generation { number: 1, nonce: 1 };
        let marker = Marker { lineage: Lineage(1), generation, epoch: self.epoch, chain: ChainHash([1; 16]) };
        let (table, parent) = (self.table.uuid(), self.table.snapshot());
        let (data, deletes, removed) = (vec![], Deletes::default(), vec![]);
        let (first_epoch, purpose) = (self.epoch, Purpose::Rows);
        Intent { table, marker, first_epoch, parent, is_alone: false, purpose, data, deletes, removed }
    }

    fn upsert(&mut self, ids: impl Iterator<Item = i64>, version: i64) -> Result<()> {
        let columns = self.table.spec().schema.columns.len();
        let ids: Vec<i64> = ids.collect();
        let rows: Vec<Row> = ids.iter().map(|id| row(*id, version, columns)).collect();
        let mut writer = self.table.writer()?;
        let places = writer.write(&rows)?;
        let mut dead: BTreeMap<Arc<str>, Vec<u64>> = BTreeMap::new();
        for ((id, row), place) in ids.into_iter().zip(rows).zip(places) {
            if let Some((_, old)) = self.rows.insert(id, (row, place)) {
                dead.entry(old.file).or_default().push(old.position);
            }
        }
        let intent = Intent { data: writer.finish()?, deletes: self.table.delete_rows(&dead)?, ..self.intent() };
        self.commit(&intent)
    }

    /// Rewrites all files into new ones without dead rows.
    fn compact(&mut self) -> Result<()> {
        let old: BTreeSet<Arc<str>> = self.rows.values().map(|(_, place)| place.file.clone()).collect();
        let rows: Vec<Row> = self.rows.values().map(|(row, _)| row.clone()).collect();
        let mut writer = self.table.writer()?;
        let places = writer.write(&rows)?;
        for ((_, place), new) in self.rows.values_mut().zip(places) {
            *place = new;
        }
        let removed = old.iter().map(|path| path.to_string()).collect();
        let mut intent = Intent { data: writer.finish()?, removed, ..self.intent() };
        self.epoch -= 1;
        (intent.marker.epoch, intent.first_epoch) = (self.epoch, self.epoch);
        intent.purpose = Purpose::Compaction { id: 1 };
        self.commit(&intent)
    }

    /// Commits twice: the second time must find it.
    fn commit(&self, intent: &Intent) -> Result<()> {
        let (first, second) = (self.table.commit(intent)?, self.table.commit(intent)?);
        match (&first, &second) {
            (Outcome::Committed(a), Outcome::Committed(b)) if a.is_new && !b.is_new && a.snapshot == b.snapshot => {
                Ok(())
            }
            _ => Err(Error::us(format!("commit once: {first:?}, {second:?}"))),
        }
    }

    /// Writes down what the table must hold now.
    fn expect(&self, out: &Path, step: &str) -> Result<()> {
        let columns = &self.table.spec().schema.columns;
        let lines: Vec<String> = self.rows.values().map(|(row, _)| json(columns, row)).collect();
        put(&out.join(format!("{step}.jsonl")), &lines.join("\n"))?;
        let snapshot = self.table.snapshot().unwrap_or_default();
        put(&out.join(format!("{step}.at")), &format!("{snapshot}\n{}", self.table.metadata_location()))
    }
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| Error::outside(format!("write '{}'", path.display())).because(e))
}

/// A row with all values as text: numbers in decimal, times as microseconds, bytes in hex.
fn json(columns: &[Column], row: &Row) -> String {
    let value = |column: &Column, datum: &Datum| match datum {
        Datum::Null => serde_json::Value::Null,
        Datum::Boolean(b) => b.to_string().into(),
        Datum::Int(n) | Datum::Date(n) => n.to_string().into(),
        Datum::Long(n) | Datum::Timestamp(Micros(n)) => n.to_string().into(),
        Datum::Double(n) => format!("{:.3}", n.0).into(),
        Datum::Decimal(n) => match column.kind {
            ColumnType::Decimal { scale, .. } => format!("{n}e-{scale}").into(),
            _ => serde_json::Value::Null,
        },
        Datum::Text(text) => text.as_ref().into(),
        Datum::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    };
    let object: serde_json::Map<_, _> =
        columns.iter().zip(row.0.iter()).map(|(column, datum)| (column.name.clone(), value(column, datum))).collect();
    serde_json::Value::Object(object).to_string()
}

fn live(kind: &str, place: &str, out: &Path, (first, then): (TableFormat, TableFormat)) -> Result<()> {
    fs::create_dir_all(out).map_err(|e| Error::outside(format!("make '{}'", out.display())).because(e))?;
    let warehouse = Warehouse::open(&settings(kind, place), environment())?;
    let name = format!("life_{}", std::process::id());
    put(&out.join("table"), &name)?;
    let table = warehouse.table(&spec(&name, false, first))?;
    let mut sink = Sink { table, rows: BTreeMap::new(), epoch: 0 };
    sink.table.claim(Lineage(1), Generation { number: 1, nonce: 1 })?;
    sink.upsert(0..ROWS, 0)?;
    sink.expect(out, "1-append")?;
    sink.upsert((0..ROWS).step_by(10), 1)?;
    sink.expect(out, "2-upsert")?;
    sink.table = warehouse.table(&spec(&name, true, then))?;
    sink.upsert((5..ROWS).step_by(50), 2)?;
    for (row, _) in sink.rows.values_mut() {
        // What was written before the column came reads null, and the widened number is the same number.
        if row.0.len() < 11 {
            let widened = row.0.iter().map(|datum| match datum {
                Datum::Int(n) => Datum::Long(i64::from(*n)),
                other => other.clone(),
            });
            *row = widened.chain([Datum::Null]).collect();
        }
    }
    sink.expect(out, "3-evolve")?;
    sink.compact()?;
    sink.expect(out, "4-compact")?;
    let scanned: Result<BTreeMap<Row, Place>> =
        sink.table.scan_keys(sink.table.snapshot().unwrap_or_default())?.collect();
    let index = sink.rows.iter().map(|(id, (_, place))| ([Datum::Long(*id)].into_iter().collect(), place.clone()));
    if scanned? != index.collect() {
        return Err(Error::us("scan the keys: they are not those of the index"));
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (kind, place, out, formats) = match arguments[..] {
        [kind, place, out] | [kind, place, out, "2"] => (kind, place, out, (TableFormat::V2, TableFormat::V2)),
        [kind, place, out, "3"] => (kind, place, out, (TableFormat::V3, TableFormat::V3)),
        [kind, place, out, "upgraded"] => (kind, place, out, (TableFormat::V2, TableFormat::V3)),
        _ => {
            eprintln!("usage: life sqlite FOLDER OUT [2|3|upgraded] | life rest URI OUT [2|3|upgraded]");
            std::process::exit(2);
        }
    };
    if let Err(error) = live(kind, place, Path::new(out), formats) {
        eprintln!("{error}");
        std::process::exit(error.fault.exit_code().into());
    }
}
