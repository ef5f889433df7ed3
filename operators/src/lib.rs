//! Operators: windows and keyed histories, anomaly detectors, enrichment, views.

pub mod anomaly;
pub mod collection;
pub mod enrich;
pub mod view;
pub mod window;
