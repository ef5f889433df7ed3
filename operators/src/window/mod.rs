//! Windowed and per-key computations over event time, with checkpointed state.

pub mod key_state;
pub mod keyed_history;
