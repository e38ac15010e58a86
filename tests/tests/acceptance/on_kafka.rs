//! The cases of `cases.rs` on the broker that `SAGABUS_KAFKA_URL` names, with the store on the PostgreSQL server that
//! `SAGABUS_POSTGRES_URL` names and in a SQLite file. See `main.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed; real time, real tasks"
)]

#[macro_use]
mod cases;
#[path = "own_postgres.rs"]
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

every_case_on! { kafka_sqlite kafka_postgres }
every_own_sql_case_on! { kafka_postgres }
every_split_own_sql_case_on! { kafka_postgres }
