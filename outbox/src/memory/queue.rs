use super::{
    commit::shard,
    faults::Operation,
    handle::MemoryStore,
    model::{Model, queue_wake_key},
    rows::Queue,
};
use async_trait::async_trait;
use sagabus_core::{
    DatabaseId, Destination, Envelope, Leases, Outgoing, QueueRow, Queues, Result, SendOutcome, Timestamp,
};
use std::{sync::Arc, time::Duration};

impl Model {
    /// Into one queue, or into every queue that subscribed. A new id need not be remembered. The error says why it can
    /// never arrive.
    pub(super) fn enqueue_one(&mut self, outgoing: &Outgoing, new_id: bool, now: Timestamp) -> Result<(), String> {
        let headers = outgoing.message.headers.to_json().map_err(|error| error.to_string())?;
        let queues: Vec<String> = match &outgoing.to {
            Destination::Queue(name) if self.queues.contains_key(name) => vec![name.clone()],
            Destination::Queue(name) => return Err(format!("unroutable: there is no queue {name}")),
            Destination::Topic(topic) => {
                let subscribed = self.queues.iter().filter(|(_, queue)| queue.topics.contains(topic));
                subscribed.map(|(name, _)| name.clone()).collect()
            }
        };
        for queue in queues {
            self.add(&queue, &outgoing.message, &headers, new_id, now);
        }
        Ok(())
    }

    fn add(&mut self, name: &str, message: &Envelope, headers: &[u8], new_id: bool, now: Timestamp) {
        let id = self.next_id();
        let Some(queue) = self.queues.get_mut(name) else { return };
        if !new_id && queue.seen.insert(message.headers.message_id, now).is_some() {
            return;
        }
        let row = QueueRow {
            id,
            // a queue's shards go by order key or message, never by the saga that a reply is for
            shard: match &message.headers.order_key {
                Some(_) => shard(None, message),
                None => sagabus_core::shard_of(message.headers.message_id.0.as_bytes()),
            },
            message_id: message.headers.message_id,
            headers: headers.to_vec().into(),
            body: message.body.clone(),
        };
        queue.rows.insert(id, row);
        self.queue_of.insert(id, name.to_string());
        self.wake_queue(name);
    }

    pub(super) fn remove_queue_row(&mut self, id: i64) {
        if let Some(queue) = self.queue_of.remove(&id).and_then(|name| self.queues.get_mut(&name)) {
            queue.rows.remove(&id);
        }
    }

    fn queue(&mut self, name: &str) -> &mut Queue {
        self.queues.entry(name.to_string()).or_default()
    }
}

#[async_trait]
impl Queues for MemoryStore {
    fn database(&self) -> &DatabaseId {
        &self.shared.database
    }

    async fn migrate(&self) -> Result<()> {
        self.open()
    }

    async fn declare(&self, queue: &str) -> Result<()> {
        self.run(Operation::Declare, |model, _| {
            model.queue(queue);
        })
        .await
    }

    async fn subscribe(&self, queue: &str, topics: &[String]) -> Result<()> {
        self.run(Operation::Declare, |model, _| {
            model.queue(queue).topics = topics.iter().cloned().collect();
        })
        .await
    }

    async fn enqueue(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        let answer = self
            .run(Operation::Enqueue, |model, now| {
                batch.iter().map(|outgoing| model.enqueue_one(outgoing, false, now)).collect::<Vec<_>>()
            })
            .await;
        let failed = |outcome: SendOutcome| vec![outcome; batch.len()];
        match answer {
            Ok(list) => list
                .into_iter()
                .map(|result| result.map_or_else(SendOutcome::Unroutable, |()| SendOutcome::Done))
                .collect(),
            Err(error) if error.is_unknown() => failed(SendOutcome::Unknown(error)),
            Err(error) => failed(SendOutcome::Retry(error)),
        }
    }

    async fn read(&self, queue: &str, shards: &[u16], after: i64, limit: usize) -> Result<Vec<QueueRow>> {
        self.run(Operation::Read, |model, _| {
            let rows = model.queues.get(queue).map(|q| &q.rows);
            let rows = rows.into_iter().flat_map(|rows| rows.range(after.saturating_add(1)..));
            rows.map(|(_, row)| row).filter(|row| shards.contains(&row.shard)).take(limit).cloned().collect()
        })
        .await
    }

    async fn delete(&self, queue: &str, ids: &[i64]) -> Result<()> {
        self.run(Operation::Delete, |model, _| {
            for id in
                ids.iter().filter(|id| model.queue_of.get(id).is_some_and(|name| name == queue)).collect::<Vec<_>>()
            {
                model.remove_queue_row(*id);
            }
        })
        .await
    }

    async fn wait(&self, queue: &str, at_most: Duration) {
        self.wait_for(&queue_wake_key(queue), at_most).await;
    }

    async fn depth(&self, queue: &str) -> Result<u64> {
        self.run(Operation::Read, |model, _| model.queues.get(queue).map_or(0, |q| q.rows.len() as u64)).await
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.clone())
    }
}
