//! The endpoint, through the public API, on every embedded backend: each test runs on memory and on SQLite, with queue
//! and store in one database and in two.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests on real backends: real time and tasks; a failing step is a failing test"
)]

#[macro_use]
#[path = "endpoint/on_backends.rs"]
mod on_backends;

/// On each backend.
macro_rules! on_every_backend {
    ($($test:ident),* $(,)?) => {
        on_backends! { $($test),*; memory_joined = MemoryJoined, memory_split = MemorySplit, sqlite_joined = SqliteJoined, sqlite_split = SqliteSplit }
    };
}

/// The same for those whose handlers have SQL of their own.
macro_rules! on_databases {
    ($($test:ident),* $(,)?) => {
        on_backends! { $($test),*; sqlite_joined = SqliteJoined, sqlite_split = SqliteSplit }
    };
}

/// The same where only the queues are in another database.
macro_rules! on_split_databases {
    ($($test:ident),* $(,)?) => {
        on_backends! { $($test),*; sqlite_split = SqliteSplit }
    };
}

#[path = "endpoint/bed.rs"]
mod bed;
#[path = "endpoint/competing.rs"]
mod competing;
#[path = "endpoint/configuration.rs"]
mod configuration;
#[path = "endpoint/day.rs"]
mod day;
#[path = "endpoint/failures.rs"]
mod failures;
#[path = "endpoint/lifecycle.rs"]
mod lifecycle;
#[path = "endpoint/ordered.rs"]
mod ordered;
#[path = "endpoint/own_sql.rs"]
mod own_sql;
#[path = "endpoint/embedded.rs"]
mod place;
#[path = "endpoint/refused.rs"]
mod refused;
#[path = "endpoint/replies.rs"]
mod replies;
#[path = "endpoint/sagas.rs"]
mod sagas;
