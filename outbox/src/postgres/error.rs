//! What PostgreSQL's errors mean to the ports.

use sagabus_core::{Error, ErrorKind};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// What an error says about the statement that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Our own check failed, or a unique key: somebody else was faster. Nothing was done.
    Conflict,
    /// A deadlock, a serialization failure or a lock that was not to be had. Nothing was done; the same again may succeed.
    Again,
    /// The server cannot do it for the moment. Nothing was done.
    Transient,
    /// The server refuses this statement. Nothing was done.
    Refused,
    /// A queue has taken one of the ids before. Nothing was done.
    Repeated,
    /// The table has no partition for the row's day.
    NoPartition,
    /// The connection is gone, and perhaps the statement was executed.
    Lost,
}

pub(crate) fn fault(error: &sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = error else {
        return match error {
            sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::RowNotFound
            | sqlx::Error::TypeNotFound { .. } => Fault::Refused,
            _ => Fault::Lost,
        };
    };
    let severity = database.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
    if matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic)) {
        return Fault::Lost;
    }
    let code = database.code().unwrap_or_default();
    let class = code.get(..2).unwrap_or_default();
    if code == "23505" && database.table().is_some_and(|table| table.starts_with("queue_dedup")) {
        return Fault::Repeated;
    }
    match (&*code, class) {
        // 22012 is our own: a count that is not what it should be divides by zero
        ("22012" | "23505", _) => Fault::Conflict,
        ("23514", _) if database.message().contains("partition") => Fault::NoPartition,
        // a tuple that moved to another place while the statement waited for it
        ("40001" | "40P01" | "55P03" | "40000", _) => Fault::Again,
        // statement timeout, read-only after a failover, a plan whose tables have changed
        ("57014" | "25006" | "0A000", _) | (_, "53" | "57" | "58" | "08") => Fault::Transient,
        _ => Fault::Refused,
    }
}

/// An error of a reading, or of a write that is safe to repeat.
pub(crate) fn failed(doing: &str, error: sqlx::Error) -> Error {
    let kind = match fault(&error) {
        Fault::Refused | Fault::NoPartition if is_missing(&error) => {
            let text = format!("{doing}: the tables are not there; run `migrate` first");
            return Error::with_source(ErrorKind::Backend, text, error);
        }
        Fault::Refused | Fault::NoPartition => ErrorKind::Backend,
        Fault::Conflict | Fault::Repeated | Fault::Again | Fault::Transient | Fault::Lost => ErrorKind::Transient,
    };
    Error::with_source(kind, doing, error)
}

/// An error of a statement that commits: a lost connection says nothing about the outcome.
pub(crate) fn write_failed(doing: &str, error: sqlx::Error) -> Error {
    match fault(&error) {
        Fault::Lost => Error::with_source(ErrorKind::Unknown, format!("{doing}: the answer was lost"), error),
        _ => failed(doing, error),
    }
}

/// Shorthand for `map_err`.
pub(crate) fn doing(what: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| failed(what, error)
}

/// Whether a table, a schema or a column is not there.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("42P01" | "3F000" | "42703"))
}
