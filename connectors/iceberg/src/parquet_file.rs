//! One Parquet file being written: its row groups, its metrics, its sync at the end.

use crate::session::{Session, outside};
use arrow_array::RecordBatch;
use dataflow_core::{Error, Result};
use iceberg::spec::{DataFileBuilder, SchemaRef};
use iceberg::writer::CurrentFileStatus;
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriter, ParquetWriterBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

/// A file that is open for rows.
pub(crate) struct OpenFile {
    pub(crate) path: String,
    writer: ParquetWriter,
}

/// Bytes of a row group. One is held in memory for each open file, so this and the number of open files bound what a writer takes.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// How all our files are written: zstd, statistics for each column chunk. Page encodings are those of the first data page version, which
/// are the only ones that PyIceberg reads in a `file_path` of position deletes (plain or by dictionary).
pub(crate) fn properties() -> WriterPropertiesBuilder {
    let how = WriterProperties::builder().set_max_row_group_bytes(Some(ROW_GROUP_BYTES));
    how.set_compression(Compression::ZSTD(ZstdLevel::default()))
}

impl OpenFile {
    /// Starts a file. It appears in the storage with its first rows.
    pub(crate) async fn start(
        session: &Session,
        path: String,
        schema: SchemaRef,
        how: WriterProperties,
    ) -> Result<OpenFile> {
        let started = async {
            let output = session.io.new_output(&path)?;
            ParquetWriterBuilder::new(how, schema).build(output).await
        };
        let writer = started.await.map_err(outside(format!("start the file '{path}'")))?;
        Ok(OpenFile { path, writer })
    }

    /// Appends rows; returns the position of the first.
    pub(crate) async fn append(&mut self, rows: &RecordBatch) -> Result<u64> {
        let first = self.writer.current_row_num() as u64;
        self.writer.write(rows).await.map_err(outside(format!("write the file '{}'", self.path)))?;
        Ok(first)
    }

    /// Bytes so far, those that are not compressed yet as they are.
    pub(crate) fn bytes(&self) -> u64 {
        self.writer.current_written_size() as u64
    }

    /// Ends the file. When this returns it is durable, and so is its name.
    pub(crate) async fn finish(self) -> Result<DataFileBuilder> {
        let OpenFile { path, writer } = self;
        let mut ended = writer.close().await.map_err(outside(format!("finish the file '{path}'")))?;
        match (ended.pop(), ended.is_empty()) {
            (Some(file), true) => Ok(file),
            _ => Err(Error::us(format!("finish the file '{path}': the writer does not say that it wrote one file"))),
        }
    }
}
