//! The SQLite store: everything in one file.
//!
//! - One **writer task** per file and process (`writer`) takes whatever jobs are waiting, runs them in one transaction
//!   and commits once. Handlers' own SQL borrows its connection (`own_sql`).
//! - A **batch** of units is applied by a few statements over many rows (`commit`), each of which must hit exactly as
//!   many rows as it was given; else everything is rolled back, the culprits are told apart, and the rest runs again.
//! - **Reads** go over connections of their own and see everything that was committed before they began.
//! - Several **processes** may share a file: a writer that knows of others pauses after each commit, so that they can
//!   write too; leases go by the database's clock, and a process that has died is known by its free lock (`process_lock`).

mod admin;
mod args;
mod attempts;
mod checkpoint;
mod commit;
mod database;
mod dedup_day;
mod due;
mod error;
mod job;
mod lease;
mod load;
mod lock_wait;
mod migrate;
mod offsets;
mod op;
mod open;
mod options;
mod outbox;
mod own_sql;
mod packed_rows;
mod process_lock;
mod prune;
mod queue;
mod reader;
mod rows;
mod shared;
mod sql;
mod store;
mod wal_log;
mod write_context;
mod writer;

#[cfg(test)]
mod tests;

pub use database::Sqlite;
pub use options::SqliteOptions;
pub use store::SqliteStore;
