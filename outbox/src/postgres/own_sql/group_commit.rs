//! The end of a transaction that handlers share: everything that they did beside their own SQL, in one statement, and the
//! commit.

use super::{
    super::{
        commit::CommitAttempt,
        error::{Fault, failed, fault, write_failed},
        open::OpenSchema,
        pool::Conn,
        sql,
    },
    transaction::{Manager, fresh_settings},
};
use sagabus_core::{CommitBatch, CommitReply, Error, ErrorKind, Outcome, crash};
use sqlx_core::transaction::TransactionManager as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// A handler that has ended, and waits for the commit.
pub(super) struct Participant {
    pub(super) batch: CommitBatch,
    pub(super) answer: oneshot::Sender<CommitReply>,
}

/// The planner settings of the store's own connections, and a savepoint: plans are made once, and use the indexes.
const PLANNER_SETTINGS: &str = "set local plan_cache_mode=force_generic_plan;set local enable_seqscan=off;set local \
                    random_page_cost=1;set local jit=off;savepoint e";

/// Answers with a failure: nothing was applied.
pub(super) fn fail(participants: Vec<Participant>, error: &Error) {
    for participant in participants {
        // the handler may have gone
        let _ = participant.answer.send(CommitReply::failed(1, error));
    }
}

/// The units of one endpoint, as one batch.
struct EndpointBatch {
    batch: CommitBatch,
    answers: Vec<oneshot::Sender<CommitReply>>,
}

fn groups(participants: Vec<Participant>) -> Vec<EndpointBatch> {
    let mut groups: Vec<EndpointBatch> = Vec::new();
    for Participant { mut batch, answer } in participants {
        let same = |group: &&mut EndpointBatch| group.batch.owner == batch.owner && group.batch.joined == batch.joined;
        match groups.iter_mut().find(same) {
            Some(group) => {
                group.batch.units.append(&mut batch.units);
                group.batch.sent.append(&mut batch.sent);
                group.answers.push(answer);
            }
            None => groups.push(EndpointBatch { batch, answers: vec![answer] }),
        }
    }
    groups
}

/// Applies, commits and answers. `reset`: a handler that was rolled back may have changed settings of the session.
/// `on_conflict` is called when the participants may be in each other's way.
pub(super) async fn commit(
    inner: &Arc<OpenSchema>,
    mut conn: Conn,
    participants: Vec<Participant>,
    reset: bool,
    on_conflict: impl Fn(),
) {
    if participants.is_empty() {
        if rolled_back(inner, &mut conn).await {
            release(conn, reset).await;
        }
        return;
    }
    let all = participants.len();
    let mut groups = groups(participants);
    let batches: Vec<CommitBatch> = groups.iter_mut().map(|group| take(&mut group.batch)).collect();
    let mut attempts = Vec::with_capacity(batches.len());
    for batch in &batches {
        match CommitAttempt::new(inner, batch).await {
            Ok(attempt) => attempts.push(attempt),
            // the connection goes, and with it what is open on it
            Err(error) => return answer(groups, |units| CommitReply::failed(units, &error)),
        }
    }
    match apply(inner, &mut conn, &mut attempts).await {
        Ok(()) => {
            crash::reach("commit-applied");
            let limit = inner.options.statement_limit;
            let error = match inner.runtime().timeout(limit, Manager::commit(conn.get())).await {
                Some(Ok(())) => {
                    crash::reach("commit-returned");
                    release(conn, reset).await;
                    None
                }
                Some(Err(error)) => {
                    conn.observe_error(&error);
                    Some(write_failed("commit a handler's transaction", error))
                }
                None => Some(Error::new(ErrorKind::Unknown, "commit a handler's transaction: no answer")),
            };
            if let Some(error) = error {
                // perhaps by a constraint of the user's that is checked in the end: whose, shows when nothing is shared
                on_conflict();
                attempts.iter_mut().for_each(|attempt| attempt.fail_all(&error));
            }
        }
        Err(error) => {
            on_conflict();
            diagnose(inner, &mut attempts, conn, error, all > 1).await;
        }
    }
    let mut replies = attempts.into_iter().map(CommitAttempt::reply);
    answer(groups, |units| {
        replies.next().unwrap_or(CommitReply { outcomes: Vec::with_capacity(units), cleaned: false })
    });
}

fn take(batch: &mut CommitBatch) -> CommitBatch {
    let (units, sent) = (std::mem::take(&mut batch.units), std::mem::take(&mut batch.sent));
    CommitBatch { owner: batch.owner.clone(), joined: batch.joined, units, sent }
}

fn answer(groups: Vec<EndpointBatch>, mut reply: impl FnMut(usize) -> CommitReply) {
    for group in groups {
        let CommitReply { outcomes, cleaned } = reply(group.answers.len());
        for (answer, outcome) in group.answers.into_iter().zip(outcomes) {
            // the handler may have gone
            let _ = answer.send(CommitReply { outcomes: vec![outcome], cleaned });
        }
    }
}

/// Applies all effects, in the open transaction. A failure that can be avoided is: the handlers would have to run again.
async fn apply(inner: &OpenSchema, conn: &mut Conn, attempts: &mut [CommitAttempt<'_>]) -> Result<(), sqlx::Error> {
    // the last borrower's savepoint goes first: that fails if the borrower has ended the transaction
    sql::script(conn, format!("release s;{};{PLANNER_SETTINGS}", fresh_settings(&inner.options))).await?;
    let mut left = 4;
    while let Err(error) = apply_once(conn, attempts).await {
        let kind = fault(&error);
        left -= 1;
        if left == 0 || !matches!(kind, Fault::Repeated | Fault::NoPartition) {
            return Err(error);
        }
        sql::script(conn, "rollback to e".into()).await?;
        for attempt in attempts.iter_mut() {
            attempt.reset();
            attempt.repeats |= kind == Fault::Repeated;
        }
        if kind == Fault::NoPartition
            && let Ok(mut other) = inner.work.take().await
        {
            // it has to be there before this transaction ends; the next try finds out if this failed
            let _ = inner.create_partitions(&mut other).await;
            other.release();
        }
    }
    Ok(())
}

async fn apply_once(conn: &mut Conn, attempts: &mut [CommitAttempt<'_>]) -> Result<(), sqlx::Error> {
    for attempt in attempts {
        attempt.apply_within(conn).await?;
    }
    Ok(())
}

/// Finds out, after nothing was applied, which units are duplicates or stale. Others who shared the transaction with those have
/// done nothing wrong: they run again.
async fn diagnose(
    inner: &OpenSchema,
    attempts: &mut [CommitAttempt<'_>],
    mut conn: Conn,
    error: sqlx::Error,
    shared: bool,
) {
    let kind = fault(&error);
    attempts.iter_mut().for_each(CommitAttempt::reset);
    if kind != Fault::Lost && rolled_back(inner, &mut conn).await {
        for attempt in attempts.iter_mut().filter(|_| kind == Fault::Conflict) {
            // for the next try, which finds out if this failed
            let _ = attempt.resolve_queues_again().await;
            let units: Vec<usize> = attempt.undecided_units();
            let _ = attempt.diagnose(&mut conn, &units).await;
        }
        conn.release();
    }
    let error = match kind {
        Fault::Conflict => {
            Error::with_source(ErrorKind::Transient, "somebody else was faster than a handler's transaction", error)
        }
        // nothing was committed, whatever became of the connection
        Fault::Lost | Fault::NoPartition => {
            Error::with_source(ErrorKind::Transient, "apply units in a handler's transaction", error)
        }
        _ => failed("apply units in a handler's transaction", error),
    };
    let innocent = shared && kind != Fault::Lost;
    for attempt in attempts {
        for index in attempt.undecided_units() {
            attempt.end(index, if innocent { Outcome::Stale } else { Outcome::Failed(error.clone()) });
        }
    }
}

async fn rolled_back(inner: &OpenSchema, conn: &mut Conn) -> bool {
    let limit = Duration::from_secs(5);
    while Manager::get_transaction_depth(conn.get()) > 0 {
        match inner.runtime().timeout(limit, Manager::rollback(conn.get())).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                conn.observe_error(&error);
                return false;
            }
            None => return false,
        }
    }
    true
}

async fn release(mut conn: Conn, reset: bool) {
    if !reset || sql::script(&mut conn, "reset all".into()).await.is_ok() {
        conn.release();
    }
}
