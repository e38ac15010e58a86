//! The conformance suite of the transport port.

pub mod broken;
pub mod cases;
mod fixture;
mod harness;
mod list;
mod run;

pub use crate::suite::run_case;
pub use fixture::Fixture;
pub use harness::{Promises, TransportHarness};
pub use list::{CASES, EXPECTED};

/// One case of the suite.
pub type Case = crate::suite::Case<Fixture>;
