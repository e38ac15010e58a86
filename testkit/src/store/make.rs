//! Small makers of the values that cases are about.

use bytes::Bytes;
use sagabus_core::{Destination, Envelope, InstanceId, Outgoing, SagaAddress, SagaChange, SagaWrite};
use std::time::Duration;

/// The kind of the saga that most cases use: of the endpoint `shop`, handler `order`.
pub const KIND: &str = "shop/order";

fn write(key: &str, change: SagaChange) -> SagaWrite {
    SagaWrite { kind: KIND.into(), key: key.into(), change, aliases: Vec::new() }
}

/// The first write of a life, with schema 1 and no originator.
pub fn create(key: &str, instance: InstanceId, state: impl Into<Bytes>) -> SagaWrite {
    let (state, schema, origin) = (state.into(), 1, None);
    write(key, SagaChange::Create { instance, state, schema, origin })
}

/// A later write, on the version that was loaded.
pub fn update(key: &str, instance: InstanceId, version: i64, state: impl Into<Bytes>) -> SagaWrite {
    let (state, schema) = (state.into(), 1);
    write(key, SagaChange::Update { instance, version, state, schema })
}

/// The last write; the row goes.
pub fn complete(key: &str, instance: InstanceId, version: i64) -> SagaWrite {
    let keep = None;
    write(key, SagaChange::Complete { instance, version, keep })
}

/// The last write; the row stays for a time.
pub fn keep(key: &str, instance: InstanceId, version: i64, time: Duration, state: impl Into<Bytes>) -> SagaWrite {
    let keep = Some((time, state.into()));
    write(key, SagaChange::Complete { instance, version, keep })
}

/// The address of a life.
pub fn address(key: &str, instance: InstanceId) -> SagaAddress {
    SagaAddress { kind: KIND.into(), key: key.into(), instance }
}

/// A message to one queue.
pub fn to_queue(queue: &str, message: Envelope) -> Outgoing {
    Outgoing { to: Destination::Queue(queue.into()), message }
}

/// A message to whoever subscribed.
pub fn to_topic(topic: &str, message: Envelope) -> Outgoing {
    Outgoing { to: Destination::Topic(topic.into()), message }
}
