//! Sinks by connector: `local-log`, `kafka`. A sink takes a list of topics; a topic belongs to one sink.

use crate::profile::Profile;
use dataflow_connectors::kafka_settings::KafkaSinkSettings;
use dataflow_connectors::sink::kafka::{KafkaSink, KafkaSinkCounters};
use dataflow_connectors::sink::local_log::{LocalLogSettings, LocalLogSink};
use dataflow_core::{Error, Result, Sink, Storage, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The folder of local logs in the data folder.
pub(crate) const LOGS: &str = "output";

/// Sink and topic id by topic name.
pub(crate) type Topics = BTreeMap<String, (String, TopicId)>;

pub(crate) struct Sinks {
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) topics: Topics,
    pub(crate) kafka: Vec<Arc<KafkaSinkCounters>>,
}

pub(crate) fn build(profile: &Profile, storage: &Arc<dyn Storage>) -> Result<Sinks> {
    let mut built = Sinks { sinks: Vec::new(), topics: BTreeMap::new(), kafka: Vec::new() };
    for name in profile.names("sinks") {
        let mut table = profile.table(&["sinks", &name])?;
        let connector = table.remove("connector").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let topics = take_topics(profile, &name, &mut table)?;
        for (id, topic) in topics.iter().enumerate() {
            let taken = built.topics.insert(topic.clone(), (name.clone(), TopicId(id as u16)));
            if let Some((other, _)) = taken {
                return Err(Error::user(format!("topic '{topic}' is in sink '{name}' and in sink '{other}'")));
            }
        }
        match connector.as_str() {
            "local-log" => {
                let start_over = table.remove("start_over").and_then(|v| v.as_bool()).unwrap_or(false);
                crate::profile::refuse_unknown(table.keys(), ["start_over"].into_iter(), &format!("sink '{name}'"))?;
                let settings =
                    LocalLogSettings { start_over, ..LocalLogSettings::new(&name, format!("{LOGS}/{name}"), topics) };
                built.sinks.push(Box::new(LocalLogSink::new(storage.clone(), settings)?));
            }
            "kafka" => {
                resolve_secrets(&mut table)?;
                let settings: KafkaSinkSettings =
                    toml::Value::Table(table).try_into().map_err(|cause: toml::de::Error| {
                        Error::user(format!("reading sink '{name}': {}", cause.message()))
                    })?;
                let sink = KafkaSink::new(&name, settings, topics)?;
                built.kafka.push(sink.counters());
                built.sinks.push(Box::new(sink));
            }
            other => {
                let place = format!("sink '{name}' of profile '{}'", profile.name);
                return Err(crate::profile::unknown("connector", other, ["local-log", "kafka"].into_iter(), &place));
            }
        }
    }
    Ok(built)
}

fn take_topics(profile: &Profile, name: &str, table: &mut toml::Table) -> Result<Vec<String>> {
    let topics = table.remove("topics").and_then(|v| v.try_into::<Vec<String>>().ok()).unwrap_or_default();
    if topics.is_empty() {
        return Err(Error::user(format!("sink '{name}' of profile '{}' has no 'topics'", profile.name)));
    }
    Ok(topics)
}

/// Replaces `env:NAME` and `file:PATH` among the client properties by what they refer to.
pub(crate) fn resolve_secrets(table: &mut toml::Table) -> Result<()> {
    let Some(toml::Value::Table(client)) = table.get_mut("client") else { return Ok(()) };
    for (key, value) in client.iter_mut() {
        let Some(text) = value.as_str() else { continue };
        let resolved = if let Some(name) = text.strip_prefix("env:") {
            std::env::var(name).map_err(|_| {
                Error::user(format!(
                    "client property '{key}' refers to the environment variable '{name}', which is not set"
                ))
            })?
        } else if let Some(path) = text.strip_prefix("file:") {
            let secret = std::fs::read_to_string(path).map_err(|cause| {
                Error::user(format!("client property '{key}' refers to the file '{path}'")).because(cause)
            })?;
            secret.trim_end_matches('\n').to_owned()
        } else {
            continue;
        };
        *value = toml::Value::String(resolved);
    }
    Ok(())
}
