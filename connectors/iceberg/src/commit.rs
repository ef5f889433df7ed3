//! Brings an intent into its table exactly once, whatever became of earlier attempts.
//!
//! Before each attempt the table is loaded anew and its history searched ([`crate::history`]); so a conflict, a timeout and a crash all end
//! in the same place. Nothing is ever removed here: a file of an attempt whose outcome is not known may be part of the table.

use crate::catalog::{Catalog, CommitError, Loaded, TableName};
use crate::history::{Ancestry, REWRITTEN, Verdict, is_rewritten, judge};
use crate::intent::{COMPACTION, Committed, FIRST_EPOCH, Foreign, Intent, Outcome, Purpose};
use crate::marker;
use crate::scan::{LiveFile, live_files};
use crate::session::Session;
use crate::snapshot::{Change, prepare};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Error, Result};
use iceberg::spec::{FormatVersion, MAIN_BRANCH, Operation, TableMetadata};
use iceberg::{TableRequirement, TableUpdate};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

/// Attempts of one call. A table has one writer of ours; each conflict is somebody else's commit, and a pause comes after it.
pub const ATTEMPTS_MAX: u32 = 24;
/// The longest pause after a conflict: long against one commit, so that those who meet part.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Commits `intent`; the table as it is afterwards, and what became of it. `deletes` puts into a change what its deletes are in the table.
pub(crate) fn commit(
    session: &Session,
    catalog: &dyn Catalog,
    name: &TableName,
    intent: &Intent,
    is_append: bool,
    mut deletes: impl FnMut(&TableMetadata, &Intent, &mut Change) -> Result<()>,
) -> Result<(Loaded, Outcome)> {
    sound(name, intent)?;
    let (mut because, mut in_doubt) = (String::new(), false);
    for attempt in 1..=ATTEMPTS_MAX {
        let now = load(catalog, name)?;
        let is_repeated = in_doubt && is_planted(Bug::UnknownOutcomeRepeated);
        let current = now.metadata.current_snapshot_id();
        let is_there = |snapshot: Option<i64>, epoch| {
            let is_new = in_doubt && snapshot.is_some();
            Outcome::Committed(Committed { snapshot, epoch, is_new, attempts: attempt - 1 })
        };
        let is_foreign = || Outcome::Foreign(Foreign { parent: intent.parent, current });
        let verdict = match judge(name, &now.metadata, intent, is_append)? {
            _ if is_repeated => Verdict::Commit,
            verdict => verdict,
        };
        match verdict {
            Verdict::Committed { snapshot, epoch } => return Ok((now, is_there(snapshot, epoch))),
            Verdict::Foreign => return Ok((now, is_foreign())),
            Verdict::Commit | Verdict::CommitIfHeld => {}
        }
        let Some(left) = what_is_left(session, &now.metadata, intent)? else {
            return Ok((now, is_there(current, intent.marker.epoch)));
        };
        if verdict == Verdict::CommitIfHeld && !is_held(session, &now.metadata, &left)? {
            return Ok((now, is_foreign()));
        }
        let mut change = change(&now.metadata, &left)?;
        deletes(&now.metadata, &left, &mut change)?;
        let (snapshot, mut updates) = prepare(session, &now.metadata, &change)?;
        let mut properties = marker::write(&intent.marker);
        if is_rewritten(name, &now.metadata, &Ancestry::of(&now.metadata), intent.marker.lineage)? {
            properties.insert(REWRITTEN.to_owned(), "true".to_owned());
        }
        updates.push(TableUpdate::SetProperties { updates: properties });
        match catalog.commit(name, &requirements(&now.metadata), updates) {
            Ok(loaded) => {
                let epoch = intent.marker.epoch;
                let done = Committed { snapshot: Some(snapshot), epoch, is_new: true, attempts: attempt };
                return Ok((loaded, Outcome::Committed(done)));
            }
            Err(CommitError::Refused(error)) => return Err(error),
            Err(CommitError::Conflict(text)) => because = text,
            Err(CommitError::Unknown(text)) => {
                let told = "the outcome of a commit is not known; the table is read again";
                tracing::warn!(table = %name, attempt, because = text, "{told}");
                (because, in_doubt) = (text, true);
            }
        }
        session.pause((Duration::from_millis(10) * (1 << attempt.min(10))).min(PAUSE_MAX));
    }
    let what = format!("commit to the table '{name}' after {ATTEMPTS_MAX} attempts: {because}");
    Err(Error::outside(what).retry().hint("find out who else writes to the table, and how often"))
}

/// What is left to commit of an intent: a rewrite may name files of which the last row has died since it was planned, and which went with that
/// row ([`crate::dead_files`]). `None`: the table has its files, though the snapshot that brought them has expired.
fn what_is_left<'a>(session: &Session, table: &TableMetadata, intent: &'a Intent) -> Result<Option<Cow<'a, Intent>>> {
    if !(intent.is_alone && matches!(intent.purpose, Purpose::Compaction { .. })) {
        return Ok(Some(Cow::Borrowed(intent)));
    }
    let live = live_files(session, table, table.current_snapshot().map(AsRef::as_ref))?;
    let live: BTreeSet<&str> = live.iter().map(LiveFile::file_path).collect();
    let is_live = |path: &String| live.contains(path.as_str());
    if intent.data.iter().any(|file| is_live(&file.path)) {
        return Ok(None);
    }
    let mut left = intent.clone();
    left.removed.retain(is_live);
    left.deletes.merged.retain(is_live);
    left.deletes.dead.retain(|data, _| is_live(data) || intent.data.iter().any(|file| file.path == *data));
    Ok(Some(Cow::Owned(left)))
}

/// Whether the table holds all files that `intent` removes, and all data files that its deletes speak of, or the intent brings those.
fn is_held(session: &Session, table: &TableMetadata, intent: &Intent) -> Result<bool> {
    let live = live_files(session, table, table.current_snapshot().map(AsRef::as_ref))?;
    let all: BTreeSet<&str> = live.iter().map(LiveFile::file_path).collect();
    let mut held: BTreeSet<&str> = live.iter().filter(|file| file.is_data()).map(LiveFile::file_path).collect();
    held.extend(intent.data.iter().map(|file| file.path.as_str()));
    let has_dead = intent.deletes.dead.keys().all(|data| held.contains(data.as_str()));
    Ok(has_dead && gone(table, intent).all(|path| all.contains(path.as_str())))
}

/// The files that the table must hold before `intent` and does not hold afterwards.
fn gone<'a>(table: &TableMetadata, intent: &'a Intent) -> impl Iterator<Item = &'a String> {
    // Those of before an upgrade may be part of a vector already, by a commit between the rewrite and now.
    let merged = if table.format_version() < FormatVersion::V3 { &intent.deletes.merged[..] } else { &[] };
    intent.removed.iter().chain(merged)
}

/// The table as it is now.
pub(crate) fn load(catalog: &dyn Catalog, name: &TableName) -> Result<Loaded> {
    catalog.load(name)?.ok_or_else(|| {
        Error::doubt(format!("load the table '{name}': it is gone")).hint("start over, or bring the table back")
    })
}

/// What the table must still be: the same one, at the same snapshot (`None`: without any).
pub(crate) fn requirements(table: &TableMetadata) -> Vec<TableRequirement> {
    vec![
        TableRequirement::UuidMatch { uuid: table.uuid() },
        TableRequirement::RefSnapshotIdMatch {
            r#ref: MAIN_BRANCH.to_owned(),
            snapshot_id: table.current_snapshot_id(),
        },
    ]
}

/// An intent that changes nothing would be found by nothing but its epoch: a table without a change makes no snapshot.
fn sound(name: &TableName, intent: &Intent) -> Result<()> {
    let broken = if intent.data.is_empty() && intent.deletes.is_empty() && intent.removed.is_empty() {
        "it has no files"
    } else if intent.first_epoch > intent.marker.epoch || intent.marker.epoch == 0 {
        "its epochs are none"
    } else {
        return Ok(());
    };
    Err(Error::us(format!("commit an intent to the table '{name}': {broken}")))
}

fn change(table: &TableMetadata, intent: &Intent) -> Result<Change> {
    let mut summary = marker::write(&intent.marker);
    let operation = match intent.purpose {
        Purpose::Compaction { id } => {
            summary.insert(COMPACTION.to_owned(), format!("{id:016x}"));
            Operation::Replace
        }
        Purpose::Rows => {
            summary.insert(FIRST_EPOCH.to_owned(), intent.first_epoch.to_string());
            let only_adds = intent.deletes.is_empty() && intent.removed.is_empty();
            if only_adds { Operation::Append } else { Operation::Overwrite }
        }
    };
    let added: Result<Vec<_>> = intent.data.iter().map(|file| file.entry(table)).collect();
    let removed = gone(table, intent).cloned().collect();
    Ok(Change { added: added?, removed, ..Change::empty(operation, summary) })
}
