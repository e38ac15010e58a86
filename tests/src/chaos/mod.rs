//! The workload of `crash` and `kills`: every way a message can go, with effects that can be counted from outside.
//!
//! Three endpoints in one process: `chaos` (sagas and functions), `ledger` (writes down that a message left) and `line`
//! (ordered). Each message carries a number `n` that is unique in its run.

pub mod broker;
pub mod effects;
pub mod functions;
pub mod messages;
pub mod nodes;
pub mod plan;
pub mod sagas;
