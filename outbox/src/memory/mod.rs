//! The memory store: the reference model of the ports.
//!
//! One model of ordered maps behind one mutex, with the semantics that the SQL stores have to match:
//! the conformance suite runs against all of them. It is simple rather than fast, and forgets when the process ends.
//! Time and ids come from the `Runtime`, so it runs under virtual time; [`StoreFaults`] makes its calls fail.

mod admin;
mod commit;
mod due;
mod faults;
mod handle;
mod lease;
mod load;
mod model;
mod offsets;
mod outbox;
mod prune;
mod queue;
mod rows;
mod saga;
mod scratch;
mod store;
mod timer;
mod transaction;

pub use faults::{Fault, FaultRates, Operation, StoreFaults};
pub use handle::MemoryStore;
pub use scratch::ScratchRows;
