//! What the parts of sagabus are tested with, for those who write a store or a transport.
//!
//! - [`store_conformance!`](crate::store_conformance): every case of the [`Store`](sagabus_core::Store),
//!   [`Queues`](sagabus_core::Queues), [`Leases`](sagabus_core::Leases) and [`StoreAdmin`](sagabus_core::StoreAdmin)
//!   contracts as a test, for a backend that implements [`StoreHarness`](store::StoreHarness). The cases are one list:
//!   a new one reaches every backend without touching it.
//! - [`transport_conformance!`](crate::transport_conformance): the same for the [`Transport`](sagabus_core::Transport), for
//!   what implements [`TransportHarness`](transport::TransportHarness).
//! - [`diff`]: the same random operations on several stores, whose answers must be equal.
//! - [`checkers`]: pure functions that judge a run by the generator's log and by the effects that were found. They share
//!   no code with what they judge.
//! - [`proxy`], [`amqp`] and [`rng`]: a TCP proxy, a hostile client and the random source of tests and tools. They need
//!   none of sagabus, and are there without the feature `suites` too.

#![allow(clippy::unwrap_used, reason = "test code: a failing step is a failing test, with the step's text")]

pub mod amqp;
pub mod checkers;
#[cfg(feature = "suites")]
pub mod diff;
pub mod proxy;
pub mod rng;
#[cfg(feature = "suites")]
pub mod store;
#[cfg(feature = "suites")]
pub mod suite;
#[cfg(feature = "suites")]
pub mod transport;
