use crate::{DatabaseId, Leases, MessageId, Outgoing, Result, SendOutcome};
use async_trait::async_trait;
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// Queues as tables of a database. A store implements it; `transports/sql` makes a transport of it.
///
/// A queue's rows are divided into [`SHARDS`](crate::SHARDS) by order key, or by message id where there is none. The
/// owner of a shard (a lease) reads ahead without writing, and deleting the row is the gate.
#[async_trait]
pub trait Queues: Send + Sync + 'static {
    /// Which database this is.
    fn database(&self) -> &DatabaseId;

    /// Creates what the port needs; see [`Store::migrate`](crate::Store::migrate).
    async fn migrate(&self) -> Result<()>;

    /// Makes the queue known. Idempotent.
    async fn declare(&self, queue: &str) -> Result<()>;

    /// Sets the topics that are copied into the queue: adds what is new, removes what is no longer named.
    async fn subscribe(&self, queue: &str, topics: &[String]) -> Result<()>;

    /// Forgets a queue with its rows and subscriptions: a reply queue whose process is going. A store that does not
    /// implement it keeps the queue, which then fills with replies that nobody reads.
    async fn remove(&self, queue: &str) -> Result<()> {
        let _ = queue;
        Ok(())
    }

    /// Adds messages, durably. One outcome each, in order. A queue that was never declared is
    /// [Unroutable](SendOutcome::Unroutable); a topic without subscribers is Done. A message id that the queue has seen
    /// within the horizon is Done without a second row; those of [`UnitOfWork::fresh_ids`](crate::UnitOfWork::fresh_ids) it
    /// need not have remembered.
    async fn enqueue(&self, batch: &[Outgoing]) -> Vec<SendOutcome>;

    /// Reads rows of these shards with an id above `after`, in the order of their ids, without changing them. Rows that
    /// commit late may get an id below one that was already read: read again from the start now and then.
    async fn read(&self, queue: &str, shards: &[u16], after: i64, limit: usize) -> Result<Vec<QueueRow>>;

    /// Removes rows; those that are already gone do not matter. For settling what no unit's gate removed.
    async fn delete(&self, queue: &str, ids: &[i64]) -> Result<()>;

    /// Returns when something may have been added to the queue, or after `at_most`. A hint.
    async fn wait(&self, queue: &str, at_most: Duration);

    /// How many rows it holds.
    async fn depth(&self, queue: &str) -> Result<u64>;

    /// Membership and shard ownership. The group of a queue is `queue:` and its name.
    fn leases(&self) -> Arc<dyn Leases>;
}

/// A queued message as stored.
#[derive(Clone, Debug)]
pub struct QueueRow {
    /// Grows in the order of enqueueing, as far as one writer is concerned.
    pub id: i64,
    /// Its shard.
    pub shard: u16,
    /// The message's id.
    pub message_id: MessageId,
    /// [`Headers`](crate::Headers) as JSON; from a foreign writer perhaps not.
    pub headers: Bytes,
    /// The body.
    pub body: Bytes,
}
