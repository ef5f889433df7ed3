//! An open table: whose output it has, writing to it, reading it. All calls block; a clone of its metadata is kept and brought up to date by
//! [`Table::refresh`] and by each commit.

use crate::catalog::{Catalog, CommitError, Loaded, TableName};
use crate::commit;
use crate::dead_files;
use crate::deletes::{self, Deletes};
use crate::file::NewFile;
use crate::history::{Ancestry, admit, standing};
use crate::intent::{Intent, Outcome, Purpose};
use crate::marker;
use crate::scan::{self, Changes, FileRows, Scan, live_deletes, live_files};
use crate::schema::TableSpec;
use crate::session::{REQUESTS_AT_ONCE, Session};
use crate::snapshot::Change;
use crate::tally;
use crate::vectors::Vectors;
use crate::writer::{DataWriter, Place};
use dataflow_core::{ChainHash, Epoch, Error, Generation, Lineage, Marker, Result, Row, TableSchema, TableState};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use iceberg::TableUpdate;
use iceberg::spec::{DataFile, FormatVersion, Operation, Struct, TableMetadata, TableMetadataRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use uuid::Uuid;

/// A table of a warehouse.
pub struct Table {
    session: Arc<Session>,
    catalog: Arc<dyn Catalog>,
    spec: TableSpec,
    now: Mutex<Loaded>,
    partitions: Arc<Partitions>,
    vectors: Vectors,
}

/// The partition of each data file that was met: what its delete files must carry. One entry a data file of the table.
#[derive(Default)]
pub(crate) struct Partitions(Mutex<BTreeMap<String, (i32, Struct)>>);

impl Partitions {
    pub(crate) fn put(&self, path: String, spec_id: i32, partition: Struct) {
        self.lock().insert(path, (spec_id, partition));
    }

    fn forget(&self, paths: &BTreeSet<String>) {
        let mut partitions = self.lock();
        paths.iter().for_each(|path| drop(partitions.remove(path)));
    }

    fn get(&self, path: &str) -> Option<(i32, Struct)> {
        self.lock().get(path).cloned()
    }

    /// That of a data file which may not have been met yet: then those of the table's current snapshot are.
    ///
    /// # Errors
    /// When the table does not hold the file.
    pub(crate) fn of(&self, session: &Session, table: &TableMetadata, path: &str) -> Result<(i32, Struct)> {
        if self.get(path).is_none() {
            for file in scan::data_files(session, table, table.current_snapshot().map(AsRef::as_ref))? {
                self.put(file.file_path().to_owned(), file.spec_id, file.partition().clone());
            }
        }
        self.get(path).ok_or_else(|| {
            let what =
                format!("delete rows of the file '{path}': the table at '{}' does not hold it", table.location());
            Error::doubt(what).hint("another program has rewritten the table: bring the index up to date")
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (i32, Struct)>> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

impl Table {
    pub(crate) fn new(session: Arc<Session>, catalog: Arc<dyn Catalog>, spec: TableSpec, now: Loaded) -> Table {
        Table { session, catalog, spec, now: Mutex::new(now), partitions: Arc::default(), vectors: Vectors::default() }
    }

    /// What it was opened as.
    pub fn spec(&self) -> &TableSpec {
        &self.spec
    }

    /// Its name.
    pub fn name(&self) -> &TableName {
        &self.spec.table
    }

    /// What tells it from another table that once had or will have its name.
    pub fn uuid(&self) -> Uuid {
        self.metadata().uuid()
    }

    /// Its current snapshot, as of the last look; `None` before the first.
    pub fn snapshot(&self) -> Option<i64> {
        self.metadata().current_snapshot_id()
    }

    /// Files of its current snapshot, data and deletes, as far as it says, as of the last look.
    pub(crate) fn files(&self) -> u64 {
        let metadata = self.metadata();
        let Some(snapshot) = metadata.current_snapshot() else { return 0 };
        ["total-data-files", "total-delete-files"].into_iter().filter_map(|key| tally::said(snapshot, key)).sum()
    }

    /// What its current snapshot says of itself, as of the last look; a compaction adds and takes away none.
    pub fn state(&self) -> Option<TableState> {
        let metadata = self.metadata();
        let snapshot = metadata.current_snapshot()?;
        let number = |key| tally::said(snapshot, key);
        let rows = number("total-records").zip(number("total-position-deletes"));
        let is_replaced = snapshot.summary().operation == Operation::Replace;
        let of_commit = |key| number(key).filter(|_| !is_replaced).unwrap_or(0);
        let died = of_commit("added-position-deletes") + of_commit("deleted-records");
        Some(TableState {
            snapshot: Some(snapshot.snapshot_id()),
            rows: rows.and_then(|(records, deletes)| records.checked_sub(deletes)),
            added: of_commit("added-records"),
            // A vector that takes another one's place has its positions too, and a file that goes has rows that were dead.
            deleted: died.saturating_sub(of_commit("removed-position-deletes")),
        })
    }

    /// Where its metadata was read from, as of the last look: what a reader without the catalog is given.
    pub fn metadata_location(&self) -> String {
        self.lock().location.clone()
    }

    /// Looks at the table anew.
    ///
    /// # Errors
    /// When it cannot be read, is gone, or is another table of the same name.
    pub fn refresh(&self) -> Result<()> {
        let now = commit::load(self.catalog.as_ref(), self.name())?;
        let was = self.uuid();
        if now.metadata.uuid() != was {
            let what = format!("read the table '{}': it was dropped and made again", self.name());
            return Err(Error::doubt(what).hint("start over: the new table does not have what the old one had"));
        }
        *self.lock() = now;
        Ok(())
    }

    /// Whose output it has, and how far; `None` when no job of ours has written to it.
    ///
    /// # Errors
    /// When it cannot be read, or the table was rolled back behind it.
    pub fn marker(&self) -> Result<Option<Marker>> {
        self.refresh()?;
        standing(self.name(), &self.metadata())
    }

    /// The snapshot that brought the epoch `epoch`, as of the last look; `None` for none: the epoch is 0, or its snapshot has expired.
    ///
    /// # Errors
    /// When a marker cannot be read.
    pub fn snapshot_of(&self, epoch: Epoch) -> Result<Option<i64>> {
        let now = self.metadata();
        for snapshot in Ancestry::of(&now).snapshots {
            let marker = marker::read(self.name(), &snapshot.summary().additional_properties)?;
            if marker.is_some_and(|marker| marker.epoch == epoch) {
                return Ok(Some(snapshot.snapshot_id()));
            }
        }
        Ok(None)
    }

    /// Makes the table this generation's: older ones find themselves fenced at their next look. Returns the marker as it is now.
    ///
    /// A REST catalog checks no property, so an attempt that an older generation has under way may still come in after this; it holds what
    /// the same epochs give again, and is found by its marker.
    ///
    /// # Errors
    /// When another history or a newer generation has the table, it was rolled back, or the catalog cannot be reached.
    pub fn claim(&self, lineage: Lineage, generation: Generation) -> Result<Marker> {
        let mut because = String::new();
        for _ in 0..commit::ATTEMPTS_MAX {
            self.refresh()?;
            let now = self.metadata();
            let has = standing(self.name(), &now)?;
            admit(self.name(), has.as_ref(), lineage, generation)?;
            let first = Marker { lineage, generation, epoch: 0, chain: ChainHash::default() };
            let claimed = Marker { generation, ..has.unwrap_or(first) };
            if has == Some(claimed) && marker::read(self.name(), now.properties())? == Some(claimed) {
                return Ok(claimed);
            }
            let updates = vec![TableUpdate::SetProperties { updates: marker::write(&claimed) }];
            match self.catalog.commit(self.name(), &commit::requirements(&now), updates) {
                Ok(now) => {
                    *self.lock() = now;
                    return Ok(claimed);
                }
                Err(CommitError::Refused(error)) => return Err(error),
                // To set it twice is to set it.
                Err(CommitError::Conflict(text) | CommitError::Unknown(text)) => because = text,
            }
            self.session.pause(std::time::Duration::from_millis(100));
        }
        Err(Error::outside(format!("claim the table '{}': {because}", self.name())).retry())
    }

    /// A writer of data files.
    ///
    /// # Errors
    /// When the table has a column or a partition that is not written here.
    pub fn writer(&self) -> Result<DataWriter> {
        DataWriter::new(self.session.clone(), self.partitions.clone(), self.metadata(), self.spec.schema.clone())
    }

    /// Has rows deleted by their positions in data files: those of the table, and those that are written and wait in intents of this table.
    /// A file restored with an intent is made known by [`Table::note`] first. Writes nothing: the commit does.
    ///
    /// # Errors
    /// When a data file is not known.
    pub fn delete_rows(&self, positions: &BTreeMap<Arc<str>, Vec<u64>>) -> Result<Deletes> {
        if positions.keys().any(|path| self.partitions.get(path).is_none()) {
            self.refresh()?;
        }
        let now = self.metadata();
        let mut deletes = Deletes::default();
        for (path, positions) in positions.iter().filter(|(_, positions)| !positions.is_empty()) {
            self.partitions.of(&self.session, &now, path)?;
            deletes.dead.insert(path.to_string(), positions.iter().copied().collect());
        }
        Ok(deletes)
    }

    /// Makes files known that wait in a restored intent.
    ///
    /// # Errors
    /// When the table does not know what they were written under.
    pub fn note(&self, files: &[NewFile]) -> Result<()> {
        let now = self.metadata();
        for file in files {
            let (spec_id, entry) = file.entry(&now)?;
            self.partitions.put(file.path.clone(), spec_id, entry.partition().clone());
        }
        Ok(())
    }

    /// Brings `intent` in exactly once, whatever became of earlier attempts, also those of other processes.
    ///
    /// # Errors
    /// `Fenced` when a newer generation has the table; `Doubt` when it is another table, has another history, was rolled back or forked, or
    /// has a part of the intent's epochs; else what the catalog or the storage says, transient where a repetition of this call may help.
    pub fn commit(&self, intent: &Intent) -> Result<Outcome> {
        let is_append = self.spec.schema.key.is_empty();
        let mut gone = BTreeSet::new();
        let mut written = BTreeMap::new();
        let deletes = |now: &TableMetadata, intent: &Intent, change: &mut Change| {
            self.put_deletes(now, intent, &mut written, change)?;
            gone.clone_from(&change.removed);
            Ok(())
        };
        let (session, catalog) = (&*self.session, self.catalog.as_ref());
        let (now, outcome) = commit::commit(session, catalog, self.name(), intent, is_append, deletes)?;
        *self.lock() = now;
        // Those of the last attempt; should one be there still, it is looked up again.
        self.partitions.forget(&gone);
        self.vectors.forget(&gone);
        Ok(outcome)
    }

    /// Puts into `change` what the deletes of `intent` are in the table as it is now. `written`: the delete files of earlier attempts, by data
    /// file, which are as good for this one.
    fn put_deletes(
        &self,
        now: &TableMetadata,
        intent: &Intent,
        written: &mut BTreeMap<String, (i32, DataFile)>,
        change: &mut Change,
    ) -> Result<()> {
        let mut dead = intent.deletes.dead.clone();
        if dead.is_empty() {
            return Ok(());
        }
        self.note(&intent.data)?;
        let (session, snapshot) = (&*self.session, now.current_snapshot().map(AsRef::as_ref));
        let has_vectors = now.format_version() >= FormatVersion::V3;
        // Where somebody else may write too, a rewrite that misses a file is to tell that as theirs: none goes but by a rewrite.
        let looks_at_all = intent.is_alone && intent.purpose == Purpose::Rows && dead_files::is_small(now);
        let live = match (looks_at_all, has_vectors) {
            (true, _) => live_files(session, now, snapshot)?,
            (false, true) => live_deletes(session, now, snapshot)?,
            (false, false) => Vec::new(),
        };
        if looks_at_all {
            dead_files::take_away(session, &self.vectors, &live, &mut dead, &mut change.removed)?;
            change.gathers = true;
        }
        if has_vectors {
            self.vectors.unite(session, &live, &mut dead)?;
            return self.vectors.write(session, now, &self.partitions, dead, change);
        }
        let mut unwritten = Vec::new();
        for (data, dead) in dead.iter().filter(|(data, _)| !written.contains_key(*data)) {
            unwritten.push((data, dead, self.partitions.of(session, now, data)?));
        }
        let files = unwritten.into_iter().map(async |(data, dead, partition)| {
            let spec_id = partition.0;
            let file = deletes::write(session, now, partition, data, dead).await?;
            Ok::<_, Error>((data.clone(), (spec_id, file)))
        });
        written.extend(session.wait(stream::iter(files).buffered(REQUESTS_AT_ONCE).try_collect::<Vec<_>>())?);
        change.added.extend(dead.keys().map(|data| written[data].clone()));
        Ok(())
    }

    /// What is said when an intent is not committed because of somebody else's snapshot.
    pub(crate) fn foreign(&self, current: Option<i64>) -> Error {
        let current = current.map_or_else(|| "none".to_owned(), |id| id.to_string());
        let table = self.name();
        let what =
            format!("commit to the table '{table}': somebody else's snapshot ({current}) is on top of this job's");
        Error::doubt(what).hint("roll the table back to this job's snapshot")
    }

    /// The live rows of a snapshot.
    ///
    /// # Errors
    /// When the snapshot is not known, or another program has written what is not read here (equality deletes, other formats).
    pub fn scan(&self, snapshot: i64) -> Result<impl Iterator<Item = Result<(Row, Place)>> + use<>> {
        self.start(snapshot)
    }

    /// The live rows of a snapshot in some of its files.
    pub(crate) fn scan_of(&self, snapshot: i64, files: &[Arc<str>]) -> Result<Scan> {
        let mut scan = self.start(snapshot)?;
        scan.only(files);
        Ok(scan)
    }

    pub(crate) fn start(&self, snapshot: i64) -> Result<Scan> {
        let columns: Vec<usize> = (0..self.spec.schema.columns.len()).collect();
        Scan::start(self.session.clone(), &self.metadata(), snapshot, &self.spec.schema, &columns)
    }

    /// The keys of a snapshot's live rows and where each lies: what an index is built from. Without a key the whole row is one.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn scan_keys(&self, snapshot: i64) -> Result<impl Iterator<Item = Result<(Row, Place)>> + use<>> {
        self.start_keys(snapshot)
    }

    /// The keys in some files of a snapshot: what [`Changes`] has added.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn scan_keys_of(
        &self,
        snapshot: i64,
        files: &[Arc<str>],
    ) -> Result<impl Iterator<Item = Result<(Row, Place)>> + use<>> {
        let mut scan = self.start_keys(snapshot)?;
        scan.only(files);
        Ok(scan)
    }

    /// The keys of all rows of a data file, dead ones too, by position. The file need not be in the table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn keys_of_file(&self, path: &str) -> Result<impl Iterator<Item = Result<Row>> + Send + use<>> {
        let columns = scan::wanted(&self.metadata(), &self.spec.schema, &self.key_columns())?;
        FileRows::open(&self.session, path, &columns)
    }

    pub(crate) fn start_keys(&self, snapshot: i64) -> Result<Scan> {
        let columns = self.key_columns();
        Scan::start(self.session.clone(), &self.metadata(), snapshot, &self.spec.schema, &columns)
    }

    /// The columns that tell rows apart: the key, or all.
    fn key_columns(&self) -> Vec<usize> {
        let TableSchema { columns, key } = &self.spec.schema;
        if key.is_empty() { (0..columns.len()).collect() } else { key.clone() }
    }

    /// What became of the table's files between a snapshot and the current one, as of the last look.
    ///
    /// # Errors
    /// When metadata cannot be read.
    pub fn changes_since(&self, snapshot: i64) -> Result<Changes> {
        scan::changes(&self.session, &self.metadata(), snapshot)
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn catalog(&self) -> &dyn Catalog {
        self.catalog.as_ref()
    }

    /// The table as its catalog has it now.
    pub(crate) fn look(&self) -> Result<Loaded> {
        self.refresh()?;
        Ok(self.lock().clone())
    }

    /// Takes what a commit has made of it.
    pub(crate) fn put(&self, now: Loaded) {
        *self.lock() = now;
    }

    pub(crate) fn metadata(&self) -> TableMetadataRef {
        self.lock().metadata.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.now.lock().expect("no holder of this lock can panic")
    }
}
