//! Applying a batch of units.
//!
//! Optimistically: all of them in a few statements over many rows, each of which says how many rows it must hit. If one
//! hits fewer, everything is rolled back, the gates, fences and sagas are looked at, the units that cannot apply are told
//! apart, and the rest is tried again: the write lock is held all the while, so that what was seen holds.

mod dedup;
mod deliveries;
mod diagnose;
mod enlist;
mod enqueue;
mod gates;
mod queue_row;
mod sagas;
mod sends;
mod statements;

pub(crate) use deliveries::DELETE_SENT;
pub(crate) use enlist::enlist;
pub(crate) use enqueue::Enqueue;
pub(crate) use gates::DeleteRow;
pub(crate) use sends::dead_letter_rows;

use super::{
    dedup_day::dedup_slot,
    error::doing,
    op::{Op, OpError},
    sql,
    write_context::{Tx, WriteContext},
};
use crate::fold::fold;
use futures::future::BoxFuture;
use sagabus_core::{CommitBatch, CommitReply, Error, ErrorKind, Outcome, Result};

/// A batch to commit.
pub(crate) struct Commit(pub(crate) CommitBatch);

impl Op for Commit {
    type Answer = CommitReply;

    fn weight(&self) -> usize {
        self.0.units.len() + self.0.sent.len() / 4
    }

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<CommitReply, OpError>> {
        Box::pin(async move {
            let all: Vec<usize> = (0..self.0.units.len()).collect();
            if tx.with_savepoints {
                return Ok(carefully(tx, &self.0, all).await?);
            }
            match attempt(&mut tx.context(), &self.0, &all, Mode::Plain).await? {
                Tried::Applied(outcomes) => Ok(CommitReply { outcomes, cleaned: true }),
                Tried::Refused | Tried::Missed => Err(OpError::Again),
            }
        })
    }
}

/// How a batch is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing is asked that the statements themselves do not say.
    Plain,
    /// The same, behind the savepoint `e`.
    Nested,
    /// Ids that queues have seen before are left out.
    Careful,
}

/// One unit after a handler's own SQL, behind the savepoint `s`. Unless it applies, all of it is rolled back.
pub(crate) async fn apply_single(tx: &mut Tx, batch: &CommitBatch) -> Result<CommitReply> {
    if batch.units.len() != 1 {
        return Err(Error::invalid(format!("a transaction with own sql finishes one unit, not {}", batch.units.len())));
    }
    // behind a savepoint of its own: the own SQL must outlive a first try that took a repeated id for a new one
    let mut tried = attempt(&mut tx.context(), batch, &[0], Mode::Nested).await?;
    if matches!(tried, Tried::Missed) {
        rollback_to(tx, "rollback to e").await?;
        tried = attempt(&mut tx.context(), batch, &[0], Mode::Careful).await?;
    }
    if let Tried::Applied(outcomes) = tried {
        return Ok(CommitReply { outcomes, cleaned: true });
    }
    rollback_to(tx, "rollback to s").await?;
    let found = diagnose::diagnose(&mut tx.context(), batch, &[0]).await?;
    let outcome = found.into_iter().next().map_or(Outcome::Stale, |(_, outcome)| outcome);
    Ok(CommitReply { outcomes: vec![outcome], cleaned: false })
}

/// Behind the savepoint `s`.
async fn carefully(tx: &mut Tx, batch: &CommitBatch, mut live: Vec<usize>) -> Result<CommitReply> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; batch.units.len()];
    loop {
        if let Tried::Applied(applied) = attempt(&mut tx.context(), batch, &live, Mode::Careful).await? {
            for (unit, outcome) in live.into_iter().zip(applied) {
                if let Some(slot) = outcomes.get_mut(unit) {
                    *slot = Some(outcome);
                }
            }
            break;
        }
        rollback_to(tx, "rollback to s").await?;
        let mut found = diagnose::diagnose(&mut tx.context(), batch, &live).await?;
        if found.is_empty() {
            // nothing is wrong and yet it does not apply: two units that exclude each other. The later one loses.
            tracing::warn!(units = live.len(), "a batch does not apply, and no unit of it is at fault");
            found.extend(live.last().map(|unit| (*unit, Outcome::Stale)));
        }
        for (unit, outcome) in found {
            live.retain(|other| *other != unit);
            if let Some(slot) = outcomes.get_mut(unit) {
                *slot = Some(outcome);
            }
        }
    }
    let missing = || Outcome::Failed(Error::new(ErrorKind::Backend, "a unit has no outcome"));
    Ok(CommitReply { outcomes: outcomes.into_iter().map(|o| o.unwrap_or_else(missing)).collect(), cleaned: true })
}

async fn rollback_to(tx: &mut Tx, undo: &'static str) -> Result<()> {
    sql::script(&mut tx.connection, undo).await.map_err(doing("roll a batch back in sqlite"))?;
    Ok(())
}

/// What came of a try.
enum Tried {
    Applied(Vec<Outcome>),
    /// Not all of the units apply; nothing is written.
    Refused,
    /// Not all of the units apply; the caller rolls back.
    Missed,
}

/// All of these units, or none.
async fn attempt(context: &mut WriteContext<'_>, batch: &CommitBatch, live: &[usize], mode: Mode) -> Result<Tried> {
    let (now, horizon) = (context.now, context.shared.options.horizon);
    let Ok(mut folded) = fold(batch, live, |_, unit| dedup_slot(unit.message_id, now, horizon)) else {
        return Ok(Tried::Refused);
    };
    if folded.units.len() < live.len() {
        // an instance that ends in this batch is the last of its key in it
        return Ok(Tried::Refused);
    }
    // in the order of the tables: each row is found near the one before
    folded.chains.sort_unstable_by(|a, b| (a.kind, a.key).cmp(&(b.kind, b.key)));
    folded.rows.values_mut().for_each(|rows| rows.sort_unstable());
    if !live.is_empty() {
        context.announcements.has_units = true;
    }
    if !(gates::fences_hold(context, &folded).await? && sagas::absent(context, &folded).await?) {
        return Ok(Tried::Refused);
    }
    let routed = sends::resolve(context, batch, &folded, mode == Mode::Careful).await?;
    let lines = gates::lines(context, &folded).await?;
    let mut statements = statements::StatementBatch::default();
    if mode == Mode::Nested {
        statements.add_any(vec![sql::Step::new("release o"), sql::Step::new("savepoint e")]);
    }
    gates::claim(context, &batch.owner.endpoint, &folded, &mut statements)?;
    sagas::write(context, &folded, &mut statements)?;
    deliveries::write(context, batch, &folded, &lines, &mut statements)?;
    sends::write(context, batch, &folded, &routed, &mut statements)?;
    let Some(outbox) = statements.run(context).await? else { return Ok(Tried::Missed) };
    sends::outcomes(context, batch, live, &folded, &outbox).await.map(Tried::Applied)
}
