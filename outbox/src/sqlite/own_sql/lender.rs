//! Handlers' own SQL: the writer lends its connection, inside a transaction that several handlers share.
//!
//! Each borrower stands behind the savepoint `s`: a failure rolls back to it and affects no other borrower. As long as others are
//! waiting already, and the bounds below allow, the next one gets the connection in the same transaction; then one
//! COMMIT, then all are answered.
//!
//! A borrower that holds the connection longer than the limit loses: the writer gives that connection up, whose
//! transaction can then never commit, and opens another one. Those who shared the transaction are answered with a
//! transient failure and run again. The lock on the file is free when the late borrower drops its transaction, which its
//! endpoint sees to by ending the handler. While handlers hold theirs for long, transactions are not shared.

use super::{
    super::{
        error::{doing, is_busy},
        job::Job,
        lock_wait::BusyBackoff,
        op::{AnyOp, OpOutcome},
        sql,
        write_context::Tx,
        writer::{Writer, run_one},
    },
    transaction::{Lent, Manager, OwnTransaction, Returned},
};
use sagabus_core::{CommitReply, Error, ErrorKind, Outcome, Result, Timestamp, crash};
use sqlx::{SqlSafeStr as _, SqliteConnection, sqlite::SqliteRow};
// not in sqlx's own root; a handler's `begin()` becomes a savepoint only if the driver knows of our transaction
use sqlx_core::transaction::TransactionManager as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// The most handlers that share one transaction.
const MAX_SHARED_HANDLERS: usize = 64;
/// The age after which a transaction takes no further handler.
const MAX_SHARED_AGE: Duration = Duration::from_millis(8);
/// A handler that holds the connection longer is slow.
const SLOW_HANDLER: Duration = Duration::from_millis(20);

// the second one is released before the effects are written, which fails if the handler has ended the transaction
const SET_SAVEPOINTS: &str =
    "savepoint s;savepoint o;select cast(round(unixepoch('now','subsec')*1000) as integer)*1000";

const RENEW_SAVEPOINTS: &str =
    "release s;savepoint s;savepoint o;select cast(round(unixepoch('now','subsec')*1000) as integer)*1000";

/// The handlers and operations that wait for the shared commit.
#[derive(Default)]
struct Participants {
    finished: Vec<(CommitReply, oneshot::Sender<CommitReply>)>,
    ops: Vec<Box<dyn AnyOp>>,
    borrowers: usize,
    /// The last borrower's savepoint stands yet: it is released with the next one's setting, or by COMMIT.
    savepoint_open: bool,
}

impl Participants {
    fn answer(self, committed: Result<()>) {
        for (reply, answer) in self.finished {
            let reply = match &committed {
                Ok(()) => reply,
                Err(error) => failed_reply(&reply, error),
            };
            // the caller may have gone
            let _ = answer.send(reply);
        }
        for op in self.ops {
            op.answer(committed.clone());
        }
    }
}

/// What was refused before stays so; what would have been applied failed.
fn failed_reply(reply: &CommitReply, error: &Error) -> CommitReply {
    let failed = |outcome: &Outcome| match outcome {
        Outcome::Applied { .. } => Outcome::Failed(error.clone()),
        other => other.clone(),
    };
    CommitReply { outcomes: reply.outcomes.iter().map(failed).collect(), cleaned: false }
}

impl Writer {
    /// One shared transaction, beginning with this borrower.
    pub(crate) async fn run_own_sql(&mut self, first: oneshot::Sender<Result<OwnTransaction>>) {
        let mut tx = match self.begin_managed().await {
            Ok(tx) => tx,
            // the caller may have gone
            Err(error) => return drop(first.send(Err(error))),
        };
        let mut participants = Participants::default();
        let start = self.shared.runtime().elapsed();
        let mut job = Some(Job::Own(first));
        while let Some(next) = job.take() {
            let next_tx = match next {
                Job::Own(reply) => self.lend(tx, reply, &mut participants).await,
                Job::Op(op) => join_shared(tx, op, &mut participants).await,
                close @ (Job::Close(_) | Job::Checkpoint) => {
                    self.held = Some(close);
                    Ok(tx)
                }
            };
            tx = match next_tx {
                Ok(tx) => tx,
                Err(error) => return participants.answer(Err(error)),
            };
            let age = self.shared.runtime().elapsed() - start;
            if self.held.is_none() && participants.borrowers < self.max_participants && age < MAX_SHARED_AGE {
                job = self.jobs.try_recv().ok();
            }
        }
        let result = self.commit_managed(tx).await;
        participants.answer(result);
    }

    /// Begins through the driver's own bookkeeping, so that a handler's `begin()` becomes a savepoint.
    async fn begin_managed(&mut self) -> Result<Tx> {
        let mut connection = self.connection().await?;
        let mut backoff = BusyBackoff::new(&self.shared);
        loop {
            match Manager::begin(&mut connection, Some("begin immediate".into_sql_str())).await {
                Ok(()) => return Ok(Tx::new(connection, Arc::clone(&self.shared), Timestamp(0), true)),
                Err(error) if is_busy(&error) => {
                    if let Err(timed_out) = backoff.wait(error).await {
                        self.connection = Some(connection);
                        return Err(timed_out);
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
        participants: &mut Participants,
    ) -> Result<Tx> {
        if reply.is_closed() {
            return Ok(tx);
        }
        participants.borrowers += 1;
        let savepoint_open = std::mem::replace(&mut participants.savepoint_open, false);
        let rows =
            end_savepoint(&mut tx.connection, if savepoint_open { RENEW_SAVEPOINTS } else { SET_SAVEPOINTS }).await?;
        tx.now = rows.last().map_or(Ok(0), |row| sql::column(row, 0)).map(Timestamp)?;
        let (back, returned) = oneshot::channel();
        let limit = self.shared.options.transaction_limit;
        let runtime = self.shared.runtime().clone();
        let start = runtime.elapsed();
        // dropped there or here, it comes back all the same
        drop(reply.send(Ok(OwnTransaction { lent: Some(Lent { tx, back, limit, since: start }), nothing: () })));
        let returned = runtime.timeout(limit, returned).await;
        let slow = runtime.elapsed() - start > SLOW_HANDLER;
        self.max_participants = if slow { 1 } else { (self.max_participants * 2).min(MAX_SHARED_HANDLERS) };
        match returned {
            Some(Ok(Returned::Finished(tx, reply, answer))) => {
                participants.savepoint_open = true;
                participants.finished.push((reply, answer));
                Ok(tx)
            }
            Some(Ok(Returned::Dropped(mut tx))) => {
                end_savepoint(&mut tx.connection, "rollback to s;release s").await?;
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
        if tx.announcements.has_units {
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
async fn join_shared(mut tx: Tx, mut op: Box<dyn AnyOp>, participants: &mut Participants) -> Result<Tx> {
    tx.now = sql::now(&mut tx.connection).await?;
    let flow = run_one(&mut op, &mut tx, true).await;
    participants.ops.push(op);
    match flow {
        Ok(OpOutcome::Done | OpOutcome::Failed | OpOutcome::Again) => Ok(tx),
        Err(error) => Err(error),
    }
}

/// Ends a borrower's savepoint, and sets the next one. It fails if the handler has ended the transaction itself: then
/// the outcome is unknown.
async fn end_savepoint(connection: &mut SqliteConnection, how: &'static str) -> Result<Vec<SqliteRow>> {
    match sql::script(connection, how).await {
        Ok(rows) => Ok(rows),
        Err(error) => Err(Error::with_source(
            ErrorKind::Unknown,
            "a handler has ended the transaction that it was lent; never commit or roll back by hand",
            error,
        )),
    }
}
