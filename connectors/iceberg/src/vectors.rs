//! The deletion vectors of a table of format 3. A data file has one at most, so what dies is put together with what is dead already, by the
//! commit: it alone knows the vectors that the table has then. All vectors of a commit are blobs of one Puffin file.
//!
//! ```text
//!  positions of all workers, from the intent ─┐
//!  vector of the current snapshot ────────────┼─► union, for each data file ─► Puffin file ─► entries, in the place of those that it had
//!  position deletes of before the upgrade ────┘
//! ```
//! Those that were written last are kept in memory, under the place of their blob: a place never gets another content, so one that is current
//! is right, whoever has committed meanwhile. They take some two bytes for each dead row, and a rewrite of its file frees them.

use crate::deletes::speaks_of;
use crate::deletion_vector::DeletionVector;
use crate::names;
use crate::puffin;
use crate::scan::{LiveFile, dead_rows, positions};
use crate::session::{Session, outside};
use crate::snapshot::Change;
use crate::table::Partitions;
use dataflow_core::{Error, Result};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, TableMetadata};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

/// Where a blob lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobPlace {
    file: String,
    offset: u64,
    length: u64,
}

impl BlobPlace {
    /// The data file of which a vector is, and the vector's place; `None` of what is no deletion vector.
    pub(crate) fn of(file: &DataFile) -> Option<(String, BlobPlace)> {
        let data = file.referenced_data_file().filter(|_| file.file_format() == DataFileFormat::Puffin)?;
        let offset = u64::try_from(file.content_offset()?).ok()?;
        let length = u64::try_from(file.content_size_in_bytes()?).ok()?;
        Some((data, BlobPlace { file: file.file_path().to_owned(), offset, length }))
    }

    /// Reads the vector.
    pub(crate) fn read(&self, session: &Session) -> Result<DeletionVector> {
        let what = || format!("read the deletion vector at byte {} of the file '{}'", self.offset, self.file);
        let range = self.offset..self.offset + self.length;
        let blob = session.wait(async { session.io.new_input(&self.file)?.reader().await?.read(range).await });
        let blob = blob.map_err(outside(what()))?;
        DeletionVector::from_blob(&blob).map_err(|wrong| Error::outside(format!("{}: {wrong}", what())))
    }
}

/// The vectors that were written last, by data file.
#[derive(Default)]
pub(crate) struct Vectors(Mutex<BTreeMap<String, (BlobPlace, DeletionVector)>>);

impl Vectors {
    /// Takes into `dead` what the position deletes among these live files say of its data files.
    ///
    /// # Errors
    /// When a delete file cannot be read.
    pub(crate) fn unite(
        &self,
        session: &Session,
        live: &[LiveFile],
        dead: &mut BTreeMap<String, DeletionVector>,
    ) -> Result<()> {
        for file in live.iter().map(LiveFile::file) {
            if file.content_type() != DataContentType::PositionDeletes {
                continue;
            }
            match speaks_of(file) {
                Some(data) => {
                    if let Some(dead) = dead.get_mut(&data) {
                        dead.union(&self.of(session, &data, file)?);
                    }
                }
                // A reader of a vector passes over all position deletes of its data file.
                None => {
                    for (path, position) in positions(session, file.file_path())? {
                        dead.get_mut(&*path).into_iter().for_each(|dead| dead.extend([position]));
                    }
                }
            }
        }
        Ok(())
    }

    /// Forgets those of these data files, which are gone.
    pub(crate) fn forget(&self, data: &BTreeSet<String>) {
        let mut known = self.lock();
        data.iter().for_each(|data| drop(known.remove(data)));
    }

    /// What a delete file, or a vector, of one data file says.
    pub(crate) fn of(&self, session: &Session, data: &str, file: &DataFile) -> Result<DeletionVector> {
        let Some((_, place)) = BlobPlace::of(file) else { return dead_rows(session, file.file_path(), data) };
        if let Some((at, known)) = self.lock().get(data)
            && *at == place
        {
            return Ok(known.clone());
        }
        place.read(session)
    }

    /// Writes the vectors of these data files, in the place of what they had of deletes.
    ///
    /// # Errors
    /// When a data file is not known, or the file cannot be written.
    pub(crate) fn write(
        &self,
        session: &Session,
        table: &TableMetadata,
        partitions: &Partitions,
        dead: BTreeMap<String, DeletionVector>,
        change: &mut Change,
    ) -> Result<()> {
        if dead.is_empty() {
            return Ok(());
        }
        let mut lie_in = Vec::new();
        for data in dead.keys() {
            lie_in.push(partitions.of(session, table, data)?);
        }
        let path = format!("{}/data/{}-deletes.puffin", table.location(), names::fresh(session));
        let (bytes, places) = puffin::file(&dead);
        let size = bytes.len() as u64;
        let written = session.wait(async { session.io.new_output(&path)?.write(bytes.into()).await });
        written.map_err(outside(format!("write the deletion vectors '{path}'")))?;
        let mut known = self.lock();
        for (((data, vector), (offset, length)), (spec_id, partition)) in dead.into_iter().zip(places).zip(lie_in) {
            let place = BlobPlace { file: path.clone(), offset, length };
            let mut file = DataFileBuilder::default();
            file.content(DataContentType::PositionDeletes).file_format(DataFileFormat::Puffin).file_path(path.clone());
            file.partition(partition).partition_spec_id(spec_id).record_count(vector.len()).file_size_in_bytes(size);
            file.referenced_data_file(Some(data.clone()));
            file.content_offset(Some(place.offset as i64)).content_size_in_bytes(Some(place.length as i64));
            let what = || format!("describe the deletion vector of the file '{data}'");
            change.added.push((spec_id, file.build().map_err(|e| Error::us(what()).because(e))?));
            change.outdated.insert(data.clone());
            known.insert(data, (place, vector));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (BlobPlace, DeletionVector)>> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}
