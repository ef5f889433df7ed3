//! What is added to a record from tables that do not change while it flows: the place of an address.
//!
//! Pure functions of the record and the table, but for `lookup`, the operator around them. The table itself is bound by the plan.

pub mod address;
pub mod ip_table;
pub mod lookup;
mod prefix;
mod ranges;

pub use address::parse_address;
pub use ip_table::{BadRow, IpTable, Place};
pub use lookup::enrich;
