//! Whole jobs under one seeded scheduler, with crashes, lost writes and unknown outcomes.
