//! What a table writer does on one worker: nets changes, has them written, keeps index and intents.

use super::changes::{self, place, visit};
use super::files::{self, FilesLink, Moved, Reply, Request};
use super::index::{IndexEntry, Intent, Intents};
use super::reread::{Mending, Reading, may_be_mended};
use super::rewrites::Round;
use super::shown::Shown;
use super::writer::Keyed;
use super::{INTENTS_MAX, Schemas, TableConnection, TableMode};
use crate::control::Control;
use crate::facts::EpochFacts;
use crate::job::{JobScope, Stateful};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{
    Epoch, Error, Result, Row, RowLocation, Shard, TableChanges, TableFiles, TableRewrite, TableSchema,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of net changes after which files are written without waiting for a checkpoint.
const NET_BYTES_MAX: usize = 64 << 20;

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
    /// Tables that others have changed, until they are written.
    mending: BTreeMap<u16, Mending>,
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

/// A round of rewrites that takes effect, one after the other.
struct Moving {
    cut: Epoch,
    round: Round,
    /// Which of them has its turn.
    number: usize,
    /// Rows of its new files that are there no more.
    dead: Vec<RowLocation>,
}

impl Moving {
    fn rewrite(&self) -> Option<&TableRewrite> {
        self.round.get(self.number)
    }
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
        let mut writer = connection.sink.writer(worker, schemas);
        let schemas: Vec<(String, TableSchema)> = schemas.iter().map(|(n, s)| (n.clone(), s.clone())).collect();
        let mut held_through: Vec<Epoch> =
            schemas.iter().map(|(table, _)| connection.restored(table).holds_through(restored)).collect();
        let mut index: Stateful<IndexEntry> = index;
        let (mut mending, mut net) = (BTreeMap::new(), BTreeMap::new());
        for (rank, ((table, schema), mode)) in schemas.iter().zip(&modes).enumerate() {
            let found = connection.restored(table);
            let owns = |key: &[u8]| Shard::of(key).worker(plan.workers) == worker;
            let reading = Reading { index: &mut index, writer: &mut *writer, connection, owns: &owns };
            let rank = rank as u16;
            if mode.has_index() {
                connection.note_index(table);
            }
            if found.is_changed_by_others && mode.has_index() {
                may_be_mended(connection, table, *mode)?;
                let goes = |row| *net.entry((rank, row)).or_insert(0) -= 1;
                mending.insert(rank, reading.rows(table, schema, goes)?);
                held_through[usize::from(rank)] = 0;
                connection.begin_mending(table);
            } else if found.is_index_behind() && mode.has_index() {
                reading.keys(table)?;
            }
        }
        // What the view has at the restored epoch is compared with what is there now, and nobody follows rows that others may have rewritten.
        restored_intents.retain(|intent| {
            let rank = schemas.iter().position(|(table, _)| *table == intent.table).map(|rank| rank as u16);
            let is_mended = rank.is_some_and(|rank| mending.contains_key(&rank));
            !(is_mended || intent.is_rewrite && connection.restored(&intent.table).is_changed_by_others)
        });
        restored_intents
            .iter()
            .for_each(|intent| connection.note_restored(&intent.table, intent.epoch, &intent.content));
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
            mending,
            net,
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
            // A table that is mended is written at a checkpoint, however much it is.
            let bytes = if self.mending.contains_key(&table) { 0 } else { row.weight() };
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
            if self.mending.get(&table).is_some_and(|mending| !mending.is_due(due)) {
                self.net.extend(of_table.into_iter().map(|(row, diff)| ((table, row), diff)));
                continue;
            }
            let (changes, added) = match self.modes[usize::from(table)] {
                TableMode::Upsert | TableMode::History => {
                    changes::upserted(&mut self.index, &self.schemas[usize::from(table)], of_table, &mut writing.kept)?
                }
                TableMode::Append => (changes::appended(&self.schemas[usize::from(table)].0, of_table)?, Vec::new()),
            };
            request.push((table, changes));
            writing.added.push((table, added));
        }
        self.end_mending(due, &mut request, &mut writing);
        self.ask(UnderWay::Rows(writing), Request::Write(request));
        Ok(true)
    }

    /// Has the rows deleted that stand beside another one of their key, in tables that are mended by what is written now.
    fn end_mending(&mut self, due: Option<Epoch>, request: &mut Vec<(u16, TableChanges)>, writing: &mut Writing) {
        for (table, mending) in self.mending.extract_if(.., |_, mending| mending.is_due(due)) {
            self.connection.end_mending();
            if mending.surplus.is_empty() {
                continue;
            }
            let at = request.iter().position(|(of, _)| *of == table).unwrap_or_else(|| {
                request.push((table, TableChanges::default()));
                writing.added.push((table, Vec::new()));
                request.len() - 1
            });
            let deleted = &mut request[at].1.deleted;
            deleted.extend(mending.surplus);
            deleted.sort_unstable();
        }
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
                let round = cut.and_then(|cut| Some((cut, self.connection.rewrites_at(cut, self.peers)?)));
                let Some((cut, round)) = round else { return Ok(Some(cut)) };
                Ok(self.take_effect(Moving { cut, round, number: 0, dead: Vec::new() }))
            }
            (UnderWay::Moved(mut moving), Reply::Moved { rows, is_last }) => {
                self.follow(rows, &mut moving.dead)?;
                if !is_last {
                    self.ask_moved(moving);
                    return Ok(None);
                }
                if moving.dead.is_empty() {
                    return Ok(self.end_rewrite(moving, Vec::new()));
                }
                let mut deleted = std::mem::take(&mut moving.dead);
                deleted.sort_unstable();
                let table = moving.rewrite().map(|rewrite| self.rank(&rewrite.table)).expect("one has its turn");
                let request = Request::Write(vec![(table, TableChanges { deleted, added: Vec::new() })]);
                self.ask(UnderWay::Dead(moving), request);
                Ok(None)
            }
            (UnderWay::Dead(moving), Reply::Written(files)) => Ok(self.end_rewrite(moving, files)),
            _ => Err(Error::us("writing tables: the task answers what it was not asked")),
        }
    }

    /// The rewrite whose turn it is: asks for its rows, if an index names them. When none is left, all is done for the cut.
    fn take_effect(&mut self, moving: Moving) -> Option<Option<Epoch>> {
        let Some(rewrite) = moving.rewrite() else { return Some(Some(moving.cut)) };
        // No index names rows of a table that only grows, and none of them ever goes.
        let mode = self.modes[usize::from(self.rank(&rewrite.table))];
        if mode == TableMode::Append || rewrite.moved.is_empty() {
            return self.end_rewrite(moving, Vec::new());
        }
        self.ask_moved(moving);
        None
    }

    fn ask_moved(&mut self, moving: Moving) {
        let request = Request::ReadMoved(moving.round.clone(), moving.number);
        self.ask(UnderWay::Moved(moving), request);
    }

    /// Notes the rewrite whose turn it was, with the deletes of its dead rows; the next one follows. Its files are one intent, whoever follows
    /// its rows.
    fn end_rewrite(&mut self, mut moving: Moving, deletes: Vec<TableFiles>) -> Option<Option<Epoch>> {
        let rewrite = moving.rewrite().expect("one has its turn");
        let table = self.rank(&rewrite.table);
        let own = (self.worker == 0).then(|| rewrite.intent.clone());
        let intents = own.into_iter().chain(deletes.into_iter().map(|files| files.intent));
        self.written.extend(intents.map(|intent| (table, true, intent)));
        moving.number += 1;
        self.take_effect(moving)
    }

    fn rank(&self, table: &str) -> u16 {
        let rank = self.schemas.iter().position(|(name, _)| name == table);
        rank.expect("only tables of the job are rewritten") as u16
    }

    /// Has the index name the new places of rows; those that it knows elsewhere, or not at all, are dead.
    fn follow(&mut self, rows: Vec<Moved>, dead: &mut Vec<RowLocation>) -> Result<()> {
        let rows = rows.into_iter().map(|Moved { key, from, to }| (key, (from, to)));
        visit(&mut self.index, rows, |table, slot, _, (from, to)| {
            match table.get(slot).0.iter().position(|place| *place == from) {
                Some(at) => table.get_mut(slot).0[at] = to,
                None => dead.push(to),
            }
            Ok(())
        })
    }

    /// Cuts the state as of a checkpoint epoch, whose files are written; its intents.
    pub(super) fn cut(&mut self, facts: &EpochFacts) -> Result<Vec<Intent>> {
        let (epoch, clock) = (facts.epoch, facts.clock);
        let written = std::mem::take(&mut self.written);
        let name = |table: u16| self.schemas[usize::from(table)].0.clone();
        let intent = |(table, is_rewrite, content)| Intent { table: name(table), epoch, clock, is_rewrite, content };
        let new: Vec<Intent> = written.into_iter().map(intent).collect();
        let open = self.connection.uncommitted_at(epoch, self.peers);
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
