//! The collector: keeps the last manifests and what they name, removes the rest.
//!
//! Called by one thread, the checkpoint writer, between manifests. First manifests go, durably, then files, so that a
//! crash in between leaves files without a manifest and never the reverse; the next generation takes those.

use super::files::parse_name;
use super::manifest::{FileRef, Manifest};
use super::store::{CheckpointStore, FILES, MANIFESTS, ManifestRef};
use dataflow_core::Result;
use std::collections::BTreeSet;

/// What the collector removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests.
    pub manifests: usize,
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Which manifests stay, which go.
struct Plan {
    kept: Vec<Manifest>,
    removed: Vec<(ManifestRef, Option<Manifest>)>,
}

impl CheckpointStore {
    /// Removes the manifests beyond the kept ones and the files that neither a kept manifest nor `open` (the files of
    /// checkpoints under way) names. Files that no manifest ever named go only if their generation is below
    /// `oldest_running_generation`.
    ///
    /// # Errors
    /// When the storage fails, or a manifest was written by a newer engine.
    pub fn collect(&self, open: &[FileRef], oldest_running_generation: u64) -> Result<Collected> {
        let plan = self.plan()?;
        let mut collected = Collected::default();
        for (manifest, _) in &plan.removed {
            self.storage.remove(&manifest.path)?;
            collected.manifests += 1;
        }
        // Between manifests nobody writes one: what is temporary was left by a crash.
        for name in self.storage.list(&self.path(MANIFESTS))?.iter().filter(|name| name.ends_with(".tmp")) {
            self.storage.remove(&format!("{}/{name}", self.path(MANIFESTS)))?;
        }
        if collected.manifests > 0 {
            self.storage.sync_dir(&self.path(MANIFESTS))?;
        }
        let named: BTreeSet<String> =
            plan.kept.iter().flat_map(Manifest::files).chain(open).map(|file| self.file_path(file)).collect();
        let mut index = self.index();
        for (manifest, content) in &plan.removed {
            index.trusted.remove(&(manifest.epoch, manifest.generation));
            index.retired.extend(content.iter().flat_map(Manifest::files).map(|file| self.file_path(file)));
        }
        let dir = self.path(FILES);
        for name in self.storage.list(&dir)? {
            let path = format!("{dir}/{name}");
            // A suffix is that of a temporary file, of ours or of an import.
            let stem = name.split_once('.').map_or(name.as_str(), |(stem, _)| stem);
            let Some((hash, generation)) = parse_name(stem) else { continue };
            let ended = generation < oldest_running_generation || index.retired.contains(&path);
            if named.contains(&path) || index.reserved.contains(hash) || !ended {
                continue;
            }
            collected.bytes += self.storage.length(&path)?.unwrap_or(0);
            self.storage.remove(&path)?;
            collected.files += 1;
            index.retired.remove(&path);
            index.forget(hash, generation);
        }
        Ok(collected)
    }

    /// The newest `keep` readable manifests stay, and the newest that is known to be intact; all older than those go,
    /// damaged ones too. A damaged manifest among the kept stays where it is, for a look at it.
    fn plan(&self) -> Result<Plan> {
        let known = self.index().trusted.last().copied();
        let intact = match known {
            Some(known) => Some(known),
            None => self.newest_intact()?.0.map(|m| (m.epoch, m.generation.number)),
        };
        let mut plan = Plan { kept: Vec::new(), removed: Vec::new() };
        for found in self.list()? {
            let manifest = self.parse(&found)?.ok();
            let full = plan.kept.len() >= self.keep;
            match manifest {
                Some(manifest) if !full || Some((found.epoch, found.generation)) == intact => plan.kept.push(manifest),
                None if !full => (),
                manifest => plan.removed.push((found, manifest)),
            }
        }
        Ok(plan)
    }
}
