//! The manifest: what a checkpoint consists of and which moment of the job it is, and its text form.
//!
//! The text is two lines of JSON: the manifest, and `{"blake3":"…"}` of the first line. The state of the bindings has
//! keys that JSON has not, so it is written as lists; event times are whole microseconds, which reach further than the
//! text form of a timestamp.

use crate::backend::CutFormat;
use dataflow_core::binding::PartitionState;
use dataflow_core::{BindingState, ChainHash, Epoch, Error, Generation, Lineage, Micros, Partition, Result, SourceId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The version of the manifest's text.
pub const MANIFEST_VERSION: u32 = 1;

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileRef {
    /// Its name within the cut.
    pub name: String,
    /// BLAKE3 of its content, in hex.
    pub hash: String,
    /// Its length.
    pub bytes: u64,
    /// The generation that stored it; with the hash, the name in the store.
    pub generation: u64,
}

/// The cut of one operator instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRef {
    /// The operator's name in the job.
    pub operator: String,
    /// The worker.
    pub worker: usize,
    /// The version of its values ([`crate::table::StateValue::VERSION`]).
    pub value_version: u16,
    /// How its files are to be read.
    pub format: CutFormat,
    /// Its files, sorted by name.
    pub files: Vec<FileRef>,
}

/// How far a sink was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkPosition {
    /// The last epoch up to the checkpoint's in which the sink had output; 0 when none.
    pub last_output: Epoch,
    /// The epoch through which it had committed.
    pub committed: Epoch,
    /// The chain hash of the binding of `last_output`: the log may have lost that row to its age while the sink's marker still names it.
    /// `None` when there was none, and in manifests of before this was kept.
    #[serde(default, with = "known_chain_hex")]
    pub chain: Option<ChainHash>,
}

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`] of the engine that wrote it.
    pub version: u32,
    /// The job's name.
    pub job: String,
    /// Hash of the job's source, the engine's version and the parameters.
    pub fingerprint: String,
    /// The job's history.
    pub lineage: Lineage,
    /// The life that wrote it.
    pub generation: Generation,
    /// The epoch whose end it is.
    pub epoch: Epoch,
    /// The chain hash of that epoch's binding.
    #[serde(with = "chain_hex")]
    pub chain: ChainHash,
    /// The sum of the bindings up to it.
    #[serde(with = "state_lists")]
    pub state: BindingState,
    /// The names of the sources, by [`SourceId`].
    pub sources: Vec<String>,
    /// How many workers there were.
    pub workers: usize,
    /// The cuts, by (operator, worker).
    pub parts: Vec<PartRef>,
    /// The sinks, by name.
    pub sinks: BTreeMap<String, SinkPosition>,
    /// A clean stop: no epoch is bound after it.
    pub clean: bool,
    /// The epoch's clock.
    #[serde(with = "micros_number")]
    pub clock: Micros,
}

#[derive(Serialize, Deserialize)]
struct Checksum {
    blake3: String,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Manifest {
    /// The parts of an operator, by worker; empty when the checkpoint does not know it.
    ///
    /// # Errors
    /// When it is known, but not with one part of each worker and one value version.
    pub fn parts_of(&self, operator: &str) -> Result<Vec<&PartRef>> {
        let mut parts: Vec<&PartRef> = self.parts.iter().filter(|p| p.operator == operator).collect();
        parts.sort_by_key(|p| p.worker);
        let whole = parts.iter().map(|p| p.worker).eq(0..self.workers);
        if !parts.is_empty() && !whole {
            let workers: Vec<usize> = parts.iter().map(|p| p.worker).collect();
            return Err(Error::doubt(format!(
                "read operator '{operator}' in the checkpoint of epoch {}: it has parts of workers {workers:?}, not one of each of {}",
                self.epoch, self.workers
            )));
        }
        if parts.windows(2).any(|pair| pair[0].value_version != pair[1].value_version) {
            return Err(Error::doubt(format!(
                "read operator '{operator}' in the checkpoint of epoch {}: its parts have different value versions",
                self.epoch
            )));
        }
        Ok(parts)
    }

    /// Every file of every part.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.parts.iter().flat_map(|p| &p.files)
    }

    /// The text form.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("a manifest has no map with keys other than strings");
        let checksum = Checksum { blake3: blake3::hash(&text).to_hex().to_string() };
        text.push(b'\n');
        serde_json::to_writer(&mut text, &checksum).expect("a vector takes every write");
        text.push(b'\n');
        text
    }

    /// Reads the text form: the manifest, or what is wrong with the text.
    ///
    /// # Errors
    /// When the text is whole but of a newer engine.
    pub(crate) fn decode(path: &str, text: &[u8]) -> Result<std::result::Result<Manifest, String>> {
        let Some((body, rest)) = text.iter().position(|b| *b == b'\n').map(|at| text.split_at(at)) else {
            return Ok(Err("it is truncated: it has no checksum line".to_string()));
        };
        let checksum = match serde_json::from_slice::<Checksum>(rest) {
            Ok(checksum) if rest.ends_with(b"\n") => checksum.blake3,
            _ => return Ok(Err("it is truncated: its checksum line is not whole".to_string())),
        };
        let actual = blake3::hash(body).to_hex();
        if checksum != actual.as_str() {
            return Ok(Err(format!("its text has checksum {actual}, not {checksum}")));
        }
        let version = match serde_json::from_slice::<VersionOnly>(body) {
            Ok(version) => version.version,
            Err(e) => return Ok(Err(e.to_string())),
        };
        if version > MANIFEST_VERSION {
            return Err(Error::user(format!(
                "read manifest '{path}' of version {version} with code for {MANIFEST_VERSION}"
            ))
            .hint("run the engine that wrote it, or a newer one"));
        }
        Ok(serde_json::from_slice(body).map_err(|e| e.to_string()))
    }
}

mod chain_hex {
    use super::ChainHash;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &ChainHash, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(hash)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<ChainHash, D::Error> {
        let text = String::deserialize(d)?;
        super::hex16(&text).map(ChainHash).ok_or_else(|| D::Error::custom(format!("'{text}' is no chain hash")))
    }
}

mod known_chain_hex {
    use super::{ChainHash, chain_hex};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Hex(#[serde(with = "chain_hex")] ChainHash);

    pub(super) fn serialize<S: Serializer>(hash: &Option<ChainHash>, s: S) -> Result<S::Ok, S::Error> {
        hash.map(Hex).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<ChainHash>, D::Error> {
        Ok(Option::<Hex>::deserialize(d)?.map(|hex| hex.0))
    }
}

mod micros_number {
    use super::Micros;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Micros, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(time.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Micros, D::Error> {
        i64::deserialize(d).map(Micros)
    }
}

fn hex16(text: &str) -> Option<[u8; 16]> {
    let digits: &[u8; 32] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |c: u8| char::from(c).to_digit(16).and_then(|n| u8::try_from(n).ok());
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// [`BindingState`] in lists.
mod state_lists {
    use super::{BTreeMap, BTreeSet, BindingState, Epoch, Micros, Partition, PartitionState, SourceId};
    use super::{Deserialize, Serialize};
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Lists {
        epoch: Epoch,
        clock: i64,
        partitions: Vec<PartitionRow>,
        idle: BTreeSet<Partition>,
        watermark: Option<i64>,
        #[serde(rename = "final")]
        is_final: bool,
        schemas: Vec<SchemaRow>,
        tables: BTreeMap<String, [u8; 16]>,
    }

    #[derive(Serialize, Deserialize)]
    struct PartitionRow {
        source: SourceId,
        index: u32,
        end: u64,
        newest: Option<i64>,
    }

    #[derive(Serialize, Deserialize)]
    struct SchemaRow {
        source: SourceId,
        id: u32,
        hash: Option<[u8; 16]>,
    }

    pub(super) fn serialize<S: Serializer>(state: &BindingState, s: S) -> Result<S::Ok, S::Error> {
        let partition = |(p, state): (&Partition, &PartitionState)| PartitionRow {
            source: p.source,
            index: p.index,
            end: state.end,
            newest: state.newest.map(|t| t.0),
        };
        let schema = |((source, id), hash): (&(SourceId, u32), &Option<[u8; 16]>)| SchemaRow {
            source: *source,
            id: *id,
            hash: *hash,
        };
        Lists {
            epoch: state.epoch,
            clock: state.clock.0,
            partitions: state.partitions.iter().map(partition).collect(),
            idle: state.idle.clone(),
            watermark: state.watermark.map(|t| t.0),
            is_final: state.is_final,
            schemas: state.schemas.iter().map(schema).collect(),
            tables: state.tables.clone(),
        }
        .serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BindingState, D::Error> {
        let lists = Lists::deserialize(d)?;
        let partition = |row: PartitionRow| {
            let state = PartitionState { end: row.end, newest: row.newest.map(Micros) };
            (Partition { source: row.source, index: row.index }, state)
        };
        Ok(BindingState {
            epoch: lists.epoch,
            clock: Micros(lists.clock),
            partitions: lists.partitions.into_iter().map(partition).collect(),
            idle: lists.idle,
            watermark: lists.watermark.map(Micros),
            is_final: lists.is_final,
            schemas: lists.schemas.into_iter().map(|row| ((row.source, row.id), row.hash)).collect(),
            tables: lists.tables,
        })
    }
}
