//! The endpoint through its public API: every case of `cases.rs` on memory and on SQLite, with queue and store in one
//! database and in two.
//!
//! Nothing here sleeps to let something happen: `Fixture::eventually` waits for it, and what must *not* happen is shown
//! by something later that has happened.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed; real time, real tasks"
)]

#[macro_use]
mod cases;
#[path = "own_sqlite.rs"]
mod own_database;

mod bad_input;
mod config;
mod environment;
mod fanout;
mod fixture;
mod formats;
mod headers;
mod lifecycle;
mod ordered;
mod own_sql;
mod parking;
mod requests;
mod retries;
mod run;
mod send_in;
mod starts;
mod timeouts;

every_case_on! { memory_joined memory_split sqlite_joined sqlite_split }
every_own_sql_case_on! { sqlite_joined sqlite_split }
every_split_own_sql_case_on! { sqlite_split }
