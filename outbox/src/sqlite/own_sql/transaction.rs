//! The transaction that a handler's own SQL borrows.

use super::super::{commit, write_context::Tx};
use async_trait::async_trait;
use sagabus_core::{CommitBatch, CommitReply, Error, ErrorKind, Result, Transaction, crash};
use sqlx::Sqlite;
// not in sqlx's own root; a handler's `begin()` becomes a savepoint only if the driver knows of our transaction
use sqlx_core::transaction::TransactionManager as _;
use std::{any::Any, time::Duration};
use tokio::sync::oneshot;

pub(super) type Manager = <Sqlite as sqlx::Database>::TransactionManager;

/// A borrowed transaction.
pub(crate) struct OwnTransaction {
    pub(super) lent: Option<Lent>,
    /// What [`raw`](Transaction::raw) gives when there is nothing to give: no type that anyone asks for.
    pub(super) nothing: (),
}

pub(super) struct Lent {
    pub(super) tx: Tx,
    pub(super) back: oneshot::Sender<Returned>,
    pub(super) limit: Duration,
    /// When it was lent, by the runtime's clock; the transaction's `now` is the same moment by the database's.
    pub(super) since: Duration,
}

/// How the connection came back.
pub(super) enum Returned {
    /// Rolled back by its drop, or to be.
    Dropped(Tx),
    /// With effects applied, or not, and who waits for the commit.
    Finished(Tx, CommitReply, oneshot::Sender<CommitReply>),
}

#[async_trait]
impl Transaction for OwnTransaction {
    fn raw(&mut self) -> &mut (dyn Any + Send) {
        match &mut self.lent {
            Some(lent) => &mut lent.tx.connection,
            // only `finish` takes it, and consumes the transaction
            None => &mut self.nothing,
        }
    }

    fn limit(&self) -> Option<Duration> {
        self.lent.as_ref().map(|lent| lent.limit)
    }

    async fn finish(mut self: Box<Self>, batch: CommitBatch) -> CommitReply {
        crash::reach("handler-wrote");
        let units = batch.units.len();
        let Some(mut lent) = self.lent.take() else {
            return CommitReply::failed(units, &Error::closed("the transaction is gone"));
        };
        if lent.back.is_closed() {
            return CommitReply::failed(units, &too_late(lent.limit));
        }
        let reply = match apply_unit(&mut lent.tx, batch, lent.since).await {
            Ok(reply) => reply,
            Err(error) => {
                // the drop rolls back
                self.lent = Some(lent);
                return CommitReply::failed(units, &error);
            }
        };
        let (answer, committed) = oneshot::channel();
        let limit = lent.limit;
        if lent.back.send(Returned::Finished(lent.tx, reply, answer)).is_err() {
            return CommitReply::failed(units, &too_late(limit));
        }
        committed.await.unwrap_or_else(|_| {
            CommitReply::failed(units, &Error::new(ErrorKind::Unknown, "the writer ended before it told of a commit"))
        })
    }
}

impl Drop for OwnTransaction {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take() {
            // refused when the limit has passed: then the connection is dropped here, which rolls back
            let _ = lent.back.send(Returned::Dropped(lent.tx));
        }
    }
}

fn too_late(limit: Duration) -> Error {
    Error::new(ErrorKind::Transient, format!("the handler held its transaction longer than {limit:?}"))
}

async fn apply_unit(tx: &mut Tx, batch: CommitBatch, since: Duration) -> Result<CommitReply> {
    if Manager::get_transaction_depth(&tx.connection) != 1 {
        return Err(Error::invalid("the handler left a transaction of its own open inside of its transaction"));
    }
    // what is due so long after the commit counts from here, not from when the handler began
    tx.now = tx.now.plus(tx.shared.runtime().elapsed().saturating_sub(since));
    commit::apply_single(tx, &batch).await
}
