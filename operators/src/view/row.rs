//! Typed rows: plain structs that know their table, its columns and its key.
//!
//! A view is written over structs, a sink writes [`Row`]s. [`table_row!`](crate::table_row) declares a struct once and derives the
//! schema from it, so that the two can not differ.

use super::value::Value;
use dataflow_core::{Column, Error, Result, Row, TableSchema};

/// A struct that is a row of a table. Implemented by [`table_row!`](crate::table_row).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a row of a table",
    label = "not a table row",
    note = "declare the struct with `table_row!`, and map the view to it before it goes to a table"
)]
pub trait TableRow: Clone + Sized + 'static {
    /// The table's name.
    const TABLE: &'static str;

    /// The table's columns and key.
    fn schema() -> TableSchema;

    /// Reads a row whose values stand in the order of [`TableRow::schema`].
    ///
    /// # Errors
    /// When a value is missing or not of its column's type.
    fn from_row(row: &Row) -> Result<Self>;

    /// The row, its values in the order of [`TableRow::schema`].
    fn into_row(self) -> Row;
}

/// The column `name` of a row type: what `table_row!` makes of a field.
pub fn column<V: Value>(name: &str) -> Column {
    Column { name: name.to_owned(), kind: V::KIND, is_nullable: V::IS_NULLABLE }
}

/// The value at `place` of a row: what `table_row!` reads a field with.
///
/// # Errors
/// When it is missing or of another type.
pub fn field<V: Value>(row: &Row, place: usize, table: &str, name: &str) -> Result<V> {
    row.0.get(place).and_then(V::from_datum).ok_or_else(|| {
        let got = row.0.get(place);
        Error::us(format!("read a row of '{table}': column '{name}' is {:?}, the row has {got:?}", V::KIND))
    })
}

/// Where the columns of `R` stand in a table, so that a table with more columns, or in another order, can be read.
///
/// # Errors
/// When a column is missing, has another type, or may be null where the struct has no `Option`.
pub fn places_in<R: TableRow>(table: &TableSchema) -> Result<Vec<usize>> {
    let place = |want: &Column| {
        let name = &want.name;
        let at = table.position(name).ok_or_else(|| {
            let names: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
            Error::user(format!("read table '{}': it has no column '{name}', but {}", R::TABLE, names.join(", ")))
                .hint("rename the field, or add the column to the table")
        })?;
        let got = &table.columns[at];
        if got.kind != want.kind {
            let (got, want) = (got.kind, want.kind);
            return Err(Error::user(format!(
                "read table '{}': column '{name}' is {got:?}, the row has {want:?}",
                R::TABLE
            ))
            .hint("give the field the column's type"));
        }
        if got.is_nullable && !want.is_nullable {
            return Err(Error::user(format!("read table '{}': column '{name}' may be null", R::TABLE))
                .hint("make the field an Option"));
        }
        Ok(at)
    };
    R::schema().columns.iter().map(place).collect()
}

/// Declares a struct that is a row of a table: `table_row! { pub struct Name("table", key: id) { pub id: i32, .. } }`. Without `key:`
/// the whole row is the key.
///
/// ```
/// use dataflow_operators::table_row;
/// use dataflow_operators::view::{TableRow, Text};
///
/// table_row! {
///     /// A product.
///     pub struct Product("products", key: id) {
///         /// Its number.
///         pub id: i64,
///         /// Its name.
///         pub name: Option<Text>,
///     }
/// }
/// let cup = Product { id: 7, name: Some("cup".into()) };
/// assert_eq!(Product::from_row(&cup.clone().into_row()).expect("a row of its own"), cup);
/// assert_eq!(Product::schema().key, [0]);
/// ```
///
/// A type that no column has is refused where it stands ("`f32` is not a type that a column can have"):
///
/// ```compile_fail,E0277
/// dataflow_operators::table_row! {
///     /// A product.
///     pub struct Product("products", key: id) {
///         /// Its weight.
///         pub id: f32,
///     }
/// }
/// ```
///
/// So is a key that is no field:
///
/// ```compile_fail,E0609
/// dataflow_operators::table_row! {
///     /// A product.
///     pub struct Product("products", key: idd) {
///         /// Its number.
///         pub id: i64,
///     }
/// }
/// ```
#[macro_export]
macro_rules! table_row {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident($table:literal $(, key: $($key:ident),+)?) {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type),+
        }

        impl $crate::view::TableRow for $name {
            const TABLE: &'static str = $table;

            fn schema() -> $crate::view::TableSchema {
                let columns = vec![$($crate::view::row::column::<$type>(stringify!($field))),+];
                $($(let _ = |row: &$name| { let _ = &row.$key; };)+)?
                let place = |name: &str| columns.iter().position(|column| column.name == name);
                let key = [$($(stringify!($key)),+)?].into_iter().flat_map(|name: &str| place(name)).collect();
                $crate::view::TableSchema { columns, key }
            }

            fn from_row(row: &$crate::view::Row) -> $crate::view::Result<Self> {
                let mut places = 0..;
                let mut next = || places.next().unwrap_or_default();
                Ok($name {
                    $($field: $crate::view::row::field(row, next(), $table, stringify!($field))?),+
                })
            }

            fn into_row(self) -> $crate::view::Row {
                [$($crate::view::Value::into_datum(self.$field)),+].into_iter().collect()
            }
        }

        // Written out, so that whoever declares a row needs no serde of their own: workers exchange rows.
        impl $crate::view::serde::Serialize for $name {
            fn serialize<S: $crate::view::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                use $crate::view::serde::ser::SerializeTuple;
                let mut tuple = serializer.serialize_tuple([$(stringify!($field)),+].len())?;
                $(tuple.serialize_element(&self.$field)?;)+
                tuple.end()
            }
        }

        impl<'de> $crate::view::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::view::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<Self, D::Error> {
                use $crate::view::serde::de::{Error, SeqAccess, Visitor};
                struct Fields;
                impl<'de> Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("a row of ", $table))
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> ::std::result::Result<$name, A::Error> {
                        $(let $field: $type = fields
                            .next_element()?
                            .ok_or_else(|| A::Error::custom(concat!("no field ", stringify!($field))))?;)+
                        Ok($name { $($field),+ })
                    }
                }
                deserializer.deserialize_tuple([$(stringify!($field)),+].len(), Fields)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Decimal, Text};
    use dataflow_core::{ColumnType, Datum};

    table_row! {
        /// A row with a key of two columns.
        struct Price("prices", key: item, shop) {
            shop: Text,
            item: i64,
            price: Option<Decimal<4, 2>>,
        }
    }

    fn refused(columns: Vec<Column>) -> String {
        places_in::<Price>(&TableSchema { columns, key: vec![] }).expect_err("another table").to_string()
    }

    #[test]
    fn the_key_stands_in_its_own_order() {
        assert_eq!(Price::schema().key, [1, 0]);
        assert_eq!(Price::schema().columns[2].kind, ColumnType::Decimal { precision: 4, scale: 2 });
    }

    #[test]
    fn rows_go_to_bytes_and_back() {
        let price = Price { shop: "a".into(), item: 7, price: Decimal::new(-1250) };
        let bytes = postcard::to_allocvec(&price).expect("plain data");
        assert_eq!(postcard::from_bytes::<Price>(&bytes).expect("just written"), price);
        assert_eq!(Price::from_row(&price.clone().into_row()).expect("just made"), price);
        assert!(Price::schema().check(&price.into_row()).is_ok());
    }

    #[test]
    fn a_row_of_another_table_is_refused_by_column() {
        let row: Row = ["a".into(), Datum::Int(7), Datum::Null].into_iter().collect();
        let error = Price::from_row(&row).expect_err("an int is no long").to_string();
        assert!(error.starts_with("read a row of 'prices': column 'item' is Long"), "{error}");
    }

    #[test]
    fn a_table_is_matched_by_name() {
        let mut columns = Price::schema().columns;
        columns.reverse();
        columns.insert(0, column::<bool>("more"));
        let places = places_in::<Price>(&TableSchema { columns: columns.clone(), key: vec![] });
        assert_eq!(places.expect("all there"), [3, 2, 1]);
        assert!(refused(vec![]).starts_with("read table 'prices': it has no column 'shop'"));
        columns[2] = column::<i32>("item");
        assert!(refused(columns.clone()).starts_with("read table 'prices': column 'item' is Int"));
        columns[2] = column::<Option<i64>>("item");
        assert!(refused(columns).starts_with("read table 'prices': column 'item' may be null"));
    }
}
