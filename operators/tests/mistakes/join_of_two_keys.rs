//! A join by keys of two types.
//! says: mismatched types
//! says: expected `i32`, found `i64`

use dataflow_operators::view::{Index, Text, View};

/// Which ids have a name.
pub fn known<'s>(ids: &View<'s, i64>, names: &Index<'s, i32, Text>) -> View<'s, bool> {
    ids.left_join(|id| Some(*id), names, |_, name| name.is_some())
}
