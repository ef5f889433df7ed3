//! Sources by connector: `ndjson`, `generator`, `kafka`, `objects`; and the decoders of their records by format: `avro`, `json`, `case-lines` for
//! events, `debezium-avro`, `debezium-json`, `case-changes` for the changes of a table, `lines` for what the job parses itself.

use super::secrets;
use super::until_end::UntilEnd;
use super::{generator, objects};
use crate::profile::{Profile, typed, unknown};
use dataflow_connectors::decode::avro::AvroDecoder;
use dataflow_connectors::decode::json::{CaseLineDecoder, JsonDecoder};
use dataflow_connectors::decode::raw::RawDecoder;
use dataflow_connectors::decode::registry::{RegistrySettings, Schemas};
use dataflow_connectors::envelope::debezium::{DebeziumAvroDecoder, DebeziumJsonDecoder};
use dataflow_connectors::envelope::{BareJson, CaseChangeDecoder};
use dataflow_connectors::kafka_settings::KafkaSourceSettings;
use dataflow_connectors::source::kafka::{KafkaSource, KafkaSourceCounters};
use dataflow_connectors::source::ndjson::NdjsonSource;
use dataflow_connectors::source::objects::ObjectsCounters;
use dataflow_core::change::ChangeEvent;
use dataflow_core::{Decode, Environment, Error, RawRecord, Result, Source, SourceId, Storage, TableSchema, Waker};
use dataflow_loadgen::logins::Traffic;
use serde::{Deserialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::{Table, Value};

/// How each source's records are decoded.
pub(crate) struct Decoders(BTreeMap<String, Format>);

enum Format {
    Avro(Arc<Schemas>),
    Json,
    CaseLines,
    DebeziumAvro(Arc<Schemas>),
    DebeziumJson,
    /// Of this table.
    CaseChanges(String),
    Lines,
}

const CONNECTORS: [&str; 4] = ["ndjson", "generator", "kafka", "objects"];
const FORMATS: [&str; 7] = ["avro", "json", "case-lines", "debezium-avro", "debezium-json", "case-changes", "lines"];

impl Decoders {
    /// Whether the profile wires such a source.
    pub(crate) fn has(&self, source: &str) -> bool {
        self.0.contains_key(source)
    }

    /// A decoder for one worker. `schema` is the reader's schema, for Avro.
    pub(crate) fn open<T: DeserializeOwned + 'static>(&self, source: &str, schema: &str) -> Result<Box<dyn Decode<T>>> {
        match self.0.get(source) {
            // The source operator looks again by itself while a schema is being asked for.
            Some(Format::Avro(schemas)) => Ok(Box::new(AvroDecoder::<T>::new(schema, schemas.clone(), Waker::none())?)),
            Some(Format::Json) => Ok(Box::new(JsonDecoder::<T>::default())),
            Some(Format::CaseLines) => Ok(Box::new(CaseLineDecoder::<T>::default())),
            Some(_) => {
                Err(Error::user(format!("reading source '{source}': the job reads events, its format has none"))
                    .hint("set its 'format' to avro, json or case-lines"))
            }
            None => Err(unknown("source", source, self.0.keys().map(String::as_str), "the profile")),
        }
    }

    /// A decoder that leaves records as they are.
    pub(crate) fn open_raw(&self, source: &str) -> Result<Box<dyn Decode<RawRecord>>> {
        match self.0.get(source) {
            Some(Format::Lines) => Ok(Box::new(RawDecoder)),
            Some(_) => Err(Error::user(format!("reading source '{source}': the job reads its records as they are"))
                .hint("set its 'format' to lines")),
            None => Err(unknown("source", source, self.0.keys().map(String::as_str), "the profile")),
        }
    }

    /// A decoder of the changes of a table of this shape, for one worker.
    pub(crate) fn open_changes(&self, source: &str, table: &TableSchema) -> Result<Box<dyn Decode<ChangeEvent>>> {
        let table = table.clone();
        match self.0.get(source) {
            Some(Format::DebeziumAvro(schemas)) => {
                Ok(Box::new(DebeziumAvroDecoder::new(table, schemas.clone(), Waker::none())?))
            }
            Some(Format::DebeziumJson) => Ok(Box::new(DebeziumJsonDecoder::new(table, BareJson::default())?)),
            Some(Format::CaseChanges(name)) => Ok(Box::new(CaseChangeDecoder::new(name, table)?)),
            Some(_) => {
                Err(Error::user(format!("reading source '{source}': the job reads a table, its format has none"))
                    .hint("set its 'format' to debezium-avro, debezium-json or case-changes"))
            }
            None => Err(unknown("source", source, self.0.keys().map(String::as_str), "the profile")),
        }
    }
}

/// The sources of a profile, in the order of their names.
pub(super) struct Sources {
    pub(super) sources: Vec<Arc<dyn Source>>,
    pub(super) decoders: Decoders,
    /// The made-up traffic of generators.
    pub(super) generated: Vec<Arc<Traffic>>,
    pub(super) kafka: Vec<Arc<KafkaSourceCounters>>,
    pub(super) objects: Vec<Arc<ObjectsCounters>>,
}

pub(super) fn build(
    profile: &Profile,
    environment: &Environment,
    storage: &Arc<dyn Storage>,
    until_end: bool,
) -> Result<Sources> {
    let (mut sources, mut decoders): (Vec<Arc<dyn Source>>, _) = (Vec::new(), BTreeMap::new());
    let (mut generated, mut kafka, mut of_objects) = (Vec::new(), Vec::new(), Vec::new());
    for (rank, name) in profile.names("sources").into_iter().enumerate() {
        let at = ["sources", &name];
        let mut table = profile.table(&at)?;
        let place = format!("source '{name}' of {}", profile.place());
        let connector = take_text(&mut table, "connector", &place)?;
        let format = take_text(&mut table, "format", &place)?;
        let registry = registry(profile, &name, &mut table, &place)?;
        // `dbz.public.items` is the topic of the table `items`.
        let table_name = name.rsplit('.').next().unwrap_or(&name).to_owned();
        let numbering: fn(NdjsonSource, &str) -> NdjsonSource = match format.as_str() {
            "case-changes" => |source, table| source.of_table(table),
            "lines" => |source, _| source.lines(),
            _ => |source, _| source,
        };
        let source: Arc<dyn Source> = match connector.as_str() {
            "ndjson" => {
                let source = ndjson(profile, &name, table, environment, until_end, &place)?;
                Arc::new(numbering(source, &table_name))
            }
            "generator" => match take_text(&mut table, "of", &place)?.as_str() {
                "" | "logins" => {
                    let (source, traffic) = generator::logins(&name, table, environment, storage, &place)?;
                    generated.push(traffic);
                    source
                }
                "shop" => generator::shop(profile, &name, table, environment, storage, &place)?,
                other => return Err(unknown("traffic", other, ["logins", "shop"].into_iter(), &place)),
            },
            "kafka" => {
                secrets::resolve_client(profile, &at, &mut table)?;
                table.entry("topic").or_insert_with(|| Value::String(name.clone()));
                let settings: KafkaSourceSettings = typed(table, &place)?;
                let source = KafkaSource::new(settings, storage.clone())?;
                kafka.push(source.counters());
                Arc::new(source)
            }
            "objects" => {
                let source = objects::build(profile, &name, table, environment, storage, &place)?;
                of_objects.push(source.counters());
                Arc::new(source)
            }
            other => {
                return Err(unknown("connector", other, CONNECTORS.into_iter(), &place));
            }
        };
        let schemas = || Schemas::start(SourceId(rank as u16), &name, storage.clone(), registry.as_ref(), environment);
        let format = match format.as_str() {
            "avro" => Format::Avro(schemas()),
            "debezium-avro" => Format::DebeziumAvro(schemas()),
            known if FORMATS.contains(&known) && registry.is_some() => {
                return Err(Error::user(format!("{place} has a 'registry', which the format '{known}' never asks"))
                    .hint("remove it, or set format = \"avro\" or \"debezium-avro\""));
            }
            "json" => Format::Json,
            "case-lines" => Format::CaseLines,
            "debezium-json" => Format::DebeziumJson,
            "case-changes" => Format::CaseChanges(table_name),
            "lines" => Format::Lines,
            other => return Err(unknown("format", other, FORMATS.into_iter(), &place)),
        };
        decoders.insert(name, format);
        sources.push(if until_end { Arc::new(UntilEnd(source)) } else { source });
    }
    Ok(Sources { sources, decoders: Decoders(decoders), generated, kafka, objects: of_objects })
}

fn registry(profile: &Profile, name: &str, table: &mut Table, place: &str) -> Result<Option<RegistrySettings>> {
    let place = format!("'registry' of {place}");
    match table.remove("registry") {
        None => Ok(None),
        Some(Value::Table(mut registry)) => {
            secrets::resolve(profile, &["sources", name, "registry"], &["username", "password"], &mut registry)?;
            typed(registry, &place).map(Some)
        }
        Some(other) => Err(Error::user(format!("reading {place}: it is of type {}", other.type_str()))
            .hint("it must be a table: registry = { url = \"...\" }")),
    }
}

/// What the `ndjson` connector can be told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NdjsonSettings {
    /// A file, or a folder of files.
    path: String,
    /// How many partitions there are at least, whatever the lines name.
    partitions: Option<u32>,
}

fn ndjson(
    profile: &Profile,
    name: &str,
    table: Table,
    environment: &Environment,
    until_end: bool,
    place: &str,
) -> Result<NdjsonSource> {
    let NdjsonSettings { path, partitions } = typed(table, place)?;
    let mut source = NdjsonSource::new(name, profile.path(&["sources", name, "path"], &path));
    if let Some(count) = partitions {
        source = source.partitions(count);
    }
    Ok(if until_end { source } else { source.follow(environment.spawner.clone()) })
}

/// Takes a text out of a component's settings; empty when it is not there.
pub(super) fn take_text(table: &mut Table, key: &str, place: &str) -> Result<String> {
    match table.remove(key) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Error::user(format!("reading '{key}' of {place}: it is of type {}", other.type_str()))
            .hint("it must be a text")),
    }
}
