//! One producer: sends a batch, waits until every record of it is acknowledged, and commits it as one transaction.
//!
//! Invariant: no delivery result goes unread. A record that the client took and whose result did not come within the
//! timeout is a failure like any other; what it means is decided by the marker, not here.

use crate::kafka_settings::KafkaSinkSettings;
use crate::source::kafka::client::failed;
use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Error, Result};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// How long a producer may take to find a broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the initialisation of one id may take: the coordinator first ends the transaction of the producer before.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Looks at whether the client let go of the last records: the reporting thread only has to run once, and after these
/// the commit waits by itself.
const LET_GO_TURNS_MAX: u32 = 100_000;

/// A record to send.
pub(super) struct Outgoing<'a> {
    /// The topic.
    pub(super) topic: &'a str,
    /// The partition.
    pub(super) partition: i32,
    /// The key; `None` is null.
    pub(super) key: Option<&'a [u8]>,
    /// The value.
    pub(super) value: &'a [u8],
}

/// What became of the records of the batch under way. Filled by the producer's own thread.
struct Deliveries {
    name: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pending: usize,
    /// Who waits is woken when this few are left, not with every record: a wake is a call of the kernel.
    wake_at: usize,
    failure: Option<KafkaError>,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::trace!(kafka = self.name, fac, message),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => tracing::debug!(kafka = self.name, fac, message),
            _ => tracing::warn!(kafka = self.name, fac, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(kafka = self.name, %error, reason, "the kafka producer reports an error");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut state = self.lock();
        state.pending -= 1;
        if let Err((error, _)) = result {
            state.failure.get_or_insert_with(|| error.clone());
        }
        let is_due = state.pending == state.wake_at;
        drop(state);
        if is_due {
            self.changed.notify_all();
        }
    }
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
pub(super) struct Producer {
    producer: ThreadedProducer<Deliveries>,
    name: String,
    timeout: Duration,
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
        let context = Deliveries { name: name.clone(), state: Mutex::default(), changed: Condvar::new() };
        let config = settings.producer(transactional_id)?;
        let producer: ThreadedProducer<Deliveries> =
            config.create_with_context(context).map_err(|e| failed(what(), e))?;
        producer.client().fetch_metadata(Some(topic), CONNECT_TIMEOUT).map_err(|e| failed(what(), e))?;
        let timeout = Duration::from_millis(settings.transaction_timeout_ms.into());
        Ok(Producer { producer, name, timeout })
    }

    /// Shuts out the producer that had the transactional id before, and ends its transaction. Called once, first.
    pub(super) fn initialise(&self) -> Result<()> {
        let what = || format!("initialising producer '{}'", self.name);
        self.producer.init_transactions(INIT_TIMEOUT).map_err(|e| failed(what(), e))
    }

    /// Sends the records as one transaction. After an error nothing is known about its outcome.
    pub(super) fn transaction<'a>(&self, records: impl Iterator<Item = Outgoing<'a>>) -> Result<()> {
        let what = |step: &str| format!("{step} a transaction of producer '{}'", self.name);
        self.producer.begin_transaction().map_err(|e| failed(what("beginning"), e))?;
        self.send(records)?;
        self.let_go();
        self.producer.commit_transaction(self.timeout).map_err(|e| failed(what("committing"), e))
    }

    /// Sends the records and waits until the brokers have acknowledged each.
    pub(super) fn send<'a>(&self, records: impl Iterator<Item = Outgoing<'a>>) -> Result<()> {
        *self.deliveries().lock() = State::default();
        records.into_iter().try_for_each(|record| self.send_one(&record))?;
        self.wait_until("every record is acknowledged", 0)?;
        match self.deliveries().lock().failure.take() {
            Some(error) if !is_planted(Bug::SwallowedProduceError) => {
                Err(refused(format!("sending records with producer '{}'", self.name), error))
            }
            _ => Ok(()),
        }
    }

    fn send_one(&self, record: &Outgoing<'_>) -> Result<()> {
        loop {
            self.deliveries().lock().pending += 1;
            let mut message =
                BaseRecord::<[u8], [u8]>::to(record.topic).partition(record.partition).payload(record.value);
            message.key = record.key;
            let Err((error, _)) = self.producer.send(message) else { return Ok(()) };
            let waiting = {
                let mut state = self.deliveries().lock();
                state.pending -= 1;
                state.pending
            };
            if is_planted(Bug::SwallowedProduceError) {
                return Ok(());
            }
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || waiting == 0 {
                let size = record.value.len();
                return Err(refused(
                    format!("sending a record of {size} bytes to '{}/{}'", record.topic, record.partition),
                    error,
                ));
            }
            // The client's queue is its bound: go on when half of it is gone.
            self.wait_until("the client takes more records", waiting / 2)?;
        }
    }

    /// Waits until at most `left` records are on their way.
    fn wait_until(&self, what: &str, left: usize) -> Result<()> {
        let deliveries = self.deliveries();
        let mut state = deliveries.lock();
        state.wake_at = left;
        // librdkafka reports every record within `message.timeout.ms`, which is this timeout; the second half is slack.
        let (state, waited) = deliveries
            .changed
            .wait_timeout_while(state, self.timeout * 2, |state| state.pending > left)
            .expect("no holder of this lock can panic");
        drop(state);
        if waited.timed_out() {
            return Err(Error::outside(format!("waiting until {what} by producer '{}'", self.name)).retry());
        }
        Ok(())
    }

    /// Waits until the client has let go of the acknowledged records, which it does a moment after it reported them.
    /// `commit_transaction` would else sit in a poll of 100 ms before it looks again.
    fn let_go(&self) {
        for _ in 0..LET_GO_TURNS_MAX {
            if self.producer.in_flight_count() == 0 {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer.client().context()
    }
}
