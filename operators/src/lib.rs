//! Operators: windows and keyed histories, anomaly detectors, enrichment, durable collections, source transactions, views.

pub mod anomaly;
pub mod collection;
pub mod enrich;
pub mod transactions;
pub mod view;
pub mod window;
