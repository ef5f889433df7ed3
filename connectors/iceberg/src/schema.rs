//! What a table shall look like, as Iceberg's types, and what has to change in a table that is there already. Pure: nothing is read or written.
//!
//! A table's columns are told apart by Iceberg's field ids; between a spec and a table the name decides. A column that the spec has no
//! longer stays in the table, optional, and is null in new rows.

use crate::catalog::TableName;
use crate::file_format::FileSettings;
use dataflow_core::{Column, ColumnType, Error, Result, TableSchema};
use iceberg::TableUpdate;
use iceberg::spec::{
    FormatVersion, NestedField, NestedFieldRef, NullOrder, PrimitiveType, Schema, SortDirection, SortField, SortOrder,
    TableMetadata, Transform as IcebergTransform, Type, UnboundPartitionField, UnboundPartitionSpec,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A table as a job wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// Its name.
    pub table: TableName,
    /// Its columns and its key. The key's columns become Iceberg's identifier fields where Iceberg can have them so (not null, no floating
    /// point numbers).
    pub schema: TableSchema,
    /// How rows are divided into partitions, outermost first; empty: not at all.
    pub partition: Vec<PartitionBy>,
    /// How rows lie within a file; empty: as they come.
    pub sort: Vec<SortBy>,
    /// How its files are written.
    #[serde(default)]
    pub files: FileSettings,
}

/// One level of a table's partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionBy {
    /// The column.
    pub column: String,
    /// What is made of its value.
    pub transform: Transform,
}

/// What a partition makes of a value (Iceberg specification, "Partition Transforms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// The value itself.
    Identity,
    /// The year of a date or time.
    Year,
    /// Its month.
    Month,
    /// Its day.
    Day,
    /// The hour of a time.
    Hour,
    /// A hash of the value, modulo a number.
    Bucket(u32),
    /// The value cut to a width: characters, bytes, or a multiple.
    Truncate(u32),
}

/// One level of a table's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortBy {
    /// The column.
    pub column: String,
    /// Greatest first. Nulls come first ascending and last descending.
    pub descending: bool,
}

impl Transform {
    fn iceberg(self) -> IcebergTransform {
        match self {
            Transform::Identity => IcebergTransform::Identity,
            Transform::Year => IcebergTransform::Year,
            Transform::Month => IcebergTransform::Month,
            Transform::Day => IcebergTransform::Day,
            Transform::Hour => IcebergTransform::Hour,
            Transform::Bucket(count) => IcebergTransform::Bucket(count),
            Transform::Truncate(width) => IcebergTransform::Truncate(width),
        }
    }

    /// The name of the partition's field, as Java's API calls it.
    fn field_name(self, column: &str) -> String {
        let suffix = match self {
            Transform::Identity => return column.to_owned(),
            Transform::Year => "year",
            Transform::Month => "month",
            Transform::Day => "day",
            Transform::Hour => "hour",
            Transform::Bucket(_) => "bucket",
            Transform::Truncate(_) => "trunc",
        };
        format!("{column}_{suffix}")
    }
}

/// The type of a new column.
fn iceberg_type(kind: ColumnType) -> PrimitiveType {
    match kind {
        ColumnType::Boolean => PrimitiveType::Boolean,
        ColumnType::Int => PrimitiveType::Int,
        ColumnType::Long => PrimitiveType::Long,
        ColumnType::Double => PrimitiveType::Double,
        ColumnType::Decimal { precision, scale } => {
            PrimitiveType::Decimal { precision: precision.into(), scale: scale.into() }
        }
        ColumnType::Date => PrimitiveType::Date,
        // An instant, not a local time: the engine's times are UTC.
        ColumnType::Timestamp => PrimitiveType::Timestamptz,
        ColumnType::Text => PrimitiveType::String,
        ColumnType::Bytes => PrimitiveType::Binary,
    }
}

/// The type that a table's column has to have for `kind`: its own, or the one it is widened to. `None` when Iceberg can not.
fn widened(has: &PrimitiveType, kind: ColumnType) -> Option<PrimitiveType> {
    use PrimitiveType as P;
    let wants = iceberg_type(kind);
    let fits = match (has, &wants) {
        (has, wants) if has == wants => true,
        // Made by another program as a local time; what we write is UTC all the same.
        (P::Timestamp, P::Timestamptz) => return Some(P::Timestamp),
        (P::Int, P::Long) | (P::Float, P::Double) => true,
        (P::Decimal { precision: has, scale: a }, P::Decimal { precision: wants, scale: b }) => a == b && has < wants,
        _ => false,
    };
    fits.then_some(wants)
}

/// The schema of a new table; fields are numbered from 1.
pub(crate) fn new_schema(spec: &TableSpec) -> Result<Schema> {
    let fields: Vec<NestedFieldRef> = (1..).zip(&spec.schema.columns).map(|(id, column)| field(id, column)).collect();
    build(spec, fields, 0)
}

fn field(id: i32, column: &Column) -> NestedFieldRef {
    let kind = Type::Primitive(iceberg_type(column.kind));
    Arc::new(NestedField::new(id, &column.name, kind, !column.is_nullable))
}

fn build(spec: &TableSpec, fields: Vec<NestedFieldRef>, id: i32) -> Result<Schema> {
    let keys = identifiers(spec, &fields);
    let built = Schema::builder().with_schema_id(id).with_fields(fields).with_identifier_field_ids(keys).build();
    built.map_err(|e| Error::user(format!("make a schema for the table '{}'", spec.table)).because(e))
}

/// The field ids of the key; none where Iceberg does not allow one of its columns.
fn identifiers(spec: &TableSpec, fields: &[NestedFieldRef]) -> Vec<i32> {
    let key = spec.schema.key.iter().map(|at| {
        let field = fields.iter().find(|field| field.name == spec.schema.columns[*at].name)?;
        let allowed = field.required && !field.field_type.is_floating_type();
        allowed.then_some(field.id)
    });
    key.collect::<Option<_>>().unwrap_or_default()
}

/// The schema that `current` must become for `spec`; `None` when it is that already.
///
/// # Errors
/// When a column's type would change in a way that Iceberg has not.
pub(crate) fn evolved(spec: &TableSpec, current: &Schema, last_column_id: i32) -> Result<Option<Schema>> {
    let mut fields = Vec::new();
    for field in current.as_struct().fields() {
        let column = spec.schema.columns.iter().find(|column| column.name == field.name);
        let mut next = field.as_ref().clone();
        match column {
            Some(column) => {
                let wider = field.field_type.as_primitive_type().and_then(|has| widened(has, column.kind));
                *next.field_type = Type::Primitive(wider.ok_or_else(|| unheld(spec, column, &field.field_type))?);
                next.required &= !column.is_nullable;
            }
            None => next.required = false,
        }
        fields.push(Arc::new(next));
    }
    for column in &spec.schema.columns {
        if current.field_by_name(&column.name).is_none() {
            let id = last_column_id.max(fields.iter().map(|field| field.id).max().unwrap_or(0)) + 1;
            // Rows that are there already have no value for it.
            fields.push(field(id, &Column { is_nullable: true, ..column.clone() }));
        }
    }
    let next = build(spec, fields, current.schema_id() + 1)?;
    let same = next.as_struct() == current.as_struct()
        && next.identifier_field_ids().all(|id| current.identifier_field_ids().any(|other| other == id))
        && next.identifier_field_ids().len() == current.identifier_field_ids().len();
    Ok((!same).then_some(next))
}

fn unheld(spec: &TableSpec, column: &Column, has: &Type) -> Error {
    let (table, name, wants) = (&spec.table, &column.name, iceberg_type(column.kind));
    let what = format!("change the column '{name}' of the table '{table}' from {has} to {wants}: Iceberg can not");
    let hint = "give the column another name, or write to another table (int may become long, float double, a decimal may get more digits)";
    Error::user(what).hint(hint)
}

fn source_id(spec: &TableSpec, schema: &Schema, column: &str, what: &str) -> Result<i32> {
    let found = spec.schema.position(column).and_then(|_| schema.field_id_by_name(column));
    found.ok_or_else(|| {
        let what = format!("{what} the table '{}' by the column '{column}': it has none of this name", spec.table);
        Error::user(what).hint("name one of the table's columns")
    })
}

/// The partitions that `spec` asks for, bound to the fields of `schema`.
pub(crate) fn partitions(spec: &TableSpec, schema: &Schema) -> Result<UnboundPartitionSpec> {
    let mut builder = UnboundPartitionSpec::builder().with_spec_id(0);
    for PartitionBy { column, transform } in &spec.partition {
        let what = || format!("partition the table '{}' by the column '{column}'", spec.table);
        let id = source_id(spec, schema, column, "partition")?;
        if matches!(transform, Transform::Bucket(0) | Transform::Truncate(0)) {
            return Err(Error::user(format!("{}: the number must not be 0", what())));
        }
        let field = schema.field_by_id(id).expect("the id comes from this schema");
        transform.iceberg().result_type(&field.field_type).map_err(|e| Error::user(what()).because(e))?;
        let named = builder.add_partition_field(id, transform.field_name(column), transform.iceberg());
        builder = named.map_err(|e| Error::user(what()).because(e))?;
    }
    Ok(builder.build())
}

/// The order that `spec` asks for.
pub(crate) fn order(spec: &TableSpec, schema: &Schema) -> Result<SortOrder> {
    let mut fields = Vec::new();
    for SortBy { column, descending } in &spec.sort {
        let (direction, null_order) = match descending {
            true => (SortDirection::Descending, NullOrder::Last),
            false => (SortDirection::Ascending, NullOrder::First),
        };
        let source_id = source_id(spec, schema, column, "sort")?;
        fields.push(SortField { source_id, transform: IcebergTransform::Identity, direction, null_order });
    }
    let order_id = i64::from(!fields.is_empty());
    Ok(SortOrder { order_id, fields })
}

/// The properties that say how the files of `spec` are written.
pub(crate) fn files(spec: &TableSpec) -> Result<BTreeMap<String, String>> {
    if let Some(unknown) = spec.files.bloom_filters.iter().find(|column| spec.schema.position(column).is_none()) {
        let what = format!(
            "make Bloom filters of the column '{unknown}' of the table '{}': it has none of this name",
            spec.table
        );
        return Err(Error::user(what).hint("name one of the table's columns"));
    }
    Ok(spec.files.properties())
}

/// The updates that make the table `now` one of `spec`; empty when it is.
pub(crate) fn changes(spec: &TableSpec, now: &TableMetadata) -> Result<Vec<TableUpdate>> {
    let mut updates = Vec::new();
    let format = FormatVersion::from(spec.files.format);
    if now.format_version() < format {
        updates.push(TableUpdate::UpgradeFormatVersion { format_version: format });
    }
    let next = evolved(spec, now.current_schema(), now.last_column_id())?;
    let schema = next.as_ref().unwrap_or(now.current_schema());
    let partitions = partitions(spec, schema)?;
    let order = order(spec, schema)?;
    if let Some(schema) = next {
        updates.push(TableUpdate::AddSchema { schema });
        updates.push(TableUpdate::SetCurrentSchema { schema_id: LAST_ADDED });
    }
    let has = now.default_partition_spec().fields().iter().map(|field| (field.source_id, field.transform));
    let wants = |field: &UnboundPartitionField| (field.source_id, field.transform);
    if !has.eq(partitions.fields().iter().map(wants)) {
        let id = now.partition_specs_iter().map(|spec| spec.spec_id()).max().unwrap_or(0) + 1;
        updates.push(TableUpdate::AddSpec { spec: partitions.with_spec_id(id) });
        updates.push(TableUpdate::SetDefaultSpec { spec_id: LAST_ADDED });
    }
    if now.default_sort_order().fields != order.fields {
        let id = now.sort_orders_iter().map(|order| order.order_id).max().unwrap_or(0) + 1;
        let sort_order = if order.is_unsorted() { order } else { order.with_order_id(id) };
        updates.push(TableUpdate::AddSortOrder { sort_order });
        updates.push(TableUpdate::SetDefaultSortOrder { sort_order_id: i64::from(LAST_ADDED) });
    }
    let mut wanted = files(spec)?;
    wanted.retain(|property, value| now.properties().get(property) != Some(value));
    if !wanted.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: wanted.into_iter().collect() });
    }
    Ok(updates)
}

/// The id that says: the one that this commit adds.
const LAST_ADDED: i32 = -1;
