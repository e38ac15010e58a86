//! A broker inside this process, with faults on demand.
//!
//! For tests and simulations: nothing survives the process, everything runs under virtual time and a seed. It behaves as
//! a broker does, not as a database: it forgets no unsettled message, it knows nothing of the ids that went through it,
//! and its deliveries have neither gate nor fence.
//!
//! - `broker`: the shared handle and what a test can do to it
//! - `queue`: one queue: shards, consumers, who gets what
//! - `faults`: what goes wrong, by chance or by script
//! - `transport`, `receiver`: the port's face

mod broker;
mod faults;
mod queue;
mod receiver;
mod transport;

pub use broker::{MemoryBroker, MemoryStats};
pub use faults::{BrokerFaults, DeliveryFault, SendFault};
pub use transport::MemoryTransport;
