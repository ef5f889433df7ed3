//! Shuts out what others have under way on a table: a snapshot without a change.
//!
//! A catalog compares snapshots and no properties, so a commit that an older generation has sent, or is about to, comes in after a claim of
//! the table as well. Above a new snapshot it is refused: it stood on the one before.

use crate::catalog::{Catalog, CommitError, TableName};
use crate::commit::{ATTEMPTS_MAX, requirements};
use crate::history::{admit, is_changed_by_others, standing};
use crate::marker;
use crate::session::Session;
use crate::snapshot::{Change, prepare};
use dataflow_core::{ChainHash, Error, Generation, Lineage, Marker, Result};
use iceberg::TableUpdate;
use iceberg::spec::{Operation, TableMetadata};
use std::time::Duration;

/// The entry of a snapshot's summary that says that it changes nothing.
pub(crate) const FENCE: &str = "dataflow.fence";
/// What it says where others have changed the table below it since the last commit of ours.
pub(crate) const OVER_OTHERS: &str = "over-others";

/// Whether the current snapshot is the fence of this generation.
fn is_fenced(name: &TableName, table: &TableMetadata, generation: Generation) -> Result<bool> {
    let Some(current) = table.current_snapshot() else { return Ok(false) };
    let summary = &current.summary().additional_properties;
    let marker = marker::read(name, summary)?;
    Ok(summary.contains_key(FENCE) && marker.is_some_and(|marker| marker.generation == generation))
}

/// Puts the fence of a generation on top of a table; nothing where there is no table.
pub(crate) fn shut_out_others(
    session: &Session,
    catalog: &dyn Catalog,
    name: &TableName,
    lineage: Lineage,
    generation: Generation,
) -> Result<()> {
    let mut because = String::new();
    for _ in 0..ATTEMPTS_MAX {
        let Some(now) = catalog.load(name)? else { return Ok(()) };
        let has = standing(name, &now.metadata)?;
        admit(name, has.as_ref(), lineage, generation)?;
        if is_fenced(name, &now.metadata, generation)? {
            return Ok(());
        }
        let first = Marker { lineage, generation, epoch: 0, chain: ChainHash::default() };
        let marker = marker::write(&Marker { generation, ..has.unwrap_or(first) });
        let mut summary = marker.clone();
        let is_over_others = is_changed_by_others(name, &now.metadata, lineage)?;
        summary.insert(FENCE.to_owned(), if is_over_others { OVER_OTHERS } else { "true" }.to_owned());
        let change = Change::empty(Operation::Append, summary);
        let (_, mut updates) = prepare(session, &now.metadata, &change)?;
        updates.push(TableUpdate::SetProperties { updates: marker });
        match catalog.commit(name, &requirements(&now.metadata), updates) {
            Ok(_) => return Ok(()),
            Err(CommitError::Refused(error)) => return Err(error),
            // The next look shows whether it was made.
            Err(CommitError::Conflict(text) | CommitError::Unknown(text)) => because = text,
        }
        session.pause(Duration::from_millis(100));
    }
    Err(Error::outside(format!("shut others out of the table '{name}': {because}")).retry())
}
