use super::{Broken, Defect};
use async_trait::async_trait;
use sagabus_core::{DatabaseId, Leases, MessageId, Outgoing, QueueRow, Queues, Result, SendOutcome, Store};
use std::{sync::Arc, time::Duration};

impl Broken {
    fn good(&self) -> Arc<dyn Queues> {
        self.inner.queues().expect("the inner store has queues")
    }
}

#[async_trait]
impl Queues for Broken {
    fn database(&self) -> &DatabaseId {
        if self.is(Defect::OtherDatabase) { &self.other } else { self.inner.database() }
    }

    async fn migrate(&self) -> Result<()> {
        self.good().migrate().await
    }

    async fn declare(&self, queue: &str) -> Result<()> {
        self.good().declare(queue).await
    }

    async fn subscribe(&self, queue: &str, topics: &[String]) -> Result<()> {
        let mut topics = topics.to_vec();
        if self.is(Defect::NeverUnsubscribes) {
            topics.extend(["t", "u", "v"].map(String::from));
        }
        self.good().subscribe(queue, &topics).await
    }

    async fn enqueue(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        let mut batch = batch.to_vec();
        match self.defect {
            Defect::LosesEnqueued => return vec![SendOutcome::Done; batch.len()],
            Defect::EnqueuesTwice => {
                for outgoing in &mut batch {
                    outgoing.message.headers.message_id = MessageId(sagabus_core::Runtime::system().uuid());
                }
            }
            _ => {}
        }
        let mut outcomes = self.good().enqueue(&batch).await;
        if self.is(Defect::SwallowsUnroutable) {
            outcomes.fill(SendOutcome::Done);
        }
        outcomes
    }

    async fn read(&self, queue: &str, shards: &[u16], after: i64, limit: usize) -> Result<Vec<QueueRow>> {
        let all: Vec<u16> = (0..sagabus_core::SHARDS).collect();
        let shards = if self.is(Defect::IgnoresShards) { &all } else { shards };
        let after = if self.is(Defect::IgnoresAfter) { 0 } else { after };
        self.good().read(queue, shards, after, limit).await
    }

    async fn delete(&self, queue: &str, ids: &[i64]) -> Result<()> {
        let ids = if self.is(Defect::DeletesNothing) { &[] } else { ids };
        self.good().delete(queue, ids).await
    }

    async fn wait(&self, queue: &str, at_most: Duration) {
        let queue = if self.is(Defect::WakesNobody) { "nobody" } else { queue };
        self.good().wait(queue, at_most).await;
    }

    async fn depth(&self, queue: &str) -> Result<u64> {
        self.good().depth(queue).await
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Store::leases(self)
    }
}
