//! Sinks by connector: `local-log`, `kafka` take a list of topics, `iceberg` one of tables, `csv` one of files. Each belongs to one sink.

use super::secrets;
use super::sources::take_text;
use super::{csv, iceberg};
use crate::profile::{Profile, typed};
use dataflow_connectors::kafka_settings::{CreateTopics, KafkaSinkSettings};
use dataflow_connectors::sink::kafka::{KafkaSink, KafkaSinkCounters};
use dataflow_connectors::sink::local_log::{LocalLogSettings, LocalLogSink};
use dataflow_core::{Environment, Error, Result, Sink, Storage, TopicId};
use dataflow_iceberg::IcebergSink;
use dataflow_runtime::FileOutput;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::{Table, Value};

/// The folder of local logs in the data folder.
pub(crate) const LOGS: &str = "output";

/// Sink and topic id by topic name.
pub(crate) type Topics = BTreeMap<String, (String, TopicId)>;

pub(crate) struct Sinks {
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) topics: Topics,
    pub(crate) table_sinks: Vec<Arc<IcebergSink>>,
    /// Sink by table.
    pub(crate) tables: BTreeMap<String, String>,
    /// Where each file goes.
    pub(crate) files: BTreeMap<String, FileOutput>,
    pub(crate) kafka: Vec<Arc<KafkaSinkCounters>>,
}

pub(crate) fn build(profile: &Profile, storage: &Arc<dyn Storage>, environment: &Environment) -> Result<Sinks> {
    let mut built = Sinks {
        sinks: Vec::new(),
        topics: BTreeMap::new(),
        table_sinks: Vec::new(),
        tables: BTreeMap::new(),
        files: BTreeMap::new(),
        kafka: Vec::new(),
    };
    for name in profile.names("sinks") {
        let at = ["sinks", &name];
        let mut table = profile.table(&at)?;
        let place = format!("sink '{name}' of {}", profile.place());
        let connector = take_text(&mut table, "connector", &place)?;
        if connector == "iceberg" {
            let names = take_names(&mut table, "tables", &place)?;
            for table in &names {
                if let Some(other) = built.tables.insert(table.clone(), name.clone()) {
                    return Err(Error::user(format!("table '{table}' is in sink '{name}' and in sink '{other}'"))
                        .hint("a table belongs to one sink, once"));
                }
            }
            built.table_sinks.push(iceberg::build(profile, &name, names, table, environment, &place)?);
            continue;
        }
        if connector == "csv" {
            let names = take_names(&mut table, "files", &place)?;
            let output = csv::build(profile, &name, table, environment, &place)?;
            for file in names {
                if let Some(other) = built.files.insert(file.clone(), output.clone()) {
                    return Err(Error::user(format!(
                        "file '{file}' is in sink '{name}' and in sink '{}'",
                        other.sink.name()
                    ))
                    .hint("a file belongs to one sink, once"));
                }
            }
            continue;
        }
        let topics = take_names(&mut table, "topics", &place)?;
        for (id, topic) in topics.iter().enumerate() {
            let taken = built.topics.insert(topic.clone(), (name.clone(), TopicId(id as u16)));
            if let Some((other, _)) = taken {
                return Err(Error::user(format!("topic '{topic}' is in sink '{name}' and in sink '{other}'"))
                    .hint("a topic belongs to one sink, once"));
            }
        }
        match connector.as_str() {
            "local-log" => {
                let LogSettings { start_over } = typed(table, &place)?;
                let settings =
                    LocalLogSettings { start_over, ..LocalLogSettings::new(&name, format!("{LOGS}/{name}"), topics) };
                built.sinks.push(Box::new(LocalLogSink::new(storage.clone(), settings)?));
            }
            "kafka" => {
                secrets::resolve_client(profile, &at, &mut table)?;
                if let Some(Value::Table(create)) = table.get("create_topics") {
                    typed::<CreateTopics>(create.clone(), &format!("'create_topics' of {place}"))?;
                }
                let settings: KafkaSinkSettings = typed(table, &place)?;
                let sink = KafkaSink::new(&name, settings, topics)?;
                built.kafka.push(sink.counters());
                built.sinks.push(Box::new(sink));
            }
            other => {
                return Err(crate::profile::unknown(
                    "connector",
                    other,
                    ["local-log", "kafka", "iceberg", "csv"].into_iter(),
                    &place,
                ));
            }
        }
    }
    Ok(built)
}

/// What a local log can be told.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogSettings {
    /// Throw away the content of another lineage.
    start_over: bool,
}

/// The names that a sink takes.
fn take_names(table: &mut Table, key: &str, place: &str) -> Result<Vec<String>> {
    let names = table.remove(key).map(Value::try_into::<Vec<String>>).transpose();
    let names = names.ok().flatten().filter(|names| !names.is_empty());
    names.ok_or_else(|| Error::user(format!("{place} has no '{key}'")).hint(format!("list them: {key} = [\"...\"]")))
}
