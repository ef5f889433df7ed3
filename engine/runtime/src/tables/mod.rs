//! Sinks of tables: one snapshot of each changed table at each checkpoint epoch, under an intent that the checkpoint holds (DESIGN section 6).
//!
//! ```text
//!  views ─(row, ±1)─► writer, on every worker by key ── files, index and intents, cut at c ──► checkpoint of c
//!                        └── intents of c ─► committer (worker 0) ◄── the manifest of c is durable ──┘
//!                                              └─► one snapshot a table, with the marker of c
//! ```
//!
//! A restart from c commits what intents of c and before are not committed; the rows of later epochs come again. What a
//! table holds already, by its marker, is dropped. Nothing of a table's output waits for the checkpoint's sinks: what is not
//! visible at c is in the checkpoint.

mod agreed;
mod changes;
mod committer;
mod files;
mod index;
mod reread;
mod rewrites;
mod shown;
mod work;
mod writer;

pub(crate) use committer::committer;
pub(crate) use index::Intent;
pub use writer::Changes;
pub(crate) use writer::{WriterStreams, writer};

use crate::outputs::Outputs;
use agreed::Agreed;
use dataflow_core::{
    ChainHash, Epoch, Error, FoundTable, Marker, Result, SinkIdentity, TableRewrite, TableSchema, TableSink, Waker,
};
use dataflow_state::checkpoint::SinkPosition;
use rewrites::{Rewrites, Round};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// Checkpoints whose intents are not committed yet; beyond it no further one is written, which is backpressure. The binding log still holds
/// the rows of all of them: it is kept from the oldest checkpoint on.
pub(crate) const INTENTS_MAX: usize = 2;

/// What a table is kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableMode {
    /// The rows that are there now: where each lies is state, so that it can be taken away.
    Upsert,
    /// As [`TableMode::Upsert`], but not all rows come again on a start: what the table has of them is all there is.
    History,
    /// All rows that ever came: none goes, so nothing is kept of them.
    Append,
}

impl TableMode {
    fn has_index(self) -> bool {
        self != TableMode::Append
    }
}

/// A sink of tables, shared by all workers.
pub(crate) struct TableConnection {
    pub(crate) sink: Arc<dyn TableSink>,
    pub(crate) identity: SinkIdentity,
    tables: BTreeMap<String, Restored>,
    progress: Mutex<Progress>,
}

/// What was found of a table on the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Restored {
    /// The marker in the table.
    pub(crate) marker: Option<Marker>,
    /// What the restored checkpoint says of it.
    pub(crate) position: Option<SinkPosition>,
    /// Whether others have changed it since this job's last commit.
    pub(crate) is_changed_by_others: bool,
}

impl Restored {
    /// Whether the table holds rows that the restored index knows nothing of: it is then read again.
    pub(crate) fn is_index_behind(&self) -> bool {
        self.marker_epoch() > self.position.map_or(0, |position| position.last_output)
    }

    /// Rows of epochs up to this one are in the table, or in an intent. A table that the checkpoint does not know takes the contents at
    /// the restored epoch as its first commit.
    pub(crate) fn holds_through(&self, restored: Epoch) -> Epoch {
        self.marker_epoch().max(if self.position.is_some() { restored } else { 0 })
    }

    pub(crate) fn marker_epoch(&self) -> Epoch {
        self.marker.map_or(0, |marker| marker.epoch)
    }
}

#[derive(Default)]
struct Progress {
    tables: BTreeMap<String, TableProgress>,
    /// Epochs with intents that are not known to be committed.
    open: Vec<Epoch>,
    /// The intents in the restored checkpoint, of all workers, by table.
    restored: Vec<(String, Epoch, Vec<u8>)>,
    writers: Vec<Waker>,
    rewrites: Rewrites,
    /// Intents up to this epoch are known to be committed.
    committed: Epoch,
    /// Up to which they were at each cut.
    committed_at: Agreed<Epoch>,
    /// Tables with an index.
    indexed: BTreeSet<String>,
    /// Tables that others had changed at the start.
    mended: BTreeSet<String>,
    /// How many of them wait to be written, over all workers.
    mending: usize,
}

/// Epochs with output of a table.
#[derive(Clone, Debug, Default)]
struct TableProgress {
    /// Since the last one that is committed.
    outputs: Outputs,
    committed: Epoch,
}

impl TableConnection {
    /// Opens the sink: what it holds, and whose it is. Nothing is changed.
    ///
    /// # Errors
    /// As [`TableSink::open`].
    pub(crate) fn open(
        sink: Arc<dyn TableSink>,
        identity: SinkIdentity,
        checkpoint: Option<(Epoch, &BTreeMap<String, SinkPosition>)>,
    ) -> Result<TableConnection> {
        let mut there = sink.open(&identity)?;
        let mut tables = BTreeMap::new();
        let mut progress = Progress::default();
        for table in sink.tables() {
            let known = checkpoint.and_then(|(_, positions)| positions.get(&position_name(sink.name(), &table)));
            let FoundTable { marker, is_changed_by_others } = there.remove(&table).unwrap_or_default();
            let found = Restored { marker, position: known.copied(), is_changed_by_others };
            let restored = checkpoint.map_or(0, |(epoch, _)| epoch);
            if found.position.is_none() && (1..restored).contains(&found.marker_epoch()) {
                let what = format!(
                    "starting the job: table '{table}' has output up to epoch {}, the checkpoint of epoch {restored} does not know it",
                    found.marker_epoch()
                );
                return Err(
                    Error::doubt(what).hint("the job did not write it for a while: name a new table, or drop this one")
                );
            }
            let outputs = Outputs::after(found.marker, found.position);
            progress.tables.insert(table.clone(), TableProgress { outputs, committed: found.marker_epoch() });
            tables.insert(table, found);
        }
        Ok(TableConnection { sink, identity, tables, progress: Mutex::new(progress) })
    }

    /// What was found of a table.
    pub(crate) fn restored(&self, table: &str) -> Restored {
        self.tables.get(table).copied().unwrap_or_default()
    }

    /// The tables with what was found of them, by the names that manifests know them by.
    pub(crate) fn found(&self) -> impl Iterator<Item = (String, Restored)> {
        self.tables.iter().map(|(table, found)| (position_name(self.sink.name(), table), *found))
    }

    /// Whether others have changed a table since this job's last commit.
    pub(crate) fn is_changed_by_others(&self) -> bool {
        self.tables.values().any(|found| found.is_changed_by_others)
    }

    /// Rows of a table may go. Said by every worker before its first epoch.
    pub(crate) fn note_index(&self, table: &str) {
        self.progress().indexed.insert(table.to_owned());
    }

    /// Whether they may.
    pub(crate) fn has_index(&self, table: &str) -> bool {
        self.progress().indexed.contains(table)
    }

    /// A worker begins to make `table`, which others have changed, what its view is: what the restored checkpoint has to commit to it is in
    /// what the view has.
    pub(crate) fn begin_mending(&self, table: &str) {
        let mut progress = self.progress();
        progress.mending += 1;
        if progress.mended.insert(table.to_owned()) {
            let Restored { marker, position, .. } = self.restored(table);
            let outputs = Outputs::after(marker, position.as_ref().map(expected));
            progress.tables.entry(table.to_owned()).or_default().outputs = outputs;
        }
    }

    /// Whether that was begun for any table.
    pub(crate) fn is_mended(&self) -> bool {
        !self.progress().mended.is_empty()
    }

    /// It is written.
    pub(crate) fn end_mending(&self) {
        self.progress().mending -= 1;
    }

    /// The restored checkpoint has an intent of `table` for `epoch`. Said by every worker before its first epoch.
    pub(crate) fn note_restored(&self, table: &str, epoch: Epoch, intent: &[u8]) {
        self.note_output(table, epoch);
        self.progress().restored.push((table.to_owned(), epoch, intent.to_vec()));
    }

    /// The intents in the restored checkpoint, by table.
    pub(crate) fn restored_intents(&self) -> Vec<(String, Vec<u8>)> {
        let progress = self.progress();
        progress.restored.iter().map(|(table, _, intent)| (table.clone(), intent.clone())).collect()
    }

    /// Whether what the tables hold is what the restored checkpoint knows of, all its intents being noted (invariant 8).
    ///
    /// # Errors
    /// When a table holds, or lacks, a commit that the checkpoint knows nothing of.
    pub(crate) fn check_restored(&self) -> Result<()> {
        let progress = self.progress();
        for (table, found) in &self.tables {
            let Some(position) = found.position.filter(|_| !progress.mended.contains(table)) else { continue };
            let has_intent = |epoch| progress.restored.iter().any(|(of, e, _)| of == table && *e == epoch);
            let (marker, last) = (found.marker_epoch(), position.last_output);
            let is_known = marker == position.committed || marker > last || has_intent(marker);
            let is_whole = marker >= last || has_intent(last);
            if !is_known || !is_whole {
                let what = format!(
                    "starting the job: table '{table}' is at epoch {marker}, the checkpoint knows epochs {} and {last} of it",
                    position.committed
                );
                return Err(Error::doubt(what)
                    .hint("put the table or the data folder back as it was, or start over with both new"));
            }
        }
        Ok(())
    }

    /// A worker has files of `table` for the checkpoint of `epoch`.
    pub(crate) fn note_output(&self, table: &str, epoch: Epoch) {
        let mut progress = self.progress();
        let of_table = progress.tables.entry(table.to_owned()).or_default();
        if epoch > of_table.committed {
            of_table.outputs.note(epoch);
        }
        if !progress.open.contains(&epoch) {
            progress.open.push(epoch);
        }
    }

    /// Where the tables stand at the checkpoint of `epoch`, whose binding has the hash `chain`.
    pub(crate) fn positions(&self, epoch: Epoch, chain: ChainHash) -> Vec<(String, SinkPosition)> {
        let mut progress = self.progress();
        let positions = progress.tables.iter_mut().map(|(table, progress)| {
            progress.outputs.note_chain(epoch, chain);
            let (last_output, chain) = progress.outputs.last_up_to(epoch);
            let position = SinkPosition { last_output, committed: progress.committed.min(last_output), chain };
            (position_name(self.sink.name(), table), position)
        });
        positions.collect()
    }

    /// The tables have committed what they had up to `epoch`.
    pub(crate) fn note_committed(&self, epoch: Epoch) {
        let mut progress = self.progress();
        progress.committed = progress.committed.max(epoch);
        progress.open.retain(|open| *open > epoch);
        for table in progress.tables.values_mut() {
            table.committed = table.committed.max(table.outputs.last_up_to(epoch).0);
            table.outputs.forget_before(epoch);
        }
        progress.rewrites.committed(epoch);
        progress.writers.iter().for_each(Waker::wake);
    }

    /// Whether a round of rewrites may begin, `restored` being the epoch that the start began with; it is under way then.
    pub(crate) fn begin_rewrites(&self, restored: Epoch) -> bool {
        let mut progress = self.progress();
        progress.mending == 0 && progress.open.iter().all(|open| *open > restored) && progress.rewrites.begin()
    }

    /// What became of the round that was begun.
    pub(crate) fn offer_rewrites(&self, rewrites: Vec<TableRewrite>) {
        self.progress().rewrites.offer(rewrites);
    }

    /// The round that takes effect at the cut of `epoch`. Each of `workers` asks once.
    pub(crate) fn rewrites_at(&self, epoch: Epoch, workers: usize) -> Option<Round> {
        self.progress().rewrites.at(epoch, workers)
    }

    /// Up to which epoch the checkpoint of `epoch` keeps no intents, the same for each of `workers`, which asks once: else a checkpoint would have
    /// parts of what is committed. What a slower worker has not cut yet is not committed either, so it is above this.
    pub(crate) fn committed_at(&self, epoch: Epoch, workers: usize) -> Epoch {
        let Progress { committed_at, committed, .. } = &mut *self.progress();
        committed_at.at(epoch, workers, || *committed)
    }

    /// Epochs with intents that are not committed.
    pub(crate) fn uncommitted(&self) -> Vec<Epoch> {
        self.progress().open.clone()
    }

    /// Has `writer` woken when intents are committed.
    pub(crate) fn attach_writer(&self, writer: Waker) {
        self.progress().writers.push(writer);
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("no holder panics")
    }
}

/// What a start expects of a table by the restored checkpoint: what was committed by then. What was not is in an intent.
pub(crate) fn expected(position: &SinkPosition) -> SinkPosition {
    let chain = position.chain.filter(|_| position.committed == position.last_output);
    SinkPosition { last_output: position.committed, committed: position.committed, chain }
}

/// How manifests and messages name a table of a sink.
fn position_name(sink: &str, table: &str) -> String {
    format!("{sink}/{table}")
}

/// The tables that a job writes to a sink, by rank: their names and shapes.
pub(crate) type Schemas = BTreeMap<String, TableSchema>;

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::{Generation, Lineage, TableCommitter, TableWriter};

    /// A sink whose tables have these markers.
    struct Marked(BTreeMap<String, Marker>);

    impl TableSink for Marked {
        fn name(&self) -> &str {
            "lake"
        }

        fn tables(&self) -> Vec<String> {
            vec!["t".to_owned()]
        }

        fn open(&self, _: &SinkIdentity) -> Result<BTreeMap<String, FoundTable>> {
            let found = |marker: &Marker| FoundTable { marker: Some(*marker), is_changed_by_others: false };
            Ok(self.0.iter().map(|(table, marker)| (table.clone(), found(marker))).collect())
        }

        fn shut_out_others(&self, _: &SinkIdentity) -> Result<()> {
            unreachable!("nobody else is here")
        }

        fn writer(&self, _: usize, _: &Schemas) -> Box<dyn TableWriter> {
            unreachable!("nothing is written here")
        }

        fn committer(&self, _: &Schemas) -> Box<dyn TableCommitter> {
            unreachable!("nothing is committed here")
        }
    }

    fn chain(epoch: Epoch) -> ChainHash {
        ChainHash([epoch as u8; 16])
    }

    fn position(last_output: Epoch, committed: Epoch) -> SinkPosition {
        SinkPosition { last_output, committed, chain: Some(chain(last_output)) }
    }

    /// A connection to a table with this marker, restored from a checkpoint of epoch 20 that says this of it.
    fn opened(marker: Epoch, known: Option<SinkPosition>) -> Result<TableConnection> {
        let generation = Generation { number: 1, nonce: 1 };
        let (lineage, chain) = (Lineage(1), chain(marker));
        let identity = SinkIdentity { job: "tested".to_owned(), lineage, generation };
        let markers = [("t".to_owned(), Marker { lineage, generation, epoch: marker, chain })];
        let positions = known.into_iter().map(|known| (position_name("lake", "t"), known)).collect();
        let sink = Arc::new(Marked(markers.into_iter().filter(|_| marker > 0).collect()));
        TableConnection::open(sink, identity, Some((20, &positions)))
    }

    fn is_sound(marker: Epoch, known: SinkPosition, intents: &[Epoch]) -> bool {
        let connection = opened(marker, Some(known)).unwrap();
        intents.iter().for_each(|epoch| connection.note_restored("t", *epoch, b"files"));
        connection.check_restored().is_ok()
    }

    #[test]
    fn a_table_stands_where_the_checkpoint_knows_it() {
        assert!(is_sound(10, position(10, 10), &[]));
        assert!(is_sound(10, position(20, 10), &[20]), "not committed");
        assert!(is_sound(20, position(20, 10), &[20]), "committed after the manifest");
        assert!(is_sound(15, position(20, 10), &[15, 20]), "one of two");
        assert!(is_sound(25, position(20, 20), &[]), "ahead: its index is made anew");
        assert!(!is_sound(10, position(20, 10), &[]), "its intent is lost");
        assert!(!is_sound(15, position(20, 10), &[20]), "a commit that nobody knows");
        assert!(!is_sound(5, position(10, 10), &[]), "rolled back");
    }

    #[test]
    fn what_a_table_holds_is_not_written_again() {
        let known = opened(10, Some(position(10, 10))).unwrap().restored("t");
        assert_eq!((known.holds_through(20), known.is_index_behind()), (20, false));
        let ahead = opened(25, Some(position(20, 20))).unwrap().restored("t");
        assert_eq!((ahead.holds_through(20), ahead.is_index_behind()), (25, true));
        let new = opened(0, None).unwrap().restored("t");
        assert_eq!((new.holds_through(20), new.is_index_behind()), (0, false));
        assert!(opened(7, None).is_err(), "written by this job, and not for a while");
        assert!(opened(25, None).is_ok(), "all checkpoints are lost");
    }

    #[test]
    fn positions_follow_outputs_and_commits() {
        let connection = opened(15, Some(position(20, 10))).unwrap();
        let at = |epoch| connection.positions(epoch, chain(epoch)).remove(0).1;
        // A commit of before that the restored checkpoint still has an intent of does not take the position back.
        [12, 15, 20].iter().for_each(|epoch| connection.note_restored("t", *epoch, b"files"));
        connection.note_committed(12);
        assert_eq!(at(21), position(20, 15));
        assert_eq!(connection.uncommitted(), [15, 20]);
        assert_eq!(connection.committed_at(21, 2), 12);
        connection.note_committed(20);
        assert_eq!(connection.committed_at(21, 2), 12, "as on the other worker");
        assert_eq!(connection.committed_at(31, 2), 20);
        connection.note_output("t", 30); // by a worker that has not come to 31
        assert_eq!(connection.committed_at(31, 2), 20, "it keeps its intent of 30");
        assert_eq!(at(25), position(20, 20));
        assert_eq!(at(30), position(30, 20));
        connection.note_committed(30);
        assert_eq!(at(40), position(30, 30));
        assert_eq!(expected(&position(30, 20)), SinkPosition { last_output: 20, committed: 20, chain: None });
    }
}
