//! A key that is no field.
//! says: no field `idd` on type
//! says: Product

dataflow_operators::table_row! {
    /// A product.
    pub struct Product("products", key: idd) {
        /// Its number.
        pub id: i32,
    }
}
