//! The shipped program from outside: killed and resumed, started on data that does not belong together, and its command line.
//!
//! It shares no code with the program: what the outputs must be comes from `dataflow-oracle`, on the epochs that the program
//! exported and the traffic that `dataflow-loadgen` makes up.

// clippy spares `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used)]

mod alignment;
mod command_line;
mod data;
mod disk;
mod process;
mod resume;
mod schemas;
mod start_check;
mod traffic;
