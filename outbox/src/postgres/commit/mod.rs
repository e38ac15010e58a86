//! `Store::commit`: a batch is folded into one statement that applies all of it or nothing, in one round trip and one
//! commit. Where it fails, the facts are read, what is a duplicate or stale is sorted out, and the rest goes again; what
//! the server refuses for other reasons is then tried unit by unit, so that it harms nobody else.

mod chain;
mod deliveries;
mod enqueue;
mod facts;
mod gates;
mod plan;
mod run;
mod sends;
mod statement;

pub(crate) use enqueue::{QUEUE_BITS, Queued};
pub(crate) use plan::shard_of_row;
pub(super) use run::Run;

use super::{
    bells::Place as Bell,
    error::{Fault, fault, write_failed},
    open::Inner,
    sql::{self, Reader, Sql},
};
use plan::Plan;
use sagabus_core::{CommitBatch, CommitReply, Destination, OutboxId, Outcome, Outgoing, Owner, Result, crash};
use statement::Mode;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

/// Repetitions after a deadlock, and after a conflict that was gone when it was looked for.
const AGAIN: u32 = 12;

/// The number of a queue that was looked for and is not there.
pub(crate) const ABSENT: i32 = -1;

impl Inner {
    pub(crate) async fn commit(&self, batch: &CommitBatch) -> CommitReply {
        let mut run = match Run::new(self, batch).await {
            Ok(run) => run,
            Err(error) => return CommitReply::failed(batch.units.len(), &error),
        };
        let all = (0..batch.units.len()).collect();
        if let Err((error, left)) = run.all(all).await {
            left.into_iter().for_each(|index| run.end(index, Outcome::Failed(error.clone())));
        }
        if !run.cleaned && !batch.sent.is_empty() && self.forget_sent(&batch.sent).await.is_ok() {
            run.cleaned = true;
        }
        run.reply()
    }

    pub(crate) async fn forget_sent(&self, sent: &[OutboxId]) -> Result<()> {
        let ids: Vec<i64> = sent.iter().map(|id| id.0).collect();
        let sql = Sql::new(format!("delete from {}outbox where id=any($1)", self.s)).with(ids);
        self.write("remove confirmed outbox rows", sql).await?;
        crash::reach("outbox-deleted");
        Ok(())
    }

    /// Sees to it that the numbers of the queues that messages go to are known, or that there is no such queue.
    pub(crate) async fn resolve(&self, sends: impl Iterator<Item = &Outgoing> + Send) -> Result<()> {
        let unknown: HashSet<&str> = {
            let known = self.queues.read().unwrap_or_else(PoisonError::into_inner);
            let queue = |outgoing: &'_ Outgoing| matches!(&outgoing.to, Destination::Queue(name) if known.get(name.as_str()).is_none_or(|number| *number == ABSENT));
            sends.filter(|outgoing| queue(outgoing)).map(|outgoing| outgoing.to.name()).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let names: sql::Texts<'_> = unknown.iter().copied().map(super::text::escape).collect();
        let sql = Sql::new(format!("select name,number from {}queue_name where name=any($1)", self.s)).with(names);
        let mut found: HashMap<Arc<str>, i32> = unknown.into_iter().map(|name| (name.into(), ABSENT)).collect();
        for row in self.read("look up queues", sql).await? {
            let mut row = Reader::new(&row);
            let (name, number) = (row.text()?, row.get()?);
            found.insert(name.into(), number);
        }
        self.queues.write().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(())
    }

    /// The statement that records sends, for a transaction of the caller's own.
    pub(crate) async fn record(&self, owner: &Owner, joined: bool, sends: &[Outgoing]) -> Result<Option<Sql>> {
        if joined {
            self.resolve(sends.iter()).await?;
        }
        let plan = Plan {
            sends: sends.iter().map(|outgoing| plan::Sending { outgoing, new_id: false }).collect(),
            ..Plan::default()
        };
        statement::draft(self, owner, Mode { joined, repeats: true }, &plan, &[])
    }

    /// Adds messages to queues. False if one of those queues is gone, so that nothing was added.
    pub(crate) async fn enqueue(&self, rows: &[Queued<'_>]) -> Result<bool> {
        let what = "enqueue messages";
        let mut conn = self.work.take().await?;
        let (mut again, mut repeats) = (0, false);
        while let Some(sql) = statement::enqueue(self, rows, repeats)? {
            let Err(error) = sql.run(&mut conn).await else { break };
            match fault(&error) {
                Fault::Repeated if !repeats => repeats = true,
                Fault::Conflict => {
                    conn.release();
                    self.forget_queues();
                    return Ok(false);
                }
                Fault::NoPartition if again < AGAIN => {
                    again += 1;
                    self.make_days(&mut conn).await?;
                }
                Fault::Again if again < AGAIN => {
                    again += 1;
                    self.runtime().sleep(self.runtime().jitter(Duration::from_millis(2 << again.min(5)))).await;
                }
                _ => {
                    conn.release();
                    return Err(write_failed(what, error));
                }
            }
        }
        conn.release();
        Ok(true)
    }

    /// Numbers of queues are looked up again. Another commit may be between its look-up and its statement: what it does
    /// not find then is not known, which is not the same as absent.
    pub(super) fn forget_queues(&self) {
        self.queues.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Whom a message in a queue wakes.
pub(crate) fn bell_of(outgoing: &Outgoing) -> Bell {
    match &outgoing.to {
        Destination::Queue(name) => Bell::Queue(name.as_str().into()),
        Destination::Topic(_) => Bell::AnyQueue,
    }
}
