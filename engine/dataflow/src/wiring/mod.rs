//! From a profile to connectors: each named source, table and sink becomes the part of `dataflow_connectors` that its settings name.

mod csv;
mod generator;
mod iceberg;
mod objects;
mod secrets;
mod sinks;
mod sources;
mod until_end;

pub(crate) use sinks::{LOGS, Topics, build as build_sinks};
pub(crate) use sources::Decoders;

use crate::job::{JobFile, JobWiring};
use crate::profile::{Profile, typed};
use dataflow_connectors::sink::kafka::KafkaSinkCounters;
use dataflow_connectors::source::kafka::KafkaSourceCounters;
use dataflow_connectors::source::objects::ObjectsCounters;
use dataflow_core::{Environment, Error, Result, Storage, TableSink};
use dataflow_iceberg::IcebergSink;
use dataflow_loadgen::logins::Traffic;
use dataflow_runtime::plan::{JobSetup, TableContent};
use dataflow_runtime::{Plan, RuntimeSettings};
use dataflow_state::backend::{BackendKind, RocksMemory, RocksMemorySettings, RocksSettings};
use dataflow_state::binding_log::export::parse_recorded;
use dataflow_state::table::TableSettings;
use serde::Deserialize;
use sources::Sources;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `[state]` of a profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StateSettings {
    /// `rocksdb` or `heap`.
    backend: String,
    /// Values each operator keeps in memory on each worker, in MiB; the rest lies in the backend.
    cache_mb: usize,
    /// Changed values after which they are written to the backend, in MiB.
    dirty_mb: usize,
    /// RocksDB's block cache and write buffers, for the whole process, in MiB.
    rocksdb_mb: usize,
}

impl Default for StateSettings {
    fn default() -> Self {
        StateSettings { backend: "rocksdb".into(), cache_mb: 16, dirty_mb: 8, rocksdb_mb: 64 }
    }
}

/// A job that is wired: what to prepare, and what its graph needs.
pub(crate) struct Wired {
    pub(crate) setup: JobSetup,
    pub(crate) job: JobWiring,
    /// The sinks of tables.
    pub(crate) tables: Vec<Arc<IcebergSink>>,
    /// Counters of the connectors.
    pub(crate) connectors: ConnectorCounters,
    /// The made-up traffic of generator sources, for its labels.
    pub(crate) generated: Vec<Arc<Traffic>>,
}

/// What connectors count for themselves.
#[derive(Clone)]
pub(crate) struct ConnectorCounters {
    sources: Vec<Arc<KafkaSourceCounters>>,
    objects: Vec<Arc<ObjectsCounters>>,
    sinks: Vec<Arc<KafkaSinkCounters>>,
}

/// What the command line adds.
pub(crate) struct Options {
    pub(crate) workers: Option<usize>,
    pub(crate) until_end: bool,
}

/// Builds everything that the profile names, without opening any of it.
pub(crate) fn wire(
    job: &JobFile,
    profile: &Profile,
    environment: &Environment,
    storage: &Arc<dyn Storage>,
    data: &std::path::Path,
    options: &Options,
) -> Result<Wired> {
    let workers = match options.workers {
        Some(workers) => workers,
        None => profile.value("workers")?.unwrap_or(1),
    };
    if workers == 0 || workers > usize::from(dataflow_core::SHARDS) {
        return Err(
            Error::user(format!("running with {workers} workers")).hint(format!("use 1 to {}", dataflow_core::SHARDS))
        );
    }
    let settings: RuntimeSettings = profile.section(&["runtime"])?;
    settings.check()?;
    let state: StateSettings = profile.section(&["state"])?;
    let Sources { sources, decoders, generated, kafka, objects } =
        sources::build(profile, environment, storage, options.until_end)?;
    let sinks = sinks::build(profile, storage, environment)?;
    let params = profile.table(&["params"])?;
    Ok(Wired {
        setup: JobSetup {
            name: job.name.to_owned(),
            fingerprint: fingerprint(job, profile),
            settings,
            environment: environment.clone(),
            storage: storage.clone(),
            live: data.join("live"),
            backend: backend(&state)?,
            tables: TableSettings { cache_bytes: state.cache_mb << 20, dirty_bytes: state.dirty_mb << 20 },
            workers,
            sources,
            sinks: sinks.sinks,
            table_sinks: sinks.table_sinks.iter().map(|sink| sink.clone() as Arc<dyn TableSink>).collect(),
            lookups: lookups(profile)?,
            recorded: recorded(profile)?,
        },
        job: JobWiring {
            params,
            topics: sinks.topics,
            tables: sinks.tables,
            files: sinks.files,
            decoders: Arc::new(decoders),
            asked: Arc::default(),
        },
        tables: sinks.table_sinks,
        connectors: ConnectorCounters { sources: kafka, objects, sinks: sinks.kafka },
        generated,
    })
}

/// Hash of the job's source, the engine's version and the parameters.
pub(crate) fn fingerprint(job: &JobFile, profile: &Profile) -> String {
    let text = format!("{}\n{}\n{}", env!("CARGO_PKG_VERSION"), profile.fingerprint_text(), job.source);
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

fn backend(state: &StateSettings) -> Result<BackendKind> {
    match state.backend.as_str() {
        "heap" => Ok(BackendKind::Heap),
        "rocksdb" => {
            let bytes = state.rocksdb_mb << 20;
            let memory = RocksMemorySettings { block_cache_bytes: bytes, write_buffers_bytes: bytes / 2 };
            Ok(BackendKind::Rocks { settings: RocksSettings::default(), memory: RocksMemory::new(&memory) })
        }
        other => Err(crate::profile::unknown("backend", other, ["heap", "rocksdb"].into_iter(), "'state'")),
    }
}

/// `[tables.NAME]` of a profile.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LookupSettings {
    /// The file with its content.
    file: String,
    /// Without a file: the geography of made-up traffic.
    generate: bool,
}

fn lookups(profile: &Profile) -> Result<Vec<TableContent>> {
    let mut tables = Vec::new();
    for name in profile.names("tables") {
        let at = ["tables", &name];
        let place = format!("table '{name}' of {}", profile.place());
        let LookupSettings { file, generate } = typed(profile.table(&at)?, &place)?;
        let bytes = match (file.as_str(), generate) {
            ("", true) => dataflow_loadgen::geography::csv().into_bytes(),
            ("", false) => return Err(Error::user(format!("{place} has no 'file'"))),
            (file, _) => {
                let path = profile.path(&[at[0], at[1], "file"], file);
                std::fs::read(&path).map_err(|cause| {
                    Error::user(format!("reading table '{name}' from '{}'", path.display()))
                        .because(cause)
                        .hint("name another with --set geo=FILE")
                })?
            }
        };
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
        tables.push(TableContent { name, hash, bytes: bytes.into() });
    }
    Ok(tables)
}

/// The name of the bindings file in an input or output folder.
pub(crate) fn bindings_file(profile: &Profile) -> Result<String> {
    Ok(profile.var("bindings_file")?.unwrap_or_else(|| "bindings.ndjson".to_owned()))
}

/// The epochs of a bindings file, when `--set bindings=recorded` asks for them.
fn recorded(profile: &Profile) -> Result<Option<Vec<dataflow_state::binding_log::export::RecordedEpoch>>> {
    let file = match profile.var("bindings")?.as_deref() {
        None | Some("own") => return Ok(None),
        Some("recorded") => profile.path_var("input")?.unwrap_or_default().join(bindings_file(profile)?),
        Some(file) => profile.path(&["vars", "bindings"], file),
    };
    let text = std::fs::read_to_string(&file).map_err(|cause| {
        Error::user(format!("reading the bindings file '{}'", file.display()))
            .because(cause)
            .hint("'--set bindings=' takes own, recorded (the input folder's bindings.ndjson) or a file")
    })?;
    parse_recorded(&text).map(Some)
}

/// Adds the counters of the connectors to the plan's.
pub(crate) fn gather_counters(plan: &Plan, connectors: &ConnectorCounters) {
    let status = &plan.control.status;
    let of_sources = |counter: fn(&KafkaSourceCounters) -> &AtomicU64| {
        connectors.sources.iter().map(|source| counter(source).load(Ordering::Relaxed)).sum()
    };
    status.aborted_transactions.set(connectors.sinks.iter().map(|sink| sink.aborted.load(Ordering::Relaxed)).sum());
    status.lost_records.set(of_sources(|source| &source.lost));
    status.skipped_records.set(of_sources(|source| &source.skipped));
    status.recreated_topics.set(of_sources(|source| &source.recreated));
    let of_objects = |counter: fn(&ObjectsCounters) -> &AtomicU64| {
        connectors.objects.iter().map(|source| counter(source).load(Ordering::Relaxed)).sum()
    };
    status.objects_read.set(of_objects(|source| &source.read));
    status.objects_changed.set(of_objects(|source| &source.changed));
    status.objects_gone.set(of_objects(|source| &source.gone));
    status.objects_damaged.set(of_objects(|source| &source.damaged));
}
