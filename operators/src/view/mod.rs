//! Views: collections of typed rows that follow their tables, written as a job author thinks of them.
//!
//! ```text
//!  table rows ──► View<R> ──► map, filter, distinct ─────────────► View ──► changes() ──► sink
//!                   │  └────► index ──► join, left_join ───────────▲
//!                   ├───────► group, fold, top_k ──────────────────┤
//!  epoch clock ─────┴───────► within_last, daily_snapshot, ingested ┘
//! ```
//!
//! A view at epoch e is a function of its tables' rows at e and of the epoch's clock, so nothing here has state of its own to keep: after a
//! restart the tables emit their rows at the restored epoch and the views stand again. The one exception is named where it stands
//! (`daily_snapshot`: rows of past days are history).
//!
//! - A typed row is a struct declared by [`table_row!`](crate::table_row); it knows its table's schema and key.
//! - An [`Index`] is a view arranged once by a unique key and shared by every join with it. What it holds is what its closure keeps: let
//!   that be few columns.
//! - Sums and counts stand in the differences ([`Sums`]); the groups' rows are not kept.
//! - What leaves is [`View::changes`]: an epoch's net changes, once it is closed, as one sorted batch, the same for any number of workers.
//!
//! Nothing in this folder but `shop` knows what the rows are about.

mod changes;
mod collection;
mod daily_snapshot;
mod epochs;
mod group;
mod index;
mod ingested;
pub mod row;
pub mod shop;
mod sums;
mod top_k;
mod value;
mod within_last;

pub use collection::View;
pub use daily_snapshot::{ClosedDay, DailySnapshot};
pub use epochs::EpochClock;
pub use index::Index;
pub use row::TableRow;
pub use sums::Sums;
pub use value::{Date, Decimal, Double, Text, Value, hour_of};

// What `table_row!` names, so that its users need nothing but this crate.
pub use dataflow_core::{Result, Row, TableSchema};
pub use serde;
