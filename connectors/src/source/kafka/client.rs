//! The consumer of librdkafka as both the source and the sink use it: its log goes to `tracing`, its errors become
//! [`Error`]s, and a future of its admin interface can be waited for.

use dataflow_core::Error;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Sends librdkafka's log and errors to `tracing`, with the object in a field.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    /// The source or sink.
    pub(crate) name: String,
}

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::trace!(kafka = self.name, fac, message),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => tracing::debug!(kafka = self.name, fac, message),
            _ => tracing::warn!(kafka = self.name, fac, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(kafka = self.name, %error, reason, "the kafka client reports an error; it goes on by itself");
    }
}

impl ConsumerContext for Logged {
    fn commit_callback(&self, result: rdkafka::error::KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(kafka = self.name, %error, "committing checkpointed offsets failed; only lag tools read them");
        }
    }
}

/// A consumer without a subscription.
pub(crate) type Consumer = BaseConsumer<Logged>;

/// An error of the cluster or of the way to it.
pub(crate) fn failed(what: impl Into<String>, error: KafkaError) -> Error {
    let transient = error.rdkafka_error_code().is_some_and(is_transient);
    let error = Error::outside(what).because(error);
    if transient { error.retry() } else { error }
}

/// Whether the client gets over this by itself.
pub(crate) fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(
        code,
        E::AllBrokersDown
            | E::BrokerNotAvailable
            | E::BrokerTransportFailure
            | E::CoordinatorLoadInProgress
            | E::CoordinatorNotAvailable
            | E::LeaderNotAvailable
            | E::NetworkException
            | E::NotCoordinator
            | E::NotEnoughReplicas
            | E::NotEnoughReplicasAfterAppend
            | E::NotLeaderForPartition
            | E::OperationTimedOut
            | E::RequestTimedOut
            | E::Resolve
    )
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future. librdkafka's admin futures are completed by its own thread within their request timeout.
pub(crate) fn wait_for<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
