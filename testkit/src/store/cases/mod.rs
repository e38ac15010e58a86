//! The cases, by area. Each says which invariant it guards.

pub mod atomicity;
pub mod attempts;
pub mod batches;
pub mod chains;
pub mod dispositions;
pub mod gates;
pub mod leases;
pub mod operations;
pub mod outbox;
pub mod own_sql;
pub mod parked;
pub mod positions;
pub mod queues;
pub mod sagas;
pub mod sends;
pub mod timers;
pub mod upkeep;
