//! The baseline's sending: whole batches, whose confirms are counted.

use super::cluster::Cluster;
use anyhow::{Result, ensure};
use rdkafka::{
    ClientContext,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// What became of a batch so far.
pub(super) struct Ticket {
    left: AtomicUsize,
    refused: AtomicBool,
    through: Notify,
}

impl Ticket {
    pub(super) fn is_through(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Until the brokers have all of it.
    pub(super) async fn wait(&self) -> Result<()> {
        while !self.is_through() {
            self.through.notified().await;
        }
        ensure!(!self.refused.load(Ordering::Acquire), "the brokers did not take a message");
        Ok(())
    }
}

struct Confirms;

impl ClientContext for Confirms {}

impl ProducerContext for Confirms {
    type DeliveryOpaque = Arc<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Arc<Ticket>) {
        if result.is_err() {
            ticket.refused.store(true, Ordering::Release);
        }
        if ticket.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            ticket.through.notify_one();
        }
    }
}

/// One of a batch.
pub(super) struct Record {
    pub(super) key: [u8; 8],
    pub(super) id: uuid::Uuid,
    pub(super) body: Vec<u8>,
}

/// Sends to one topic.
#[derive(Clone)]
pub(super) struct Publisher {
    producer: Arc<ThreadedProducer<Confirms>>,
    topic: String,
    kind: &'static str,
}

impl Publisher {
    pub(super) fn new(cluster: &Cluster, queue: &str, kind: &'static str, linger: Duration) -> Result<Self> {
        let producer = Arc::new(cluster.producing(linger).create_with_context(Confirms)?);
        Ok(Self { producer, topic: cluster.topic(queue), kind })
    }

    /// Begins to send; the ticket says when the brokers have it.
    pub(super) async fn send(&self, records: &[Record]) -> Result<Arc<Ticket>> {
        let ticket = Arc::new(Ticket {
            left: AtomicUsize::new(records.len()),
            refused: AtomicBool::new(false),
            through: Notify::new(),
        });
        for Record { key, id, body } in records {
            let headers = OwnedHeaders::new_with_capacity(2)
                .insert(Header { key: "id", value: Some(id.as_bytes()) })
                .insert(Header { key: "type", value: Some(self.kind) });
            let mut record =
                BaseRecord::with_opaque_to(&self.topic, Arc::clone(&ticket)).key(key).payload(body).headers(headers);
            while let Err((error, back)) = self.producer.send(record) {
                ensure!(error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull), "send: {error}");
                record = back;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(ticket)
    }

    /// Until everything is there.
    pub(super) fn flush(&self) -> Result<()> {
        Ok(self.producer.flush(super::cluster::PATIENCE * 6)?)
    }
}
