//! The publisher: batches in, one outcome per message out.

use super::{
    cluster::Cluster,
    encode::Wire,
    error::unusable,
    metadata_context::log,
    oauth::{self, Tokens},
};
use crate::lock;
use rdkafka::{
    ClientContext,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode as Code,
};
use sagabus_core::{Error, ErrorKind, Result, SendOutcome};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// How many messages may be on their way in this process.
const MAX_QUEUED_MESSAGES: usize = 100_000;

/// How long a full queue is waited for before the next attempt.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

type ClientProducer = ThreadedProducer<DeliveryContext>;

/// One idempotent producer. One that has failed for good (it lost track of what the broker has) is replaced: what was on
/// its way is unknown, and is sent again under the same ids.
pub(super) struct Publisher {
    cluster: Arc<Cluster>,
    /// How many records may share a request.
    records_per_request: &'static str,
    current: Mutex<Option<Arc<ClientProducer>>>,
}

/// The messages of one call.
struct Batch {
    outcomes: Mutex<Vec<Option<PublishOutcome>>>,
    left: AtomicUsize,
    complete: Notify,
}

/// The outcome of one record.
#[derive(Clone, Debug)]
pub(super) enum PublishOutcome {
    Done,
    /// Its topic is gone.
    Missing,
    /// What shared a request with it is too large for its topic, all of it together or one of them.
    TooLarge,
    Other(SendOutcome),
}

impl Batch {
    fn finish(&self, at: usize, outcome: PublishOutcome) {
        if let Some(slot) = lock(&self.outcomes).get_mut(at) {
            *slot = Some(outcome);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete.notify_one();
        }
    }
}

struct DeliveryTicket {
    batch: Arc<Batch>,
    at: usize,
}

struct DeliveryContext(Option<Tokens>);

impl ClientContext for DeliveryContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        oauth::generate(self.0.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "kafka: {reason}");
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<DeliveryTicket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<DeliveryTicket>) {
        let outcome = match result {
            Ok(_) => PublishOutcome::Done,
            Err((error, _)) => failure_outcome(error),
        };
        ticket.batch.finish(ticket.at, outcome);
    }
}

/// The outcome by an error, which says whether the record is there. Only those codes are Retry that the broker answers when it has not
/// appended, or that arise before anything is sent.
fn failure_outcome(error: &KafkaError) -> PublishOutcome {
    let code = error.rdkafka_error_code();
    let text = |what: &str| format!("kafka {what}");
    PublishOutcome::Other(match code {
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
            return PublishOutcome::Missing;
        }
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => return PublishOutcome::TooLarge,
        Some(
            Code::PurgeQueue
            | Code::QueueFull
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::NotEnoughReplicas
            | Code::InvalidMessage
            | Code::InvalidRecord
            | Code::InvalidDifferentRecord,
        ) => SendOutcome::Retry(Error::with_source(
            ErrorKind::Transient,
            text("did not take the message"),
            error.clone(),
        )),
        _ => SendOutcome::Unknown(Error::with_source(
            ErrorKind::Unknown,
            text("did not confirm the message"),
            error.clone(),
        )),
    })
}

impl Publisher {
    pub(super) fn new(cluster: Arc<Cluster>) -> Result<Self> {
        Self::with(cluster, "10000")
    }

    /// One that sends each record in a request of its own.
    pub(super) fn one_per_request(cluster: Arc<Cluster>) -> Result<Self> {
        Self::with(cluster, "1")
    }

    fn with(cluster: Arc<Cluster>, records_per_request: &'static str) -> Result<Self> {
        let publisher = Self { cluster, records_per_request, current: Mutex::new(None) };
        *lock(&publisher.current) = Some(publisher.make()?);
        Ok(publisher)
    }

    fn make(&self) -> Result<Arc<ClientProducer>> {
        let options = &self.cluster.options;
        let mut config = self.cluster.settings.config();
        config.set("enable.idempotence", "true").set("acks", "all");
        // what the Java clients do, so that a key has one partition whoever sends
        config.set("partitioner", "murmur2_random");
        config.set("linger.ms", options.linger.as_millis().to_string());
        config.set("message.timeout.ms", options.send_timeout.as_millis().to_string());
        config.set("message.max.bytes", (options.max_message + 4096).to_string());
        // A partition has one request on its way, and while more wait behind it the client's thread spins. So what is sent
        // together fits into one request, and what comes after it goes to another partition, unless it has a key.
        config
            .set("batch.size", "500000")
            .set("batch.num.messages", self.records_per_request)
            .set("compression.type", "lz4");
        config.set("sticky.partitioning.linger.ms", options.linger.as_millis().max(1).to_string());
        config
            .set("queue.buffering.max.messages", MAX_QUEUED_MESSAGES.to_string())
            .set("queue.buffering.max.kbytes", "262144");
        // topics are looked up before: one that is missing now was removed
        config.set("topic.metadata.propagation.max.ms", "1000");
        Ok(Arc::new(config.create_with_context(DeliveryContext(options.tokens.clone())).map_err(unusable)?))
    }

    /// The producer to use; a new one where the last one is broken.
    async fn producer(&self) -> Result<Arc<ClientProducer>> {
        let (producer, broken) = {
            let mut current = lock(&self.current);
            let Some(producer) = current.clone() else { return Err(Error::closed("the transport is closed")) };
            match producer.client().fatal_error() {
                None => (producer, None),
                Some((_, why)) => {
                    tracing::warn!("the kafka producer has failed and is replaced: {why}");
                    let new = self.make()?;
                    *current = Some(Arc::clone(&new));
                    (new, Some(producer))
                }
            }
        };
        if let Some(broken) = broken {
            self.discard(broken).await;
        }
        Ok(producer)
    }

    /// Its drop waits for its thread, and reports what was on its way.
    async fn discard(&self, producer: Arc<ClientProducer>) {
        let drop_it = move |_: &Cluster| {
            drop(producer);
            Ok(())
        };
        // nothing can fail in there
        let _ = self.cluster.blocking(drop_it).await;
    }

    /// Sends in order, and waits for all outcomes. Dropping the future does not stop what was begun.
    pub(super) async fn publish(&self, wires: Vec<Wire>) -> Vec<PublishOutcome> {
        let count = wires.len();
        if count == 0 {
            return Vec::new();
        }
        let producer = match self.producer().await {
            Ok(producer) => producer,
            Err(error) => return vec![PublishOutcome::Other(SendOutcome::Retry(error)); count],
        };
        let batch = Arc::new(Batch {
            outcomes: Mutex::new(vec![None; count]),
            left: AtomicUsize::new(count),
            complete: Notify::new(),
        });
        let runtime = &self.cluster.options.runtime;
        let start = runtime.elapsed();
        for (at, wire) in wires.into_iter().enumerate() {
            let ticket = Box::new(DeliveryTicket { batch: Arc::clone(&batch), at });
            let body: &[u8] = &wire.body;
            let mut record = BaseRecord::<str, [u8], _>::with_opaque_to(&wire.topic, ticket)
                .payload(body)
                .headers(wire.headers)
                .timestamp(wire.timestamp);
            if let Some(key) = &wire.key {
                record = record.key(key);
            }
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((error, back)) => {
                        let full = error.rdkafka_error_code() == Some(Code::QueueFull);
                        if full && runtime.elapsed() - start < self.cluster.options.send_timeout {
                            record = back;
                            runtime.sleep(QUEUE_FULL_PAUSE).await;
                            continue;
                        }
                        // it was never taken, so nothing but a fatal producer is in the way
                        let outcome = match failure_outcome(&error) {
                            PublishOutcome::Other(SendOutcome::Unknown(error)) => {
                                PublishOutcome::Other(SendOutcome::Retry(error))
                            }
                            outcome => outcome,
                        };
                        batch.finish(at, outcome);
                        break;
                    }
                }
            }
        }
        drop(producer);
        while batch.left.load(Ordering::Acquire) > 0 {
            batch.complete.notified().await;
        }
        let lost = || PublishOutcome::Other(SendOutcome::Unknown(Error::new(ErrorKind::Unknown, "no outcome")));
        lock(&batch.outcomes).drain(..).map(|outcome| outcome.unwrap_or_else(lost)).collect()
    }

    /// Lets what is on its way arrive, for as long as it may take.
    pub(super) async fn close(&self) {
        let Some(producer) = lock(&self.current).take() else { return };
        let timeout = self.cluster.options.send_timeout;
        let flush = move |_: &Cluster| {
            if producer.flush(timeout).is_err() {
                tracing::warn!("some messages were not confirmed before the transport was closed");
            }
            Ok(())
        };
        // nothing can fail in there
        let _ = self.cluster.blocking(flush).await;
    }
}
