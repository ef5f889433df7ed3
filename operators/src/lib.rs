//! Operators: windows and keyed histories, anomaly detectors, enrichment, views.

pub mod anomaly;
pub mod enrich;
pub mod window;
