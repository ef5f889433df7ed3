//! What a table writer does on one worker: nets changes, has them written, keeps index and intents.

use super::files::{self, FilesLink, Moved, Reply, Request};
use super::index::{IndexEntry, Intent, Intents, index_key, index_prefix};
use super::shown::Shown;
use super::writer::Keyed;
use super::{INTENTS_MAX, Schemas, TableConnection, TableMode};
use crate::control::Control;
use crate::facts::EpochFacts;
use crate::job::{JobScope, Stateful};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{
    Epoch, Error, Result, Row, RowLocation, Shard, TableChanges, TableRewrite, TableSchema, TableWriter,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of net changes after which files are written without waiting for a checkpoint.
const NET_BYTES_MAX: usize = 64 << 20;
/// Keys looked up or changed in the index at a time.
const INDEX_BATCH: usize = 4_096;

/// The operator's logic on one worker.
pub(super) struct Work {
    connection: Arc<TableConnection>,
    schemas: Vec<(String, TableSchema)>,
    /// Of each of them.
    modes: Vec<TableMode>,
    index: Stateful<IndexEntry>,
    intents: Stateful<Intents>,
    /// Epochs whose intents are in `intents`, under these keys: several after a start with fewer workers.
    kept: BTreeMap<Epoch, Vec<Vec<u8>>>,
    /// Those that the restored checkpoint holds: they may or may not be committed.
    pub(super) uncommitted: Vec<Intent>,
    pub(super) files: FilesLink,
    /// Rows of a table up to here are in it already.
    held_through: Vec<Epoch>,
    net: BTreeMap<(u16, Row), isize>,
    net_bytes: usize,
    under_way: Option<UnderWay>,
    /// Written since the last cut: the table, whether it belongs to a rewrite, and what the sink says of it.
    written: Vec<(u16, bool, Vec<u8>)>,
    worker: usize,
    peers: usize,
    shown: Shown,
    /// The epoch that the start restored.
    restored: Epoch,
    /// Rows of it that came again and are not told yet.
    rebuilt: isize,
    control: Arc<Control>,
}

/// What the task is asked for at the moment.
enum UnderWay {
    /// Files with rows and deletes.
    Rows(Writing),
    /// The rows that a rewrite has moved.
    Moved(Moving),
    /// Deletes of those that are dead.
    Dead(Moving),
}

/// A rewrite that takes effect.
struct Moving {
    cut: Epoch,
    rewrite: Arc<TableRewrite>,
    /// Rows of the new files that are there no more.
    dead: Vec<RowLocation>,
}

/// Files being written: what the index is told when they are.
struct Writing {
    /// Per table, the keys of its rows in the order of the files' rows; none of one that only grows.
    added: Vec<(u16, Vec<Vec<u8>>)>,
    /// Where the rows of each changed key are that stay as they were.
    kept: BTreeMap<Vec<u8>, Vec<RowLocation>>,
    cut: Option<Epoch>,
}

impl Work {
    pub(super) fn open(
        job: &JobScope<'_>,
        connection: &Arc<TableConnection>,
        schemas: &Arc<Schemas>,
        modes: Vec<TableMode>,
        worker: usize,
    ) -> Result<Work> {
        let sink = connection.sink.name();
        let (index, mut intents) =
            (job.lasting_state(&format!("{sink}-index"))?, job.lasting_state(&format!("{sink}-intents"))?);
        let plan = job.plan();
        let restored = plan.start.state.epoch;
        let mut kept: BTreeMap<Epoch, Vec<Vec<u8>>> = BTreeMap::new();
        let mut restored_intents = Vec::new();
        let intents_table: &mut Stateful<Intents> = &mut intents;
        intents_table.table.scan(&mut |key, Intents(intents)| {
            intents.first().iter().for_each(|intent| kept.entry(intent.epoch).or_default().push(key.to_vec()));
            restored_intents.extend(intents);
            Ok(())
        })?;
        if is_planted(Bug::IntentsDropped) {
            restored_intents.clear();
        }
        if plan.settings.drop_unknown_state {
            restored_intents.retain(|intent: &Intent| schemas.contains_key(&intent.table));
        }
        if let Some(unknown) = restored_intents.iter().find(|intent| !schemas.contains_key(&intent.table)) {
            let table = &unknown.table;
            let what = format!(
                "starting the job: the checkpoint holds output of table '{table}', which the job does not write"
            );
            return Err(Error::user(what)
                .hint("write it until it is committed, or drop that output with 'runtime.drop_unknown_state = true'"));
        }
        restored_intents
            .iter()
            .for_each(|intent| connection.note_restored(&intent.table, intent.epoch, &intent.content));
        let mut writer = connection.sink.writer(worker, schemas);
        let schemas: Vec<(String, TableSchema)> = schemas.iter().map(|(n, s)| (n.clone(), s.clone())).collect();
        let held_through =
            schemas.iter().map(|(table, _)| connection.restored(table).holds_through(restored)).collect();
        let mut index: Stateful<IndexEntry> = index;
        for ((table, _), mode) in schemas.iter().zip(&modes) {
            if *mode == TableMode::Upsert && connection.restored(table).is_index_behind() {
                let owns = |key: &[u8]| Shard::of(key).worker(plan.workers) == worker;
                rebuild(&mut index, &mut *writer, table, connection, owns)?;
            }
        }
        let files = files::spawn(plan, connection, worker, &schemas, writer);
        let shown = Shown::new(schemas.len(), &plan.control.measures.tables);
        let control = plan.control.clone();
        control.measures.restore.expect_views(index.table.stats().backend.keys_estimate);
        Ok(Work {
            connection: connection.clone(),
            schemas,
            modes,
            index,
            intents,
            kept,
            uncommitted: restored_intents,
            files,
            held_through,
            net: BTreeMap::new(),
            net_bytes: 0,
            under_way: None,
            written: Vec::new(),
            worker,
            peers: plan.workers,
            shown,
            restored,
            rebuilt: 0,
            control,
        })
    }

    /// Whether changes of `epoch` may be netted now: nothing past the checkpoint that is due, and within the bound.
    pub(super) fn takes(&self, epoch: Epoch, next_cut: Option<Epoch>) -> bool {
        next_cut.is_none_or(|cut| epoch <= cut) && self.net_bytes < 2 * NET_BYTES_MAX
    }

    /// The checkpoint epoch whose files are being written.
    pub(super) fn cutting(&self) -> Option<Epoch> {
        match self.under_way.as_ref()? {
            UnderWay::Rows(writing) => writing.cut,
            UnderWay::Moved(moving) | UnderWay::Dead(moving) => Some(moving.cut),
        }
    }

    /// Whether a change is in its table already, or in an intent. It is shown all the same.
    pub(super) fn has(&mut self, change: &Keyed) -> bool {
        if change.2 <= self.restored {
            self.rebuilt += change.3;
        }
        let is_there = change.2 <= self.held_through[usize::from(change.0)] && !is_planted(Bug::TableMarkerIgnored);
        if is_there {
            self.shown.change(change);
        }
        is_there
    }

    /// Tells how many rows of the restored epoch have come since it was last asked.
    pub(super) fn tell_rebuilt(&mut self) {
        if self.rebuilt != 0 {
            self.control.measures.restore.rebuilt(std::mem::take(&mut self.rebuilt) as i64);
        }
    }

    pub(super) fn net(&mut self, changes: Vec<Keyed>) -> Result<()> {
        for change in changes {
            self.shown.change(&change);
            let (table, row, _, diff) = change;
            let (name, schema) = &self.schemas[usize::from(table)];
            schema
                .check(&row)
                .map_err(|error| Error { what: format!("writing table '{name}': {}", error.what), ..error })?;
            let bytes = row.weight();
            match self.net.entry((table, row)) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(diff);
                    self.net_bytes += bytes;
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    *entry.get_mut() += diff;
                    if *entry.get() == 0 {
                        entry.remove();
                        self.net_bytes -= bytes;
                    }
                }
            }
        }
        Ok(())
    }

    /// Has files written, for the checkpoint that is due or because there is much. Whether it did.
    pub(super) fn write(&mut self, due: Option<Epoch>) -> Result<bool> {
        if due.is_none() && self.net_bytes < NET_BYTES_MAX || self.under_way.is_some() {
            return Ok(false);
        }
        // Those below: the oldest is never held back, on whatever worker.
        let before = |due| self.connection.uncommitted().iter().filter(|epoch| **epoch < due).count();
        if due.is_some_and(|due| before(due) >= INTENTS_MAX) {
            return Ok(false); // a commit wakes us
        }
        if let Some(epoch) = due {
            // Nothing of a later epoch is netted yet; while the files are written some will be.
            let names = self.schemas.iter().map(|(name, _)| name);
            self.shown.cut(&self.control.measures.tables, names, self.worker, epoch);
        }
        let net = std::mem::take(&mut self.net);
        self.net_bytes = 0;
        let mut request: Vec<(u16, TableChanges)> = Vec::new();
        let mut writing = Writing { added: Vec::new(), kept: BTreeMap::new(), cut: due };
        let mut net = net.into_iter().peekable();
        while let Some(((table, _), _)) = net.peek() {
            let table = *table;
            let mut of_table = Vec::new();
            while let Some(((_, row), diff)) = net.next_if(|((rank, _), _)| *rank == table) {
                of_table.push((row, diff));
            }
            let (changes, added) = match self.modes[usize::from(table)] {
                TableMode::Upsert => self.changes(table, of_table, &mut writing.kept)?,
                TableMode::Append => (self.appended(table, of_table)?, Vec::new()),
            };
            request.push((table, changes));
            writing.added.push((table, added));
        }
        self.ask(UnderWay::Rows(writing), Request::Write(request));
        Ok(true)
    }

    /// The rows that a table which only grows gets, in their order. The index does not know them.
    fn appended(&self, table: u16, net: Vec<(Row, isize)>) -> Result<TableChanges> {
        let mut added = Vec::new();
        for (row, diff) in net {
            let Ok(times) = usize::try_from(diff) else {
                let name = &self.schemas[usize::from(table)].0;
                return Err(Error::user(format!("append to table '{name}': the row {row:?} goes"))
                    .hint("the view takes rows back; write it with 'write_table'"));
            };
            added.extend(std::iter::repeat_n(row, times));
        }
        Ok(TableChanges { deleted: Vec::new(), added })
    }

    /// What the net changes of a table, in the order of their rows, are to its files; with the index keys of the added rows.
    fn changes(
        &mut self,
        table: u16,
        net: Vec<(Row, isize)>,
        kept: &mut BTreeMap<Vec<u8>, Vec<RowLocation>>,
    ) -> Result<(TableChanges, Vec<Vec<u8>>)> {
        let (name, schema) = &self.schemas[usize::from(table)];
        let doubt = |what: &str, row: &Row| {
            Error::doubt(format!("writing table '{name}': the row of key {:?} {what}", schema.key_of(row)))
                .hint("the view has two rows of one key, or was changed; give it another key, or write a new table")
        };
        let mut by_key: BTreeMap<Vec<u8>, Vec<(Row, isize)>> = BTreeMap::new();
        for (row, diff) in net {
            by_key.entry(index_key(name, &schema.key_of(&row))).or_default().push((row, diff));
        }
        let (mut deleted, mut added) = (Vec::new(), Vec::new());
        let mut by_key = by_key.into_iter().peekable();
        while by_key.peek().is_some() {
            let batch: Vec<_> = by_key.by_ref().take(INDEX_BATCH).collect();
            let keys: Vec<&[u8]> = batch.iter().map(|(key, _)| key.as_slice()).collect();
            let slots = self.index.table.load(&keys)?;
            for (slot, (key, changes)) in slots.into_iter().zip(batch) {
                let mut places = self.index.table.get(slot).0.clone();
                let (gone, come): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, diff)| *diff < 0);
                for (row, diff) in gone {
                    let left = places.len().checked_sub(diff.unsigned_abs());
                    let left = left.ok_or_else(|| doubt("goes, and the index does not know it", &row))?;
                    deleted.extend(places.drain(left..));
                }
                let coming: usize = come.iter().map(|(_, diff)| diff.unsigned_abs()).sum();
                if let Some((row, _)) = come.last().filter(|_| !schema.key.is_empty() && places.len() + coming > 1) {
                    return Err(doubt("comes, and there is one already", row));
                }
                for (row, diff) in come {
                    added.extend(std::iter::repeat_n((row, key.clone()), diff.unsigned_abs()));
                }
                kept.insert(key, places);
            }
            self.index.table.end_epoch(None)?;
        }
        deleted.sort_unstable();
        // In the order of the table's columns, so that files are clustered by what usually comes first: the key.
        added.sort_unstable();
        let (added, keys) = added.into_iter().unzip();
        Ok((TableChanges { deleted, added }, keys))
    }

    fn ask(&mut self, under_way: UnderWay, request: Request) {
        self.under_way = Some(under_way);
        assert!(self.files.send(request).is_ok(), "one request is under way at a time");
    }

    /// Takes in what the task has done: none, or that all that was asked for is done, with the checkpoint epoch that it was for, if any.
    pub(super) fn files_written(&mut self) -> Result<Option<Option<Epoch>>> {
        let Some(reply) = self.files.replies().pop() else { return Ok(None) };
        match (self.under_way.take().expect("a reply answers a request"), reply?) {
            (UnderWay::Rows(Writing { added, mut kept, cut }), Reply::Written(files)) => {
                for (files, (table, keys)) in files.into_iter().zip(added) {
                    self.written.push((table, false, files.intent));
                    for (key, place) in keys.into_iter().zip(files.added) {
                        kept.entry(key).or_default().push(place);
                    }
                }
                place(&mut self.index, kept)?;
                let rewrite = cut.and_then(|cut| Some((cut, self.connection.rewrite_at(cut, self.peers)?)));
                let Some((cut, rewrite)) = rewrite else { return Ok(Some(cut)) };
                let table = self.rank(&rewrite.table);
                if self.modes[usize::from(table)] == TableMode::Append {
                    // No index names its rows, and none of them ever goes.
                    self.note_rewrite(table, &rewrite);
                    return Ok(Some(Some(cut)));
                }
                let moving = Moving { cut, rewrite: rewrite.clone(), dead: Vec::new() };
                self.ask(UnderWay::Moved(moving), Request::ReadMoved(rewrite));
                Ok(None)
            }
            (UnderWay::Moved(mut moving), Reply::Moved { rows, is_last }) => {
                self.follow(rows, &mut moving.dead)?;
                if !is_last {
                    let request = Request::ReadMoved(moving.rewrite.clone());
                    self.ask(UnderWay::Moved(moving), request);
                    return Ok(None);
                }
                let table = self.rank(&moving.rewrite.table);
                self.note_rewrite(table, &moving.rewrite);
                if moving.dead.is_empty() {
                    return Ok(Some(Some(moving.cut)));
                }
                let mut deleted = std::mem::take(&mut moving.dead);
                deleted.sort_unstable();
                let request = Request::Write(vec![(table, TableChanges { deleted, added: Vec::new() })]);
                self.ask(UnderWay::Dead(moving), request);
                Ok(None)
            }
            (UnderWay::Dead(moving), Reply::Written(files)) => {
                let table = self.rank(&moving.rewrite.table);
                self.written.extend(files.into_iter().map(|files| (table, true, files.intent)));
                Ok(Some(Some(moving.cut)))
            }
            _ => Err(Error::us("writing tables: the task answers what it was not asked")),
        }
    }

    /// The files of a rewrite are one intent, whoever follows its rows.
    fn note_rewrite(&mut self, table: u16, rewrite: &TableRewrite) {
        if self.worker == 0 {
            self.written.push((table, true, rewrite.intent.clone()));
        }
    }

    fn rank(&self, table: &str) -> u16 {
        let rank = self.schemas.iter().position(|(name, _)| name == table);
        rank.expect("only tables of the job are rewritten") as u16
    }

    /// Has the index name the new places of rows; those that it knows elsewhere, or not at all, are dead.
    fn follow(&mut self, rows: Vec<Moved>, dead: &mut Vec<RowLocation>) -> Result<()> {
        let keys: Vec<&[u8]> = rows.iter().map(|row| row.key.as_slice()).collect();
        let slots = self.index.table.load(&keys)?;
        for (slot, Moved { from, to, .. }) in slots.into_iter().zip(&rows) {
            match self.index.table.get(slot).0.iter().position(|place| place == from) {
                Some(at) => self.index.table.get_mut(slot).0[at] = to.clone(),
                None => dead.push(to.clone()),
            }
        }
        self.index.table.end_epoch(None)
    }

    /// Cuts the state as of a checkpoint epoch, whose files are written; its intents.
    pub(super) fn cut(&mut self, facts: &EpochFacts) -> Result<Vec<Intent>> {
        let (epoch, clock) = (facts.epoch, facts.clock);
        let written = std::mem::take(&mut self.written);
        let name = |table: u16| self.schemas[usize::from(table)].0.clone();
        let intent = |(table, is_rewrite, content)| Intent { table: name(table), epoch, clock, is_rewrite, content };
        let new: Vec<Intent> = written.into_iter().map(intent).collect();
        let open = self.connection.uncommitted();
        let is_done = |epoch: &Epoch| !open.contains(epoch);
        let done: Vec<Epoch> = self.kept.keys().copied().filter(is_done).collect();
        let keys = done.iter().filter_map(|epoch| self.kept.remove(epoch)).flatten();
        let mut changes: Vec<(Vec<u8>, Vec<Intent>)> = keys.map(|key| (key, Vec::new())).collect();
        if !new.is_empty() {
            new.iter().for_each(|intent| self.connection.note_output(&intent.table, epoch));
            let shard = Shard::owned_by(self.worker, self.peers).next().expect("every worker owns a shard");
            let key = shard.key_with(&epoch.to_be_bytes());
            self.kept.insert(epoch, vec![key.clone()]);
            changes.push((key, new.clone()));
        }
        let keys: Vec<&[u8]> = changes.iter().map(|(key, _)| key.as_slice()).collect();
        let slots = self.intents.table.load(&keys)?;
        for (slot, (_, intents)) in slots.into_iter().zip(changes) {
            self.intents.table.get_mut(slot).0 = intents;
        }
        self.intents.table.end_epoch(None)?;
        self.intents.cut(epoch, None)?;
        self.index.cut(epoch, None)?;
        Ok(new)
    }
}

/// Says where the rows of keys are from now on.
fn place(index: &mut Stateful<IndexEntry>, places: BTreeMap<Vec<u8>, Vec<RowLocation>>) -> Result<()> {
    let mut places = places.into_iter().peekable();
    while places.peek().is_some() {
        let batch: Vec<_> = places.by_ref().take(INDEX_BATCH).collect();
        let keys: Vec<&[u8]> = batch.iter().map(|(key, _)| key.as_slice()).collect();
        let slots = index.table.load(&keys)?;
        for (slot, (_, places)) in slots.into_iter().zip(batch) {
            index.table.get_mut(slot).0 = places;
        }
        index.table.end_epoch(None)?;
    }
    Ok(())
}

/// Reads the keys of a table that is ahead of the restored index, and makes the index anew from them.
fn rebuild(
    index: &mut Stateful<IndexEntry>,
    writer: &mut dyn TableWriter,
    table: &str,
    connection: &TableConnection,
    owns: impl Fn(&[u8]) -> bool,
) -> Result<()> {
    tracing::warn!(table, "the table is ahead of the restored checkpoint: its keys are read anew");
    let prefix = index_prefix(table);
    let mut stale = BTreeMap::new();
    index.table.scan(&mut |key, _| {
        stale.extend(key.starts_with(&prefix).then(|| (key.to_vec(), Vec::new())));
        Ok(())
    })?;
    place(index, stale)?;
    let mut batch: Vec<(Vec<u8>, RowLocation)> = Vec::new();
    let found = writer.scan(table, &mut |key, location| {
        let key = index_key(table, &key);
        if owns(&key) {
            batch.push((key, location));
        }
        if batch.len() >= INDEX_BATCH { add(index, std::mem::take(&mut batch)) } else { Ok(()) }
    })?;
    add(index, batch)?;
    let expected = connection.restored(table).marker;
    if found.map(|marker| (marker.epoch, marker.chain)) != expected.map(|marker| (marker.epoch, marker.chain)) {
        let what = format!("reading the keys of table '{table}': its marker changed from {expected:?} to {found:?}");
        return Err(Error::doubt(what).hint("another process writes to it: stop that one and start again"));
    }
    Ok(())
}

/// Adds places to those that the index has.
fn add(index: &mut Stateful<IndexEntry>, places: Vec<(Vec<u8>, RowLocation)>) -> Result<()> {
    let keys: Vec<&[u8]> = places.iter().map(|(key, _)| key.as_slice()).collect();
    let slots = index.table.load(&keys)?;
    for (slot, (_, location)) in slots.into_iter().zip(&places) {
        index.table.get_mut(slot).0.push(location.clone());
    }
    index.table.end_epoch(None)
}
