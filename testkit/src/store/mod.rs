//! The conformance suite of the store ports.

pub mod broken;
pub mod cases;
mod fixture;
mod harness;
mod list;
mod make;
mod run;
mod wait;

pub use crate::suite::run_case;
pub use fixture::Fixture;
pub use harness::StoreHarness;
pub use list::{CASES, EXPECTED};
pub use make::{KIND, address, complete, create, keep, to_queue, to_topic, update};
pub use wait::eventually;

/// One case of the suite.
pub type Case = crate::suite::Case<Fixture>;
