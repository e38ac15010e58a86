//! The context of a receiver's consumer: keeps events besides records until the consumer's thread has time for them.

use super::{
    commit::CommitOutcome,
    metadata_context::log,
    oauth::{self, Tokens},
    topic_partition::TopicPartition,
};
use crate::lock;
use rdkafka::{
    ClientContext, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use sagabus_core::{Position, Result};
use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// An event for a receiver's thread.
pub(super) enum Event {
    /// These partitions belong to this process from now on.
    Assigned(Vec<TopicPartition>),
    /// These partitions are to be given up. When they are lost, another process may already have them.
    Revoked { partitions: Vec<TopicPartition>, lost: bool },
    /// The outcome of the last commit.
    Committed(CommitOutcome),
    /// The store's positions of the partitions that were claimed in this round.
    Claimed { round: u64, outcome: Result<Vec<Position>> },
    /// Whether the store has advanced these positions: the numbers of their assignments, and the offsets.
    Advanced { positions: Vec<(u64, i64)>, outcome: Result<Vec<bool>> },
}

/// The context of a receiver's consumer.
#[derive(Default)]
pub(super) struct ReceiverContext {
    tokens: Option<Tokens>,
    events: Mutex<VecDeque<Event>>,
    /// Whether the consumer is being closed: revoked partitions go at once.
    pub(super) closing: AtomicBool,
}

impl ReceiverContext {
    pub(super) fn new(tokens: Option<Tokens>) -> Self {
        Self { tokens, ..Self::default() }
    }

    pub(super) fn next(&self) -> Option<Event> {
        lock(&self.events).pop_front()
    }

    pub(super) fn has_events(&self) -> bool {
        !lock(&self.events).is_empty()
    }

    pub(super) fn add(&self, event: Event) {
        lock(&self.events).push_back(event);
    }
}

impl ClientContext for ReceiverContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        oauth::generate(self.tokens.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "kafka: {reason}");
    }
}

impl ConsumerContext for ReceiverContext {
    /// The answer, taking the partitions or giving them up, is due later, from the consumer's thread: it goes on reading
    /// meanwhile, and the group waits.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Acquire) {
            // the consumer is going away, whatever comes of this
            let _ = match (error, consumer.rebalance_protocol()) {
                (RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS, _) => consumer.incremental_assign(list),
                (_, RebalanceProtocol::Cooperative) => consumer.incremental_unassign(list),
                _ => consumer.unassign(),
            };
            return;
        }
        let partitions = list.elements().iter().map(|e| TopicPartition::new(e.topic(), e.partition())).collect();
        self.add(match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Event::Assigned(partitions),
            _ => Event::Revoked { partitions, lost: consumer.assignment_lost() },
        });
    }
}
