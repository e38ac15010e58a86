use bytes::Bytes;
use lapin::{BasicProperties, message::Delivery, types::ShortString};
use sagabus_core::MessageId;
use std::sync::OnceLock;

/// Which of a receiver's queues a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// The endpoint's own: no order.
    Free,
    /// A partition of an ordered endpoint: handed out in its order.
    Ordered,
    /// What the broker gave up on.
    Dead,
}

/// A message as the broker delivered it, kept until it is settled.
pub(super) struct Parcel {
    pub(super) lane: Lane,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) redelivered: bool,
    /// The id of a message without one; the same each time that this receiver hands it out.
    pub(super) made_up: OnceLock<MessageId>,
}

impl Parcel {
    pub(super) fn new(lane: Lane, delivery: Delivery) -> Self {
        Self {
            lane,
            properties: delivery.properties,
            body: Bytes::from(delivery.data),
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            redelivered: delivery.redelivered,
            made_up: OnceLock::new(),
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.lane == Lane::Dead
    }
}
