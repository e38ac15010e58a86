//! `Store::commit`: a batch is folded into one statement that applies all of it or nothing, in one round trip and one
//! commit. Where it fails, the conflicts are read, duplicates and stale units get their outcomes, and
//! the rest goes again. Units that the server refuses for other reasons are then tried one by one, without harm to others.

mod attempt;
mod deliveries;
mod diagnose;
mod draft;
mod enqueue;
mod gates;
mod retry;
mod sagas;
mod sends;
mod statement;

pub(super) use attempt::CommitAttempt;
pub(crate) use enqueue::{QUEUE_BITS, Queued, wake_key_of};

use super::{
    error::{Fault, fault, write_failed},
    open::OpenSchema,
    sql::Sql,
};
use crate::fold::{FoldedBatch, FoldedSend};
use retry::{MAX_RETRIES, pause};
use sagabus_core::{CommitBatch, CommitReply, OutboxId, Outcome, Outgoing, Owner, Result, crash};
use statement::SendMode;

impl OpenSchema {
    pub(crate) async fn commit(&self, batch: &CommitBatch) -> CommitReply {
        let mut attempt = match CommitAttempt::new(self, batch).await {
            Ok(attempt) => attempt,
            Err(error) => return CommitReply::failed(batch.units.len(), &error),
        };
        let all = (0..batch.units.len()).collect();
        if let Err((error, left)) = attempt.apply_all(all).await {
            left.into_iter().for_each(|index| attempt.end(index, Outcome::Failed(error.clone())));
        }
        if !attempt.cleaned && !batch.sent.is_empty() && self.forget_sent(&batch.sent).await.is_ok() {
            attempt.cleaned = true;
        }
        attempt.reply()
    }

    pub(crate) async fn forget_sent(&self, sent: &[OutboxId]) -> Result<()> {
        let ids: Vec<i64> = sent.iter().map(|id| id.0).collect();
        let sql = Sql::new(format!("delete from {}outbox where id=any($1)", self.s)).with(ids);
        self.write("remove confirmed outbox rows", sql).await?;
        crash::reach("outbox-deleted");
        Ok(())
    }

    /// The statement that records sends, for a transaction of the caller's own.
    pub(crate) async fn record(&self, owner: &Owner, joined: bool, sends: &[Outgoing]) -> Result<Option<Sql>> {
        if joined {
            self.resolve(sends.iter()).await?;
        }
        let folded = FoldedBatch {
            sends: sends.iter().map(|outgoing| FoldedSend { unit: 0, outgoing, fresh_id: false }).collect(),
            ..FoldedBatch::default()
        };
        statement::draft(self, owner, SendMode { joined, repeats: true }, &folded, &[])
    }

    /// Adds messages to queues. False if one of those queues is gone, so that nothing was added.
    pub(crate) async fn enqueue(&self, rows: &[Queued<'_>]) -> Result<bool> {
        let what = "enqueue messages";
        let mut conn = self.work.take().await?;
        let (mut retries, mut repeats) = (0, false);
        while let Some(sql) = statement::enqueue(self, rows, repeats)? {
            let Err(error) = sql.run(&mut conn).await else { break };
            match fault(&error) {
                Fault::Repeated if !repeats => repeats = true,
                Fault::Conflict => {
                    conn.release();
                    self.forget_queues();
                    return Ok(false);
                }
                Fault::NoPartition if retries < MAX_RETRIES => {
                    retries += 1;
                    self.create_partitions(&mut conn).await?;
                }
                Fault::Again if retries < MAX_RETRIES => {
                    retries += 1;
                    pause(self.runtime(), retries).await;
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
}
