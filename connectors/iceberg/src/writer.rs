//! Rows to data files: divided into partitions, sorted within each, rolled at the target size.
//!
//! ```text
//!  rows ──► partition of each ──► sort by (partition, order) ──► open file of the partition ──► NewFile
//!   └──────────────────────────── places, in the order of the rows ◄───────┘
//! ```
//! A file's path is fixed when it is opened, so the place of a row is known as soon as the row is written.

use crate::columns::{self, ColumnBuilder, TILE_ROWS};
use crate::file::NewFile;
use crate::file_format::FileFormat;
use crate::names;
use crate::parquet_file::OpenFile;
use crate::session::Session;
use crate::table::Partitions;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef as ArrowSchemaRef;
use dataflow_core::{ColumnType, Datum, Error, Result, Row, RowLocation, TableSchema, caught};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{
    DataContentType, Literal, PartitionSpecRef, PrimitiveType, SchemaRef, SortDirection, Struct, TableMetadataRef, Type,
};
use iceberg::transform::create_transform_function;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows that are handed to the Parquet writer at once.
const BATCH_ROWS: usize = 8_192;
/// Files that a writer has open at once, one for each partition it meets. Each holds a row group in memory; with more partitions the one
/// that was used longest ago is ended.
const OPEN_FILES_MAX: usize = 16;

/// Where a row lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The path of its data file.
    pub file: Arc<str>,
    /// Its position in the file, from 0.
    pub position: u64,
}

impl From<Place> for RowLocation {
    fn from(Place { file, position }: Place) -> RowLocation {
        RowLocation { file, position }
    }
}

/// Writes rows into new data files of a table. Nothing is in the table before a commit names the files.
pub struct DataWriter {
    session: Arc<Session>,
    partitions: Arc<Partitions>,
    table: TableMetadataRef,
    rows: TableSchema,
    schema: SchemaRef,
    arrow: ArrowSchemaRef,
    /// For each of the table's fields, the place in a row.
    places: Vec<Option<usize>>,
    levels: Vec<Level>,
    /// (place in a row, descending).
    order: Vec<(usize, bool)>,
    format: FileFormat,
    open: BTreeMap<Row, Open>,
    done: Vec<NewFile>,
    batches: u64,
}

struct Open {
    file: OpenFile,
    path: Arc<str>,
    /// The number of the batch that used it last.
    used: u64,
    /// Whether one batch alone is in it: then it is sorted.
    is_sorted: bool,
}

/// One level of the partitions, as it is computed.
struct Level {
    at: Option<usize>,
    source: arrow_schema::DataType,
    transform: iceberg::spec::Transform,
    result: ColumnType,
}

impl DataWriter {
    pub(crate) fn new(
        session: Arc<Session>,
        partitions: Arc<Partitions>,
        table: TableMetadataRef,
        rows: TableSchema,
    ) -> Result<DataWriter> {
        let format = FileFormat::of(&table)?;
        let schema = table.current_schema().clone();
        let arrow = schema_to_arrow_schema(&schema).map_err(|e| Error::us("make an Arrow schema").because(e))?;
        let places: Vec<_> = schema.as_struct().fields().iter().map(|field| rows.position(&field.name)).collect();
        let place = |id: i32| {
            let at = schema.as_struct().fields().iter().position(|field| field.id == id);
            at.map(|at| (places[at], arrow.field(at).data_type().clone()))
        };
        let levels = levels(table.default_partition_spec(), &schema, place)?;
        let order = table.default_sort_order().fields.iter().map_while(|field| {
            let (at, _) = place(field.source_id).filter(|_| field.transform == iceberg::spec::Transform::Identity)?;
            Some((at?, field.direction == SortDirection::Descending))
        });
        let order = order.collect();
        let (open, done) = (BTreeMap::new(), Vec::new());
        let arrow = Arc::new(arrow);
        Ok(DataWriter {
            session,
            partitions,
            table,
            rows,
            schema,
            arrow,
            places,
            levels,
            order,
            format,
            open,
            done,
            batches: 0,
        })
    }

    /// Writes rows; returns where each lies, in their order. Rows of one call are sorted as the table is; so one call for all rows of a
    /// commit gives the best files. Blocks.
    ///
    /// # Errors
    /// When a row is not one of the table, or a file cannot be written. The writer is of no use then.
    pub fn write(&mut self, rows: &[Row]) -> Result<Vec<Place>> {
        self.batches += 1;
        if self.levels.is_empty() && self.order.is_empty() {
            return self.write_as_it_is(rows);
        }
        // Their values are looked at before columns take them.
        rows.iter().try_for_each(|row| self.rows.check(row))?;
        let keys = self.keys(rows)?;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| keys[*a].cmp(&keys[*b]).then_with(|| self.compare(&rows[*a], &rows[*b])).then(a.cmp(b)));
        let mut places: Vec<Option<Place>> = vec![None; rows.len()];
        for group in order.chunk_by(|a, b| keys[*a] == keys[*b]) {
            for batch in group.chunks(BATCH_ROWS) {
                let (path, first) =
                    self.append(&keys[batch[0]], &batch.iter().map(|at| &rows[*at]).collect::<Vec<_>>())?;
                for (position, at) in (first..).zip(batch) {
                    places[*at] = Some(Place { file: path.clone(), position });
                }
            }
        }
        Ok(places.into_iter().map(|place| place.expect("each row is in one batch of one group")).collect())
    }

    /// Writes rows of a table that is neither divided nor sorted.
    fn write_as_it_is(&mut self, rows: &[Row]) -> Result<Vec<Place>> {
        let (key, mut places) = (Row::from_iter([]), Vec::with_capacity(rows.len()));
        for batch in rows.chunks(BATCH_ROWS) {
            let (file, first) = self.append(&key, &batch.iter().collect::<Vec<_>>())?;
            places.extend((first..).take(batch.len()).map(|position| Place { file: file.clone(), position }));
        }
        Ok(places)
    }

    /// Ends all files. When this returns they are durable. Blocks.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(mut self) -> Result<Vec<NewFile>> {
        while let Some((key, open)) = self.open.pop_first() {
            self.end(&key, open)?;
        }
        Ok(self.done)
    }

    /// The partition of each row.
    fn keys(&self, rows: &[Row]) -> Result<Vec<Row>> {
        if self.levels.is_empty() {
            return Ok(vec![Row::from_iter([]); rows.len()]);
        }
        let rows: Vec<&Row> = rows.iter().collect();
        let mut levels = Vec::new();
        for level in &self.levels {
            levels.push(level.values(&rows)?);
        }
        Ok((0..rows.len()).map(|at| levels.iter().map(|level| level[at].clone()).collect()).collect())
    }

    /// The order of two rows of a partition. Nulls are the least.
    fn compare(&self, a: &Row, b: &Row) -> Ordering {
        let orders = self.order.iter().map(|(at, descending)| {
            let order = a.get(*at).cmp(b.get(*at));
            if *descending { order.reverse() } else { order }
        });
        orders.fold(Ordering::Equal, Ordering::then)
    }

    /// Appends rows of one partition; returns their file and the position of the first.
    fn append(&mut self, key: &Row, rows: &[&Row]) -> Result<(Arc<str>, u64)> {
        let columns = self.places.iter().zip(self.arrow.fields());
        let columns = columns.map(|(at, field)| ColumnBuilder::new(*at, field.data_type(), rows.len()));
        let mut columns: Vec<ColumnBuilder> = columns.collect::<Result<_>>()?;
        for tile in rows.chunks(TILE_ROWS) {
            // Columns find what does not fit as they take it; the check says which column it is.
            let has_all = tile.iter().all(|row| row.0.len() == self.rows.columns.len());
            if !(has_all && columns.iter_mut().all(|column| column.append(tile).is_ok())) {
                tile.iter().try_for_each(|row| self.rows.check(row))?;
                return Err(Error::us("write rows into columns that do not take what their table holds"));
            }
        }
        let columns = columns.into_iter().map(ColumnBuilder::finish).collect();
        let batch = RecordBatch::try_new(self.arrow.clone(), columns).map_err(|cause| {
            let missing = rows.iter().find_map(|row| self.rows.check(row).err());
            missing.unwrap_or_else(|| Error::us("make a batch of rows").because(cause))
        })?;
        if self.open.get(key).is_some_and(|open| open.file.bytes() >= self.format.target_bytes) {
            self.end_partition(key)?;
        }
        if !self.open.contains_key(key) {
            self.start(key, rows)?;
        }
        let open = self.open.get_mut(key).expect("it was started if it was not there");
        open.is_sorted &= open.used == self.batches;
        open.used = self.batches;
        let first = self.session.wait(open.file.append(&batch))?;
        Ok((open.path.clone(), first))
    }

    fn start(&mut self, key: &Row, rows: &[&Row]) -> Result<()> {
        if self.open.len() >= OPEN_FILES_MAX {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(key, _)| key.clone());
            self.end_partition(&oldest.expect("there are as many as the bound"))?;
        }
        let path = format!("{}/data/{}.parquet", self.table.location(), names::fresh(&self.session));
        let columns = self.arrow.fields().iter().zip(&self.places);
        let columns = columns.filter_map(|(field, at)| Some((field.name().as_str(), (*at)?)));
        let (schema, how) = (self.schema.clone(), self.format.beginning_with(rows, columns));
        let file = self.session.wait(OpenFile::start(&self.session, path.clone(), schema, how))?;
        let open = Open { file, path: path.into(), used: self.batches, is_sorted: !self.order.is_empty() };
        self.open.insert(key.clone(), open);
        Ok(())
    }

    fn end_partition(&mut self, key: &Row) -> Result<()> {
        let open = self.open.remove(key);
        open.map_or(Ok(()), |open| self.end(key, open))
    }

    fn end(&mut self, key: &Row, open: Open) -> Result<()> {
        let Open { file, path, is_sorted, .. } = open;
        let spec_id = self.table.default_partition_spec_id();
        let partition: Struct = key.0.iter().map(literal).collect();
        let mut builder = self.session.wait(file.finish())?;
        builder.content(DataContentType::Data).partition(partition.clone()).partition_spec_id(spec_id);
        if is_sorted && let Ok(id) = i32::try_from(self.table.default_sort_order_id()) {
            builder.sort_order_id(id);
        }
        let described = builder.build().map_err(|e| Error::us(format!("describe the file '{path}'")).because(e))?;
        self.partitions.put(path.to_string(), spec_id, partition);
        self.done.push(NewFile::new(&self.table, &self.schema, spec_id, described)?);
        Ok(())
    }
}

fn levels(
    spec: &PartitionSpecRef,
    schema: &SchemaRef,
    place: impl Fn(i32) -> Option<(Option<usize>, arrow_schema::DataType)>,
) -> Result<Vec<Level>> {
    let results = spec.partition_type(schema).map_err(|e| Error::us("type the partitions of a table").because(e))?;
    let level = |(field, result): (&iceberg::spec::PartitionField, &iceberg::spec::NestedFieldRef)| {
        let missing = || Error::us(format!("find the column that the partition field '{}' is made of", field.name));
        let (at, source) = place(field.source_id).ok_or_else(missing)?;
        let unread = || {
            Error::outside(format!("compute the partition field '{}' of the type {}", field.name, result.field_type))
        };
        let result = column_type(&result.field_type).ok_or_else(unread)?;
        Ok(Level { at, source, transform: field.transform, result })
    };
    spec.fields().iter().zip(results.fields()).map(level).collect()
}

impl Level {
    fn values(&self, rows: &[&Row]) -> Result<Vec<Datum>> {
        let what = || format!("compute the partitions of rows by '{}'", self.transform);
        let source = columns::column(rows, self.at, &self.source)?;
        let function = create_transform_function(&self.transform).map_err(|e| Error::outside(what()).because(e))?;
        // The crate's calendar ends the call with a panic for dates beyond the year 262,000.
        let result = caught(|| function.transform(source)).ok_or_else(|| {
            Error::user(what()).hint("one of the dates or times is beyond the calendar; keep such rows from the table")
        })?;
        let result = result.map_err(|e| Error::us(what()).because(e))?;
        columns::values(&result, self.result).map_err(|e| Error::us(what()).because(e))
    }
}

/// The column type whose values a partition field has.
fn column_type(kind: &Type) -> Option<ColumnType> {
    Some(match kind.as_primitive_type()? {
        PrimitiveType::Boolean => ColumnType::Boolean,
        PrimitiveType::Int => ColumnType::Int,
        PrimitiveType::Long => ColumnType::Long,
        PrimitiveType::Double => ColumnType::Double,
        PrimitiveType::Decimal { precision, scale } => {
            ColumnType::Decimal { precision: u8::try_from(*precision).ok()?, scale: u8::try_from(*scale).ok()? }
        }
        PrimitiveType::Date => ColumnType::Date,
        PrimitiveType::Timestamp | PrimitiveType::Timestamptz => ColumnType::Timestamp,
        PrimitiveType::String => ColumnType::Text,
        PrimitiveType::Binary => ColumnType::Bytes,
        _ => return None,
    })
}

fn literal(datum: &Datum) -> Option<Literal> {
    Some(match datum {
        Datum::Null => return None,
        Datum::Boolean(b) => Literal::bool(*b),
        Datum::Int(n) => Literal::int(*n),
        Datum::Long(n) => Literal::long(*n),
        Datum::Double(n) => Literal::double(n.0),
        Datum::Decimal(n) => Literal::decimal(*n),
        Datum::Date(n) => Literal::date(*n),
        Datum::Timestamp(t) => Literal::timestamptz(t.0),
        Datum::Text(text) => Literal::string(text),
        Datum::Bytes(bytes) => Literal::binary(bytes.iter().copied()),
    })
}
