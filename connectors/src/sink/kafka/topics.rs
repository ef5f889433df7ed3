//! The topics a sink writes to: found, or created where the settings allow it, with their numbers of partitions.

use crate::kafka_settings::{KafkaSinkSettings, MESSAGE_BYTES_MAX};
use crate::source::kafka::client::{Consumer, failed, wait_for};
use crate::source::kafka::topic;
use dataflow_core::{Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;

/// Looks for a topic that was just created: its metadata reach every broker within a moment.
const LOOKS_MAX: u32 = 50;

/// A wait between looks.
const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

/// Finds or creates the markers topic and the output topics; returns the partitions of the latter.
pub(super) fn prepare(
    settings: &KafkaSinkSettings,
    client: &Consumer,
    markers: &str,
    topics: &[String],
) -> Result<Vec<u32>> {
    match ensure(settings, client, markers, true)? {
        1 => {}
        count => {
            return Err(Error::user(format!(
                "opening the markers topic '{markers}': it has {count} partitions, and markers need one"
            ))
            .hint("delete it if it is not this job's, or name the job differently"));
        }
    }
    topics.iter().map(|name| ensure(settings, client, name, false)).collect()
}

fn ensure(settings: &KafkaSinkSettings, client: &Consumer, name: &str, markers: bool) -> Result<u32> {
    if let Some(count) = topic::partitions(client.client(), name)? {
        if !markers {
            warn_of_small_messages(client, name);
        }
        return Ok(count);
    }
    let (partitions, replication) = match (settings.create_topics, markers) {
        (Some(create), true) => (1, create.replication),
        (Some(create), false) => (create.partitions, create.replication),
        // The engine's own topic is created whoever creates the others, with the cluster's default replication.
        (None, true) => (1, 0),
        (None, false) => {
            return Err(
                topic::missing(name, &settings.brokers).hint(format!("create topic '{name}', or set 'create_topics'"))
            );
        }
    };
    create(settings, name, partitions, replication, markers)?;
    for _ in 0..LOOKS_MAX {
        if let Some(count) = topic::partitions(client.client(), name)?.filter(|count| *count > 0) {
            return Ok(count);
        }
        client.poll(LOOK_INTERVAL);
    }
    Err(Error::outside(format!("creating topic '{name}' on '{}': it does not appear", settings.brokers)).retry())
}

fn create(settings: &KafkaSinkSettings, name: &str, partitions: u32, replication: u32, compacted: bool) -> Result<()> {
    let what = || format!("creating topic '{name}' on '{}'", settings.brokers);
    let admin: AdminClient<DefaultClientContext> = settings.admin()?.create().map_err(|e| failed(what(), e))?;
    let number = |n: u32| i32::try_from(n).map_err(|e| Error::user(what()).because(e));
    let replication = if replication == 0 { -1 } else { number(replication)? };
    let mut topic = NewTopic::new(name, number(partitions)?, TopicReplication::Fixed(replication));
    let bytes = MESSAGE_BYTES_MAX.to_string();
    topic = if compacted { topic.set("cleanup.policy", "compact") } else { topic.set("max.message.bytes", &bytes) };
    let options = AdminOptions::new()
        .request_timeout(Some(topic::REQUEST_TIMEOUT))
        .operation_timeout(Some(topic::REQUEST_TIMEOUT));
    for answer in wait_for(admin.create_topics([&topic], &options)).map_err(|e| failed(what(), e))? {
        match answer {
            // Another process was faster.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                return Err(Error::outside(what()).because(code).hint("create it by hand, or allow the job's user to"));
            }
        }
    }
    Ok(())
}

/// A row that the topic does not take ends the job, and every restart meets it again: better known at the start.
fn warn_of_small_messages(client: &Consumer, name: &str) {
    match topic::setting(client, name, c"max.message.bytes") {
        Ok(bytes) if is_small(&bytes) => tracing::warn!(
            topic = name,
            bytes,
            needed = MESSAGE_BYTES_MAX,
            "the topic takes smaller messages than a row may be; a larger row would end the job: set max.message.bytes={MESSAGE_BYTES_MAX} on it"
        ),
        Ok(_) => {}
        Err(error) => tracing::debug!(topic = name, %error, "it is not known how large a message of the topic may be"),
    }
}

fn is_small(bytes: &str) -> bool {
    bytes.parse::<usize>().is_ok_and(|bytes| bytes < MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_small_only_when_its_bound_is_known_to_be() {
        assert!(is_small("1048588"));
        assert!(!is_small(&MESSAGE_BYTES_MAX.to_string()) && !is_small("") && !is_small("unlimited"));
    }
}
