//! Handlers' own SQL: the writer lends its connection, inside a transaction that several handlers share.
//!
//! Each borrower stands behind the savepoint `s`: a failure rolls back to it and is nobody else's. As long as others are
//! waiting already, and the bounds below allow, the next one gets the connection in the same transaction; then one
//! COMMIT, then all are answered.
//!
//! A borrower that holds the connection longer than the limit loses: the writer gives that connection up, whose
//! transaction can then never commit, and opens another one. Those who shared the transaction are answered with a
//! transient failure and run again. The lock on the file is free when the late borrower drops its transaction, which its
//! endpoint sees to by ending the handler. While handlers hold theirs for long, transactions are not shared.

use super::{
    apply,
    error::{doing, is_busy},
    op::{AnyOp, Flow},
    patience::Patience,
    sql,
    tx::Tx,
    writer::{Job, Writer, run_one},
};
use async_trait::async_trait;
use sagabus_core::{CommitBatch, CommitReply, Error, ErrorKind, Outcome, Result, Timestamp, Transaction, crash};
use sqlx::{SqlSafeStr as _, Sqlite, SqliteConnection, sqlite::SqliteRow};
// not in sqlx's own root; a handler's `begin()` becomes a savepoint only if the driver knows of our transaction
use sqlx_core::transaction::TransactionManager as _;
use std::{any::Any, sync::Arc, time::Duration};
use tokio::sync::oneshot;

type Manager = <Sqlite as sqlx::Database>::TransactionManager;

/// Most borrowers of one transaction.
const SHARE: usize = 64;
/// A transaction that is older takes no further borrower.
const AGE: Duration = Duration::from_millis(8);
/// Who holds the connection longer is slow.
const SLOW: Duration = Duration::from_millis(20);

/// The database's clock, now.
pub(super) const NOW: &str = "select cast(round(unixepoch('now','subsec')*1000) as integer)*1000";

// the second one is released before the effects are written, which fails if the handler has ended the transaction
const FIRST: &str = "savepoint s;savepoint o;select cast(round(unixepoch('now','subsec')*1000) as integer)*1000";

const NEXT: &str =
    "release s;savepoint s;savepoint o;select cast(round(unixepoch('now','subsec')*1000) as integer)*1000";

/// A borrowed transaction.
pub(crate) struct OwnTransaction {
    lent: Option<Lent>,
    /// What [`raw`](Transaction::raw) gives when there is nothing to give: no type that anyone asks for.
    nothing: (),
}

struct Lent {
    tx: Tx,
    back: oneshot::Sender<Returned>,
    limit: Duration,
    /// When it was lent, by the runtime's clock; the transaction's `now` is the same moment by the database's.
    since: Duration,
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
        let reply = match effects(&mut lent.tx, batch, lent.since).await {
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

async fn effects(tx: &mut Tx, batch: CommitBatch, since: Duration) -> Result<CommitReply> {
    if Manager::get_transaction_depth(&tx.connection) != 1 {
        return Err(Error::invalid("the handler left a transaction of its own open inside of its transaction"));
    }
    // what is due so long after the commit counts from here, not from when the handler began
    tx.now = tx.now.plus(tx.shared.runtime().elapsed().saturating_sub(since));
    apply::alone(tx, &batch).await
}

/// What waits for the shared commit.
#[derive(Default)]
struct Riders {
    finished: Vec<(CommitReply, oneshot::Sender<CommitReply>)>,
    ops: Vec<Box<dyn AnyOp>>,
    borrowers: usize,
    /// The last borrower's savepoint stands yet: it is released with the next one's setting, or by COMMIT.
    standing: bool,
}

impl Riders {
    fn answer(self, committed: Result<()>) {
        for (reply, answer) in self.finished {
            let reply = match &committed {
                Ok(()) => reply,
                Err(error) => failed_riders(&reply, error),
            };
            // whoever asked may have gone
            let _ = answer.send(reply);
        }
        for op in self.ops {
            op.answer(committed.clone());
        }
    }
}

/// What was refused before stays so; what would have been applied failed.
fn failed_riders(reply: &CommitReply, error: &Error) -> CommitReply {
    let failed = |outcome: &Outcome| match outcome {
        Outcome::Applied { .. } => Outcome::Failed(error.clone()),
        other => other.clone(),
    };
    CommitReply { outcomes: reply.outcomes.iter().map(failed).collect(), cleaned: false }
}

impl Writer {
    /// One shared transaction, beginning with this borrower.
    pub(super) async fn own(&mut self, first: oneshot::Sender<Result<OwnTransaction>>) {
        let mut tx = match self.begin_managed().await {
            Ok(tx) => tx,
            // whoever asked may have gone
            Err(error) => return drop(first.send(Err(error))),
        };
        let mut riders = Riders::default();
        let start = self.shared.runtime().elapsed();
        let mut job = Some(Job::Own(first));
        while let Some(next) = job.take() {
            let step = match next {
                Job::Own(reply) => self.lend(tx, reply, &mut riders).await,
                Job::Op(op) => ride(tx, op, &mut riders).await,
                close @ (Job::Close(_) | Job::Checkpoint) => {
                    self.held = Some(close);
                    Ok(tx)
                }
            };
            tx = match step {
                Ok(tx) => tx,
                Err(error) => return riders.answer(Err(error)),
            };
            let age = self.shared.runtime().elapsed() - start;
            if self.held.is_none() && riders.borrowers < self.share && age < AGE {
                job = self.jobs.try_recv().ok();
            }
        }
        let result = self.commit_managed(tx).await;
        riders.answer(result);
    }

    /// Begins through the driver's own bookkeeping, so that a handler's `begin()` becomes a savepoint.
    async fn begin_managed(&mut self) -> Result<Tx> {
        let mut connection = self.connection().await?;
        let mut patience = Patience::new(&self.shared);
        loop {
            match Manager::begin(&mut connection, Some("begin immediate".into_sql_str())).await {
                Ok(()) => return Ok(Tx::new(connection, Arc::clone(&self.shared), Timestamp(0), true)),
                Err(error) if is_busy(&error) => {
                    if let Err(gone) = patience.wait(error).await {
                        self.connection = Some(connection);
                        return Err(gone);
                    }
                }
                Err(error) => return Err(doing("begin a transaction in sqlite")(error)),
            }
        }
    }

    async fn lend(
        &mut self,
        mut tx: Tx,
        reply: oneshot::Sender<Result<OwnTransaction>>,
        riders: &mut Riders,
    ) -> Result<Tx> {
        if reply.is_closed() {
            return Ok(tx);
        }
        riders.borrowers += 1;
        let standing = std::mem::replace(&mut riders.standing, false);
        let rows = end(&mut tx.connection, if standing { NEXT } else { FIRST }).await?;
        tx.now = rows.last().map_or(Ok(0), |row| sql::column(row, 0)).map(Timestamp)?;
        let (back, returned) = oneshot::channel();
        let limit = self.shared.options.transaction_limit;
        let runtime = self.shared.runtime().clone();
        let start = runtime.elapsed();
        // dropped there or here, it comes back all the same
        drop(reply.send(Ok(OwnTransaction { lent: Some(Lent { tx, back, limit, since: start }), nothing: () })));
        let returned = runtime.timeout(limit, returned).await;
        let slow = runtime.elapsed() - start > SLOW;
        self.share = if slow { 1 } else { (self.share * 2).min(SHARE) };
        match returned {
            Some(Ok(Returned::Finished(tx, reply, answer))) => {
                riders.standing = true;
                riders.finished.push((reply, answer));
                Ok(tx)
            }
            Some(Ok(Returned::Dropped(mut tx))) => {
                end(&mut tx.connection, "rollback to s;release s").await?;
                Ok(tx)
            }
            Some(Err(_)) => Err(Error::new(ErrorKind::Transient, "a handler's transaction was lost")),
            None => {
                tracing::warn!(?limit, "a handler holds its transaction for too long; those who share it run again");
                Err(Error::new(
                    ErrorKind::Transient,
                    format!("a transaction that was shared took longer than {limit:?}"),
                ))
            }
        }
    }

    async fn commit_managed(&mut self, mut tx: Tx) -> Result<()> {
        if tx.notes.units {
            crash::reach("commit-applied");
        }
        match Manager::commit(&mut tx.connection).await {
            Ok(()) => {
                self.committed(tx);
                Ok(())
            }
            Err(error) => self.commit_lost(error),
        }
    }
}

/// An operation in a transaction that handlers share.
async fn ride(mut tx: Tx, mut op: Box<dyn AnyOp>, riders: &mut Riders) -> Result<Tx> {
    let rows = sql::script(&mut tx.connection, NOW).await.map_err(doing("ask sqlite for the time"))?;
    if let Some(row) = rows.last() {
        tx.now = Timestamp(sql::column(row, 0)?);
    }
    let flow = run_one(&mut op, &mut tx, true).await;
    riders.ops.push(op);
    match flow {
        Ok(Flow::Done | Flow::Failed | Flow::Again) => Ok(tx),
        Err(error) => Err(error),
    }
}

/// Ends a borrower's savepoint, and sets the next one. It fails if the handler has ended the transaction itself: then
/// nobody knows.
async fn end(connection: &mut SqliteConnection, how: &'static str) -> Result<Vec<SqliteRow>> {
    match sql::script(connection, how).await {
        Ok(rows) => Ok(rows),
        Err(error) => Err(Error::with_source(
            ErrorKind::Unknown,
            "a handler has ended the transaction that it was lent; never commit or roll back by hand",
            error,
        )),
    }
}
