use super::{
    faults::{Fault, Operation},
    handle::{MemoryStore, failed_after, failed_before},
    model::due_wake_key,
    scratch::ScratchRows,
};
use async_trait::async_trait;
use sagabus_core::{
    CommitBatch, CommitReply, DatabaseId, DuePage, DueQuery, Error, Leases, LoadReply, LoadRequest, MessageId,
    OffsetStore, OutboxId, OutboxRow, Outcome, Outgoing, Owner, Queues, Result, RowTable, Store, StoreAdmin, Timestamp,
    Transaction, sabotage,
};
use std::{
    any::Any,
    sync::{Arc, PoisonError},
    time::Duration,
};

#[async_trait]
impl Store for MemoryStore {
    fn database(&self) -> &DatabaseId {
        &self.shared.database
    }

    fn committers(&self) -> usize {
        self.shared.committers
    }

    async fn migrate(&self) -> Result<()> {
        self.run(Operation::Other, |_, _| ()).await
    }

    async fn check(&self) -> Result<()> {
        self.run(Operation::Other, |_, _| ()).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.run(Operation::Other, |_, now| now).await
    }

    async fn load(&self, request: LoadRequest) -> Result<LoadReply> {
        self.run(Operation::Load, |model, _| model.load(&request)).await
    }

    async fn commit(&self, batch: CommitBatch) -> CommitReply {
        let failed = |error: Error| CommitReply::failed(batch.units.len(), &error);
        if let Err(error) = self.open() {
            return failed(error);
        }
        match self.fault(Operation::Commit).await {
            Some(_) if sabotage::active("commit-error-is-success") => CommitReply {
                outcomes: vec![
                    Outcome::Applied { outbox: Vec::new(), blocked_by_predecessor: false };
                    batch.units.len()
                ],
                cleaned: true,
            },
            Some(Fault::Before) => failed(failed_before(Operation::Commit)),
            Some(Fault::After) => {
                self.now_run(|model, now| model.commit(&batch, now));
                failed(failed_after(Operation::Commit))
            }
            None => self.now_run(|model, now| model.commit(&batch, now)),
        }
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        self.run(Operation::Begin, |_, _| ()).await?;
        self.open_transaction().await
    }

    async fn enlist(
        &self,
        connection: &mut (dyn Any + Send),
        owner: &Owner,
        joined: bool,
        sends: Vec<Outgoing>,
    ) -> Result<()> {
        self.run(Operation::Enlist, |_, _| ()).await?;
        let Some(rows) = connection.downcast_mut::<ScratchRows>() else {
            return Err(Error::invalid("the memory store enlists in `ScratchRows` only"));
        };
        rows.enlisted.push((owner.clone(), joined, sends));
        Ok(())
    }

    async fn due(&self, query: &DueQuery) -> Result<DuePage> {
        if query.table == RowTable::Queue {
            return Err(Error::invalid("a queue is read through `Queues`, not through `due`"));
        }
        self.run(Operation::Due, |model, now| model.due_page(query, now)).await
    }

    async fn outbox_orphans(&self, owner: &Owner, limit: usize) -> Result<Vec<OutboxRow>> {
        self.run(Operation::Outbox, |model, now| model.orphans(owner, limit, now)).await
    }

    async fn outbox_own(&self, owner: &Owner, after: OutboxId, limit: usize) -> Result<Vec<OutboxRow>> {
        self.run(Operation::Outbox, |model, _| model.own(owner, after, limit)).await
    }

    async fn outbox_delete(&self, sent: &[OutboxId]) -> Result<()> {
        self.run(Operation::Outbox, |model, _| model.forget_sent(sent)).await
    }

    async fn outbox_dead_letter(&self, owner: &Owner, rows: &[(OutboxId, String)]) -> Result<()> {
        self.run(Operation::Outbox, |model, now| model.dead_letter_rows(owner, rows, now)).await
    }

    async fn count_attempt(&self, endpoint: &str, handler: &str, message: MessageId) -> Result<u32> {
        if sabotage::active("attempts-in-memory") {
            let mut own = self.handle.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = own.entry((endpoint.into(), handler.into(), message)).or_default();
            *count += 1;
            return Ok(*count);
        }
        self.run(Operation::Count, |model, now| {
            let row = model.attempts.entry((endpoint.into(), handler.into(), message)).or_insert((0, now));
            *row = (row.0.saturating_add(1), now);
            row.0
        })
        .await
    }

    async fn wait_due(&self, endpoint: &str, at_most: Duration) {
        self.wait_for(&due_wake_key(endpoint), at_most).await;
    }

    async fn prune(&self, horizon: Duration) -> Result<u64> {
        self.run(Operation::Other, |model, now| model.prune(horizon, now)).await
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.clone())
    }

    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        Some(Arc::new(self.clone()))
    }

    fn queues(&self) -> Option<Arc<dyn Queues>> {
        Some(Arc::new(self.clone()))
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(self.clone())
    }

    async fn close(&self) {
        self.shut();
    }
}
