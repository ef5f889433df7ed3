//! Sources by connector: `ndjson`, `generator`, `kafka`; and the decoders of their records by format: `avro`, `json`, `case-lines`.

use super::generator;
use super::sinks::resolve_secrets;
use super::until_end::UntilEnd;
use crate::profile::Profile;
use dataflow_connectors::decode::avro::AvroDecoder;
use dataflow_connectors::decode::json::{CaseLineDecoder, JsonDecoder};
use dataflow_connectors::decode::registry::{RegistrySettings, Schemas};
use dataflow_connectors::kafka_settings::KafkaSourceSettings;
use dataflow_connectors::source::kafka::{KafkaSource, KafkaSourceCounters};
use dataflow_connectors::source::ndjson::NdjsonSource;
use dataflow_core::{Decode, Environment, Error, Result, Source, SourceId, Storage, Waker};
use dataflow_loadgen::logins::Traffic;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::{Table, Value};

/// How each source's records are decoded.
pub(crate) struct Decoders(BTreeMap<String, Format>);

enum Format {
    Avro(Arc<Schemas>),
    Json,
    CaseLines,
}

impl Decoders {
    /// A decoder for one worker. `schema` is the reader's schema, for Avro.
    pub(crate) fn open<T: DeserializeOwned + 'static>(&self, source: &str, schema: &str) -> Result<Box<dyn Decode<T>>> {
        match self.0.get(source) {
            // The source operator looks again by itself while a schema is being asked for.
            Some(Format::Avro(schemas)) => Ok(Box::new(AvroDecoder::<T>::new(schema, schemas.clone(), Waker::none())?)),
            Some(Format::Json) => Ok(Box::new(JsonDecoder::<T>::default())),
            Some(Format::CaseLines) => Ok(Box::new(CaseLineDecoder::<T>::default())),
            None => Err(crate::profile::unknown("source", source, self.0.keys().map(String::as_str), "the profile")),
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
}

pub(super) fn build(
    profile: &Profile,
    environment: &Environment,
    storage: &Arc<dyn Storage>,
    until_end: bool,
) -> Result<Sources> {
    let (mut sources, mut decoders): (Vec<Arc<dyn Source>>, _) = (Vec::new(), BTreeMap::new());
    let (mut generated, mut kafka) = (Vec::new(), Vec::new());
    for (rank, name) in profile.names("sources").into_iter().enumerate() {
        let mut table = profile.table(&["sources", &name])?;
        let place = format!("source '{name}' of profile '{}'", profile.name);
        let connector = take_text(&mut table, "connector").unwrap_or_default();
        let format = take_text(&mut table, "format").unwrap_or_default();
        let registry = table.remove("registry");
        let source: Arc<dyn Source> = match connector.as_str() {
            "ndjson" => ndjson(&name, &mut table, environment, until_end, &place)?,
            "generator" => {
                let (source, traffic) = generator::build(&name, table, environment, storage)?;
                generated.push(traffic);
                source
            }
            "kafka" => {
                resolve_secrets(&mut table)?;
                table.entry("topic").or_insert_with(|| Value::String(name.clone()));
                let settings: KafkaSourceSettings = Value::Table(table)
                    .try_into()
                    .map_err(|cause: toml::de::Error| Error::user(format!("reading {place}: {}", cause.message())))?;
                let source = KafkaSource::new(settings, storage.clone())?;
                kafka.push(source.counters());
                Arc::new(source)
            }
            other => {
                return Err(crate::profile::unknown(
                    "connector",
                    other,
                    ["ndjson", "generator", "kafka"].into_iter(),
                    &place,
                ));
            }
        };
        let format = match format.as_str() {
            "avro" => {
                let registry: Option<RegistrySettings> =
                    registry.map(Value::try_into).transpose().map_err(|cause: toml::de::Error| {
                        Error::user(format!("reading 'registry' of {place}: {}", cause.message()))
                    })?;
                Format::Avro(Schemas::start(
                    SourceId(rank as u16),
                    &name,
                    storage.clone(),
                    registry.as_ref(),
                    environment,
                ))
            }
            "json" => Format::Json,
            "case-lines" => Format::CaseLines,
            other => {
                return Err(crate::profile::unknown(
                    "format",
                    other,
                    ["avro", "json", "case-lines"].into_iter(),
                    &place,
                ));
            }
        };
        decoders.insert(name, format);
        sources.push(if until_end { Arc::new(UntilEnd(source)) } else { source });
    }
    Ok(Sources { sources, decoders: Decoders(decoders), generated, kafka })
}

fn ndjson(
    name: &str,
    table: &mut Table,
    environment: &Environment,
    until_end: bool,
    place: &str,
) -> Result<Arc<dyn Source>> {
    let path = take_text(table, "path").ok_or_else(|| Error::user(format!("{place} has no 'path'")))?;
    let partitions = table.remove("partitions").and_then(|v| v.as_integer());
    crate::profile::refuse_unknown(table.keys(), ["path", "partitions"].into_iter(), place)?;
    let mut source = NdjsonSource::new(name, path);
    if let Some(count) = partitions {
        source = source.partitions(count as u32);
    }
    Ok(Arc::new(if until_end { source } else { source.follow(environment.spawner.clone()) }))
}

fn take_text(table: &mut Table, key: &str) -> Option<String> {
    table.remove(key).and_then(|v| v.as_str().map(str::to_owned))
}
