use super::{Broken, Defect};
use async_trait::async_trait;
use sagabus_core::{
    CommitBatch, CommitReply, DatabaseId, DuePage, DueQuery, Gate, Leases, LoadReply, LoadRequest, MessageId,
    OffsetStore, OutboxId, OutboxRow, Outgoing, Owner, Queues, Result, RowTable, SagaLookup, Store, StoreAdmin,
    Timestamp, Transaction, UnitOfWork,
};
use std::{any::Any, sync::Arc, time::Duration};

#[async_trait]
impl Store for Broken {
    fn database(&self) -> &DatabaseId {
        self.inner.database()
    }

    fn committers(&self) -> usize {
        self.inner.committers()
    }

    async fn migrate(&self) -> Result<()> {
        self.inner.migrate().await
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn now(&self) -> Result<Timestamp> {
        if self.is(Defect::FrozenClock) { Ok(Timestamp(1)) } else { self.inner.now().await }
    }

    async fn load(&self, mut request: LoadRequest) -> Result<LoadReply> {
        if self.is(Defect::InboxWithoutHandler) {
            request.probes.iter_mut().for_each(|probe| probe.0 = "all".into());
        }
        for lookup in &mut request.sagas {
            match (self.defect, lookup) {
                (Defect::FoldsKeys, SagaLookup::Key { key, .. }) => *key = key.to_lowercase(),
                (Defect::FoldsKinds, SagaLookup::Key { kind, .. } | SagaLookup::Alias { kind, .. }) => {
                    *kind = "shop/order".into();
                }
                _ => {}
            }
        }
        let mut reply = self.inner.load(request).await?;
        match self.defect {
            Defect::ProbesNothing => reply.probes.fill(false),
            Defect::SeesNoTurns => reply.blocked_keys.fill(false),
            _ => {}
        }
        Ok(reply)
    }

    async fn commit(&self, batch: CommitBatch) -> CommitReply {
        self.owners.lock().expect("lock").push(batch.owner.clone());
        self.broken_commit(batch).await
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        self.broken_begin().await
    }

    async fn enlist(
        &self,
        connection: &mut (dyn Any + Send),
        owner: &Owner,
        joined: bool,
        sends: Vec<Outgoing>,
    ) -> Result<()> {
        match self.defect {
            Defect::LosesEnlisted => Ok(()),
            Defect::EnlistsAtOnce => {
                let id = MessageId(sends[0].message.headers.message_id.0);
                let mut unit = UnitOfWork::new("".into(), id, Gate::None);
                unit.sends = sends;
                let batch = CommitBatch { owner: owner.clone(), joined, units: vec![unit], sent: Vec::new() };
                self.inner.commit(batch).await;
                Ok(())
            }
            _ => self.inner.enlist(connection, owner, joined, sends).await,
        }
    }

    async fn due(&self, query: &DueQuery) -> Result<DuePage> {
        let mut query = query.clone();
        match self.defect {
            Defect::LosesTimers if query.table == RowTable::Timer => return Ok(DuePage::default()),
            Defect::IgnoresShards => query.shards = (0..sagabus_core::SHARDS).collect(),
            Defect::IgnoresAfter => query.after = None,
            _ => {}
        }
        let mut page = self.inner.due(&query).await?;
        if self.is(Defect::UnsortedDue) {
            page.rows.reverse();
        }
        Ok(page)
    }

    async fn outbox_orphans(&self, owner: &Owner, limit: usize) -> Result<Vec<OutboxRow>> {
        match self.defect {
            Defect::OrphansStay => return Ok(Vec::new()),
            Defect::RobsOwners => {
                let owners = self.owners.lock().expect("lock").clone();
                for other in owners.iter().filter(|other| other.node != owner.node) {
                    self.inner.leases().leave(&owner.endpoint, other.node).await?;
                }
            }
            Defect::MixesEndpoints => {
                let owners = self.owners.lock().expect("lock").clone();
                let mut rows = Vec::new();
                for other in owners {
                    let foreign = Owner { endpoint: other.endpoint, node: owner.node };
                    rows.extend(self.inner.outbox_orphans(&foreign, limit).await?);
                }
                return Ok(rows);
            }
            _ => {}
        }
        self.inner.outbox_orphans(owner, limit).await
    }

    async fn outbox_own(&self, owner: &Owner, after: OutboxId, limit: usize) -> Result<Vec<OutboxRow>> {
        let after = if self.is(Defect::IgnoresAfter) { OutboxId(0) } else { after };
        self.inner.outbox_own(owner, after, limit).await
    }

    async fn outbox_delete(&self, sent: &[OutboxId]) -> Result<()> {
        self.inner.outbox_delete(sent).await
    }

    async fn outbox_dead_letter(&self, owner: &Owner, rows: &[(OutboxId, String)]) -> Result<()> {
        if self.is(Defect::BuriesNowhere) {
            let ids: Vec<OutboxId> = rows.iter().map(|row| row.0).collect();
            return self.inner.outbox_delete(&ids).await;
        }
        self.inner.outbox_dead_letter(owner, rows).await
    }

    async fn count_attempt(&self, endpoint: &str, handler: &str, message: MessageId) -> Result<u32> {
        let count = self.inner.count_attempt(endpoint, handler, message).await?;
        Ok(if self.is(Defect::ForgetsAttempts) { 1 } else { count })
    }

    async fn wait_due(&self, endpoint: &str, at_most: Duration) {
        let endpoint = if self.is(Defect::WakesNobody) { "nobody" } else { endpoint };
        self.inner.wait_due(endpoint, at_most).await;
    }

    async fn prune(&self, horizon: Duration) -> Result<u64> {
        match self.defect {
            Defect::PrunesNothing => Ok(0),
            Defect::PrunesAll => self.inner.prune(Duration::ZERO).await,
            _ => self.inner.prune(horizon).await,
        }
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.clone())
    }

    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        self.inner.offsets().map(|_| Arc::new(self.clone()) as Arc<dyn OffsetStore>)
    }

    fn queues(&self) -> Option<Arc<dyn Queues>> {
        self.inner.queues().map(|_| Arc::new(self.clone()) as Arc<dyn Queues>)
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(self.clone())
    }

    async fn close(&self) {
        if !self.is(Defect::ClosesNothing) {
            self.inner.close().await;
        }
    }
}
