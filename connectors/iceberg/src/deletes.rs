//! Which rows of which data files die: positions in an intent, whatever the table's format, and position delete files in a table of format 2.
//! One delete file for each data file, in its partition, so that a reader opens only those of the files that it reads. In format 3 they are
//! deletion vectors ([`crate::vectors`]).

use crate::deletion_vector::DeletionVector;
use crate::names;
use crate::parquet_file::{OpenFile, properties};
use crate::session::Session;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use dataflow_core::{Error, Result};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{
    DataContentType, DataFile, Datum, NestedField, PrimitiveLiteral, PrimitiveType, Schema, Struct, TableMetadata, Type,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which rows die, as it waits in an intent. The commit writes the files: it alone knows all workers' rows of a data file, and the format that
/// the table has by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletes {
    /// By data file, their positions.
    pub dead: BTreeMap<String, DeletionVector>,
    /// Paths of delete files that say nothing beyond `dead`, which takes their place. A vector takes the place of all that there are, so
    /// in format 3 it does not matter whether one of these is still there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<String>,
}

impl Deletes {
    /// Whether no row is dead.
    pub fn is_empty(&self) -> bool {
        self.dead.is_empty()
    }

    /// Takes in what another worker has.
    pub fn append(&mut self, mut other: Deletes) {
        self.merged.append(&mut other.merged);
        for (data, dead) in other.dead {
            self.dead.entry(data).or_default().union(&dead);
        }
    }
}

/// The field ids that the specification reserves for the two columns.
pub(crate) const FILE_PATH_ID: i32 = 2_147_483_546;
pub(crate) const POSITION_ID: i32 = 2_147_483_545;

/// The columns of a position delete file.
pub(crate) fn delete_schema() -> iceberg::Result<Schema> {
    let fields = [
        NestedField::required(FILE_PATH_ID, "file_path", Type::Primitive(PrimitiveType::String)),
        NestedField::required(POSITION_ID, "pos", Type::Primitive(PrimitiveType::Long)),
    ];
    Schema::builder().with_fields(fields.map(Arc::new)).build()
}

/// The data file of which alone a delete file speaks: as a field of its entry says, or, because not every writer fills that in, both bounds of
/// its paths, which are whole where they are equal.
pub(crate) fn speaks_of(file: &DataFile) -> Option<String> {
    let path = |bound: Option<&Datum>| match bound?.literal() {
        PrimitiveLiteral::String(path) => Some(path.clone()),
        _ => None,
    };
    let (lower, upper) = (file.lower_bounds().get(&FILE_PATH_ID), file.upper_bounds().get(&FILE_PATH_ID));
    let of_bounds = || path(lower).filter(|lower| path(upper).as_ref() == Some(lower));
    file.referenced_data_file().or_else(of_bounds)
}

/// Writes the delete file of one data file.
pub(crate) async fn write(
    session: &Session,
    table: &TableMetadata,
    (spec_id, partition): (i32, Struct),
    data_file: &str,
    dead: &DeletionVector,
) -> Result<DataFile> {
    let what = || format!("delete rows of the file '{data_file}'");
    let unmade = |e: iceberg::Error| Error::us(what()).because(e);
    let positions = dead.positions().map(i64::try_from).collect::<Result<Vec<i64>, _>>();
    let positions = positions.map_err(|e| Error::us(what()).because(e))?;
    let schema = Arc::new(delete_schema().map_err(unmade)?);
    let paths: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(data_file, positions.len())));
    let positions: ArrayRef = Arc::new(Int64Array::from_iter_values(positions));
    let arrow = Arc::new(schema_to_arrow_schema(&schema).map_err(unmade)?);
    let rows = RecordBatch::try_new(arrow, vec![paths, positions]).map_err(|e| Error::us(what()).because(e))?;

    let path = format!("{}/data/{}-deletes.parquet", table.location(), names::fresh(session));
    // Readers compare the bounds of file_path for equality, so a long path must not be cut.
    let how = properties().set_statistics_truncate_length(None).build();
    let mut file = OpenFile::start(session, path, schema, how).await?;
    file.append(&rows).await?;
    let mut builder = file.finish().await?;
    builder.content(DataContentType::PositionDeletes).partition(partition).partition_spec_id(spec_id);
    builder.referenced_data_file(Some(data_file.to_owned())).nan_value_counts(Default::default());
    builder.build().map_err(|e| Error::us(what()).because(e))
}
