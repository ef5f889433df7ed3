//! Seeded, realistic traffic: logins with habits, travel and labelled attack campaigns; a shop with its visitors.
//!
//! [`logins::Traffic`] is a pure function of its settings: a block of a partition can be made at any time, alone, and is
//! always the same. So it serves as an embedded source that can be replayed, as a file, and as a Kafka producer. [`shop::Shop`]
//! is one likewise, of changes of three tables and of pageviews.
//! [`geography`] is the made-up world whose addresses it uses. Nothing here knows how attacks are detected.

mod dice;
pub mod geography;
pub mod logins;
pub mod output;
pub mod shop;

pub use dataflow_core::{Clock, Micros};
