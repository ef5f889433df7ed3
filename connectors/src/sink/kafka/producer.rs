//! One producer: sends a batch, waits until every record of it is acknowledged, and commits it as one transaction.
//!
//! Invariant: no delivery result goes unread. A record that the client took and whose result did not come within the
//! timeout is a failure like any other; what it means is decided by the marker, not here.

use super::batch::{Batches, HandedOver, Topics};
use super::cluster::{Outgoing, TransactionalProducer};
use super::events::Events;
use crate::kafka_settings::KafkaSinkSettings;
use crate::source::kafka::client::{Logged, failed};
use dataflow_core::{Error, Result};
use rdkafka::bindings::rd_kafka_flush;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaRespErr;
use std::time::Duration;

/// How long a producer may take to find a broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the initialisation of one id may take: the coordinator first ends the transaction of the producer before.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// One wait for the brokers' answers, or for a report of a failure.
const TURN_MS: i32 = 100;

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
    /// Before their client, which they must not outlive.
    events: Events,
    topics: Topics,
    producer: BaseProducer<Logged>,
    name: String,
    timeout: Duration,
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
        let events = Events::of(producer.client());
        Ok(Producer { events, topics: Topics::default(), producer, name, timeout, failure: None })
    }

    /// Gives the client all of `batches`. Its queue is its bound: where that is full it is emptied first.
    fn hand_over(&mut self, batches: &mut Batches<'_>) -> Result<()> {
        loop {
            match batches.hand_over(self.producer.client(), &mut self.topics)? {
                HandedOver::All => return Ok(()),
                HandedOver::QueueIsFull => self.flush()?,
                HandedOver::Refused(code, size) => {
                    // After a record that failed the client takes no more: then that one is the cause.
                    self.take_events();
                    self.reported()?;
                    let what = format!("sending a record of {size} bytes with producer '{}'", self.name);
                    return Err(refused(what, KafkaError::MessageProduction(code)));
                }
            }
        }
    }

    /// Has everything sent at once, whatever may linger, and waits until it is acknowledged.
    ///
    /// # Errors
    /// When a record is reported as failed, or nothing is said for too long.
    fn flush(&mut self) -> Result<()> {
        // librdkafka reports every record within `message.timeout.ms`, which is this timeout; the second half is slack.
        let turns_max = 2 * self.timeout.as_millis() / TURN_MS as u128;
        for _ in 0..=turns_max {
            // SAFETY: the client lives.
            let code = unsafe { rd_kafka_flush(self.producer.client().native_ptr(), TURN_MS) };
            self.take_events();
            self.reported()?;
            if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Ok(());
            }
        }
        Err(Error::outside(format!("waiting until every record of producer '{}' is acknowledged", self.name)).retry())
    }

    /// The first record that was reported as failed, as an error.
    fn reported(&mut self) -> Result<()> {
        let failure = self.failure.take().map(|e| refused(format!("sending records with producer '{}'", self.name), e));
        failure.map_or(Ok(()), Err)
    }

    /// Takes what the client has reported by now.
    fn take_events(&mut self) {
        while let Some(failure) = self.events.take(&**self.producer.context()) {
            self.failure = self.failure.take().or(failure);
        }
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
        let mut batches = Batches::default();
        for record in records {
            batches.push(&record);
            if batches.is_full() {
                self.hand_over(&mut batches)?;
                self.flush()?;
            }
        }
        self.hand_over(&mut batches)?;
        self.flush()
    }

    fn commit(&mut self) -> Result<()> {
        let what = || format!("committing a transaction of producer '{}'", self.name);
        self.producer.commit_transaction(self.timeout).map_err(|e| failed(what(), e))
    }

    fn rest(&mut self) {
        self.take_events();
    }
}
