//! What a table's history says about an intent: whether it is in already, may go in, or must not. Pure: facts in, verdict out.
//!
//! ```text
//!  root ◄── … ◄── parent of the intent ◄── ours or foreign ◄── current snapshot
//!                                          └─ each with the marker in its summary, or none
//! ```
//! An expired snapshot cuts the chain: then it does not reach the root, and the marker in the table's properties speaks for what is gone.

use crate::catalog::TableName;
use crate::fence::{FENCE, OVER_OTHERS};
use crate::intent::{COMPACTION, Intent, Purpose};
use crate::marker;
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Epoch, Error, Generation, Lineage, Marker, Result};
use iceberg::spec::{Operation, SnapshotRef, TableMetadata};

/// The property of a table that says that others have removed or rewritten rows of it, also when their snapshot has expired.
pub(crate) const REWRITTEN: &str = "dataflow.rewritten-by-others";

/// The current snapshot and those before it, newest first, as far as the table still knows them.
pub(crate) struct Ancestry<'a> {
    pub(crate) snapshots: Vec<&'a SnapshotRef>,
    /// Whether it reaches the table's first snapshot.
    pub(crate) is_whole: bool,
}

impl<'a> Ancestry<'a> {
    pub(crate) fn of(table: &'a TableMetadata) -> Ancestry<'a> {
        let mut snapshots: Vec<&SnapshotRef> = table.current_snapshot().into_iter().collect();
        while let Some(parent) = snapshots.last().and_then(|snapshot| snapshot.parent_snapshot_id()) {
            match table.snapshot_by_id(parent) {
                // More than there are would be a circle.
                Some(parent) if snapshots.len() < table.snapshots().len() => snapshots.push(parent),
                _ => return Ancestry { snapshots, is_whole: false },
            }
        }
        Ancestry { snapshots, is_whole: true }
    }

    /// How many snapshots came after `id`; `None` when it is not in the chain.
    pub(crate) fn after(&self, id: i64) -> Option<usize> {
        self.snapshots.iter().position(|snapshot| snapshot.snapshot_id() == id)
    }
}

/// What is to be done with an intent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Commit it on top of the current snapshot.
    Commit,
    /// As [`Verdict::Commit`], if the table still holds every data file whose rows the intent deletes: others have rewritten some once.
    CommitIfHeld,
    /// It is in the table.
    Committed {
        /// The snapshot that holds it, while the table knows it.
        snapshot: Option<i64>,
        /// The last epoch of that snapshot's commit.
        epoch: Epoch,
    },
    /// Snapshots of others are on top of the one that its positions speak of.
    Foreign,
}

/// The marker of a table: of its properties, or of its newest snapshot that has one.
///
/// # Errors
/// When a marker cannot be read, or the table was rolled back behind its own.
pub(crate) fn standing(name: &TableName, table: &TableMetadata) -> Result<Option<Marker>> {
    let ancestry = Ancestry::of(table);
    let property = marker::read(name, table.properties())?;
    let newest = newest(name, &ancestry)?;
    let Some(property) = property else { return Ok(newest) };
    match newest {
        Some(newest) if newest.lineage != property.lineage => Ok(Some(newest)),
        // A claim raises the generation without a snapshot; the epochs come from the snapshots.
        Some(newest) if newest.epoch >= property.epoch => {
            let generation = later(property.generation, newest.generation);
            Ok(Some(Marker { generation, ..newest }))
        }
        None if property.epoch == 0 || !ancestry.is_whole => Ok(Some(property)),
        _ => {
            let has =
                newest.map_or_else(|| "none of its snapshots".to_owned(), |newest| format!("epoch {}", newest.epoch));
            let what =
                format!("use the table '{name}': its properties say epoch {}, its history {has}", property.epoch);
            Err(Error::doubt(what)
                .hint("it was rolled back: set it to its newest snapshot again, or start over with a new table"))
        }
    }
}

fn later(a: Generation, b: Generation) -> Generation {
    if a.number >= b.number { a } else { b }
}

fn newest(name: &TableName, ancestry: &Ancestry<'_>) -> Result<Option<Marker>> {
    for snapshot in &ancestry.snapshots {
        if let Some(found) = marker::read(name, &snapshot.summary().additional_properties)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether `lineage` and `generation` may write where `standing` is the marker.
pub(crate) fn admit(
    name: &TableName,
    standing: Option<&Marker>,
    lineage: Lineage,
    generation: Generation,
) -> Result<()> {
    let Some(has) = standing else { return Ok(()) };
    if has.lineage != lineage {
        let what = format!(
            "write to the table '{name}': it has the output of the history {}, this job is {lineage}",
            has.lineage
        );
        return Err(Error::doubt(what).hint("name another table, or drop this one and start over"));
    }
    if is_planted(Bug::FencedCommitterGoesOn) {
        return Ok(());
    }
    let is_newer = has.generation.number > generation.number;
    if is_newer || (has.generation.number == generation.number && has.generation.nonce != generation.nonce) {
        let what =
            format!("write to the table '{name}': generation {} has taken over from {generation}", has.generation);
        return Err(Error::fenced(what).hint("stop this process; the newer one goes on"));
    }
    Ok(())
}

/// What is to be done with `intent` on the table as it is now.
///
/// # Errors
/// When the intent must not go in: the table is another one, another history or generation writes to it, it was rolled back or forked, or it
/// holds a part of the intent's epochs.
pub(crate) fn judge(name: &TableName, table: &TableMetadata, intent: &Intent, is_append: bool) -> Result<Verdict> {
    if table.uuid() != intent.table {
        let what = format!(
            "commit to the table '{name}': it was dropped and made again (it is {}, was {})",
            table.uuid(),
            intent.table
        );
        return Err(Error::doubt(what).hint("start over: the new table does not have what the old one had"));
    }
    let ancestry = Ancestry::of(table);
    let standing = standing(name, table)?;
    admit(name, standing.as_ref(), intent.marker.lineage, intent.marker.generation)?;
    if let Some(found) = search(name, &ancestry, standing.as_ref(), intent)? {
        return Ok(found);
    }
    match on_top(name, table, &ancestry, intent, is_append)? {
        Verdict::Commit if needs_index(intent) && is_rewritten(name, table, &ancestry, intent.marker.lineage)? => {
            Ok(Verdict::CommitIfHeld)
        }
        verdict => Ok(verdict),
    }
}

/// Whether others have removed or rewritten rows of the table, as far as it knows: then a file that our index names may be gone.
///
/// # Errors
/// When a marker cannot be read.
pub(crate) fn is_rewritten(
    name: &TableName,
    table: &TableMetadata,
    ancestry: &Ancestry<'_>,
    lineage: Lineage,
) -> Result<bool> {
    let mut is_rewritten = table.properties().contains_key(REWRITTEN);
    for snapshot in &ancestry.snapshots {
        is_rewritten |= !is_of(name, snapshot, lineage)? && snapshot.summary().operation != Operation::Append;
    }
    Ok(is_rewritten)
}

/// Whether others have changed the table since the last commit of `lineage`, as far as its history tells. A fence says what was below it.
///
/// # Errors
/// When a marker cannot be read.
pub(crate) fn is_changed_by_others(name: &TableName, table: &TableMetadata, lineage: Lineage) -> Result<bool> {
    for snapshot in Ancestry::of(table).snapshots {
        match snapshot.summary().additional_properties.get(FENCE) {
            _ if !is_of(name, snapshot, lineage)? => return Ok(true),
            Some(says) if says == OVER_OTHERS => return Ok(true),
            Some(_) => {}
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// Whether a snapshot is of `lineage`.
///
/// # Errors
/// When its marker cannot be read.
pub(crate) fn is_of(name: &TableName, snapshot: &SnapshotRef, lineage: Lineage) -> Result<bool> {
    let marker = marker::read(name, &snapshot.summary().additional_properties)?;
    Ok(marker.is_some_and(|marker| marker.lineage == lineage))
}

fn is_fence(snapshot: &SnapshotRef) -> bool {
    snapshot.summary().additional_properties.contains_key(FENCE)
}

fn needs_index(intent: &Intent) -> bool {
    !intent.deletes.is_empty() || !intent.removed.is_empty()
}

/// Looks for the intent in the history.
fn search(
    name: &TableName,
    ancestry: &Ancestry<'_>,
    standing: Option<&Marker>,
    intent: &Intent,
) -> Result<Option<Verdict>> {
    if let Purpose::Compaction { id } = intent.purpose {
        let text = format!("{id:016x}");
        let found =
            ancestry.snapshots.iter().find(|s| s.summary().additional_properties.get(COMPACTION) == Some(&text));
        let epoch = intent.marker.epoch;
        return Ok(found.map(|snapshot| Verdict::Committed { snapshot: Some(snapshot.snapshot_id()), epoch }));
    }
    // The oldest commit that reaches the intent's last epoch is the one that brought it.
    let mut holder: Option<(i64, Marker)> = None;
    for snapshot in &ancestry.snapshots {
        match marker::read(name, &snapshot.summary().additional_properties)? {
            Some(found) if found.lineage == intent.marker.lineage && found.epoch >= intent.marker.epoch => {
                holder = Some((snapshot.snapshot_id(), found));
            }
            Some(_) => break,
            None => {}
        }
    }
    let held = holder.map(|(id, found)| (Some(id), found));
    // Where the chain is cut, the properties know of what was before.
    let held = held.or(standing.filter(|has| has.epoch >= intent.marker.epoch).map(|has| (None, *has)));
    if let Some((snapshot, found)) = held {
        if found.epoch == intent.marker.epoch && found.chain != intent.marker.chain {
            let (epoch, has, ours) = (found.epoch, found.chain, intent.marker.chain);
            let what =
                format!("commit to the table '{name}': its epoch {epoch} has the binding {has}, ours has {ours}");
            return Err(Error::doubt(what)
                .hint("the table has the output of another run of this job: restore its log, or start over"));
        }
        return Ok(Some(Verdict::Committed { snapshot, epoch: found.epoch }));
    }
    match standing {
        Some(has) if has.epoch >= intent.first_epoch => {
            let (first, last) = (intent.first_epoch, intent.marker.epoch);
            let what =
                format!("commit the epochs {first} to {last} to the table '{name}': it has those up to {}", has.epoch);
            Err(Error::doubt(what)
                .hint("the epochs must be divided as they were; restore the checkpoint that has the intent"))
        }
        _ => Ok(None),
    }
}

/// Whether the intent may go on top of the current snapshot.
fn on_top(
    name: &TableName,
    table: &TableMetadata,
    ancestry: &Ancestry<'_>,
    intent: &Intent,
    is_append: bool,
) -> Result<Verdict> {
    let needs_index = needs_index(intent);
    let newer = match intent.parent {
        // Some have expired since, and whose they were is not known.
        None if needs_index && !ancestry.is_whole => return Ok(Verdict::Foreign),
        None => ancestry.snapshots.as_slice(),
        Some(parent) => match ancestry.after(parent) {
            Some(count) => &ancestry.snapshots[..count],
            // It is there, but not in the past of the current snapshot; or it is nowhere, though the past is all there.
            None if table.snapshot_by_id(parent).is_some() || ancestry.is_whole => {
                let what = format!(
                    "commit to the table '{name}': the snapshot {parent}, which this job wrote on, is not in its history"
                );
                let hint =
                    "it was rolled back or forked: set it to its newest snapshot again, or start over with a new table";
                return Err(Error::doubt(what).hint(hint));
            }
            // Expired: what lies between is not known.
            None => return Ok(if needs_index { Verdict::Foreign } else { Verdict::Commit }),
        },
    };
    let (mut is_ours, mut only_adds) = (true, true);
    for snapshot in newer {
        if !is_of(name, snapshot, intent.marker.lineage)? {
            is_ours = false;
            only_adds &= snapshot.summary().operation == Operation::Append;
        }
    }
    Ok(match intent.purpose {
        // A rewrite speaks of all rows that there are, so nothing at all may have come between, but a fence, which changes none.
        Purpose::Compaction { .. } if !is_ours || !newer.iter().all(|snapshot| is_fence(snapshot)) => Verdict::Foreign,
        // What others have rewritten is not where our index has it, now or for the intents that come after this one.
        // Rows of a table without a key are added whatever became of others; should one go later, its file is looked for.
        Purpose::Rows if !is_ours && (intent.is_alone || needs_index || !only_adds && !is_append) => Verdict::Foreign,
        _ => Verdict::Commit,
    })
}
