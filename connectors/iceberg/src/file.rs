//! A file that is written and in no snapshot yet: what an intent carries through a checkpoint.

use dataflow_core::{Error, Result};
use iceberg::spec::{
    DataFile, FormatVersion, Schema, TableMetadata, deserialize_data_file_from_json, serialize_data_file_to_json,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A written data file with all that its manifest entry will say. It is plain data: its metrics are in Iceberg's own JSON, which is read with
/// the schema and the partitions that the file was written under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFile {
    /// Its full path, as `file:///…` or `s3://…`.
    pub path: String,
    /// Rows in it.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    schema_id: i32,
    spec_id: i32,
    entry: String,
}

impl NewFile {
    /// Describes a file written under `schema` and a partition spec.
    pub(crate) fn new(table: &TableMetadata, schema: &Schema, spec_id: i32, file: DataFile) -> Result<NewFile> {
        let (path, records, bytes) = (file.file_path().to_owned(), file.record_count(), file.file_size_in_bytes());
        let what = || format!("describe the file '{path}'");
        let spec = table.partition_spec_by_id(spec_id).ok_or_else(|| Error::us(what()))?;
        let kind = spec.partition_type(schema).map_err(|e| Error::us(what()).because(e))?;
        let entry =
            serialize_data_file_to_json(file, &kind, FormatVersion::V2).map_err(|e| Error::us(what()).because(e))?;
        let entry = sorted(&entry).map_err(|e| Error::us(what()).because(e))?;
        Ok(NewFile { schema_id: schema.schema_id(), spec_id, entry, path, records, bytes })
    }

    /// The entry itself, and the partition spec that it was written under.
    ///
    /// # Errors
    /// When the table no longer knows the schema or the partitions.
    pub(crate) fn entry(&self, table: &TableMetadata) -> Result<(i32, DataFile)> {
        let what = || format!("read what is known of the file '{}'", self.path);
        let schema = table.schema_by_id(self.schema_id);
        let spec = table.partition_spec_by_id(self.spec_id);
        let (Some(schema), Some(spec)) = (schema, spec) else {
            let what = format!("{}: the table no longer has the schema or the partitions it was written under", what());
            return Err(Error::doubt(what).hint("another program has removed them: start over with a new table"));
        };
        let parsed = spec
            .partition_type(schema)
            .and_then(|kind| deserialize_data_file_from_json(&self.entry, self.spec_id, &kind, schema));
        Ok((self.spec_id, parsed.map_err(|e| Error::doubt(what()).because(e))?))
    }
}

/// The same entry with its metrics by column. The crate has them in the order of its hash maps, which differs from call to call; an intent
/// is part of a checkpoint, whose files are named by what they hold.
fn sorted(entry: &str) -> serde_json::Result<String> {
    let mut entry: Value = serde_json::from_str(entry)?;
    for field in entry.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(pairs) = field.as_array_mut() {
            pairs.sort_by_key(|pair| pair["key"].as_i64());
        }
    }
    serde_json::to_string(&entry)
}
