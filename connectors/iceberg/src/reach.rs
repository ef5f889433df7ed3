//! Which files snapshots name: what must stay while they do.

use crate::session::{Session, outside};
use crate::snapshot::manifests;
use dataflow_core::Result;
use iceberg::spec::{Snapshot, TableMetadata};
use std::collections::BTreeSet;

/// The files of some snapshots. One entry a file, so as large as the table's own list of files.
#[derive(Default)]
pub(crate) struct Reach {
    lists: BTreeSet<String>,
    manifests: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Reach {
    /// Reads what `snapshots` name. Manifests that `known` has are passed over: their files are in it.
    pub(crate) fn of<'a>(
        session: &Session,
        table: &TableMetadata,
        snapshots: impl IntoIterator<Item = &'a Snapshot>,
        known: &Reach,
    ) -> Result<Reach> {
        let mut reach = Reach::default();
        let read = session.wait(async {
            for snapshot in snapshots {
                reach.lists.insert(snapshot.manifest_list().to_owned());
                for manifest in manifests(session, table, Some(snapshot)).await? {
                    let path = &manifest.manifest_path;
                    if known.manifests.contains(path) || !reach.manifests.insert(path.clone()) {
                        continue;
                    }
                    let entries = manifest.load_manifest(&session.io).await?.into_parts().0;
                    let alive = entries.iter().filter(|entry| entry.is_alive());
                    reach.files.extend(alive.map(|entry| entry.file_path().to_owned()));
                }
            }
            Ok(())
        });
        read.map_err(outside(format!("list the files of the table at '{}'", table.location())))?;
        Ok(reach)
    }

    /// Whether the file at `path` is named.
    pub(crate) fn names(&self, path: &str) -> bool {
        self.files.contains(path) || self.manifests.contains(path) || self.lists.contains(path)
    }

    /// All paths: what is named goes before what names it, so that an end in between leaves nothing that names what is gone.
    pub(crate) fn into_paths(self) -> impl Iterator<Item = String> {
        self.files.into_iter().chain(self.manifests).chain(self.lists)
    }
}
