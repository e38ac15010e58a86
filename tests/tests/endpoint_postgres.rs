//! The tests of `endpoint.rs` on the PostgreSQL server that `SAGABUS_POSTGRES_URL` names.
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
        on_backends! { $($test),*; postgres_joined = Joined, postgres_split = Split }
    };
}

/// The same for those whose handlers have SQL of their own.
macro_rules! on_databases {
    ($($test:ident),* $(,)?) => {
        on_every_backend! { $($test),* }
    };
}

/// The same where only the queues are in another schema.
macro_rules! on_split_databases {
    ($($test:ident),* $(,)?) => {
        on_backends! { $($test),*; postgres_split = Split }
    };
}

#[path = "endpoint/bed.rs"]
mod bed;
#[path = "endpoint/competing.rs"]
mod competing;
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
#[path = "endpoint/postgres.rs"]
mod place;
#[path = "endpoint/refused.rs"]
mod refused;
#[path = "endpoint/replies.rs"]
mod replies;
#[path = "endpoint/sagas.rs"]
mod sagas;
