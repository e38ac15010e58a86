//! What carries messages between endpoints.
//!
//! Each transport is a module that implements [`Transport`](sagabus_core::Transport) and nothing else of the bus:
//!
//! - [`memory`]: a broker inside this process, with faults on demand. For tests and simulations.
//! - [`sql`]: the queue tables of a database, through the port [`Queues`](sagabus_core::Queues).
//! - `rabbitmq` (feature `rabbitmq`): quorum queues of a RabbitMQ broker.
//! - `kafka` (feature `kafka`): topics of a Kafka cluster.
//!
//! A broker's client lives in its own module behind a feature of the same name.

mod common;
#[cfg(any(feature = "rabbitmq", feature = "kafka"))]
mod compact_headers;
#[cfg(any(feature = "rabbitmq", feature = "kafka"))]
mod headers;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
mod receive;
pub mod sql;
#[cfg(any(feature = "rabbitmq", feature = "kafka"))]
mod url;

use common::{refuse, send_within};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose data stays whole wherever a panic may strike: every critical section here is free of them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
