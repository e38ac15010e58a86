//! A handler's own transaction, which a [lender](super::lender) lends, perhaps after other handlers have used it.

use super::super::{options::PostgresOptions, pool::Conn};
use async_trait::async_trait;
use sagabus_core::{CommitBatch, CommitReply, Error, ErrorKind, Result, Transaction, crash};
use sqlx::Postgres;
use sqlx_core::transaction::TransactionManager as _;
use std::{any::Any, time::Duration};
use tokio::sync::oneshot;

pub(super) type Manager = <Postgres as sqlx::Database>::TransactionManager;

/// The answer to a handler that waits for a transaction.
pub(super) type Reply = oneshot::Sender<Result<OwnTransaction>>;

/// How a connection comes back.
pub(super) enum Returned {
    /// What was done on it is not wanted.
    Dropped(Conn),
    /// With the rest of the unit, and the way back for the outcome of the commit.
    Finished(Conn, CommitBatch, oneshot::Sender<CommitReply>),
}

/// A handler's own transaction. Dropped, it goes back, and what the handler did is rolled back.
pub(crate) struct OwnTransaction {
    lent: Option<Lent>,
    /// What [`raw`](Transaction::raw) gives when there is nothing to give: no type that is ever asked for.
    nothing: (),
}

struct Lent {
    conn: Conn,
    back: oneshot::Sender<Returned>,
    limit: Duration,
}

impl OwnTransaction {
    pub(super) fn new(conn: Conn, back: oneshot::Sender<Returned>, limit: Duration) -> Self {
        Self { lent: Some(Lent { conn, back, limit }), nothing: () }
    }
}

#[async_trait]
impl Transaction for OwnTransaction {
    fn raw(&mut self) -> &mut (dyn Any + Send) {
        match &mut self.lent {
            Some(lent) => lent.conn.get(),
            // only `finish` takes it, and consumes the transaction
            None => &mut self.nothing,
        }
    }

    fn limit(&self) -> Option<Duration> {
        self.lent.as_ref().map(|lent| lent.limit)
    }

    async fn finish(mut self: Box<Self>, batch: CommitBatch) -> CommitReply {
        crash::reach("handler-wrote");
        let refused = |error: Error| CommitReply::failed(batch.units.len(), &error);
        if batch.units.len() != 1 {
            // the drop gives it back
            return refused(Error::invalid("finishing a transaction takes exactly one unit"));
        }
        let Some(mut lent) = self.lent.take() else { return refused(Error::closed("the transaction is gone")) };
        if lent.back.is_closed() {
            return refused(too_late(lent.limit));
        }
        if Manager::get_transaction_depth(lent.conn.get()) != 1 {
            self.lent = Some(lent);
            return refused(Error::invalid(
                "the handler left a transaction of its own open inside of its transaction, or ended the one it was lent",
            ));
        }
        let (answer, committed) = oneshot::channel();
        let limit = lent.limit;
        if let Err(Returned::Finished(_, batch, _)) = lent.back.send(Returned::Finished(lent.conn, batch, answer)) {
            // with the connection, the server ends what was open on it
            return CommitReply::failed(batch.units.len(), &too_late(limit));
        }
        committed.await.unwrap_or_else(|_| {
            CommitReply::failed(1, &Error::new(ErrorKind::Unknown, "the store ended before it told of a commit"))
        })
    }
}

impl Drop for OwnTransaction {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take() {
            // refused when the limit has passed: then the connection is closed here, which rolls back
            let _ = lent.back.send(Returned::Dropped(lent.conn));
        }
    }
}

fn too_late(limit: Duration) -> Error {
    Error::new(ErrorKind::Transient, format!("the handler held its transaction longer than {limit:?}"))
}

/// The limits of a transaction behind a pooler, where the settings of the session are not ours.
pub(super) fn limits(options: &PostgresOptions) -> String {
    let limit = options.transaction_limit.as_millis();
    format!("set local idle_in_transaction_session_timeout={limit};set local statement_timeout={limit}")
}

/// Resets the settings of the borrower before, a role or a tenant perhaps.
pub(super) fn fresh_settings(options: &PostgresOptions) -> String {
    match options.pooler {
        true => format!("reset session authorization;reset role;reset all;{}", limits(options)),
        false => "reset session authorization;reset role;reset all".into(),
    }
}
