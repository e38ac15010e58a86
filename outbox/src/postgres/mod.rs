//! The PostgreSQL store.
//!
//! A batch of units is one statement, one round trip and one commit: everything that the units did, or nothing, and then
//! the facts are read and the rest goes again (`commit`). Queues are one table; a row's id carries its queue's number,
//! so one index serves reader and gate. Handled messages lie in a partition per day (`dedup_partitions`). Wake-ups go over one
//! LISTEN and one NOTIFY connection per process, outside of all transactions, and are hints (`wakeups`, `notify`).
//!
//! Rights: `migrate` needs to create the schema (or to own it), `check`, `prune` and a new day need to create and drop
//! tables in it; everything else needs select, insert, update and delete on its tables and usage on its sequences.

mod admin;
mod attempt_queue;
mod attempts;
mod commit;
mod database;
mod dedup_partitions;
mod due;
mod enlist;
mod error;
mod lease;
mod listener;
mod load;
mod migrate;
mod notify;
mod offsets;
mod open;
mod options;
mod outbox;
mod own_sql;
mod partition_tables;
mod pool;
mod prune;
mod queue;
mod queue_numbers;
mod sql;
mod store;
mod text;

pub use database::Postgres;
pub use options::PostgresOptions;
pub use store::PostgresStore;
