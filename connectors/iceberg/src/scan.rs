//! Reads what a snapshot holds: its files, its live rows and where each lies, and what changed between two snapshots.

mod parquet_rows;

use crate::deletes::{FILE_PATH_ID, POSITION_ID, speaks_of};
use crate::deletion_vector::DeletionVector;
use crate::history::Ancestry;
use crate::session::{Session, outside};
use crate::snapshot::manifests;
use crate::vectors::BlobPlace;
use crate::writer::Place;
use dataflow_core::{ColumnType, Datum, Error, Result, Row, TableSchema};
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, ManifestContentType, ManifestEntryRef, ManifestFile, Snapshot, Struct,
    TableMetadata,
};
use parquet_rows::ParquetRows;
pub(crate) use parquet_rows::Wanted;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A live file of a snapshot.
pub(crate) struct LiveFile {
    pub(crate) spec_id: i32,
    entry: ManifestEntryRef,
}

impl LiveFile {
    pub(crate) fn file_path(&self) -> &str {
        self.entry.file_path()
    }

    pub(crate) fn partition(&self) -> &Struct {
        self.entry.data_file().partition()
    }

    pub(crate) fn file(&self) -> &DataFile {
        self.entry.data_file()
    }

    /// What tells it from others: the file, and which vector of it.
    fn identity(&self) -> (String, Option<i64>) {
        (self.file_path().to_owned(), self.file().content_offset())
    }

    pub(crate) fn is_data(&self) -> bool {
        self.file().content_type() == DataContentType::Data
    }
}

/// What became of a table's files since a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// All that happened.
    Known(FileChanges),
    /// Nobody can tell: the snapshot has expired or is no ancestor of the current one. Scan the table.
    Untold,
}

/// What became of a table's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileChanges {
    /// Data files that came.
    pub added: Vec<Arc<str>>,
    /// Data files that went, with all their rows.
    pub removed: Vec<Arc<str>>,
    /// Positions that died, by data file; those of files that came among them, and with those of a deletion vector all that it has.
    pub deleted: BTreeMap<Arc<str>, Vec<u64>>,
}

/// The live files of a snapshot.
pub(crate) fn live_files(session: &Session, table: &TableMetadata, at: Option<&Snapshot>) -> Result<Vec<LiveFile>> {
    live(session, table, at, |_| true)
}

fn live(
    session: &Session,
    table: &TableMetadata,
    at: Option<&Snapshot>,
    is_read: impl Fn(&ManifestFile) -> bool,
) -> Result<Vec<LiveFile>> {
    let found = session.wait(async {
        let mut files = Vec::new();
        for manifest in manifests(session, table, at).await?.into_iter().filter(is_read) {
            let spec_id = manifest.partition_spec_id;
            let entries = manifest.load_manifest(&session.io).await?.into_parts().0;
            files.extend(entries.into_iter().filter(|e| e.is_alive()).map(|entry| LiveFile { spec_id, entry }));
        }
        Ok(files)
    });
    found.map_err(outside(format!("list the files of the table at '{}'", table.location())))
}

/// The live delete files of a snapshot.
pub(crate) fn live_deletes(session: &Session, table: &TableMetadata, at: Option<&Snapshot>) -> Result<Vec<LiveFile>> {
    live(session, table, at, |manifest| manifest.content == ManifestContentType::Deletes)
}

/// The live data files of a snapshot.
pub(crate) fn data_files(session: &Session, table: &TableMetadata, at: Option<&Snapshot>) -> Result<Vec<LiveFile>> {
    live(session, table, at, |manifest| manifest.content == ManifestContentType::Data)
}

/// The delete files among these that speak of one data file alone, by that file.
pub(crate) fn deletes_by_data_file(files: &[LiveFile]) -> BTreeMap<String, Vec<&DataFile>> {
    let mut deletes: BTreeMap<String, Vec<&DataFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.is_data()).map(LiveFile::file) {
        if let Some(data) = speaks_of(file) {
            deletes.entry(data).or_default().push(file);
        }
    }
    deletes
}

fn snapshot(table: &TableMetadata, id: i64) -> Result<&Snapshot> {
    table.snapshot_by_id(id).map(AsRef::as_ref).ok_or_else(|| {
        let what = format!("read the snapshot {id} of the table at '{}': it is not known", table.location());
        Error::outside(what).hint("it has expired, or the table was not looked at since; read the current one")
    })
}

/// A file that is not read here.
fn foreign(file: &DataFile) -> Option<Error> {
    let what = match (file.content_type(), file.file_format()) {
        (DataContentType::EqualityDeletes, _) => "it holds equality deletes",
        (_, DataFileFormat::Parquet) => return None,
        (DataContentType::PositionDeletes, _) if BlobPlace::of(file).is_some() => return None,
        _ => "it is no Parquet file",
    };
    let error = Error::outside(format!("read the file '{}': {what}", file.file_path()));
    Some(error.hint(
        "another program writes to the table: let it write Parquet and position deletes, and compact the table once",
    ))
}

/// The rows of a snapshot, read file by file as they are asked for.
pub(crate) struct Scan {
    session: Arc<Session>,
    /// The columns that are read, in the order of the rows that come out.
    wanted: Vec<Wanted>,
    files: VecDeque<Arc<str>>,
    /// Delete files that speak of one data file alone.
    scoped: BTreeMap<String, Vec<String>>,
    /// Deletion vectors.
    vectors: BTreeMap<String, BlobPlace>,
    /// Dead positions from delete files that speak of several.
    wide: BTreeMap<Arc<str>, DeletionVector>,
    reading: Option<Reading>,
}

/// A data file that is being read.
struct Reading {
    path: Arc<str>,
    rows: ParquetRows,
    dead: DeletionVector,
    batch: VecDeque<(u64, Row)>,
}

impl Scan {
    pub(crate) fn start(
        session: Arc<Session>,
        table: &TableMetadata,
        id: i64,
        schema: &TableSchema,
        columns: &[usize],
    ) -> Result<Scan> {
        let files = live_files(&session, table, Some(snapshot(table, id)?))?;
        let wanted = wanted(table, schema, columns)?;
        let mut scan = Scan {
            session,
            wanted,
            files: VecDeque::new(),
            scoped: BTreeMap::new(),
            vectors: BTreeMap::new(),
            wide: BTreeMap::new(),
            reading: None,
        };
        for live in &files {
            if let Some(error) = foreign(live.file()) {
                return Err(error);
            }
            if live.is_data() {
                scan.files.push_back(live.file_path().into());
            } else if let Some((data, place)) = BlobPlace::of(live.file()) {
                scan.vectors.insert(data, place);
            } else if let Some(data) = live.file().referenced_data_file() {
                scan.scoped.entry(data).or_default().push(live.file_path().to_owned());
            } else {
                for (path, position) in positions(&scan.session, live.file_path())? {
                    scan.wide.entry(path).or_default().extend([position]);
                }
            }
        }
        Ok(scan)
    }

    /// Leaves all files out but these.
    pub(crate) fn only(&mut self, files: &[Arc<str>]) {
        let files: BTreeSet<&Arc<str>> = files.iter().collect();
        self.files.retain(|path| files.contains(path));
    }

    fn open(&mut self, path: Arc<str>) -> Result<Reading> {
        let mut dead = self.wide.remove(&path).unwrap_or_default();
        for file in self.scoped.remove(path.as_ref()).unwrap_or_default() {
            dead.union(&dead_rows(&self.session, &file, &path)?);
        }
        if let Some(place) = self.vectors.remove(path.as_ref()) {
            dead.union(&place.read(&self.session)?);
        }
        let rows = ParquetRows::open(&self.session, &path, &self.wanted)?;
        Ok(Reading { path, rows, dead, batch: VecDeque::new() })
    }

    fn step(&mut self) -> Result<Option<(Row, Place)>> {
        loop {
            let Some(reading) = &mut self.reading else {
                let Some(path) = self.files.pop_front() else { return Ok(None) };
                self.reading = Some(self.open(path)?);
                continue;
            };
            while let Some((position, row)) = reading.batch.pop_front() {
                if !reading.dead.contains(position) {
                    return Ok(Some((row, Place { file: reading.path.clone(), position })));
                }
            }
            match reading.rows.next_batch()? {
                Some(batch) => reading.batch = batch.into(),
                None => self.reading = None,
            }
        }
    }
}

impl Iterator for Scan {
    type Item = Result<(Row, Place)>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            // What follows an error would look like a whole table.
            self.files.clear();
            self.reading = None;
        }
        step.transpose()
    }
}

/// Columns of a schema as a table has them.
pub(crate) fn wanted(table: &TableMetadata, schema: &TableSchema, columns: &[usize]) -> Result<Vec<Wanted>> {
    let wanted = |at: &usize| {
        let column = &schema.columns[*at];
        let id = table.current_schema().field_id_by_name(&column.name).ok_or_else(|| {
            Error::outside(format!(
                "read the column '{}' of the table at '{}': it is gone",
                column.name,
                table.location()
            ))
        })?;
        Ok(Wanted { id, kind: column.kind })
    };
    columns.iter().map(wanted).collect()
}

/// The rows of one data file, dead ones too, by position.
pub(crate) struct FileRows {
    rows: ParquetRows,
    batch: std::vec::IntoIter<(u64, Row)>,
}

impl FileRows {
    pub(crate) fn open(session: &Session, path: &str, columns: &[Wanted]) -> Result<FileRows> {
        Ok(FileRows { rows: ParquetRows::open(session, path, columns)?, batch: Vec::new().into_iter() })
    }
}

impl Iterator for FileRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        loop {
            if let Some((_, row)) = self.batch.next() {
                return Some(Ok(row));
            }
            match self.rows.next_batch() {
                Ok(batch) => self.batch = batch?.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// What a position delete file holds.
pub(crate) fn positions(session: &Session, path: &str) -> Result<Vec<(Arc<str>, u64)>> {
    let wanted =
        [Wanted { id: FILE_PATH_ID, kind: ColumnType::Text }, Wanted { id: POSITION_ID, kind: ColumnType::Long }];
    let mut rows = ParquetRows::open(session, path, &wanted)?;
    let mut found: Vec<(Arc<str>, u64)> = Vec::new();
    while let Some(batch) = rows.next_batch()? {
        for (_, row) in batch {
            let (Datum::Text(of), Datum::Long(position)) = (row.get(0), row.get(1)) else {
                return Err(Error::outside(format!(
                    "read the delete file '{path}': it has a row without path or position"
                )));
            };
            // Most rows speak of the same file as the one before.
            let of = found
                .last()
                .map(|(last, _)| last)
                .filter(|last| ***last == **of)
                .cloned()
                .unwrap_or_else(|| of.as_ref().into());
            found.push((of, *position as u64));
        }
    }
    Ok(found)
}

/// Which rows of the data file `data` a position delete file says are dead.
pub(crate) fn dead_rows(session: &Session, path: &str, data: &str) -> Result<DeletionVector> {
    let found = positions(session, path)?.into_iter().filter(|(of, _)| **of == *data);
    Ok(found.map(|(_, position)| position).collect())
}

/// What became of the files between the snapshot `since` and the current one.
pub(crate) fn changes(session: &Session, table: &TableMetadata, since: i64) -> Result<Changes> {
    if Ancestry::of(table).after(since).is_none() {
        return Ok(Changes::Untold);
    }
    let before = live_files(session, table, Some(snapshot(table, since)?))?;
    let now = live_files(session, table, table.current_snapshot().map(AsRef::as_ref))?;
    // A file of vectors holds those of several data files.
    let paths = |files: &[LiveFile]| files.iter().map(LiveFile::identity).collect::<BTreeSet<_>>();
    let (had, has) = (paths(&before), paths(&now));
    let mut changes = FileChanges::default();
    for live in before.iter().filter(|live| live.is_data() && !has.contains(&live.identity())) {
        changes.removed.push(live.file_path().into());
    }
    for live in now.iter().filter(|live| !had.contains(&live.identity())) {
        if let Some(error) = foreign(live.file()) {
            return Err(error);
        }
        if live.is_data() {
            changes.added.push(live.file_path().into());
            continue;
        }
        if let Some((data, place)) = BlobPlace::of(live.file()) {
            changes.deleted.entry(data.into()).or_default().extend(place.read(session)?.positions());
            continue;
        }
        for (path, position) in positions(session, live.file_path())? {
            changes.deleted.entry(path).or_default().push(position);
        }
    }
    Ok(Changes::Known(changes))
}
