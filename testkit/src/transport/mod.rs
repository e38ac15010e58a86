//! The conformance suite of the transport port.

mod bed;
pub mod broken;
pub mod cases;
mod harness;
mod list;
mod run;

pub use bed::Bed;
pub use harness::{Promises, TransportHarness};
pub use list::{CASES, EXPECTED};
pub use run::{Case, run_case, run_named};
