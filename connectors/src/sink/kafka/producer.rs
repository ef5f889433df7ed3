//! One producer: sends a batch, waits until every record of it is acknowledged, and commits it as one transaction.
//!
//! Invariant: no delivery result goes unread. A record that the client took and whose result did not come within the
//! timeout is a failure like any other; what it means is decided by the marker, not here.

use super::cluster::{Outgoing, TransactionalProducer};
use super::events::Events;
use crate::kafka_settings::KafkaSinkSettings;
use crate::source::kafka::client::{Logged, failed};
use dataflow_core::{Error, Result};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use std::time::Duration;

/// How long a producer may take to find a broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the initialisation of one id may take: the coordinator first ends the transaction of the producer before.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// One wait for reports.
const TURN_MS: i32 = 100;

/// Records sent between two looks at the reports: what was reported holds its memory until it is taken.
const SENT_BEFORE_A_LOOK: usize = 1024;

impl ProducerContext for Logged {
    type DeliveryOpaque = ();

    /// Only for a producer that is being destroyed: before that, [`Events`] takes the reports.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// The error of a record that was not taken. What only the settings can mend is the user's: repeating it changes nothing.
fn refused(what: String, error: KafkaError) -> Error {
    use RDKafkaErrorCode as E;
    let hint = match error.rdkafka_error_code() {
        Some(E::MessageSizeTooLarge) => "raise 'message.max.bytes' of the client and 'max.message.bytes' of the topic",
        Some(E::TopicAuthorizationFailed | E::ClusterAuthorizationFailed) => {
            "allow the job's user to write to the topic"
        }
        _ => return failed(what, error),
    };
    Error::user(what).because(error).hint(hint)
}

/// A producer, transactional when it has an id.
pub struct Producer {
    /// Before its client, which it must not outlive.
    events: Events,
    producer: BaseProducer<Logged>,
    name: String,
    timeout: Duration,
    /// Records that the client took and whose outcome is not reported.
    pending: usize,
    /// The first failure in the batch under way.
    failure: Option<KafkaError>,
}

impl Producer {
    /// Creates a producer and connects it: a client that is asked to initialise its id before it knows a broker looks for one
    /// every 500 ms. `topic` is one that exists.
    pub(super) fn connect(
        settings: &KafkaSinkSettings,
        sink: &str,
        transactional_id: Option<&str>,
        topic: &str,
    ) -> Result<Producer> {
        let name = transactional_id.unwrap_or(sink).to_owned();
        let what = || format!("connecting producer '{name}'");
        let config = settings.producer(transactional_id)?;
        let producer: BaseProducer<Logged> =
            config.create_with_context(Logged { name: name.clone() }).map_err(|e| failed(what(), e))?;
        producer.client().fetch_metadata(Some(topic), CONNECT_TIMEOUT).map_err(|e| failed(what(), e))?;
        let timeout = Duration::from_millis(settings.transaction_timeout_ms.into());
        Ok(Producer { events: Events::of(producer.client()), producer, name, timeout, pending: 0, failure: None })
    }

    fn send_one(&mut self, record: &Outgoing<'_>) -> Result<()> {
        loop {
            let mut message =
                BaseRecord::<[u8], [u8]>::to(record.topic).partition(record.partition).payload(record.value);
            message.key = record.key;
            let Err((error, _)) = self.producer.send(message) else {
                self.pending += 1;
                return Ok(());
            };
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || self.pending == 0 {
                let size = record.value.len();
                return Err(refused(
                    format!("sending a record of {size} bytes to '{}/{}'", record.topic, record.partition),
                    error,
                ));
            }
            // The client's queue is its bound: go on when half of it is gone.
            self.wait_until("the client takes more records", self.pending / 2)?;
        }
    }

    /// Waits until at most `left` records are on their way.
    fn wait_until(&mut self, what: &str, left: usize) -> Result<()> {
        // librdkafka reports every record within `message.timeout.ms`, which is this timeout; the second half is slack.
        let turns_max = 2 * self.timeout.as_millis() / TURN_MS as u128;
        let mut turns = 0;
        while self.pending > left {
            if !self.take_event(TURN_MS) {
                turns += 1;
            }
            if turns > turns_max {
                return Err(Error::outside(format!("waiting until {what} by producer '{}'", self.name)).retry());
            }
        }
        Ok(())
    }

    /// Takes what the client has reported by now.
    fn take_events(&mut self) {
        while self.take_event(0) {}
    }

    fn take_event(&mut self, timeout_ms: i32) -> bool {
        let Some(deliveries) = self.events.take(&**self.producer.context(), timeout_ms) else { return false };
        self.pending -= deliveries.reported;
        self.failure = self.failure.take().or(deliveries.failure);
        true
    }
}

impl TransactionalProducer for Producer {
    fn initialise(&mut self) -> Result<()> {
        let what = || format!("initialising producer '{}'", self.name);
        self.producer.init_transactions(INIT_TIMEOUT).map_err(|e| failed(what(), e))
    }

    fn begin(&mut self) -> Result<()> {
        let what = || format!("beginning a transaction of producer '{}'", self.name);
        self.producer.begin_transaction().map_err(|e| failed(what(), e))
    }

    fn send<'a>(&mut self, records: impl Iterator<Item = Outgoing<'a>>) -> Result<()> {
        self.failure = None;
        for (at, record) in records.enumerate() {
            self.send_one(&record)?;
            if at % SENT_BEFORE_A_LOOK == 0 {
                self.take_events();
            }
        }
        self.wait_until("every record is acknowledged", 0)?;
        match self.failure.take() {
            Some(error) => Err(refused(format!("sending records with producer '{}'", self.name), error)),
            None => Ok(()),
        }
    }

    fn commit(&mut self) -> Result<()> {
        let what = || format!("committing a transaction of producer '{}'", self.name);
        self.producer.commit_transaction(self.timeout).map_err(|e| failed(what(), e))
    }

    fn rest(&mut self) {
        self.take_events();
    }
}
