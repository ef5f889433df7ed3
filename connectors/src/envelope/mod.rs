//! Change events: from the records of a table's change topic to what each says about one row.
//!
//! ```text
//!  record ─► reader: Avro by schema id, or JSON ─► cells, one for each value wanted ─► layout ─► ChangeEvent
//!            (debezium/avro.rs, debezium/json.rs,                                       rows of the declared
//!             case_line.rs)                                                             columns (convert.rs)
//! ```
//!
//! A decoder is made for one declared table. Columns are found by their names in what the writer sent: those that the job does not
//! declare are passed over, those that the writer does not have are null. So a column that is added, dropped or widened in the midst
//! of the stream needs no restart. Invariants: a value is converted exactly or its record is a dead letter; of a deleted row nothing
//! but the key is read, because the rest of it is made up; a change of a key is a delete and a create, as Debezium sends it.
//!
//! Whether a change applies (its position against those of its key and of the last truncate) is for whoever keeps the rows.

mod case_line;
mod cell;
mod convert;
pub mod debezium;
mod decimal;
mod iso;
mod json_value;
mod layout;

pub use case_line::CaseChangeDecoder;
pub use json_value::{BareDecimals, BareJson, BareTimestamps};

use crate::decode::UNDECODABLE;
use dataflow_core::Decoded;
pub use dataflow_core::change::{Change, ChangeEvent, ChangePosition, Ignored, Op, Transaction};

/// Reason of a dead letter: neither an envelope nor a flattened change.
pub const NOT_A_CHANGE: &str = "not_a_change";
/// Reason of a dead letter: an operation that nobody knows.
pub const UNKNOWN_OP: &str = "unknown_op";
/// Reason of a dead letter: a change without the row that its operation needs.
pub const NO_ROW: &str = "no_row";
/// Reason of a dead letter: an update, in a table without a key, that does not say which row it replaces.
pub const NO_OLD_ROW: &str = "no_old_row";
/// Reason of a dead letter: a position that is none.
pub const BAD_POSITION: &str = "bad_position";
/// Reason of a dead letter: a value of a type that its column can not take.
pub const COLUMN_TYPE: &str = "column_type";
/// Reason of a dead letter: a value beyond what its column holds.
pub const OUT_OF_RANGE: &str = "out_of_range";
/// Reason of a dead letter: a number with more digits after the point than its column has.
pub const INEXACT: &str = "inexact";
/// Reason of a dead letter: a null, or no value at all, in a column that is declared without nulls.
pub const UNEXPECTED_NULL: &str = "unexpected_null";

/// Why a record is a dead letter.
type Reason = &'static str;

/// What was found in a record, or why it is a dead letter.
type Found<T> = Result<T, Reason>;

/// What decoding a record comes to, of what its reader found.
fn decoded(found: Found<ChangeEvent>) -> Decoded<ChangeEvent> {
    found.map_or_else(Decoded::Dead, Decoded::Value)
}

/// What is ignored, as an event.
fn ignored(why: Ignored) -> Found<ChangeEvent> {
    Ok(ChangeEvent::Ignored(why))
}
