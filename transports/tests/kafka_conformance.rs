//! The Kafka transport passes the conformance suite on a real broker, whose address is in `SAGABUS_KAFKA_URL`.
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test should panic where it fails, and uses real time"
)]

mod kafka_support;

use kafka_support::KafkaHarness;

sagabus_testkit::transport_conformance!(KafkaHarness::new());
