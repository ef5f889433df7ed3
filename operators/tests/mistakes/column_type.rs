//! A column of a type that no table has.
//! says: `f32` is not a type that a column can have
//! says: not a column type
//! says: columns are bool, i32, i64, Double, Decimal<PRECISION, SCALE>, Date, Micros and Text, or an Option of one of them

dataflow_operators::table_row! {
    /// A product.
    pub struct Product("products", key: id) {
        /// Its number.
        pub id: i32,
        /// Its weight.
        pub weight: f32,
    }
}
