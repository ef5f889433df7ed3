//! What a table writer does on one worker: nets changes, has them written, keeps index and intents.

use super::changes::{self, Changed, KeyChanges, visit};
use super::files::{self, FilesLink, Moved, Reply, Request};
use super::index::{IndexEntry, Intent, Intents, index_key};
use super::reread::{Mending, Reading, may_be_mended};
use super::rewrites::Round;
use super::shown::Shown;
use super::writer::Keyed;
use super::{INTENTS_MAX, Schemas, TableConnection, TableMode};
use crate::control::Control;
use crate::facts::EpochFacts;
use crate::job::{JobScope, Stateful};
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Epoch, Error, Result, Row, RowLocation, Shard, TableRewrite, TableSchema};
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::sync::Arc;

/// Bytes of net changes after which files are written without waiting for a checkpoint.
const NET_BYTES_MAX: usize = 64 << 20;

/// By what changes are netted: the rank of their table, their key in its index (empty without one), and their row.
type NetKey = (u16, Vec<u8>, Row);

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
    net: BTreeMap<NetKey, isize>,
    net_bytes: usize,
    under_way: Option<UnderWay>,
    /// Changes looked up, or rows placed, in one step; the task hands over as many moved rows.
    step_rows: usize,
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

/// What is done at the moment, step by step, or asked of the task.
enum UnderWay {
    /// Net changes are looked up.
    LookingUp(LookingUp),
    /// Files with rows and deletes are written, for a checkpoint epoch or because there is much.
    Rows(Option<Epoch>),
    /// The rows of these files are placed in the index.
    Placing(std::vec::IntoIter<(Vec<u8>, RowLocation)>, Option<Epoch>),
    /// The rows that a rewrite has moved.
    Moved(Moving),
    /// Deletes of those that are dead.
    Dead(Moving),
}

/// What a step has come to.
pub(super) enum Step {
    /// The task is at work, or nothing is under way.
    Idle,
    /// There is another step to make.
    More,
    /// All that was asked for is done, for this checkpoint epoch if it was for one.
    Done(Option<Epoch>),
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

/// Net changes on their way to files.
struct LookingUp {
    /// Those that are not looked up yet.
    net: Peekable<btree_map::IntoIter<NetKey, isize>>,
    /// What is found, by rank of the table.
    changed: Vec<(u16, Changed)>,
    /// Tables that are mended by this.
    mended: Vec<(u16, Mending)>,
    cut: Option<Epoch>,
}

impl LookingUp {
    /// The next changes of one table by their keys, all of each key and some `max` together, added to what is found of it.
    fn next(&mut self, max: usize) -> Option<(u16, Vec<KeyChanges>, &mut Changed)> {
        let ((table, _, _), _) = self.net.peek()?;
        let (table, mut changes, mut taken) = (*table, Vec::<KeyChanges>::new(), 0);
        loop {
            let last = changes.last().map(|(key, _)| key);
            let is_of_last = |key: &Vec<u8>| !key.is_empty() && last == Some(key);
            let belongs = |rank: u16, key: &Vec<u8>| rank == table && (taken < max || is_of_last(key));
            let Some(((_, key, row), diff)) = self.net.next_if(|((rank, key, _), _)| belongs(*rank, key)) else {
                break;
            };
            taken += 1;
            match changes.last_mut().filter(|(last, _)| *last == key) {
                Some((_, of_key)) => of_key.push((row, diff)),
                None => changes.push((key, vec![(row, diff)])),
            }
        }
        if self.changed.last().is_none_or(|(last, _)| *last != table) {
            self.changed.push((table, Changed::default()));
        }
        let (_, into) = self.changed.last_mut().expect("pushed just now");
        Some((table, changes, into))
    }
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
        let (mut mending, mut net) = (BTreeMap::new(), BTreeMap::<NetKey, isize>::new());
        for (rank, ((table, schema), mode)) in schemas.iter().zip(&modes).enumerate() {
            let found = connection.restored(table);
            let owns = |key: &[u8]| Shard::of(key).worker(plan.workers) == worker;
            let tells = worker == 0;
            let reading = Reading { index: &mut index, writer: &mut *writer, connection, owns: &owns, tells };
            let rank = rank as u16;
            if mode.has_index() {
                connection.note_index(table);
            }
            if found.is_changed_by_others && mode.has_index() {
                may_be_mended(connection, table, *mode)?;
                let goes = |key: Vec<u8>, row| *net.entry((rank, key, row)).or_insert(0) -= 1;
                mending.insert(rank, reading.rows(table, schema, goes)?);
                held_through[usize::from(rank)] = 0;
                connection.begin_mending(table);
            } else if found.is_index_behind() && mode.has_index() && !is_planted(Bug::IndexNotRebuilt) {
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
            step_rows: plan.settings.table_step_rows,
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

    /// The checkpoint epoch for which something is under way.
    pub(super) fn cutting(&self) -> Option<Epoch> {
        match self.under_way.as_ref()? {
            UnderWay::LookingUp(looking_up) => looking_up.cut,
            UnderWay::Rows(cut) | UnderWay::Placing(_, cut) => *cut,
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
            let has_index = self.modes[usize::from(table)].has_index();
            let key = if has_index { index_key(name, &schema.key_of(&row)) } else { Vec::new() };
            // A table that is mended is written at a checkpoint, however much it is.
            let bytes = if self.mending.contains_key(&table) { 0 } else { row.weight() + key.len() };
            match self.net.entry((table, key, row)) {
                btree_map::Entry::Vacant(entry) => {
                    entry.insert(diff);
                    self.net_bytes += bytes;
                }
                btree_map::Entry::Occupied(mut entry) => {
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

    /// Begins to write files, for the checkpoint that is due or because there is much. Whether it did.
    pub(super) fn write(&mut self, due: Option<Epoch>) -> bool {
        if due.is_none() && self.net_bytes < NET_BYTES_MAX || self.under_way.is_some() {
            return false;
        }
        // Those below: the oldest is never held back, on whatever worker.
        let before = |due| self.connection.uncommitted().iter().filter(|epoch| **epoch < due).count();
        if due.is_some_and(|due| before(due) >= INTENTS_MAX) {
            return false; // a commit wakes us
        }
        if let Some(epoch) = due {
            // Nothing of a later epoch is netted yet; while the files are written some will be.
            let names = self.schemas.iter().map(|(name, _)| name);
            self.shown.cut(&self.control.measures.tables, names, self.worker, epoch);
        }
        let mut net = std::mem::take(&mut self.net);
        self.net_bytes = 0;
        // From here on a change of theirs is netted, and counted, as any other.
        let mended = self.mending.extract_if(.., |_, mending| mending.is_due(due)).collect();
        if !self.mending.is_empty() {
            (self.net, net) = net.into_iter().partition(|((table, _, _), _)| self.mending.contains_key(table));
        }
        let net = net.into_iter().peekable();
        self.under_way = Some(UnderWay::LookingUp(LookingUp { net, changed: Vec::new(), mended, cut: due }));
        true
    }

    /// Looks some of the net changes up. Files are written when none is left.
    fn look_up(&mut self, mut looking_up: LookingUp) -> Result<Step> {
        let Some((table, changes, into)) = looking_up.next(self.step_rows) else {
            let LookingUp { mut changed, mended, cut, .. } = looking_up;
            self.end_mending(mended, &mut changed);
            self.ask(UnderWay::Rows(cut), Request::Write(changed));
            return Ok(Step::Idle);
        };
        let schema = &self.schemas[usize::from(table)];
        match self.modes[usize::from(table)] {
            TableMode::Upsert | TableMode::History => changes::look_up(&mut self.index, schema, changes, into)?,
            TableMode::Append => changes::append(&schema.0, changes, into)?,
        }
        self.under_way = Some(UnderWay::LookingUp(looking_up));
        Ok(Step::More)
    }

    /// Has the rows deleted that stand beside another one of their key, in tables that are mended by what is written now.
    fn end_mending(&self, mended: Vec<(u16, Mending)>, changed: &mut Vec<(u16, Changed)>) {
        for (table, mending) in mended {
            self.connection.end_mending();
            if mending.surplus.is_empty() {
                continue;
            }
            let at = changed.iter().position(|(of, _)| *of == table).unwrap_or_else(|| {
                changed.push((table, Changed::default()));
                changed.len() - 1
            });
            changed[at].1.deleted.extend(mending.surplus);
        }
    }

    fn ask(&mut self, under_way: UnderWay, request: Request) {
        self.under_way = Some(under_way);
        assert!(self.files.send(request).is_ok(), "one request is under way at a time");
    }

    /// Goes on with what is under way: makes one step of its own, or takes in what the task has done.
    pub(super) fn step(&mut self) -> Result<Step> {
        match self.under_way.take() {
            None => Ok(Step::Idle),
            Some(UnderWay::LookingUp(looking_up)) => self.look_up(looking_up),
            Some(UnderWay::Placing(rows, cut)) => self.place(rows, cut),
            Some(asked) => match self.files.replies().pop() {
                Some(reply) => self.answered(asked, reply?),
                None => {
                    self.under_way = Some(asked);
                    Ok(Step::Idle)
                }
            },
        }
    }

    fn answered(&mut self, asked: UnderWay, reply: Reply) -> Result<Step> {
        match (asked, reply) {
            (UnderWay::Rows(cut), Reply::Written { intents, placed }) => {
                self.written.extend(intents.into_iter().map(|(table, intent)| (table, false, intent)));
                self.place(placed.into_iter(), cut)
            }
            (UnderWay::Moved(mut moving), Reply::Moved { rows, is_last }) => {
                self.follow(rows, &mut moving.dead)?;
                if !is_last {
                    self.ask_moved(moving);
                    return Ok(Step::Idle);
                }
                if moving.dead.is_empty() {
                    return Ok(self.end_rewrite(moving, Vec::new()));
                }
                let dead = Changed { deleted: std::mem::take(&mut moving.dead), added: Vec::new() };
                let table = moving.rewrite().map(|rewrite| self.rank(&rewrite.table)).expect("one has its turn");
                self.ask(UnderWay::Dead(moving), Request::Write(vec![(table, dead)]));
                Ok(Step::Idle)
            }
            (UnderWay::Dead(moving), Reply::Written { intents, .. }) => {
                Ok(self.end_rewrite(moving, intents.into_iter().map(|(_, intent)| intent).collect()))
            }
            _ => Err(Error::us("writing tables: the task answers what it was not asked")),
        }
    }

    /// Places some of the rows that are written. When none is left, the rewrites of the checkpoint take effect, if there are any.
    fn place(&mut self, mut rows: std::vec::IntoIter<(Vec<u8>, RowLocation)>, cut: Option<Epoch>) -> Result<Step> {
        changes::place(&mut self.index, rows.by_ref().take(self.step_rows).collect())?;
        if rows.len() > 0 {
            self.under_way = Some(UnderWay::Placing(rows, cut));
            return Ok(Step::More);
        }
        let round = cut.and_then(|cut| Some((cut, self.connection.rewrites_at(cut, self.peers)?)));
        let Some((cut, round)) = round else { return Ok(Step::Done(cut)) };
        Ok(self.take_effect(Moving { cut, round, number: 0, dead: Vec::new() }))
    }

    /// The rewrite whose turn it is: asks for its rows, if an index names them. When none is left, all is done for the cut.
    fn take_effect(&mut self, moving: Moving) -> Step {
        let Some(rewrite) = moving.rewrite() else { return Step::Done(Some(moving.cut)) };
        // No index names rows of a table that only grows, and none of them ever goes.
        let mode = self.modes[usize::from(self.rank(&rewrite.table))];
        if mode == TableMode::Append || rewrite.moved.is_empty() {
            return self.end_rewrite(moving, Vec::new());
        }
        self.ask_moved(moving);
        Step::Idle
    }

    fn ask_moved(&mut self, moving: Moving) {
        let request = Request::ReadMoved(moving.round.clone(), moving.number);
        self.ask(UnderWay::Moved(moving), request);
    }

    /// Notes the rewrite whose turn it was, with the deletes of its dead rows; the next one follows. Its files are one intent, whoever follows
    /// its rows.
    fn end_rewrite(&mut self, mut moving: Moving, deletes: Vec<Vec<u8>>) -> Step {
        let rewrite = moving.rewrite().expect("one has its turn");
        let table = self.rank(&rewrite.table);
        let own = (self.worker == 0).then(|| rewrite.intent.clone());
        let intents = own.into_iter().chain(deletes);
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
        let open = self.kept.split_off(&(self.connection.committed_at(epoch, self.peers) + 1));
        let committed = std::mem::replace(&mut self.kept, open).into_values().flatten();
        let mut changes: Vec<(Vec<u8>, Vec<Intent>)> = committed.map(|key| (key, Vec::new())).collect();
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
