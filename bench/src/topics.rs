//! Reading topics: their ends, and every record from some offsets to the ends of that moment.

use anyhow::{Context, Result, bail};
use dataflow_core::stable_hash;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;
use std::time::Duration;

/// How long a broker may take to answer a question, on a machine that is busy with what is measured.
const ANSWER: Duration = Duration::from_secs(30);
/// A poll without a record, after which a reader that is not at the ends gives up.
const SILENCE: Duration = Duration::from_secs(60);

/// A consumer. Assigns partitions itself and commits nothing, so its group never exists.
pub(crate) fn consumer<C: FromClientConfig>(brokers: &str, isolation: &str, more: &[(&str, &str)]) -> Result<C> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", "dataflow-probe")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation);
    config.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    config.create().with_context(|| format!("connect to Kafka at '{brokers}'"))
}

/// The high watermarks by partition; none for a topic that does not exist.
pub(crate) fn ends(brokers: &str, topic: &str) -> Result<Vec<i64>> {
    ends_of(&consumer::<BaseConsumer>(brokers, "read_uncommitted", &[])?, topic)
}

fn ends_of<C: ConsumerContext>(consumer: &impl Consumer<C>, topic: &str) -> Result<Vec<i64>> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).with_context(|| format!("look up topic '{topic}'"))?;
    let count = metadata.topics().first().map_or(0, |found| found.partitions().len());
    let end = |partition| consumer.fetch_watermarks(topic, partition, ANSWER).map(|(_, high)| high);
    (0..count as i32).map(end).collect::<Result<_, _>>().with_context(|| format!("ask for the ends of '{topic}'"))
}

/// Assigns every partition of the topic, each at its offset in `from` or at 0. Gives the ends of this moment.
pub(crate) fn assign<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    topic: &str,
    from: Option<&[i64]>,
) -> Result<Vec<i64>> {
    let ends = ends_of(consumer, topic)?;
    let starts: Vec<i64> = match from {
        Some(from) => (0..ends.len()).map(|p| from.get(p).copied().unwrap_or(0)).collect(),
        None => ends.clone(),
    };
    let mut list = TopicPartitionList::new();
    for (partition, start) in starts.iter().enumerate() {
        list.add_partition_offset(topic, partition as i32, Offset::Offset(*start))?;
    }
    consumer.assign(&list).with_context(|| format!("read topic '{topic}'"))?;
    Ok(ends)
}

/// Hands every record between `from` and the ends of this moment to `each`.
pub(crate) fn read(
    brokers: &str,
    topic: &str,
    from: &[i64],
    isolation: &str,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    let consumer: BaseConsumer = consumer(brokers, isolation, &[])?;
    let ends = assign(&consumer, topic, Some(from))?;
    let is_left = |p: usize| ends[p] > from.get(p).copied().unwrap_or(0);
    let mut left = (0..ends.len()).filter(|p| is_left(*p)).count();
    let mut is_done = vec![false; ends.len()];
    while left > 0 {
        match consumer.poll(SILENCE) {
            Some(Ok(message)) => each(&message),
            // An end comes after every record before it, also after those of aborted transactions, which are not shown.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let partition = partition as usize;
                if is_left(partition) && !std::mem::replace(&mut is_done[partition], true) {
                    left -= 1;
                }
            }
            Some(Err(cause)) => return Err(cause).with_context(|| format!("read topic '{topic}'")),
            None => bail!("read topic '{topic}': {left} partitions do not come to their ends; is a transaction open?"),
        }
    }
    Ok(())
}

/// What a topic holds.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Count {
    /// Committed records.
    records: usize,
    /// Different keys among them; two keys of one hash are taken for one, which among ten million is a chance of 1 in 300,000.
    keys: usize,
}

/// The committed records between `from` and the ends. Takes 8 bytes of memory a record.
pub(crate) fn count(brokers: &str, topic: &str, from: &[i64]) -> Result<Count> {
    let mut hashes = Vec::new();
    read(brokers, topic, from, "read_committed", |message| {
        hashes.push(stable_hash(message.key().unwrap_or_default()));
    })?;
    Ok(counted(hashes))
}

fn counted(mut hashes: Vec<u64>) -> Count {
    let records = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    Count { records, keys: hashes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_twice_is_one() {
        assert_eq!(counted(vec![7, 3, 7]), Count { records: 3, keys: 2 });
        assert_eq!(counted(Vec::new()), Count { records: 0, keys: 0 });
    }
}
