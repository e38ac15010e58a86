//! Sending: batches in, one outcome per message out.

use super::{
    client::{Home, log, unusable},
    encode::Wire,
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
const QUEUE: usize = 100_000;

/// How long a full queue is waited for, again and again.
const FULL: Duration = Duration::from_millis(2);

type Native = ThreadedProducer<Reporter>;

/// One idempotent producer. One that has failed for good (it lost track of what the broker has) is replaced: what was on
/// its way is unknown, and is sent again under the same ids.
pub(super) struct Publisher {
    home: Arc<Home>,
    /// How many records may share a request.
    company: &'static str,
    current: Mutex<Option<Arc<Native>>>,
}

/// What was sent together.
struct Batch {
    outcomes: Mutex<Vec<Option<Verdict>>>,
    left: AtomicUsize,
    complete: Notify,
}

/// What became of one record.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Done,
    /// Its topic is gone.
    Missing,
    /// What shared a request with it is too large for its topic, all of it together or one of them.
    TooLarge,
    Other(SendOutcome),
}

impl Batch {
    fn finish(&self, at: usize, verdict: Verdict) {
        if let Some(slot) = lock(&self.outcomes).get_mut(at) {
            *slot = Some(verdict);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete.notify_one();
        }
    }
}

struct Ticket {
    batch: Arc<Batch>,
    at: usize,
}

struct Reporter(Option<Tokens>);

impl ClientContext for Reporter {
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

impl ProducerContext for Reporter {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let verdict = match result {
            Ok(_) => Verdict::Done,
            Err((error, _)) => verdict(error),
        };
        ticket.batch.finish(ticket.at, verdict);
    }
}

/// What an error says about whether the record is there. Only those codes are Retry that the broker answers when it has not
/// appended, or that arise before anything is sent.
fn verdict(error: &KafkaError) -> Verdict {
    let code = error.rdkafka_error_code();
    let text = |what: &str| format!("kafka {what}");
    Verdict::Other(match code {
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => return Verdict::Missing,
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => return Verdict::TooLarge,
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
    pub(super) fn new(home: Arc<Home>) -> Result<Self> {
        Self::with(home, "10000")
    }

    /// One that sends each record in a request of its own.
    pub(super) fn alone(home: Arc<Home>) -> Result<Self> {
        Self::with(home, "1")
    }

    fn with(home: Arc<Home>, company: &'static str) -> Result<Self> {
        let publisher = Self { home, company, current: Mutex::new(None) };
        *lock(&publisher.current) = Some(publisher.make()?);
        Ok(publisher)
    }

    fn make(&self) -> Result<Arc<Native>> {
        let options = &self.home.options;
        let mut config = self.home.cluster.config();
        config.set("enable.idempotence", "true").set("acks", "all");
        // what the Java clients do, so that a key has one partition whoever sends
        config.set("partitioner", "murmur2_random");
        config.set("linger.ms", options.linger.as_millis().to_string());
        config.set("message.timeout.ms", options.send_timeout.as_millis().to_string());
        config.set("message.max.bytes", (options.max_message + 4096).to_string());
        // A partition has one request on its way, and while more wait behind it the client's thread spins. So what is sent
        // together fits into one request, and what comes after it goes to another partition, unless it has a key.
        config.set("batch.size", "500000").set("batch.num.messages", self.company).set("compression.type", "lz4");
        config.set("sticky.partitioning.linger.ms", options.linger.as_millis().max(1).to_string());
        config.set("queue.buffering.max.messages", QUEUE.to_string()).set("queue.buffering.max.kbytes", "262144");
        // topics are looked up before: one that is missing now was removed
        config.set("topic.metadata.propagation.max.ms", "1000");
        Ok(Arc::new(config.create_with_context(Reporter(options.tokens.clone())).map_err(unusable)?))
    }

    /// The producer to use; a new one where the last one is broken.
    async fn producer(&self) -> Result<Arc<Native>> {
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
    async fn discard(&self, producer: Arc<Native>) {
        let drop_it = move |_: &Home| {
            drop(producer);
            Ok(())
        };
        // nothing can fail in there
        let _ = self.home.blocking(drop_it).await;
    }

    /// Sends in order, and waits for all outcomes. Dropping the future does not stop what was begun.
    pub(super) async fn publish(&self, wires: Vec<Wire>) -> Vec<Verdict> {
        let count = wires.len();
        if count == 0 {
            return Vec::new();
        }
        let producer = match self.producer().await {
            Ok(producer) => producer,
            Err(error) => return vec![Verdict::Other(SendOutcome::Retry(error)); count],
        };
        let batch = Arc::new(Batch {
            outcomes: Mutex::new(vec![None; count]),
            left: AtomicUsize::new(count),
            complete: Notify::new(),
        });
        let runtime = &self.home.options.runtime;
        let start = runtime.elapsed();
        for (at, wire) in wires.into_iter().enumerate() {
            let ticket = Box::new(Ticket { batch: Arc::clone(&batch), at });
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
                        if full && runtime.elapsed() - start < self.home.options.send_timeout {
                            record = back;
                            runtime.sleep(FULL).await;
                            continue;
                        }
                        // it was never taken, so nothing but a fatal producer is in the way
                        let verdict = match verdict(&error) {
                            Verdict::Other(SendOutcome::Unknown(error)) => Verdict::Other(SendOutcome::Retry(error)),
                            verdict => verdict,
                        };
                        batch.finish(at, verdict);
                        break;
                    }
                }
            }
        }
        drop(producer);
        while batch.left.load(Ordering::Acquire) > 0 {
            batch.complete.notified().await;
        }
        let lost = || Verdict::Other(SendOutcome::Unknown(Error::new(ErrorKind::Unknown, "no outcome")));
        lock(&batch.outcomes).drain(..).map(|outcome| outcome.unwrap_or_else(lost)).collect()
    }

    /// Lets what is on its way arrive, for as long as it may take.
    pub(super) async fn close(&self) {
        let Some(producer) = lock(&self.current).take() else { return };
        let patience = self.home.options.send_timeout;
        let flush = move |_: &Home| {
            if producer.flush(patience).is_err() {
                tracing::warn!("some messages were not confirmed before the transport was closed");
            }
            Ok(())
        };
        // nothing can fail in there
        let _ = self.home.blocking(flush).await;
    }
}
