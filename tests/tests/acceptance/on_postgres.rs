//! The same cases on the PostgreSQL server that `SAGABUS_POSTGRES_URL` names. See `main.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed; real time, real tasks"
)]

#[macro_use]
mod list;
#[path = "postgres.rs"]
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

every_case_on! { postgres_joined postgres_split }
every_own_sql_case_on! { postgres_joined postgres_split }
