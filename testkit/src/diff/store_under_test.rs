//! One store, and what it calls the things that operations are about.

use super::{
    answer::{self, Lines, or_error},
    names::Names,
    op::{Op, Planned},
};
use sagabus_core::{
    CommitBatch, CommitReply, DueQuery, DueRow, Envelope, Fence, Gate, Headers, LeaseRequest, OutboxId, OutboxRow,
    Outcome, Outgoing, Owner, QueueRow, Queues, Result, RowGate, RowTable, Store, Timestamp, UnitOfWork,
};
use std::sync::Arc;

pub(super) struct StoreUnderTest {
    pub(super) name: String,
    pub(super) store: Arc<dyn Store>,
    pub(super) queues: Arc<dyn Queues>,
    /// The database's time when the run began.
    pub(super) start: Timestamp,
    pub(super) gates: Names<RowGate>,
    /// What each of them was read as, for those who draw operations.
    pub(super) readings: Vec<Reading>,
    pub(super) outbox: Names<OutboxId>,
    /// Whose each of them is.
    pub(super) outbox_of: Vec<Arc<str>>,
    pub(super) dead: Names<i64>,
    pub(super) fences: Names<Fence>,
}

/// A row that was read and may be handled.
pub(super) struct Reading {
    /// None for a queue's row.
    pub(super) endpoint: Option<Arc<str>>,
    /// The queue, of a queue's row.
    pub(super) queue: Option<String>,
    pub(super) handler: Arc<str>,
    pub(super) message: Arc<Envelope>,
    pub(super) key: Option<String>,
    pub(super) due: Timestamp,
}

impl StoreUnderTest {
    /// # Panics
    /// If the store has no queues.
    pub(super) async fn new(name: String, store: Arc<dyn Store>) -> Result<Self> {
        let start = store.now().await?;
        let queues = store.queues().expect("a store that is compared has queues");
        Ok(Self {
            name,
            store,
            queues,
            start,
            gates: Names::default(),
            readings: Vec::new(),
            outbox: Names::default(),
            outbox_of: Vec::new(),
            dead: Names::default(),
            fences: Names::default(),
        })
    }

    pub(super) async fn execute(&mut self, op: &Op) -> Lines {
        match op {
            Op::Commit { owner, joined, units, sent } => {
                let batch = self.batch(owner, *joined, units, sent);
                let reply = self.store.commit(batch).await;
                self.reply(&owner.endpoint, &reply, !sent.is_empty())
            }
            Op::Transaction { owner, joined, enlisted, unit, sent } => {
                or_error(self.transaction(owner, *joined, enlisted, unit.as_deref(), sent).await)
            }
            Op::Load(request) => or_error(self.store.load(request.clone()).await.map(|reply| {
                let mut lines = vec![format!("probes {:?} turns {:?}", reply.probes, reply.blocked_keys)];
                lines.extend(reply.sagas.iter().map(|row| answer::saga(row.as_ref())));
                lines
            })),
            Op::Due { endpoint, table, shards, after, limit } => {
                let after = after.map(|row| (self.readings[row].due, self.gates.name(row).id));
                let query = DueQuery {
                    endpoint: endpoint.clone(),
                    table: *table,
                    shards: shards.clone(),
                    after,
                    limit: *limit,
                };
                or_error(match table {
                    RowTable::DeadLetter | RowTable::Parked => self.due_lines(query).await,
                    _ => self.due(&query).await,
                })
            }
            Op::OutboxOwn { owner, after, limit } => {
                let after = after.map_or(OutboxId(0), |row| self.outbox.name(row));
                let rows = self.store.outbox_own(owner, after, *limit).await;
                or_error(rows.map(|rows| self.outbox_rows(&owner.endpoint, &rows)))
            }
            Op::OutboxOrphans { owner, limit } => {
                let rows = self.store.outbox_orphans(owner, *limit).await;
                or_error(rows.map(|rows| self.outbox_rows(&owner.endpoint, &rows)))
            }
            Op::OutboxDelete(rows) => or_error(self.store.outbox_delete(&self.sent(rows)).await.map(|()| Vec::new())),
            Op::OutboxBury { owner, rows } => {
                let rows: Vec<_> = rows.iter().map(|(row, why)| (self.outbox.name(*row), why.clone())).collect();
                or_error(self.store.outbox_dead_letter(owner, &rows).await.map(|()| Vec::new()))
            }
            Op::CountAttempt { endpoint, handler, message } => {
                let count = self.store.count_attempt(endpoint, handler, *message).await;
                or_error(count.map(|count| vec![format!("attempt {count}")]))
            }
            Op::Prune(horizon) => or_error(self.store.prune(*horizon).await.map(|rows| vec![format!("pruned {rows}")])),
            Op::Declare(queue) => or_error(self.queues.declare(queue).await.map(|()| Vec::new())),
            Op::Subscribe(queue, topics) => or_error(self.queues.subscribe(queue, topics).await.map(|()| Vec::new())),
            Op::Enqueue(batch) => self.queues.enqueue(batch).await.iter().map(answer::sent).collect(),
            Op::Read { queue, shards, after, limit } => {
                let after = after.map_or(0, |row| self.gates.name(row).id);
                let rows = self.queues.read(queue, shards, after, *limit).await;
                or_error(rows.map(|rows| self.queue_rows(queue, &rows)))
            }
            Op::Delete { queue, rows } => {
                let ids: Vec<i64> = rows.iter().map(|row| self.gates.name(*row).id).collect();
                or_error(self.queues.delete(queue, &ids).await.map(|()| Vec::new()))
            }
            Op::Depth(queue) => or_error(self.queues.depth(queue).await.map(|depth| vec![format!("depth {depth}")])),
            Op::Heartbeat(request) => or_error(self.heartbeat(request).await),
            Op::Restart { old, new } => or_error(
                async {
                    self.store.leases().leave(&old.group, old.node).await?;
                    self.heartbeat(new).await
                }
                .await,
            ),
            Op::DeadLetters { endpoint, limit } => or_error(self.dead_letters(endpoint, *limit).await),
            Op::RetryDead { endpoint, rows } => {
                let count = self.store.admin().retry_dead_letters(endpoint, &self.dead_ids(rows)).await;
                or_error(count.map(|count| vec![format!("retried {count}")]))
            }
            Op::DiscardDead { endpoint, rows } => {
                let count = self.store.admin().discard_dead_letters(endpoint, &self.dead_ids(rows)).await;
                or_error(count.map(|count| vec![format!("discarded {count}")]))
            }
            Op::Timers { endpoint, limit } => or_error(self.timers(endpoint, *limit).await),
            Op::MoveTimer { endpoint, id, due } => or_error(
                self.store.admin().move_timer(endpoint, *id, *due).await.map(|done| vec![format!("moved {done}")]),
            ),
            Op::CancelTimer { endpoint, id } => or_error(
                self.store.admin().cancel_timer(endpoint, *id).await.map(|done| vec![format!("cancelled {done}")]),
            ),
            Op::SagaKeys { kind, after, limit } => {
                let keys = self.store.admin().saga_keys(kind, after, *limit).await;
                or_error(keys.map(|keys| keys.iter().map(|key| format!("key {key:?}")).collect()))
            }
            Op::Tidy => or_error(self.tidy().await),
        }
    }

    fn batch(&self, owner: &Owner, joined: bool, units: &[Planned], sent: &[usize]) -> CommitBatch {
        let units = units.iter().map(|unit| self.unit(unit)).collect();
        CommitBatch { owner: owner.clone(), joined, units, sent: self.sent(sent) }
    }

    fn unit(&self, planned: &Planned) -> UnitOfWork {
        let mut unit = planned.unit.clone();
        if let Some(row) = planned.row {
            unit.gate = Gate::Row(self.gates.name(row));
        }
        unit.fence = planned.fence.map(|fence| self.fences.name(fence));
        unit
    }

    fn sent(&self, rows: &[usize]) -> Vec<OutboxId> {
        rows.iter().map(|row| self.outbox.name(*row)).collect()
    }

    fn dead_ids(&self, rows: &[usize]) -> Vec<i64> {
        rows.iter().map(|row| self.dead.name(*row)).collect()
    }

    async fn transaction(
        &mut self,
        owner: &Owner,
        joined: bool,
        enlisted: &[Outgoing],
        unit: Option<&Planned>,
        sent: &[usize],
    ) -> Result<Lines> {
        let mut transaction = self.store.begin().await?;
        if !enlisted.is_empty() {
            self.store.enlist(transaction.raw(), owner, joined, enlisted.to_vec()).await?;
        }
        let Some(unit) = unit else { return Ok(vec!["dropped".into()]) };
        let batch = self.batch(owner, joined, std::slice::from_ref(unit), sent);
        let reply = transaction.finish(batch).await;
        Ok(self.reply(&owner.endpoint, &reply, !sent.is_empty()))
    }

    fn reply(&mut self, endpoint: &Arc<str>, reply: &CommitReply, sent: bool) -> Lines {
        let mut lines = Vec::new();
        if sent {
            lines.push(format!("cleaned {}", reply.cleaned));
        }
        for (n, outcome) in reply.outcomes.iter().enumerate() {
            lines.push(match outcome {
                Outcome::Applied { outbox, blocked_by_predecessor: behind } => {
                    let rows: Vec<usize> = outbox.iter().map(|id| self.outbox_row(endpoint, *id)).collect();
                    format!("unit {n}: applied, outbox {rows:?} behind {behind}")
                }
                Outcome::Duplicate => format!("unit {n}: duplicate"),
                Outcome::Stale => format!("unit {n}: stale"),
                Outcome::Failed(error) => format!("unit {n}: {}", answer::error(error)),
            });
        }
        lines
    }

    pub(super) async fn due(&mut self, query: &DueQuery) -> Result<Lines> {
        let page = self.store.due(query).await?;
        let mut lines: Lines = page.rows.iter().map(|row| self.due_row(&query.endpoint, row)).collect();
        lines.push(format!("next {:?}", page.next.map(|time| (time.as_secs() + 43_200) / 86_400)));
        Ok(lines)
    }

    /// All rows that are due, page by page. Which dead letter of one commit comes first is for the store to say (see
    /// [`StoreUnderTest::dead_letters`]), and likewise which line, of those in which messages wait for their turn.
    pub(super) async fn due_lines(&mut self, mut query: DueQuery) -> Result<Lines> {
        let (mut rows, mut unsorted): (Vec<DueRow>, Vec<DueRow>) = Default::default();
        loop {
            let page = self.store.due(&query).await?.rows;
            let Some(last) = page.last() else { break };
            query.after = Some((last.due, last.gate.id));
            let (sorted, others) =
                page.into_iter().partition(|row| row.gate.table == RowTable::Parked && row.key.is_none());
            let (sorted, others): (Vec<DueRow>, Vec<DueRow>) = (sorted, others);
            rows.extend(sorted);
            unsorted.extend(others);
        }
        unsorted.sort_by_cached_key(|row| (answer::envelope(&row.message), row.handler.clone(), row.gate.id));
        rows.extend(unsorted);
        Ok(rows.iter().map(|row| self.due_row(&query.endpoint, row)).collect())
    }

    fn due_row(&mut self, endpoint: &Arc<str>, row: &DueRow) -> String {
        let (number, new) = self.gates.number(&row.gate);
        if new {
            self.readings.push(Reading {
                endpoint: Some(endpoint.clone()),
                queue: None,
                handler: row.handler.clone(),
                message: Arc::new(row.message.clone()),
                key: row.key.clone(),
                due: row.due,
            });
        }
        format!(
            "row {number} of {} due {} shard {} handler {} attempts {} key {:?} {}",
            row.gate.table.name(),
            answer::moment(row.due, self.start),
            row.shard,
            row.handler,
            row.attempts,
            row.key,
            answer::envelope(&row.message)
        )
    }

    fn outbox_row(&mut self, endpoint: &Arc<str>, id: OutboxId) -> usize {
        let (number, new) = self.outbox.number(&id);
        if new {
            self.outbox_of.push(endpoint.clone());
        }
        number
    }

    pub(super) fn outbox_rows(&mut self, endpoint: &Arc<str>, rows: &[OutboxRow]) -> Lines {
        let line = |row: &OutboxRow| {
            let number = self.outbox_row(endpoint, row.id);
            format!("outbox {number} {}", answer::outgoing(&row.outgoing))
        };
        rows.iter().map(line).collect()
    }

    pub(super) fn queue_rows(&mut self, queue: &str, rows: &[QueueRow]) -> Lines {
        rows.iter().map(|row| self.queue_row(queue, row)).collect()
    }

    fn queue_row(&mut self, queue: &str, row: &QueueRow) -> String {
        let (number, new) = self.gates.number(&RowGate { table: RowTable::Queue, id: row.id, token: 0 });
        if new {
            let headers = Headers::from_json(&row.headers).expect("what was enqueued had headers");
            self.readings.push(Reading {
                endpoint: None,
                queue: Some(queue.into()),
                handler: "".into(),
                message: Arc::new(Envelope::new(headers, row.body.clone())),
                key: None,
                due: self.start,
            });
        }
        let message = answer::stored(&row.headers, &row.body);
        format!("row {number} shard {} id {} {message}", row.shard, row.message_id)
    }

    async fn heartbeat(&mut self, request: &LeaseRequest) -> Result<Lines> {
        let lease = self.store.leases().heartbeat(request).await?;
        let mut lines = vec![format!(
            "members {} lapsed {} inherited {:?} surplus {:?}",
            lease.members, lease.lapsed, lease.inherited, lease.surplus
        )];
        for (shard, epoch) in lease.shards {
            let fence = Fence { group: request.group.as_str().into(), shard, epoch };
            lines.push(format!("shard {shard} fence {}", self.fences.number(&fence).0));
        }
        Ok(lines)
    }

    /// All dead letters, page by page. Which of one commit comes first is for the store to say: they are put in the order
    /// of their messages.
    pub(super) async fn dead_letters(&mut self, endpoint: &str, limit: usize) -> Result<Lines> {
        let (mut rows, mut after) = (Vec::new(), 0);
        loop {
            let page = self.store.admin().dead_letters(endpoint, after, limit).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            rows.extend(page);
        }
        rows.sort_by_cached_key(|row| (answer::envelope(&row.message), row.handler.clone(), row.id));
        let line = |row: &sagabus_core::DeadLetter| {
            let number = self.dead.number(&row.id).0;
            format!(
                "dead letter {number} of {:?} {} attempts {} {:?} {:?} retrying {} {}",
                row.handler,
                answer::moment(row.at, self.start),
                row.attempts,
                row.reason,
                row.detail,
                row.retrying,
                answer::envelope(&row.message)
            )
        };
        Ok(rows.iter().map(line).collect())
    }

    pub(super) async fn timers(&mut self, endpoint: &str, limit: usize) -> Result<Lines> {
        let timers = self.store.admin().timers(endpoint, None, limit).await?;
        let line = |timer: &sagabus_core::PendingTimer| {
            let due = answer::moment(timer.due, self.start);
            format!("timer {} {due} {:?} {} {}", timer.id, timer.saga, timer.message_type, timer.message_id)
        };
        Ok(timers.iter().map(line).collect())
    }
}
