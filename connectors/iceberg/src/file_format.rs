//! How data files are written: size, compression, Bloom filters, as the table's properties say it, whoever has set them (Iceberg
//! documentation, "Configuration", "Table properties").

use crate::parquet_file::properties;
use dataflow_core::{Datum, Error, Result, Row};
use iceberg::spec::{FormatVersion, TableMetadata};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

/// Files at which a new one is begun, in bytes, where the table does not say.
pub const TARGET_FILE_BYTES: u64 = 128 << 20;
const TARGET: &str = "write.target-file-size-bytes";
const CODEC: &str = "write.parquet.compression-codec";
const LEVEL: &str = "write.parquet.compression-level";
const BLOOM: &str = "write.parquet.bloom-filter-enabled.column.";

/// Rows of a new file that are looked at for values that repeat. Files of fewer rows are written as Parquet's writer likes.
const SAMPLE_ROWS: usize = 4_096;
/// Of so many values one repeats where a dictionary is worth its while.
const REPEATS_ONE_OF: usize = 16;

/// The version of Iceberg's table format, of those that are written here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum TableFormat {
    /// Dead rows are position deletes. Every reader knows it.
    #[default]
    V2,
    /// Dead rows are deletion vectors, one at most for a data file.
    V3,
}

impl TryFrom<u8> for TableFormat {
    type Error = Error;

    fn try_from(number: u8) -> Result<TableFormat> {
        match number {
            2 => Ok(TableFormat::V2),
            3 => Ok(TableFormat::V3),
            _ => Err(Error::user(format!("reading the table format '{number}'")).hint("write 2 or 3")),
        }
    }
}

impl From<TableFormat> for u8 {
    fn from(format: TableFormat) -> u8 {
        FormatVersion::from(format) as u8
    }
}

impl From<TableFormat> for FormatVersion {
    fn from(format: TableFormat) -> FormatVersion {
        match format {
            TableFormat::V2 => FormatVersion::V2,
            TableFormat::V3 => FormatVersion::V3,
        }
    }
}

/// What a job wants of a table's files; what it does not name stays as the table says. It holds for new files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSettings {
    /// The table's format, at least: one of a lower version is upgraded, one of a higher version stays.
    #[serde(default)]
    pub format: TableFormat,
    /// Bytes at which a data file is ended, and up to which small ones are put together.
    pub target_bytes: Option<u64>,
    /// How pages are compressed.
    pub compression: Option<Codec>,
    /// Columns by whose values readers leave files out.
    pub bloom_filters: Vec<String>,
}

impl FileSettings {
    /// The table's properties that say so.
    pub(crate) fn properties(&self) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        properties.extend(self.target_bytes.map(|bytes| (TARGET.to_owned(), bytes.to_string())));
        if let Some(Codec { name, level }) = &self.compression {
            properties.insert(CODEC.to_owned(), name.clone());
            properties.extend(level.map(|level| (LEVEL.to_owned(), level.to_string())));
        }
        properties.extend(self.bloom_filters.iter().map(|column| (format!("{BLOOM}{column}"), "true".to_owned())));
        properties
    }
}

/// A compression, as settings write it: `zstd`, `zstd(9)`, `snappy`, `gzip(6)`, `lz4`, `uncompressed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codec {
    name: String,
    level: Option<u32>,
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Codec> {
        let wrong = || Error::user(format!("reading the compression '{text}'"));
        let (name, level) = match text.split_once('(') {
            None => (text, None),
            Some((name, level)) => {
                let level = level.strip_suffix(')').and_then(|level| level.trim().parse().ok());
                (name, Some(level.ok_or_else(|| wrong().hint("write the level as a number: zstd(9)"))?))
            }
        };
        let codec = Codec { name: name.trim().to_owned(), level };
        codec.compression().map(|_| codec).map_err(|error| Error { what: wrong().what, ..error })
    }
}

impl Codec {
    fn compression(&self) -> Result<Compression> {
        let Codec { name, level } = self;
        let what = || format!("compress with '{name}'");
        let out_of_range = |e: parquet::errors::ParquetError| Error::user(what()).because(e);
        match (name.as_str(), level) {
            ("zstd", None) => Ok(Compression::ZSTD(ZstdLevel::default())),
            ("zstd", Some(level)) => {
                let level = i32::try_from(*level).unwrap_or(i32::MAX);
                Ok(Compression::ZSTD(ZstdLevel::try_new(level).map_err(out_of_range)?))
            }
            ("gzip", None) => Ok(Compression::GZIP(GzipLevel::default())),
            ("gzip", Some(level)) => Ok(Compression::GZIP(GzipLevel::try_new(*level).map_err(out_of_range)?)),
            ("snappy", None) => Ok(Compression::SNAPPY),
            ("lz4", None) => Ok(Compression::LZ4_RAW),
            ("uncompressed" | "none", None) => Ok(Compression::UNCOMPRESSED),
            _ => Err(Error::user(what())
                .hint("write zstd, zstd(1) to zstd(22), gzip, gzip(0) to gzip(9), snappy, lz4 or uncompressed")),
        }
    }
}

/// How the data files of a table are written from now on.
#[derive(Clone, Debug)]
pub(crate) struct FileFormat {
    pub(crate) target_bytes: u64,
    pub(crate) how: WriterProperties,
}

impl FileFormat {
    /// As the table says.
    ///
    /// # Errors
    /// When it asks for a compression that is not written here.
    pub(crate) fn of(table: &TableMetadata) -> Result<FileFormat> {
        let says = table.properties();
        let mut how = properties();
        if let Some(name) = says.get(CODEC) {
            let level = says.get(LEVEL).and_then(|level| level.parse().ok());
            let codec = Codec { name: name.to_lowercase(), level: level.filter(|_| name == "zstd" || name == "gzip") };
            let compression = codec.compression().map_err(|error| {
                let what = format!("write files of the table at '{}' as its property '{CODEC}' says", table.location());
                Error { what: format!("{what}: {}", error.what), ..error }
            })?;
            how = how.set_compression(compression);
        }
        for (property, value) in says {
            let Some(column) = property.strip_prefix(BLOOM) else { continue };
            how = how.set_column_bloom_filter_enabled(ColumnPath::from(column), value == "true");
        }
        Ok(FileFormat { target_bytes: target_bytes(table), how: how.build() })
    }

    /// How a file is written that begins with these rows, whose `columns` are at these places of them. A column whose values hardly ever repeat
    /// has no dictionary: its writer would hash value after value until the dictionary is full, and write the rest without.
    pub(crate) fn beginning_with<'c>(
        &self,
        rows: &[&Row],
        columns: impl Iterator<Item = (&'c str, usize)>,
    ) -> WriterProperties {
        let Some(sample) = rows.get(..SAMPLE_ROWS) else { return self.how.clone() };
        let mut how = self.how.clone().into_builder();
        for (column, _) in columns.filter(|(_, at)| hardly_repeat(sample.iter().map(|row| row.get(*at)))) {
            how = how.set_column_dictionary_enabled(ColumnPath::from(column), false);
        }
        how.build()
    }
}

/// Whether nearly all values differ, and most are not null.
fn hardly_repeat<'d>(values: impl ExactSizeIterator<Item = &'d Datum>) -> bool {
    let count = values.len();
    let hash = |value: &Datum| {
        let mut hasher = DefaultHasher::new(); // the same in each run
        value.hash(&mut hasher);
        hasher.finish()
    };
    let mut hashes: Vec<u64> = values.filter(|value| **value != Datum::Null).map(hash).collect();
    hashes.sort_unstable();
    let not_null = hashes.len();
    hashes.dedup();
    not_null - hashes.len() <= count / REPEATS_ONE_OF && hashes.len() >= count / 2
}

/// Bytes at which a data file of the table is ended.
pub(crate) fn target_bytes(table: &TableMetadata) -> u64 {
    table.properties().get(TARGET).and_then(|bytes| bytes.parse().ok()).unwrap_or(TARGET_FILE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_hardly_repeat_are_known() {
        let distinct = |count: i64| (0..4_096).map(|n| Datum::Long(n % count)).collect::<Vec<_>>();
        assert!(hardly_repeat(distinct(4_096).iter()) && hardly_repeat(distinct(3_900).iter()));
        assert!(!hardly_repeat(distinct(3_800).iter()) && !hardly_repeat(distinct(2).iter()));
        let null_each =
            |k| (0..4_096).map(|n| if n % k == 0 { Datum::Null } else { Datum::Long(n) }).collect::<Vec<_>>();
        assert!(hardly_repeat(null_each(2).iter()), "a null is no value");
        assert!(!hardly_repeat(null_each(1).iter()), "nothing is known of values to come");
    }

    #[test]
    fn compressions_are_read() {
        for (text, expected) in [
            ("zstd", Some(Compression::ZSTD(ZstdLevel::default()))),
            ("zstd(9)", Some(Compression::ZSTD(ZstdLevel::try_new(9).unwrap()))),
            ("gzip(6)", Some(Compression::GZIP(GzipLevel::try_new(6).unwrap()))),
            ("snappy", Some(Compression::SNAPPY)),
            ("lz4", Some(Compression::LZ4_RAW)),
            ("uncompressed", Some(Compression::UNCOMPRESSED)),
            ("zstd(99)", None),
            ("zstd(", None),
            ("snappy(1)", None),
            ("brotli", None),
        ] {
            let found = text.parse::<Codec>().and_then(|codec| codec.compression());
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{text}: {found:?}");
        }
    }
}
