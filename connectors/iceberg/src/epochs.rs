//! The table of epochs: for each epoch that all tables have, which snapshot of each holds it. Reading every table at the snapshots of one
//! epoch gives what one point in the job's history was; no other combination of snapshots promises that.
//!
//! Only the committer adds to it, after the last commit of an epoch, and with the same marker: so an epoch is in it once.

use crate::deletes::Deletes;
use crate::file_format::FileSettings;
use crate::intent::{Intent, Outcome, Purpose};
use crate::scan;
use crate::schema::TableSpec;
use crate::table::Table;
use crate::{TableName, Warehouse};
use dataflow_core::{Column, ColumnType, Datum, Epoch, Error, Marker, Micros, Result, Row, TableSchema};
use iceberg::spec::PrimitiveLiteral;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The table of epochs.
pub(crate) struct EpochsTable(pub(crate) Arc<Table>);

/// The snapshots of an epoch, by table.
pub(crate) type EpochSnapshots = BTreeMap<String, i64>;

/// The shape of the table of epochs.
fn spec(table: TableName) -> TableSpec {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind, is_nullable: false };
    let columns = vec![
        column("epoch", ColumnType::Long),
        column("clock", ColumnType::Timestamp),
        column("table_name", ColumnType::Text),
        column("snapshot_id", ColumnType::Long),
    ];
    let (schema, files) = (TableSchema { columns, key: vec![] }, FileSettings::default());
    TableSpec { table, schema, partition: vec![], sort: vec![], files }
}

impl EpochsTable {
    /// Makes or opens it.
    pub(crate) fn open(warehouse: &Warehouse, name: &TableName) -> Result<EpochsTable> {
        Ok(EpochsTable(Arc::new(warehouse.table(&spec(name.clone()))?)))
    }

    /// Notes an epoch, unless it or a later one is there. Whether it did.
    pub(crate) fn note(&self, marker: &Marker, clock: Micros, snapshots: &EpochSnapshots) -> Result<bool> {
        let table = &self.0;
        let last = table.marker()?.map_or(0, |has| has.epoch);
        if last >= marker.epoch || snapshots.is_empty() {
            return Ok(false);
        }
        let number = |n: u64| Datum::Long(n as i64);
        let row = |(name, id): (&String, &i64)| -> Row {
            [number(marker.epoch), Datum::Timestamp(clock), name.as_str().into(), Datum::Long(*id)]
                .into_iter()
                .collect()
        };
        let rows: Vec<Row> = snapshots.iter().map(row).collect();
        let mut writer = table.writer()?;
        writer.write(&rows)?;
        let intent = Intent {
            table: table.uuid(),
            marker: *marker,
            first_epoch: last + 1,
            parent: table.snapshot(),
            is_alone: false,
            purpose: Purpose::Rows,
            data: writer.finish()?,
            deletes: Deletes::default(),
            removed: Vec::new(),
        };
        match table.commit(&intent)? {
            Outcome::Committed(_) => Ok(true),
            Outcome::Foreign(_) => Err(table.foreign(table.snapshot())),
        }
    }

    /// The last `count` epochs at most.
    pub(crate) fn last(&self, count: usize) -> Result<BTreeMap<Epoch, EpochSnapshots>> {
        let mut epochs: BTreeMap<Epoch, EpochSnapshots> = BTreeMap::new();
        for file in self.files()? {
            // Files are met by their newest epoch, and what is older than the oldest that is kept is of no use.
            if epochs.len() >= count && epochs.first_key_value().is_none_or(|(oldest, _)| *oldest > file.newest) {
                break;
            }
            self.read(&file, |epoch, name, id| {
                epochs.entry(epoch).or_default().insert(name, id);
                if epochs.len() > count {
                    epochs.pop_first();
                }
            })?;
        }
        Ok(epochs)
    }

    /// One epoch.
    pub(crate) fn at(&self, wanted: Epoch) -> Result<Option<EpochSnapshots>> {
        let mut found = EpochSnapshots::new();
        for file in self.files()?.iter().filter(|file| file.newest >= wanted) {
            self.read(file, |epoch, name, id| found.extend((epoch == wanted).then_some((name, id))))?;
        }
        Ok(Some(found).filter(|found| !found.is_empty()))
    }

    /// Its files, that with the newest epoch first.
    fn files(&self) -> Result<Vec<EpochsFile>> {
        let table = &self.0;
        table.refresh()?;
        let now = table.metadata();
        let files = scan::data_files(table.session(), &now, now.current_snapshot().map(AsRef::as_ref))?;
        let id = now.current_schema().field_id_by_name("epoch");
        let described = |live: &scan::LiveFile| {
            let bound = id.and_then(|id| live.file().upper_bounds().get(&id).map(|bound| bound.literal().clone()));
            let newest = if let Some(PrimitiveLiteral::Long(newest)) = bound { newest as Epoch } else { Epoch::MAX };
            EpochsFile { path: live.file_path().into(), newest }
        };
        let mut files: Vec<EpochsFile> = files.iter().map(described).collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.newest));
        Ok(files)
    }

    fn read(&self, file: &EpochsFile, mut f: impl FnMut(Epoch, String, i64)) -> Result<()> {
        let Some(snapshot) = self.0.snapshot() else { return Ok(()) };
        for found in self.0.scan_of(snapshot, std::slice::from_ref(&file.path))? {
            let (epoch, name, id) = parsed(&found?.0)?;
            f(epoch, name, id);
        }
        Ok(())
    }
}

/// A file of the table of epochs.
struct EpochsFile {
    path: Arc<str>,
    newest: Epoch,
}

fn parsed(row: &Row) -> Result<(Epoch, String, i64)> {
    match (row.get(0), row.get(2), row.get(3)) {
        (Datum::Long(epoch), Datum::Text(name), Datum::Long(id)) => Ok((*epoch as Epoch, name.to_string(), *id)),
        _ => Err(Error::outside("read the table of epochs: it has a row that is none of ours")),
    }
}
