//! The stores of sagabus.
//!
//! - [`memory`]: the reference model, for tests and for endpoints that may forget.
//! - `sqlite` (feature `sqlite`, on by default): everything in one file.
//! - `postgres` (feature `postgres`): a schema of a PostgreSQL database.
//!
//! All implement the ports [`Store`](sagabus_core::Store) and [`Queues`](sagabus_core::Queues) and pass the same
//! conformance suite. [`TransactionExt`] gives handlers the connection of their unit's transaction.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod dedup;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod fold;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod membership;
pub mod memory;
mod own_sql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod wakeups;

pub use own_sql::{Database, TransactionExt, is_outage};

/// The SQL crate whose connections [`TransactionExt`] gives. The one foreign crate in the public API.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sqlx;
