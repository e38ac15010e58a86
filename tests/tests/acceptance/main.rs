//! The endpoint through its public API: every case of `list.rs` on every embedded set-up.
//!
//! Nothing here sleeps to let something happen: `World::eventually` waits for it, and what must *not* happen is shown by
//! something later that has happened.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed; real time, real tasks"
)]

#[macro_use]
mod list;
#[path = "embedded.rs"]
mod place;

mod bad_input;
mod config;
mod fanout;
mod formats;
mod headers;
mod life;
mod ordered;
mod own_sql;
mod parking;
mod requests;
mod retries;
mod run;
mod send_in;
mod starts;
mod timeouts;
mod world;

every_case_on! { memory_joined memory_split sqlite_joined sqlite_split }
every_own_sql_case_on! { sqlite_joined sqlite_split }
