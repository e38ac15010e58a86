//! The end of a transaction that handlers share: what they did beside their own SQL, in one statement, and the commit.

use super::{
    commit::Run,
    error::{Fault, failed, fault, write_failed},
    open::Inner,
    own::{fresh_settings, trouble},
    pool::Conn,
    sql,
    transaction::Manager,
};
use sagabus_core::{CommitBatch, CommitReply, Error, ErrorKind, Outcome, crash};
use sqlx_core::transaction::TransactionManager as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// A handler that is through, and waits for the commit.
pub(super) struct Rider {
    pub(super) batch: CommitBatch,
    pub(super) answer: oneshot::Sender<CommitReply>,
}

/// As on connections of the store's own: plans are made once, and probe the indexes.
const OURS: &str = "set local plan_cache_mode=force_generic_plan;set local enable_seqscan=off;set local \
                    random_page_cost=1;set local jit=off;savepoint e";

/// Nothing of what they did is there.
pub(super) fn fail(riders: Vec<Rider>, error: &Error) {
    for rider in riders {
        // whoever asked may have gone
        let _ = rider.answer.send(CommitReply::failed(1, error));
    }
}

/// Those of one endpoint, as one batch.
struct Group {
    batch: CommitBatch,
    answers: Vec<oneshot::Sender<CommitReply>>,
}

fn groups(riders: Vec<Rider>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for Rider { mut batch, answer } in riders {
        let same = |group: &&mut Group| group.batch.owner == batch.owner && group.batch.joined == batch.joined;
        match groups.iter_mut().find(same) {
            Some(group) => {
                group.batch.units.append(&mut batch.units);
                group.batch.sent.append(&mut batch.sent);
                group.answers.push(answer);
            }
            None => groups.push(Group { batch, answers: vec![answer] }),
        }
    }
    groups
}

/// Applies, commits and answers. `reset`: a handler that was rolled back may have changed settings of the session.
pub(super) async fn commit(inner: &Arc<Inner>, mut conn: Conn, riders: Vec<Rider>, reset: bool) {
    if riders.is_empty() {
        if rolled_back(inner, &mut conn).await {
            release(conn, reset).await;
        }
        return;
    }
    let all = riders.len();
    let mut groups = groups(riders);
    let batches: Vec<CommitBatch> = groups.iter_mut().map(|group| take(&mut group.batch)).collect();
    let mut runs = Vec::with_capacity(batches.len());
    for batch in &batches {
        match Run::new(inner, batch).await {
            Ok(run) => runs.push(run),
            // the connection goes, and with it what is open on it
            Err(error) => return answer(groups, |units| CommitReply::failed(units, &error)),
        }
    }
    match apply(inner, &mut conn, &mut runs).await {
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
                    conn.met(&error);
                    Some(write_failed("commit a handler's transaction", error))
                }
                None => Some(Error::new(ErrorKind::Unknown, "commit a handler's transaction: no answer")),
            };
            if let Some(error) = error {
                // perhaps by a constraint of the user's that is checked in the end: whose, shows when nobody shares
                trouble(inner);
                runs.iter_mut().for_each(|run| run.undo_all(&error));
            }
        }
        Err(error) => {
            trouble(inner);
            judge(inner, &mut runs, conn, error, all > 1).await;
        }
    }
    let mut replies = runs.into_iter().map(Run::reply);
    answer(groups, |units| {
        replies.next().unwrap_or(CommitReply { outcomes: Vec::with_capacity(units), cleaned: false })
    });
}

fn take(batch: &mut CommitBatch) -> CommitBatch {
    let (units, sent) = (std::mem::take(&mut batch.units), std::mem::take(&mut batch.sent));
    CommitBatch { owner: batch.owner.clone(), joined: batch.joined, units, sent }
}

fn answer(groups: Vec<Group>, mut reply: impl FnMut(usize) -> CommitReply) {
    for group in groups {
        let CommitReply { outcomes, cleaned } = reply(group.answers.len());
        for (answer, outcome) in group.answers.into_iter().zip(outcomes) {
            // whoever asked may have gone
            let _ = answer.send(CommitReply { outcomes: vec![outcome], cleaned });
        }
    }
}

/// All effects, in the open transaction. What can be gone around is: the handlers would have to run again.
async fn apply(inner: &Inner, conn: &mut Conn, runs: &mut [Run<'_>]) -> Result<(), sqlx::Error> {
    // the last borrower's savepoint goes first: that fails if he has ended the transaction himself
    sql::script(conn, format!("release s;{};{OURS}", fresh_settings(inner))).await?;
    let mut left = 4;
    while let Err(error) = apply_once(conn, runs).await {
        let kind = fault(&error);
        left -= 1;
        if left == 0 || !matches!(kind, Fault::Repeated | Fault::NoPartition) {
            return Err(error);
        }
        sql::script(conn, "rollback to e".into()).await?;
        for run in runs.iter_mut() {
            run.undo();
            run.repeats |= kind == Fault::Repeated;
        }
        if kind == Fault::NoPartition
            && let Ok(mut other) = inner.work.take().await
        {
            // it has to be there before this transaction ends; the next try finds out if this failed
            let _ = inner.make_days(&mut other).await;
            other.release();
        }
    }
    Ok(())
}

async fn apply_once(conn: &mut Conn, runs: &mut [Run<'_>]) -> Result<(), sqlx::Error> {
    for run in runs {
        run.inside(conn).await?;
    }
    Ok(())
}

/// Nothing was applied: finds out which units are duplicates or stale. Others who shared the transaction with those have
/// done nothing wrong: they run again.
async fn judge(inner: &Inner, runs: &mut [Run<'_>], mut conn: Conn, error: sqlx::Error, shared: bool) {
    let kind = fault(&error);
    runs.iter_mut().for_each(Run::undo);
    if kind != Fault::Lost && rolled_back(inner, &mut conn).await {
        for run in runs.iter_mut().filter(|_| kind == Fault::Conflict) {
            // for the next try, which finds out if this failed
            let _ = run.resolve_again().await;
            let units: Vec<usize> = run.open_units();
            let _ = run.judge(&mut conn, &units).await;
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
    for run in runs {
        for index in run.open_units() {
            run.end(index, if innocent { Outcome::Stale } else { Outcome::Failed(error.clone()) });
        }
    }
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

async fn release(mut conn: Conn, reset: bool) {
    if !reset || sql::script(&mut conn, "reset all".into()).await.is_ok() {
        conn.release();
    }
}
