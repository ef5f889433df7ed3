//! What earlier generations of the job wrote and no snapshot names: files of checkpoints that never were, of attempts that others were ahead
//! of, of rewrites that came to nothing, and what a kill left of an expiry.
//!
//! Only files whose name says that this history wrote them in a generation that is over. Whoever calls knows that no intent with such
//! files is left ([`dataflow_core::Restorable`]); and this generation must have made the current snapshot, so that an attempt of an older
//! one that is still on its way cannot come in: its parent is not the current snapshot any more.

use crate::expiry::remove;
use crate::history::Ancestry;
use crate::reach::Reach;
use crate::session::outside;
use crate::table::Table;
use crate::{marker, names};
use dataflow_core::{Result, SinkIdentity};
use iceberg::spec::Snapshot;

impl Table {
    /// Removes what generations before `owner` have left behind. Returns how many files, or `None` where it is too early to tell.
    ///
    /// # Errors
    /// When files cannot be listed, read or removed.
    pub fn remove_orphans(&self, owner: &SinkIdentity) -> Result<Option<usize>> {
        let session = self.session();
        let location = self.metadata().location().to_owned();
        // Listed before the table is looked at: what an older generation brings in in between is named then.
        let mut found = Vec::new();
        for folder in ["data", "metadata"] {
            let folder = format!("{}/{folder}", location.trim_end_matches('/'));
            let files = session.wait(session.folders.list(&folder));
            found.extend(files.map_err(outside(format!("list the files of the table '{}'", self.name())))?);
        }
        let loaded = self.look()?;
        let now = &loaded.metadata;
        let newest = Ancestry::of(now).snapshots.first().map(|snapshot| snapshot.summary());
        let newest = newest.map(|summary| marker::read(self.name(), &summary.additional_properties)).transpose()?;
        if newest.flatten().is_none_or(|marker| marker.generation != owner.generation) {
            return Ok(None);
        }
        let is_over = |path: &str| {
            names::generation(path, owner.lineage).is_some_and(|generation| generation < owner.generation.number)
        };
        found.retain(|path| is_over(path) || self.catalog().is_left_over(&loaded, path));
        if found.is_empty() {
            return Ok(Some(0));
        }
        let named = Reach::of(session, now, now.snapshots().map(AsRef::<Snapshot>::as_ref), &Reach::default())?;
        let removed = remove(session, found.into_iter().filter(|path| !named.names(path)))?;
        if removed > 0 {
            tracing::info!(table = %self.name(), files = removed, "what earlier generations left behind is gone");
        }
        Ok(Some(removed))
    }
}
