//! What SQLite's errors mean to the ports.

use sagabus_core::{Error, ErrorKind};

const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NOMEM: i32 = 7;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;
const DISK_FULL: i32 = 13;
const PROTOCOL: i32 = 15;
const SCHEMA: i32 = 17;
const TOOBIG: i32 = 18;

/// The primary result code (the low byte of the extended one).
fn code(error: &sqlx::Error) -> Option<i32> {
    let sqlx::Error::Database(database) = error else {
        return None;
    };
    database.code()?.parse::<i32>().ok().map(|code| code & 0xff)
}

/// Whether another connection holds the lock that was asked for.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(BUSY | LOCKED))
}

/// An error before COMMIT: nothing was done. `doing` names the operation and the thing.
pub(crate) fn failed(doing: &str, error: sqlx::Error) -> Error {
    let kind = match code(&error) {
        Some(BUSY | LOCKED | NOMEM | INTERRUPT | IOERR | DISK_FULL | PROTOCOL | SCHEMA) => ErrorKind::Transient,
        Some(_) => ErrorKind::Backend,
        // the driver's thread is gone, or a channel to it: the connection is replaced
        None => ErrorKind::Transient,
    };
    Error::with_source(kind, doing, error)
}

/// An error of COMMIT itself. Busy leaves the transaction open and undone; after anything else it is unknown what is in
/// the log, and the gates have to tell.
pub(crate) fn commit_failed(error: sqlx::Error) -> Error {
    let kind = if is_busy(&error) { ErrorKind::Transient } else { ErrorKind::Unknown };
    Error::with_source(kind, "commit to sqlite", error)
}

/// Whether a value got larger than SQLite allows.
pub(crate) fn is_too_big(error: &Error) -> bool {
    use std::error::Error as _;
    let cause = error.source().and_then(|cause| cause.downcast_ref::<sqlx::Error>());
    cause.and_then(code) == Some(TOOBIG)
}

/// Shorthand for `map_err`.
pub(crate) fn doing(context: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| failed(context, error)
}
