//! Handlers' own SQL, typed.

use async_trait::async_trait;
use sagabus_core::{Context, HandlerError, InvocationContext};
use std::any::Any;

/// A kind of database, by the connection that a handler's own SQL runs on.
pub trait Database: 'static {
    /// What the driver calls its connection.
    type Connection: Any + Send;
    /// What an error calls it.
    const NAME: &'static str;
}

/// `ctx.transaction::<Sqlite>().await?`: own SQL in a handler.
#[async_trait]
pub trait TransactionExt {
    /// The database's connection, inside the transaction of this handler's unit of work: what is written over it commits
    /// together with the saga's state, the messages sent and the message's being handled, or not at all.
    ///
    /// Opened at the first call. Never commit or roll back on it by hand; a `begin` of the driver becomes a savepoint.
    /// It is held for a short time only (2 s by default), and no other handler's transaction runs meanwhile.
    async fn transaction<D: Database>(&mut self) -> Result<&mut D::Connection, HandlerError>;
}

#[async_trait]
impl TransactionExt for Context {
    async fn transaction<D: Database>(&mut self) -> Result<&mut D::Connection, HandlerError> {
        let store = self.info().store.as_ref().map(|store| store.database().0.clone());
        let transaction = self.begin().await?;
        match transaction.raw().downcast_mut::<D::Connection>() {
            Some(connection) => Ok(connection),
            None => Err(HandlerError::permanent(format!(
                "the handler asked for a transaction of {}, but the endpoint's store is {}",
                D::NAME,
                store.unwrap_or_else(|| "none".to_string())
            ))),
        }
    }
}

/// Whether an error of a handler's own SQL says that the database, and not the handler, has failed: the server was away,
/// a lock was not to be had, a disk was full. The same again may succeed, so it is no attempt of the handler.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub fn is_outage(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<sqlx::Error>() else { return false };
    let sqlx::Error::Database(database) = error else {
        return matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_));
    };
    let code = database.code().unwrap_or_default();
    #[cfg(feature = "sqlite")]
    if database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // busy, locked, an I/O error, full; what is above a byte says more of the same
        return code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13));
    }
    // 57014 is a statement that took too long, or was cancelled: it would again
    let class = code.get(..2).unwrap_or_default();
    matches!(&*code, "55P03") || matches!(class, "08" | "40" | "53" | "58") || code.starts_with("57P")
}

/// Without a database there is no own SQL that could fail.
#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
pub fn is_outage(_error: &(dyn std::error::Error + 'static)) -> bool {
    false
}
