//! The RabbitMQ transport passes the conformance suite on a real broker, whose address is in `SAGABUS_RABBITMQ_URL`.
#![cfg(feature = "rabbitmq")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test should panic where it fails, and uses real time"
)]

mod rabbitmq_support;

use rabbitmq_support::RabbitHarness;

sagabus_testkit::transport_conformance!(RabbitHarness::new());
