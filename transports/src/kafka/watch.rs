//! What a consumer is told besides records: kept here until its thread has time for it.

use super::{
    client::log,
    committer::Committed,
    lane::Place,
    oauth::{self, Tokens},
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
use sagabus_core::Position;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// What happened.
pub(super) enum Event {
    /// These partitions are ours from now on.
    Assigned(Vec<Place>),
    /// These are to be given up. When they are lost, somebody else may already have them.
    Revoked { places: Vec<Place>, lost: bool },
    /// The outcome of the last commit.
    Committed(Committed),
    /// What the store knows of partitions that were asked for in this round.
    Claimed { round: u64, outcome: sagabus_core::Result<Vec<Position>> },
    /// Whether positions were raised: the numbers of their assignments, and the bases.
    Raised { what: Vec<(u64, i64)>, outcome: sagabus_core::Result<Vec<bool>> },
}

/// The context of a receiver's consumer.
#[derive(Default)]
pub(super) struct Watch {
    tokens: Option<Tokens>,
    events: Mutex<VecDeque<Event>>,
    /// The consumer is being closed: what is revoked goes at once.
    pub(super) closing: AtomicBool,
}

impl Watch {
    pub(super) fn new(tokens: Option<Tokens>) -> Self {
        Self { tokens, ..Self::default() }
    }

    pub(super) fn next(&self) -> Option<Event> {
        lock(&self.events).pop_front()
    }

    pub(super) fn waiting(&self) -> bool {
        !lock(&self.events).is_empty()
    }

    pub(super) fn add(&self, event: Event) {
        lock(&self.events).push_back(event);
    }
}

impl ClientContext for Watch {
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

impl ConsumerContext for Watch {
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
        let places = list.elements().iter().map(|e| (Arc::from(e.topic()), e.partition())).collect();
        self.add(match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Event::Assigned(places),
            _ => Event::Revoked { places, lost: consumer.assignment_lost() },
        });
    }
}
