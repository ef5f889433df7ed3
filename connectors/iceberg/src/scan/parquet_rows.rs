//! The rows of one Parquet file, column by column of what is wanted. Columns are found by Iceberg's field ids; one that the file does not
//! have is null, as it came to the table later.

use crate::columns;
use crate::session::{Session, outside};
use arrow_array::RecordBatch;
use bytes::Bytes;
use dataflow_core::{ColumnType, Datum, Error, Result, Row};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{PARQUET_FIELD_ID_META_KEY, ProjectionMask};

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 8_192;

/// A column to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Its field id.
    pub(crate) id: i32,
    /// What its values become.
    pub(crate) kind: ColumnType,
}

/// A file that is being read. It is held in memory as it lies in the storage, which is one request; files are as large as their writers'
/// target.
pub(crate) struct ParquetRows {
    path: String,
    reader: ParquetRecordBatchReader,
    /// For each wanted column, its type and its place among those that are read.
    columns: Vec<(ColumnType, Option<usize>)>,
    next: u64,
}

impl ParquetRows {
    pub(crate) fn open(session: &Session, path: &str, wanted: &[Wanted]) -> Result<ParquetRows> {
        let what = || format!("read the file '{path}'");
        let read = session.wait(async { session.io.new_input(path)?.read().await });
        let bytes: Bytes = read.map_err(outside(what()))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| Error::outside(what()).because(e))?;
        let ids: Vec<Option<i32>> = builder
            .schema()
            .fields()
            .iter()
            .map(|field| field.metadata().get(PARQUET_FIELD_ID_META_KEY).and_then(|id| id.parse().ok()))
            .collect();
        if ids.iter().all(Option::is_none) {
            let what = format!("{}: its columns have no field ids", what());
            return Err(Error::outside(what)
                .hint("it was brought into the table from elsewhere; rewrite the table's files once"));
        }
        let mut roots: Vec<usize> = wanted.iter().filter_map(|w| ids.iter().position(|id| *id == Some(w.id))).collect();
        roots.sort_unstable();
        roots.dedup();
        let place = |w: &Wanted| roots.iter().position(|root| ids[*root] == Some(w.id));
        let columns = wanted.iter().map(|w| (w.kind, place(w))).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied());
        let built = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        let reader = built.map_err(|e| Error::outside(what()).because(e))?;
        Ok(ParquetRows { path: path.to_owned(), reader, columns, next: 0 })
    }

    /// The next rows with their positions.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Vec<(u64, Row)>>> {
        let what = || format!("read the file '{}'", self.path);
        let Some(batch) = self.reader.next().transpose().map_err(|e| Error::outside(what()).because(e))? else {
            return Ok(None);
        };
        let columns = self.values(&batch).map_err(|e| Error::outside(what()).because(e))?;
        let first = self.next;
        self.next += batch.num_rows() as u64;
        let row = |at: usize| columns.iter().map(|column| column[at].clone()).collect::<Row>();
        Ok(Some((first..).zip((0..batch.num_rows()).map(row)).collect()))
    }

    fn values(&self, batch: &RecordBatch) -> std::result::Result<Vec<Vec<Datum>>, arrow_schema::ArrowError> {
        let column = |(kind, at): &(ColumnType, Option<usize>)| match at {
            Some(at) => columns::values(batch.column(*at), *kind),
            None => Ok(vec![Datum::Null; batch.num_rows()]),
        };
        self.columns.iter().map(column).collect()
    }
}
