//! Handlers' own SQL: a transaction on a connection of its own.

use super::{
    commit::Run,
    error::{Fault, failed, fault, write_failed},
    open::Inner,
    pool::Conn,
    sql,
};
use async_trait::async_trait;
use sagabus_core::{CommitBatch, CommitReply, Error, ErrorKind, Result, Transaction, crash};
use sqlx::{Postgres, SqlStr};
use sqlx_core::transaction::TransactionManager as _;
use std::{any::Any, sync::Arc, time::Duration};

type Manager = <Postgres as sqlx::Database>::TransactionManager;

/// A handler's own transaction. Dropped, it is rolled back by a task of its own, and its connection is kept.
pub(crate) struct OwnTransaction {
    inner: Arc<Inner>,
    conn: Option<Conn>,
    since: Duration,
    none: (),
}

impl Inner {
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<OwnTransaction> {
        let mut second = false;
        loop {
            // a future that is dropped in here drops the connection, whatever has been sent on it
            let mut conn = self.own.take().await?;
            let start = if self.options.pooler { self.pooled_begin() } else { SqlStr::from_static("begin") };
            let limit = self.options.statement_limit;
            let Some(begun) = self.runtime().timeout(limit, Manager::begin(conn.get(), Some(start))).await else {
                conn.spoil();
                return Err(Error::new(ErrorKind::Transient, "begin a transaction in postgres: no answer"));
            };
            match begun {
                Ok(()) => {
                    let since = self.runtime().elapsed();
                    return Ok(OwnTransaction { inner: self.clone(), conn: Some(conn), since, none: () });
                }
                Err(error) => {
                    conn.met(&error);
                    conn.spoil();
                    // it had died in the pool
                    if second || fault(&error) != Fault::Lost {
                        return Err(failed("begin a transaction in postgres", error));
                    }
                    second = true;
                }
            }
        }
    }

    /// Behind a pooler a session's settings are somebody else's.
    fn pooled_begin(&self) -> SqlStr {
        use sqlx::{AssertSqlSafe, SqlSafeStr as _};
        let limit = self.options.transaction_limit.as_millis();
        let text =
            format!("begin;set local idle_in_transaction_session_timeout={limit};set local statement_timeout={limit}");
        AssertSqlSafe(text).into_sql_str()
    }
}

#[async_trait]
impl Transaction for OwnTransaction {
    fn raw(&mut self) -> &mut (dyn Any + Send) {
        match &mut self.conn {
            Some(conn) => conn.get(),
            // only `finish` takes it, and consumes the transaction
            None => &mut self.none,
        }
    }

    async fn finish(mut self: Box<Self>, batch: CommitBatch) -> CommitReply {
        crash::reach("handler-wrote");
        let refused = |error: Error| CommitReply::failed(batch.units.len(), &error);
        if batch.units.len() != 1 {
            return refused(Error::invalid("finishing a transaction takes exactly one unit"));
        }
        let limit = self.inner.options.transaction_limit;
        if self.inner.runtime().elapsed().saturating_sub(self.since) > limit {
            // the drop rolls back
            let text = format!("the handler held its transaction longer than {limit:?}");
            return refused(Error::new(ErrorKind::Transient, text));
        }
        if self.conn.as_mut().is_none_or(|conn| Manager::get_transaction_depth(conn.get()) != 1) {
            return refused(Error::invalid(
                "the handler left a transaction of its own open inside of its transaction, or ended the one it was lent",
            ));
        }
        let inner = self.inner.clone();
        let mut run = match Run::new(&inner, &batch).await {
            Ok(run) => run,
            Err(error) => return refused(error),
        };
        let Some(mut conn) = self.conn.take() else { return refused(inner.own.gone()) };
        if let Err(error) = run.alone(&mut conn).await {
            run.undo();
            judge(&inner, &mut run, conn, error).await;
            return run.reply();
        }
        crash::reach("commit-applied");
        let limit = inner.options.statement_limit;
        match inner.runtime().timeout(limit, Manager::commit(conn.get())).await {
            Some(Ok(())) => {
                crash::reach("commit-returned");
                conn.release();
            }
            Some(Err(error)) => {
                conn.met(&error);
                run.undo();
                run.fail(write_failed("commit a handler's transaction", error));
            }
            None => {
                run.undo();
                run.fail(Error::new(ErrorKind::Unknown, "commit a handler's transaction: no answer"));
            }
        }
        run.reply()
    }
}

/// The unit did not apply: rolls back and finds out why.
async fn judge(inner: &Inner, run: &mut Run<'_>, mut conn: Conn, error: sqlx::Error) {
    let kind = fault(&error);
    if kind != Fault::Lost && rolled_back(inner, &mut conn).await {
        if kind == Fault::NoPartition {
            // for the next try, which finds out if this failed
            let _ = inner.make_days(&mut conn).await;
        }
        if kind == Fault::Conflict {
            // likewise
            let _ = run.resolve_again().await;
        }
        let told = kind != Fault::Conflict || run.judge(&mut conn, &[0]).await.is_err();
        conn.release();
        if !told && !run.is_open() {
            return;
        }
    }
    let error = match kind {
        Fault::Conflict => {
            Error::with_source(ErrorKind::Transient, "somebody else was faster than a handler's transaction", error)
        }
        // nothing was committed, whatever became of the connection
        Fault::Lost | Fault::NoPartition => {
            Error::with_source(ErrorKind::Transient, "apply a unit in a handler's transaction", error)
        }
        _ => failed("apply a unit in a handler's transaction", error),
    };
    run.fail(error);
}

async fn rolled_back(inner: &Inner, conn: &mut Conn) -> bool {
    let limit = Duration::from_secs(5);
    while Manager::get_transaction_depth(conn.get()) > 0 {
        match inner.runtime().timeout(limit, Manager::rollback(conn.get())).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                conn.met(&error);
                return false;
            }
            None => return false,
        }
    }
    true
}

impl Drop for OwnTransaction {
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            // no task can be had: the connection closes, which rolls back
            return;
        }
        let inner = self.inner.clone();
        self.inner.runtime().spawn(async move {
            // a statement of the handler's may be under way still: its answer is read first. Settings that the handler
            // has changed go too.
            if rolled_back(&inner, &mut conn).await && sql::script(&mut conn, "reset all".into()).await.is_ok() {
                conn.release();
            }
        });
    }
}
