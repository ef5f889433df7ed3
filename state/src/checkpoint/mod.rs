//! Checkpoints: the cuts of all operators at one epoch, as files named by their content, under one manifest.
//!
//! ```text
//!   <dir>/files/<blake3>-<generation>                 parts of cuts; stored once, shared by the manifests that name them
//!   <dir>/manifests/<epoch>-<generation>.json         complete as soon as it is there (put if absent, temp + fsync + rename)
//! ```
//!
//! Invariants. A manifest is written after every file that it names is durable. A file never changes. One collector, in
//! the checkpoint writer and between manifests, removes what no kept manifest and no open checkpoint names; of the files
//! that no manifest has ever named it takes only those of ended generations, as the others may be uploads under way. The
//! newest manifest known to be intact is never removed, whatever `keep` says.
//!
//! What is read is checked: a manifest against its own checksum, the files against the sizes and hashes in it. Damage
//! is reported with manifest, file and reason, and the manifest before is taken; a manifest of a newer engine is not
//! damage but a refusal. Nothing here decides whether a checkpoint fits the log and the sinks (invariant 8).

mod collect;
mod files;
mod manifest;
mod restore;
mod store;

pub use collect::Collected;
pub use manifest::{FileRef, MANIFEST_VERSION, Manifest, PartRef, SinkPosition};
pub use store::{CheckpointStore, Damage, ManifestRef};

#[cfg(test)]
mod tests;
