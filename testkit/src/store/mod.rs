//! The conformance suite of the store ports.

mod bed;
pub mod broken;
pub mod cases;
mod harness;
mod list;
mod make;
mod run;
mod wait;

pub use bed::Bed;
pub use harness::StoreHarness;
pub use list::{CASES, EXPECTED};
pub use make::{KIND, address, complete, create, keep, to_queue, to_topic, update};
pub use run::{Case, run_case, run_named};
pub use wait::eventually;
