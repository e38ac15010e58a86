//! Lenders of transactions to handlers that use their own SQL, each with a connection.
//!
//! A lender begins a transaction and lends it, behind the savepoint `s`: a handler that fails is rolled back to it, without
//! harm to others. While handlers wait already, and the bounds below allow, the next one gets the same transaction. Then
//! everything that they did beside their own SQL is applied in one statement, and committed once
//! ([`group_commit`](super::group_commit)).
//!
//! A few lenders are enough as long as handlers are quick. After a slow one, each handler that waits gets a lender of its
//! own, up to the number of connections, and nothing is shared until handlers have been quick for a while. A handler that
//! exceeds the limit loses: its connection is closed when it comes back, and those who shared the transaction run again.

use super::{
    super::{
        error::{Fault, failed, fault},
        open::OpenSchema,
        pool::Conn,
        sql,
    },
    group_commit::{Participant, commit, fail},
    transaction::{Manager, OwnTransaction, Reply, Returned, fresh_settings, limits},
};
use sagabus_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};
use sqlx_core::transaction::TransactionManager as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// The age of a transaction from which on it is lent no more.
const MAX_SHARED_AGE: Duration = Duration::from_millis(8);
/// A handler that holds a transaction longer is slow.
const SLOW_HANDLER: Duration = Duration::from_millis(50);
impl OpenSchema {
    /// Borrows a transaction.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<OwnTransaction> {
        let (reply, lent) = oneshot::channel();
        if self.sharing.ask(reply) {
            self.runtime().spawn(run_lender(Arc::clone(self)));
        }
        // a future that is dropped while it waits here gives back what it did not take: its lender notices
        lent.await.unwrap_or_else(|_| Err(self.own.closed_error()))
    }
}

/// Runs one lender, as long as handlers wait. Boxed, because a lender may start others.
fn run_lender(inner: Arc<OpenSchema>) -> futures::future::BoxFuture<'static, ()> {
    Box::pin(async move {
        while let Some(first) = inner.sharing.first() {
            lend_all(&inner, first).await;
        }
    })
}

/// Ends sharing for a while: handlers are slow, or in each other's way.
fn stop_sharing(inner: &Arc<OpenSchema>) {
    for _ in 0..inner.sharing.stop_sharing() {
        inner.runtime().spawn(run_lender(Arc::clone(inner)));
    }
}

/// Lends one transaction, beginning with this borrower.
async fn lend_all(inner: &Arc<OpenSchema>, first: Reply) {
    let mut conn = match begin(inner).await {
        Ok(conn) => conn,
        // the borrower may have gone
        Err(error) => return drop(first.send(Err(error))),
    };
    let start = inner.runtime().elapsed();
    let (mut participants, mut next, mut reset) = (Vec::<Participant>::new(), Some(first), false);
    while let Some(reply) = next.take() {
        match lend(inner, conn, reply).await {
            Ok(Returned::Finished(back, batch, answer)) => {
                conn = back;
                participants.push(Participant { batch, answer });
            }
            Ok(Returned::Dropped(back)) => {
                conn = back;
                reset = true;
                if let Err(error) = undo(inner, &mut conn).await {
                    return fail(participants, &error);
                }
            }
            Err(error) => return fail(participants, &error),
        }
        if inner.runtime().elapsed().saturating_sub(start) < MAX_SHARED_AGE {
            next = inner.sharing.another(participants.len());
        }
        if next.is_some()
            && let Err(error) =
                savepoint(&mut conn, &format!("release s;{};savepoint s", fresh_settings(&inner.options))).await
        {
            // the next borrower asks again
            drop(next.take().map(|reply| reply.send(Err(error.clone()))));
            return fail(participants, &error);
        }
    }
    commit(inner, conn, participants, reset, || stop_sharing(inner)).await;
}

/// Begins through the driver's own bookkeeping, so that a handler's `begin()` becomes a savepoint.
async fn begin(inner: &OpenSchema) -> Result<Conn> {
    let text = match inner.options.pooler {
        true => format!("begin;{};savepoint s", limits(&inner.options)),
        false => "begin;savepoint s".into(),
    };
    let mut second = false;
    loop {
        let mut conn = inner.own.take().await?;
        let start = Some(AssertSqlSafe(text.clone()).into_sql_str());
        let Some(begun) =
            inner.runtime().timeout(inner.options.statement_limit, Manager::begin(conn.get(), start)).await
        else {
            return Err(Error::new(ErrorKind::Transient, "begin a transaction in postgres: no answer"));
        };
        match begun {
            Ok(()) => return Ok(conn),
            // a connection that had died in the pool; this one is dropped, whatever is open on it
            Err(error) if fault(&error) == Fault::Lost && !second => {
                conn.observe_error(&error);
                second = true;
            }
            Err(error) => return Err(failed("begin a transaction in postgres", error)),
        }
    }
}

/// Lends the connection, and waits until it comes back.
async fn lend(inner: &Arc<OpenSchema>, conn: Conn, reply: Reply) -> Result<Returned> {
    let (back, mut returned) = oneshot::channel();
    let limit = inner.options.transaction_limit;
    // dropped there or here, it comes back all the same
    drop(reply.send(Ok(OwnTransaction::new(conn, back, limit))));
    let runtime = inner.runtime();
    let back = match runtime.timeout(SLOW_HANDLER.min(limit), &mut returned).await {
        Some(back) => {
            inner.sharing.was_quick();
            Some(back)
        }
        None => {
            stop_sharing(inner);
            runtime.timeout(limit.saturating_sub(SLOW_HANDLER), returned).await
        }
    };
    match back {
        Some(Ok(back)) => Ok(back),
        Some(Err(_)) => Err(Error::new(ErrorKind::Transient, "a handler's transaction was lost")),
        None => {
            tracing::warn!(?limit, "a handler holds its transaction for too long; those who share it run again");
            Err(Error::new(ErrorKind::Transient, format!("a transaction that was shared took longer than {limit:?}")))
        }
    }
}

/// Rolls back to where the borrower began. A statement of its own may be under way still: its answer is read first.
async fn undo(inner: &OpenSchema, conn: &mut Conn) -> Result<()> {
    let limit = inner.options.transaction_limit;
    while Manager::get_transaction_depth(conn.get()) > 1 {
        match inner.runtime().timeout(limit, Manager::rollback(conn.get())).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                conn.observe_error(&error);
                return Err(failed("roll back a handler's transaction", error));
            }
            None => return Err(Error::new(ErrorKind::Transient, "roll back a handler's transaction: no answer")),
        }
    }
    savepoint(conn, "rollback to s").await
}

/// Ends a borrower's savepoint. It fails if the borrower has ended the transaction: then the outcome is unknown.
async fn savepoint(conn: &mut Conn, how: &str) -> Result<()> {
    let Err(error) = sql::script(conn, how.into()).await else { return Ok(()) };
    let (kind, text) = match fault(&error) {
        Fault::Lost => (ErrorKind::Transient, "the connection of a handler's transaction was lost"),
        _ => (
            ErrorKind::Unknown,
            "a handler has ended the transaction that it was lent; never commit or roll back by hand",
        ),
    };
    Err(Error::with_source(kind, text, error))
}
